"""Bandit learners that are written down: index policies, and the exact optimum where the arms depend on each other.

Next to `metarl.agents.reference.bandits` these are what learned agents are compared with. All expect one row per task
and know the prior over tasks but not the task.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.bandits import BanditAgent, Counts, PosteriorMeanBandit, counted
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.envs.bandits.dependent import DependentBandit


class GittinsBandit(BanditAgent):
    """Pulls the arm with the highest finite-horizon Gittins index (Bernoulli arms, uniform prior).

    An arm's index is the sure payment per pull that makes stopping to pull it and going on equally good, with the
    pulls that are left: what it is worth alone, the chance to learn about it included (Gittins 1979; RL², Duan et al.
    2016, compares with it). Optimal for discounted endless trials; with a finite number of pulls very nearly, not
    exactly. Raises ValueError when it is asked to act after `num_pulls` pulls. Made for some 200 pulls: the table has
    num_pulls³ entries, and takes two seconds for 100.
    """

    def __init__(self, num_arms: int, num_pulls: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        self.num_pulls = num_pulls
        self.index = torch.as_tensor(gittins_indices(num_pulls), device=self.device)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return super().begin(num_tasks), 0

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        counts, pulls = counted(memory[0], step), memory[1]
        if pulls >= self.num_pulls:
            raise ValueError(f"This agent plans for {self.num_pulls} pulls, but the trial goes on.")
        won = counts.successes.long()
        index = self.index[self.num_pulls - pulls - 1, won + counts.failures.long(), won]  # (B, arms)
        return scripted(_any_best(index, key), step), (counts, pulls + 1)


def gittins_indices(num_pulls: int, calibration: int = 512) -> NDArray[np.float64]:
    """The index of every arm: ``(num_pulls, num_pulls, num_pulls)`` by [pulls left - 1, pulls made, successes].

    Entries that no trial of `num_pulls` pulls can meet are 0. For each of `calibration` sure payments λ the stopping
    problem is solved by dynamic programming; the advantage of going on is convex and piecewise linear in λ, and the
    index is where it crosses zero, between two of them by interpolation: an error of 1e-4 at most, mostly below 1e-5.
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


