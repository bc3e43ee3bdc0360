"""Bandits whose arms pay normal amounts, depend on each other, or say where the reward is."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl import rng
from metarl.envs.bandit_pictures import Arms, Line, Mark, payment_colour, probabilities
from metarl.envs.bandits import BernoulliArms, Pull
from metarl.errors import unknown, whole_number, within
from metarl.family import Key, TaskFamily
from metarl.sketch import Sketch


class GaussianArms(NamedTuple):
    """The machines of a Gaussian bandit."""

    means: Tensor  # (B, k) float32: what an arm pays on average


class InformativeArms(NamedTuple):
    """Which arm pays, and what the last arm says about it."""

    target: Tensor  # (B,) int64: the arm that pays 5, from 0 to 9
    clue: Tensor  # (B,) float32: what the last arm pays


class GaussianBandit(TaskFamily[GaussianArms, Pull]):
    """k slot machines with normally distributed payments; learn within a trial which one pays most on average.

    Description:
        Each episode is one pull (horizon 1), a trial is `episodes_per_trial` pulls on the same machines. The noise is
        as wide as the means differ, or wider, so that one payment says little and has to be averaged.

    What varies:
        The mean payments μ of the k arms: `GaussianArms.means`. The standard deviation is the same for all.

    Splits:
        - `train`, `valid`, `test`: μ_i ~ U[0, 1) independently, in disjoint streams.
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
        ~ N(μ, std²) with the mean of the pulled arm.

    Endings:
        Never terminated; truncated after one step.

    Optimum:
        Known task: max μ, k / (k + 1) in the mean (5 arms: 0.8333). Random: mean μ, 0.5 in the mean.

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
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(num_arms)

    def draw_tasks(self, keys: Key, split: str) -> GaussianArms:
        means = rng.uniform(keys, self.num_arms)
        return GaussianArms(1.0 + means if split == "ood" else means)

    def reset(self, task: GaussianArms, key: Key) -> Pull:
        return Pull(torch.full_like(key, -1), task.means.new_zeros(len(key)))

    def observe(self, task: GaussianArms, state: Pull) -> Tensor:
        return task.means.new_zeros(len(task.means), 1)

    def step(self, task: GaussianArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        reward = task.means.gather(1, action[:, None])[:, 0] + self.std * rng.normal(key, 1)[:, 0]
        return Pull(action, reward), reward, torch.zeros_like(action, dtype=torch.bool)

    def oracle(self, task: GaussianArms) -> Tensor:
        return task.means.amax(-1)

    def random_return(self, task: GaussianArms) -> Tensor:
        return task.means.mean(-1)

    def sketch(self, task: GaussianArms, episodes: int = 1) -> Sketch[Pull]:
        """One line per arm: its mean as a bar, its pulls in time, from red (two deviations low) to green (high)."""
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


class DependentBandit(TaskFamily[BernoulliArms, Pull]):
    """Two slot machines that pay with probabilities p and 1 - p: what one does not, the other does.

    Description:
        Each episode is one pull (horizon 1), a trial is `episodes_per_trial` pulls on the same machines. A pull of one
        arm says as much about the other, so a learner that knows how they depend on each other pays less for finding
        out, and never has to try both.

    What varies:
        The probabilities of the two arms, `BernoulliArms.probs`. `structure` says from what p is drawn: "uniform"
        U[0, 1), "easy" {0.1, 0.9}, "medium" {0.25, 0.75}, "hard" {0.4, 0.6}.

    Splits:
        - `train`: as `structure` says.
        - `test`: with "uniform" alone, U[0, 1) in a stream of its own. The other structures have two tasks, an agent
          must know both, and nothing is left to be held out: for them there is `all`, the same two tasks, instead.
        - `valid`: as `train`.
        - `ood`: the dependence is broken and both arms are poor, p_i ~ U[0, 0.5) independently. Their sum is below 1,
          as in no training task; that an arm does not pay speaks no longer for the other one.

    Actions:
        ======  =============
        action  meaning
        ======  =============
        0, 1    pull this arm
        ======  =============

    Observations:
        =====  ===================  ======  =====
        index  meaning              range   unit
        =====  ===================  ======  =====
        0      nothing: constant 0  [0, 1]  none
        =====  ===================  ======  =====

    Rewards:
        1 with probability p of the pulled arm, otherwise 0.

    Endings:
        Never terminated; truncated after one step.

    Optimum:
        Known task: max p; in the mean 0.75 (uniform), 0.9, 0.75, 0.6 (easy, medium, hard). Random: 0.5, in every
        training task. Least possible regret of 100 pulls: uniform 1.221, easy 0.625, medium 1.000, hard 2.312.

    Source:
        Wang et al. 2016, "Learning to reinforcement learn", section 3.1.2 (trials of 100 pulls).

    Version history:
        v0: first version.
    """

    POOR: ClassVar[dict[str, float]] = {"easy": 0.1, "medium": 0.25, "hard": 0.4}
    random_start = False

    def __init__(self, structure: str = "uniform", episodes_per_trial: int = 100) -> None:
        if structure not in ("uniform", *self.POOR):
            raise ValueError(unknown("structure", structure, ("uniform", *self.POOR)))
        self.structure = structure
        if structure != "uniform":
            self.splits = ("train", "valid", "ood", "all")  # type: ignore[misc]  # what splits there are depends on the option
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 1
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def enumerate_tasks(self, split: str) -> BernoulliArms | None:
        """Both tasks of "easy", "medium" or "hard"; None for `ood` and for "uniform"."""
        if self.structure == "uniform" or split == "ood":
            return None
        poor = self.POOR[self.structure]
        return BernoulliArms(torch.tensor([[poor, 1.0 - poor], [1.0 - poor, poor]]))

    def draw_tasks(self, keys: Key, split: str) -> BernoulliArms:
        if split == "ood":
            return BernoulliArms(0.5 * rng.uniform(keys, 2))
        p = rng.uniform(keys, 1)
        return BernoulliArms(torch.cat([p, 1.0 - p], dim=1))

    def check_task(self, task: BernoulliArms) -> None:
        within("BernoulliArms.probs", task.probs, 0, 1)

    def reset(self, task: BernoulliArms, key: Key) -> Pull:
        return Pull(torch.full_like(key, -1), task.probs.new_zeros(len(key)))

    def observe(self, task: BernoulliArms, state: Pull) -> Tensor:
        return task.probs.new_zeros(len(task.probs), 1)

    def step(self, task: BernoulliArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        probs = task.probs.gather(1, action[:, None])
        reward = (rng.uniform(key, 1) < probs)[:, 0].to(torch.float32)
        return Pull(action, reward), reward, torch.zeros_like(action, dtype=torch.bool)

    def oracle(self, task: BernoulliArms) -> Tensor:
        return task.probs.amax(-1)

    def random_return(self, task: BernoulliArms) -> Tensor:
        return task.probs.mean(-1)

    def sketch(self, task: BernoulliArms, episodes: int = 1) -> Sketch[Pull]:
        """One line per arm: its probability as a bar, then its pulls in time, green where it paid and red where not."""
        return probabilities(task.probs[0].tolist(), pulls=episodes)


class InformativeBandit(TaskFamily[InformativeArms, Pull]):
    """Eleven slot machines, one of which says which of the others is the best: pay for being told.

    Description:
        Each episode is one pull (horizon 1), a trial is `episodes_per_trial` pulls on the same machines. One of the
        arms 0 … 9 is the target. Arm 10 pays less than any other, but what it pays is the number of the target, so
        pulling it first and the target from then on is best. Nothing is random.

    What varies:
        The target, `InformativeArms.target`, and with it what arm 10 pays, `InformativeArms.clue`.

    Splits:
        - `all`: the ten targets, as in the paper, which trains and tests on all.
        - `train`, `test`: a fixed partition of these into 8 and 2. The test targets were drawn once and are written
          out in TEST_TARGETS, so that nothing can move them.
        - `valid`: 2 of the training targets.
        - `ood`: another code, on the training targets so that nothing else is new: arm 10 pays (10 - target) / 10
          instead of (target + 1) / 10. No target's number is its own in the other code.

    Actions:
        ========  ===============================
        action    meaning
        ========  ===============================
        0 … 9     pull this arm, maybe the target
        10        pull the informative arm
        ========  ===============================

    Observations:
        =====  ===================  ======  =====
        index  meaning              range   unit
        =====  ===================  ======  =====
        0      nothing: constant 0  [0, 1]  none
        =====  ===================  ======  =====

    Rewards:
        5 for the target, 1 for the other nine; arm 10 pays 0.1 for target 0 up to 1.0 for target 9 (the paper counts
        from 1: a tenth of the target's number).

    Endings:
        Never terminated; truncated after one step.

    Optimum:
        Known task: 5. Random: (14 + clue) / 11, 1.323 in the mean of `all`. Bayes-optimal over `all`, 5 pulls: 20.55
        per trial (0.55, then 5 each time); 11.00 for an agent that never pulls arm 10.

    Source:
        Wang et al. 2016, "Learning to reinforcement learn", section 3.1.3 (trials of 5 pulls).

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    TEST_TARGETS = (0, 7)
    INFORMATIVE = 10

    def __init__(self, episodes_per_trial: int = 5) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 1
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(self.INFORMATIVE + 1)

    def enumerate_tasks(self, split: str) -> InformativeArms:
        """Every task of the split once, for exact evaluation."""
        held_out = [target in self.TEST_TARGETS for target in range(self.INFORMATIVE)]
        keep = [target for target, held in enumerate(held_out) if split == "all" or held == (split == "test")]
        target = torch.tensor(keep)
        return InformativeArms(target, (10 - target if split == "ood" else target + 1) / 10)

    def check_task(self, task: InformativeArms) -> None:
        within("InformativeArms.target", task.target, 0, self.INFORMATIVE - 1)

    def reset(self, task: InformativeArms, key: Key) -> Pull:
        return Pull(torch.full_like(key, -1), task.clue.new_zeros(len(key)))

    def observe(self, task: InformativeArms, state: Pull) -> Tensor:
        return task.clue.new_zeros(len(task.clue), 1)

    def step(self, task: InformativeArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        reward = torch.where(action == task.target, 5.0, torch.where(action == self.INFORMATIVE, task.clue, 1.0))
        return Pull(action, reward), reward, torch.zeros_like(action, dtype=torch.bool)

    def oracle(self, task: InformativeArms) -> Tensor:
        return torch.full_like(task.clue, 5.0)

    def random_return(self, task: InformativeArms) -> Tensor:
        return (14.0 + task.clue) / 11.0

    def sketch(self, task: InformativeArms, episodes: int = 1) -> Sketch[Pull]:
        """One line per arm: its payment as a bar, then its pulls in time with what they paid."""
        target, clue = int(task.target[0]), float(task.clue[0])
        pays = [5.0 if arm == target else 1.0 for arm in range(self.INFORMATIVE)] + [clue]
        colours = {target: "#2f9e44", self.INFORMATIVE: "#1971c2"}
        return Arms(
            "pays",
            [Line(f"{arm}   {paid:.1f}", paid / 5.0, arm == target) for arm, paid in enumerate(pays)],
            episodes,
            lambda arm, paid: Mark(colours.get(arm, "#e03131"), f"{paid:.1f}"),
            lambda count, total: f"{count} pulls paid {total:.1f}",
            wide=True,
        )
