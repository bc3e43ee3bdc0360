"""Classical bandit players: posterior means, UCB1, Thompson sampling, the Bayes-optimal policy of short trials."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory


class Counts(NamedTuple):
    """What a Bernoulli bandit showed so far: float32 ``(B, num_arms)`` each."""

    successes: Tensor
    failures: Tensor


def counted(counts: Counts, step: Step) -> Counts:
    """`counts` with the pull that `step` reports; a trial's first step reports none."""
    arms = torch.arange(counts.successes.shape[1], device=step.prev_action.device)
    pulled = (step.prev_action[:, None] == arms).to(torch.float32)  # NO_ACTION equals no arm
    won = pulled * step.prev_reward[:, None]
    return Counts(counts.successes + won, counts.failures + pulled - won)


class BanditAgent(FixedAgent):
    """Counts successes and failures of `num_arms` Bernoulli arms; subclasses choose by them."""

    def __init__(self, num_arms: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_arms = num_arms

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        zeros = torch.zeros(num_tasks, self.num_arms, device=self.device)
        return Counts(zeros, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        counts = counted(memory, step)
        return scripted(self.choose(counts, key), step), counts

    def choose(self, counts: Counts, key: Key) -> Tensor:
        """The arm of each row, int64 ``(B,)``."""
        raise NotImplementedError


class PosteriorMeanBandit(BanditAgent):
    """Pulls the arm with the best posterior mean, any of equals: never explores on purpose.

    How equals are told apart matters: 5 arms × 10 pulls are worth 6.626 so, 6.569 with the first, 6.657 with the least
    pulled of them.
    """

    def choose(self, counts: Counts, key: Key) -> Tensor:
        mean = (counts.successes + 1.0) / (counts.successes + counts.failures + 2.0)
        best = mean == mean.amax(1, keepdim=True)
        return _first_best(torch.where(best, rng.uniform(key, self.num_arms), -1.0))


class UCB1Bandit(BanditAgent):
    """Every arm once, then the best of mean + √(bonus · ln t / pulls) (Auer et al. 2002, with bonus = 2).

    RL² (Duan et al. 2016) compares with a tuned one; its guarantee is for long trials, and less bonus earns more.
    """

    def __init__(self, num_arms: int, bonus: float = 2.0, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        self.bonus = bonus

    def choose(self, counts: Counts, key: Key) -> Tensor:
        pulls = counts.successes + counts.failures
        total = pulls.sum(1, keepdim=True).clamp_min(1.0)
        once = pulls.clamp_min(1.0)
        index = counts.successes / once + torch.sqrt(self.bonus * total.log() / once)
        return _first_best(torch.where(pulls == 0, torch.inf, index))


class ThompsonBandit(BanditAgent):
    """Draws each arm's probability from its posterior and pulls the best draw (Thompson 1933)."""

    def choose(self, counts: Counts, key: Key) -> Tensor:
        # Beta(a, b) for whole a and b is A / (A + B), A and B sums of a and b exponentials: a draw of fixed length.
        wins, losses = counts.successes.long(), counts.failures.long()
        keys = rng.fold(key[:, None], torch.arange(self.num_arms, device=key.device))
        sums = rng.exponential(keys, int((wins + losses).max()) + 2).cumsum(-1)  # (B, arms, n)
        a = sums.gather(-1, wins[..., None])
        both = sums.gather(-1, (wins + losses + 1)[..., None])
        return _first_best((a / both).squeeze(-1))


class BayesOptimalBandit(BanditAgent):
    """Maximises the expected total of `num_pulls` pulls exactly, by dynamic programming over what can be known.

    Arms are exchangeable, so a state is the sorted multiset of the arms' (successes, failures); `value` is the
    optimal expected total. Made for small trials: 5 arms × 10 or 20 pulls, 2 arms × 100 pulls take seconds.
    Raises ValueError if there would be more than five million states after some number of pulls, and when it is asked
    to act after `num_pulls` pulls.
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
        counts, pulls = counted(memory[0], step), memory[1]
        if pulls >= self.num_pulls:
            raise ValueError(f"This agent plans for {self.num_pulls} pulls, but the trial goes on.")
        made = (counts.successes + counts.failures).long()
        codes = made * (made + 1) // 2 + counts.successes.long()  # (B, arms)
        powers = self._base ** torch.arange(self.num_arms, device=codes.device)
        state = torch.searchsorted(self._keys[pulls], (codes.sort(1).values * powers).sum(1))
        arm = _first_best(codes == self._best[pulls][state][:, None])
        return scripted(arm, step), (counts, pulls + 1)

    def _encode(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number per sorted state ``(M, arms)``."""
        return (states * self._base ** np.arange(self.num_arms, dtype=np.int64)).sum(1)

    def _reachable(self) -> list[NDArray[np.int64]]:
        """After 0, 1, … num_pulls - 1 pulls: all states ``(M, arms)``, arms sorted, in the order of their number."""
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
        """The value of `states` and the code of the arm to pull, from the values `later` of the layer with `keys`."""
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


def _first_best(score: Tensor) -> Tensor:
    """The first arm with the highest score ``(B, arms)``; argmax promises nothing about equals."""
    score = score.to(torch.float32)
    arms = torch.arange(score.shape[1], device=score.device)
    return torch.where(score == score.amax(1, keepdim=True), arms, score.shape[1]).amin(1)


def _decode(code: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pulls m, successes s) of an arm's code m (m + 1) / 2 + s."""
    pulls = ((np.sqrt(8 * code + 1) - 1) / 2 + 1e-9).astype(np.int64)
    return pulls, code - pulls * (pulls + 1) // 2


def _children(states: NDArray[np.int64], arm: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted states after a success and after a failure of the arm in place `arm`."""
    pulls, successes = _decode(states[:, arm])
    lost = states.copy()
    lost[:, arm] = (pulls + 1) * (pulls + 2) // 2 + successes
    won = lost.copy()
    won[:, arm] += 1
    return np.sort(won, axis=1), np.sort(lost, axis=1)