class EpsilonGreedyBandit(PosteriorMeanBandit):
    """With probability `epsilon` any arm, otherwise the one with the best posterior mean, any of equals.

    The baseline of RL² (Duan et al. 2016), which tunes epsilon for every number of arms and pulls.
    """

    def __init__(self, num_arms: int, epsilon: float = 0.05, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon must lie in [0, 1], got {epsilon!r}.")
        self.epsilon = epsilon

    def choose(self, counts: Counts, key: Key) -> Tensor:
        explores = rng.uniform(rng.fold(key, 1), 1)[:, 0] < self.epsilon
        anywhere = rng.integers(rng.fold(key, 2), 1, self.num_arms)[:, 0]
        return torch.where(explores, anywhere, super().choose(counts, rng.fold(key, 0)))


class Payments(NamedTuple):
    """What a Gaussian bandit showed so far: float32 ``(B, num_arms)`` each."""

    pulls: Tensor
    total: Tensor


class GaussianThompsonBandit(FixedAgent):
    """Thompson sampling for `GaussianBandit`: draws each arm's mean from its posterior and pulls the best draw.

    The posterior is exact for means uniform on [0, 1] and payments of the known standard deviation `std`: a normal
    distribution around the arm's average, cut off at 0 and 1.
    """

    def __init__(self, num_arms: int = 5, std: float = 1.0, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_arms, self.std = num_arms, std

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        zeros = torch.zeros(num_tasks, self.num_arms, device=self.device)
        return Payments(zeros, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        arms = torch.arange(self.num_arms, device=key.device)
        pulled = (step.prev_action[:, None] == arms).to(torch.float32)  # NO_ACTION equals no arm
        seen = Payments(memory.pulls + pulled, memory.total + pulled * step.prev_reward[:, None])
        return scripted(_any_best(self.sample(seen, key), key), step), seen

    def sample(self, seen: Payments, key: Key) -> Tensor:
        """One draw from the posterior of each arm's mean: float64 ``(B, num_arms)`` in [0, 1]."""
        u = rng.uniform(key, self.num_arms).double() + 2.0**-25  # in the open interval (0, 1)
        pulls = seen.pulls.double().clamp_min(1.0)
        mean, width = seen.total.double() / pulls, self.std / pulls.sqrt()
        # In the lower tail the normal distribution function is accurate: arms below the middle are mirrored.
        mirrored = mean < 0.5
        mean = torch.where(mirrored, 1.0 - mean, mean)
        low, high = torch.special.ndtr(-mean / width), torch.special.ndtr((1.0 - mean) / width)
        draw = (mean + width * torch.special.ndtri(low + u * (high - low))).clamp(0.0, 1.0)
        draw = torch.where(high == 0.0, 1.0, draw)  # an average so far above that the tail is too small a number
        return torch.where(seen.pulls == 0, u, torch.where(mirrored, 1.0 - draw, draw))


class DependentBanditBayes(BanditAgent):
    """Bayes-optimal on `DependentBandit`, whatever its structure: at each pull the arm that is likelier the better one.

    Arm 1 pays with 1 - p, so a blank of it says about p what a payment of arm 0 says: both arms inform alike, nothing
    can be explored, and the best arm of the moment is optimal. The priors are symmetric, so that is arm 0 when more of
    the signs speak for it than against it. `value` is the expected total of `num_pulls` pulls, `regret` what is lost
    against knowing p; both are exact.
    """

    def __init__(self, structure: str = "uniform", num_pulls: int = 100, device: torch.device | str = "cpu") -> None:
        super().__init__(2, device)
        poor = DependentBandit(structure).POOR.get(structure)  # None: uniform
        best = 0.75 if poor is None else 1.0 - poor
        self.value = sum(_next_payment(made, poor) for made in range(num_pulls))
        self.regret = num_pulls * best - self.value

    def choose(self, counts: Counts, key: Key) -> Tensor:
        lead = counts.successes - counts.failures  # of each arm; what speaks for one speaks against the other
        return _any_best(torch.stack([lead[:, 0] - lead[:, 1], lead[:, 1] - lead[:, 0]], dim=1), key)


def _next_payment(made: int, poor: float | None) -> float:
    """Expected payment of the pull after `made` pulls: Σ max(E[p; s], E[1 - p; s]) over the s that spoke for arm 0.

    p is `poor` or 1 - `poor`, with equal chances, or uniform on [0, 1] if `poor` is None.
    """
    total = 0.0
    for s in range(made + 1):
        if poor is None:  # s is uniform, and p then has the mean (s + 1) / (made + 2)
            total += max(s + 1, made - s + 1) / (made + 2) / (made + 1)
        else:
            ways = math.comb(made, s)
            likely = [0.5 * ways * p**s * (1.0 - p) ** (made - s) for p in (poor, 1.0 - poor)]
            total += max(likely[0] * q + likely[1] * (1.0 - q) for q in (poor, 1.0 - poor))
    return total


class InformativeBanditScript(FixedAgent):
    """Bayes-optimal on `InformativeBandit`: arm 10 first, then the target that it names; 20.55 for 5 pulls."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return torch.full((num_tasks,), 10, device=self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        named = (10.0 * step.prev_reward).round().long() - 1  # the target pays a tenth of its number, counted from 1
        arm = torch.where(step.prev_action == 10, named, memory)
        return scripted(arm, step), arm


def _any_best(score: Tensor, key: Key) -> Tensor:
    """An arm with the highest score ``(B, arms)``, any of equals: int64 ``(B,)``."""
    luck = rng.uniform(rng.fold(key, 1), score.shape[1])
    return torch.where(score == score.amax(1, keepdim=True), luck, -1.0).argmax(1)
