"""Reference agents for Gaussian, dependent and informative bandits.

All expect one row per task. They know the prior over tasks but not the task.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.bandits import BanditAgent, Counts, any_best
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.envs.bandits.dependent import DependentBandit


class Payments(NamedTuple):
    """The rewards of a Gaussian bandit so far: float32 ``(B, num_arms)`` each."""

    pulls: Tensor
    total: Tensor


class GaussianThompsonBandit(FixedAgent):
    """Thompson sampling for `GaussianBandit`: draws each arm's mean from its posterior and pulls the best draw.

    The posterior is exact for means uniform on [0, 1] and rewards with the known standard deviation `std`: a normal
    distribution around the arm's average, truncated to [0, 1].
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
        return scripted(any_best(self.sample(seen, key), key), step), seen

    def sample(self, seen: Payments, key: Key) -> Tensor:
        """Draw from the posterior of each arm's mean: float64 ``(B, num_arms)`` in [0, 1]."""
        u = rng.uniform(key, self.num_arms).double() + 2.0**-25  # in the open interval (0, 1)
        pulls = seen.pulls.double().clamp_min(1.0)
        mean, width = seen.total.double() / pulls, self.std / pulls.sqrt()
        # The normal distribution function is accurate in the lower tail, so mirror arms with a mean below 0.5.
        mirrored = mean < 0.5
        mean = torch.where(mirrored, 1.0 - mean, mean)
        low, high = torch.special.ndtr(-mean / width), torch.special.ndtr((1.0 - mean) / width)
        draw = (mean + width * torch.special.ndtri(low + u * (high - low))).clamp(0.0, 1.0)
        draw = torch.where(high == 0.0, 1.0, draw)  # an average so far above 1 that the tail underflows
        return torch.where(seen.pulls == 0, u, torch.where(mirrored, 1.0 - draw, draw))


class DependentBanditBayes(BanditAgent):
    """Bayes-optimal on `DependentBandit` with any structure: pulls the arm that is more likely to be the better one.

    Arm 1 pays with probability 1 - p, so its failures are as informative about p as successes of arm 0. Both arms give
    the same information, so exploration gains nothing, and the arm that is best now is optimal. As the priors are
    symmetric, this is arm 0 if more observations speak for it than against it. `value` is the expected total reward of
    `num_pulls` pulls, and `regret` the loss against knowing p; both are exact.
    """

    def __init__(self, structure: str = "uniform", num_pulls: int = 100, device: torch.device | str = "cpu") -> None:
        super().__init__(2, device)
        poor = DependentBandit(structure).POOR.get(structure)  # None: uniform
        best = 0.75 if poor is None else 1.0 - poor
        self.value = sum(_next_payment(made, poor) for made in range(num_pulls))
        self.regret = num_pulls * best - self.value

    def choose(self, counts: Counts, key: Key) -> Tensor:
        lead = counts.successes - counts.failures  # of each arm; evidence for one arm is evidence against the other
        return any_best(torch.stack([lead[:, 0] - lead[:, 1], lead[:, 1] - lead[:, 0]], dim=1), key)


def _next_payment(made: int, poor: float | None) -> float:
    """Return the expected reward of the pull after `made` pulls: Σ_s max(E[p; s], E[1 - p; s]).

    s is the number of observations in favour of arm 0. p is `poor` or 1 - `poor`, with equal probability, or uniform on
    [0, 1] if `poor` is None.
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
    """Bayes-optimal on `InformativeBandit`: pulls arm 10 first, then the target that it reveals; 20.55 in 5 pulls."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return torch.full((num_tasks,), 10, device=self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        named = (10.0 * step.prev_reward).round().long() - 1  # the reward is a tenth of the target's number, from 1
        arm = torch.where(step.prev_action == 10, named, memory)
        return scripted(arm, step), arm
