"""Gaussian bandits: arms with normally distributed payments."""

from __future__ import annotations

import math

import gymnasium
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.bandits.arms import GaussianArms as GaussianArms
from metarl.envs.bandits.beliefs import ListedNormalArms, NormalArms
from metarl.envs.bandits.pictures import Arms, Line, Mark, payment_colour
from metarl.envs.bandits.pull import Pull, blank, blank_space, no_pull


class GaussianBandit(TaskFamily[GaussianArms, Pull]):
    """k slot machines with normally distributed payments; learn within a trial which one pays most on average.

    Description:
        An episode is one pull (horizon 1); a trial is `episodes_per_trial` pulls of the same machines. The noise is at
        least as large as the differences between the means, so one payment says little and the agent must average.

    What varies:
        The mean payments μ of the k arms: `GaussianArms.means`. The standard deviation is the same for all.

    Splits:
        - `train`, `valid`, `test`: μ_i ~ U[0, 1) independently, in disjoint random streams.
        - `ood`: μ_i ~ U[1, 2), rich machines: no training arm has such a mean.

    Actions:
        ========  ==================
        action    meaning
        ========  ==================
        0 … k-1   pull this arm
        ========  ==================

    Observations:
        =====  ===================  ======  =====
        index  meaning              range   unit
        =====  ===================  ======  =====
        0      nothing: constant 0  [0, 1]  none
        =====  ===================  ======  =====

    Rewards:
        ~ N(μ, std²), with μ the mean of the pulled arm.

    Endings:
        Never terminated; truncated after one step.

    Optimum:
        Known task: max μ, k / (k + 1) on average (5 arms: 0.8333). Random: mean μ, 0.5 on average.

    Differs from the source:
        =====  ================  =======
        what   here              there
        =====  ================  =======
        noise  std 1; an option  std 0.3
        =====  ================  =======

    Source:
        Lee et al. 2023, "Supervised pretraining can learn in-context reinforcement learning" (DPT): 5 arms, std 0.3.
        The default of 1 is the noise of the classical test bed (Sutton & Barto 2018, section 2.3).

    Version history:
        v0: first version.
    """

    random_start = False

    def __init__(self, num_arms: int = 5, std: float = 1.0, episodes_per_trial: int = 100) -> None:
        self.num_arms = whole_number("num_arms", num_arms, least=2)
        if not 0 < std < math.inf:
            raise ValueError(f"std must be a positive number, got {std!r}.")
        self.std = float(std)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 1
        self.observation_space = blank_space()
        self.action_space = gymnasium.spaces.Discrete(num_arms)

    def draw_tasks(self, keys: Key, split: str) -> GaussianArms:
        means = rng.uniform(keys, self.num_arms)
        return GaussianArms(1.0 + means if split == "ood" else means)

    def reset(self, task: GaussianArms, key: Key) -> Pull:
        return no_pull(key)

    def observe(self, task: GaussianArms, state: Pull) -> Tensor:
        return blank(state.reward)

    def step(self, task: GaussianArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        reward = task.means.gather(1, action[:, None])[:, 0] + self.std * rng.normal(key, 1)[:, 0]
        return Pull(action, reward), reward, torch.zeros_like(action, dtype=torch.bool)

    def belief(self, split: str) -> Belief:
        listed = self.tasks_of(split)
        if listed is not None:
            return ListedNormalArms(listed, self.std)
        return NormalArms(self.num_arms, self.std, 1.0 if split == "ood" else 0.0)

    def oracle(self, task: GaussianArms) -> Tensor:
        return task.means.amax(-1)

    def random_return(self, task: GaussianArms) -> Tensor:
        return task.means.mean(-1)

    def sketch(self, task: GaussianArms, episodes: int = 1) -> Sketch[Pull]:
        """Draw one line per arm: its mean as a bar, its pulls over time, from red (two std low) to blue (high)."""
        means = task.means[0].tolist()
        low, high = min(means) - 2 * self.std, max(means) + 2 * self.std
        lines = [
            Line(f"{arm}   {mean:.2f}", mean / max(1.0, *means), mean == max(means)) for arm, mean in enumerate(means)
        ]
        return Arms(
            "pays on average",
            lines,
            episodes,
            lambda arm, paid: Mark(payment_colour((paid - low) / (high - low))),
            lambda count, total: f"{count} pulls paid {total:.1f}",
        )
