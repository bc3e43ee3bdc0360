"""Agents for Bernoulli bandits that plan over the remaining pulls: the Bayes-optimal policy and Gittins indices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents.random import scripted
from metarl.agents.reference.bandits import BanditAgent, Counts, any_best, counted, first_best
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory


def next_pull(memory: Memory, step: Step, num_pulls: int) -> tuple[Counts, int]:
    """Update the counts, and return them and the pulls made. Raises ValueError if all `num_pulls` were made."""
    counts, pulls = memory
    if pulls >= num_pulls:
        raise ValueError(f"This agent plans for {num_pulls} pulls, but the trial has more.")
    return counted(counts, step), pulls


class BayesOptimalBandit(BanditAgent):
    """Maximises the expected total reward of `num_pulls` pulls exactly, by dynamic programming over posteriors.

    Arms are exchangeable, so a state is the sorted multiset of the arms' (successes, failures); `value` is the optimal
    expected total. Suited to small trials: 5 arms × 10 or 20 pulls, or 2 arms × 100 pulls, take seconds. Raises
    ValueError if there would be more than five million states after some number of pulls, and if the agent has to act
    after `num_pulls` pulls.
    """

    def __init__(self, num_arms: int, num_pulls: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        self.num_pulls = num_pulls
        self._base = num_pulls * (num_pulls + 1) // 2 + num_pulls + 1  # codes of an arm with up to num_pulls pulls
        if self._base**num_arms >= 2**63:
            raise ValueError(f"{num_arms} arms × {num_pulls} pulls have too many states for dynamic programming.")
        layers = self._reachable()
        self._keys = [torch.as_tensor(self._encode(states), device=self.device) for states in layers]
        self._best: list[Tensor] = []
        value = np.zeros(1)
        following: NDArray[np.int64] | None = None  # keys of the layer that `value` belongs to
        for states in reversed(layers):
            value, best = self._back(states, value, following)
            following = self._encode(states)
            self._best.insert(0, torch.as_tensor(best, device=self.device))
        self.value = float(value[0])

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return super().begin(num_tasks), 0

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        counts, pulls = next_pull(memory, step, self.num_pulls)
        made = (counts.successes + counts.failures).long()
        codes = made * (made + 1) // 2 + counts.successes.long()  # (B, arms)
        powers = self._base ** torch.arange(self.num_arms, device=codes.device)
        state = torch.searchsorted(self._keys[pulls], (codes.sort(1).values * powers).sum(1))
        arm = first_best(codes == self._best[pulls][state][:, None])
        return scripted(arm, step), (counts, pulls + 1)

    def _encode(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """Encode each sorted state ``(M, arms)`` as one number."""
        return (states * self._base ** np.arange(self.num_arms, dtype=np.int64)).sum(1)

    def _reachable(self) -> list[NDArray[np.int64]]:
        """Return all states ``(M, arms)`` after 0, 1, … num_pulls - 1 pulls, arms sorted, in order of their codes."""
        layers = [np.zeros((1, self.num_arms), dtype=np.int64)]
        for _ in range(self.num_pulls - 1):
            children = np.concatenate([c for arm in range(self.num_arms) for c in _children(layers[-1], arm)])
            _, where = np.unique(self._encode(children), return_index=True)
            layers.append(children[where])
            if len(where) > 5_000_000:
                raise ValueError(
                    f"{self.num_arms} arms × {self.num_pulls} pulls have too many states for dynamic programming."
                )
        return layers

    def _back(
        self, states: NDArray[np.int64], later: NDArray[np.float64], keys: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the value of `states` and the code of the best arm, given the values `later` of the next `keys`."""
        q = np.empty(states.shape)
        for arm in range(self.num_arms):
            pulls, successes = _decode(states[:, arm])
            p = (successes + 1.0) / (pulls + 2.0)
            q[:, arm] = p
            if keys is not None:
                won, lost = (later[np.searchsorted(keys, self._encode(child))] for child in _children(states, arm))
                q[:, arm] += p * won + (1.0 - p) * lost
        best = q.argmax(1)
        return q.max(1), states[np.arange(len(states)), best]


def _decode(code: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (pulls m, successes s) for an arm's code m (m + 1) / 2 + s."""
    pulls = ((np.sqrt(8 * code + 1) - 1) / 2 + 1e-9).astype(np.int64)
    return pulls, code - pulls * (pulls + 1) // 2


def _children(states: NDArray[np.int64], arm: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sorted states after a success and after a failure of the arm at position `arm`."""
    pulls, successes = _decode(states[:, arm])
    lost = states.copy()
    lost[:, arm] = (pulls + 1) * (pulls + 2) // 2 + successes
    won = lost.copy()
    won[:, arm] += 1
    return np.sort(won, axis=1), np.sort(lost, axis=1)


class GittinsBandit(BanditAgent):
    """Pulls the arm with the highest finite-horizon Gittins index (Bernoulli arms, uniform prior).

    An arm's index is the certain reward per pull at which, for the remaining pulls, stopping and pulling the arm are
    equally good. It measures what the arm is worth on its own, including the value of learning about it (Gittins 1979;
    RL², Duan et al. 2016, compares with it). The index policy is optimal for discounted infinite trials, and nearly
    optimal for a finite number of pulls. Raises ValueError if the agent has to act after `num_pulls` pulls. Suited to
    up to about 200 pulls: the table has num_pulls³ entries and takes two seconds for 100.
    """

    def __init__(self, num_arms: int, num_pulls: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        self.num_pulls = num_pulls
        self.index = torch.as_tensor(gittins_indices(num_pulls), device=self.device)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return super().begin(num_tasks), 0

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        counts, pulls = next_pull(memory, step, self.num_pulls)
        won = counts.successes.long()
        index = self.index[self.num_pulls - pulls - 1, won + counts.failures.long(), won]  # (B, arms)
        return scripted(any_best(index, key), step), (counts, pulls + 1)


def gittins_indices(num_pulls: int, calibration: int = 512) -> NDArray[np.float64]:
    """Return the indices ``(num_pulls, num_pulls, num_pulls)`` by [pulls left - 1, pulls made, successes] of an arm.

    Entries that cannot occur in a trial of `num_pulls` pulls are 0. For each of `calibration` certain rewards λ,
    dynamic programming solves the stopping problem. The advantage of continuing is convex and piecewise linear in λ,
    and the index is its zero, interpolated between two values of λ: the error is at most 1e-4, mostly below 1e-5.
    """
    sure = np.linspace(0.0, 1.0, calibration)
    table = np.zeros((num_pulls,) * 3)
    later = np.zeros((num_pulls + 1, num_pulls + 1, calibration))  # advantage over stopping, with no pull left
    for left in range(1, num_pulls + 1):
        size = num_pulls - left + 1  # pulls made: 0 … size - 1
        made, won = np.arange(size)[:, None], np.arange(size)[None, :]
        p = np.minimum((won + 1.0) / (made + 2.0), 1.0)[..., None]
        going_on = p - sure + p * later[1 : size + 1, 1 : size + 1] + (1.0 - p) * later[1 : size + 1, :size]
        last = np.maximum((going_on > 0.0).sum(-1) - 1, 0)[..., None]  # the last λ below the index
        last = np.minimum(last, calibration - 2)
        above, below = (np.take_along_axis(going_on, last + i, -1)[..., 0] for i in (0, 1))
        index = sure[last[..., 0]] + sure[1] * above / (above - below)
        table[left - 1, :size, :size] = np.where(won <= made, index, 0.0)
        later = np.maximum(going_on, 0.0)
    return table
