"""Bandits whose two arms depend on each other (Wang et al. 2016)."""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.checks import within
from metarl.core.errors import unknown, whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.bandits.arms import BernoulliArms
from metarl.envs.bandits.beliefs import BetaArms, ListedArms, MirroredArms
from metarl.envs.bandits.bernoulli import pull
from metarl.envs.bandits.pictures import probabilities
from metarl.envs.bandits.pull import Pull, blank, blank_space, no_pull


class DependentBandit(TaskFamily[BernoulliArms, Pull]):
    """Two slot machines that pay with probabilities p and 1 - p, so each pull is evidence about both.

    Description:
        An episode is one pull (horizon 1); a trial is `episodes_per_trial` pulls of the same machines. A pull of one
        arm says as much about the other, so a learner that knows the dependence explores at lower cost and never has to
        try both.

    What varies:
        The probabilities of the two arms, `BernoulliArms.probs`. `structure` sets the distribution of p: "uniform"
        U[0, 1), "easy" {0.1, 0.9}, "medium" {0.25, 0.75}, "hard" {0.4, 0.6}.

    Splits:
        - `train`: p as `structure` sets it.
        - `test`: only with "uniform": U[0, 1), from its own random stream. The other structures have only two tasks,
          and training needs both, so none can be held out; they have `all`, the same two tasks, instead.
        - `valid`: as `train`.
        - `ood`: the dependence is broken and both arms are poor, p_i ~ U[0, 0.5) independently. Their sum is below 1,
          as in no training task; when an arm does not pay, this is no longer evidence for the other.

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
        Known task: max p; on average 0.75 (uniform), 0.9, 0.75, 0.6 (easy, medium, hard). Random: 0.5 in every training
        task. Lowest possible regret in 100 pulls: uniform 1.221, easy 0.625, medium 1.000, hard 2.312.

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
            self.splits = ("train", "valid", "ood", "all")  # type: ignore[misc]  # the splits depend on the option
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 1
        self.observation_space = blank_space()
        self.action_space = gymnasium.spaces.Discrete(2)

    def enumerate_tasks(self, split: str) -> BernoulliArms | None:
        """Return both tasks of "easy", "medium" or "hard"; None for `ood` and for "uniform"."""
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
        return no_pull(key)

    def observe(self, task: BernoulliArms, state: Pull) -> Tensor:
        return blank(state.reward)

    def step(self, task: BernoulliArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        return pull(task, action, key)

    def belief(self, split: str) -> Belief:
        listed = self.tasks_of(split)
        if listed is not None:
            return ListedArms(listed)
        pulls = self.episodes_per_trial
        return BetaArms(2, pulls, 0.5) if split == "ood" else MirroredArms(pulls)

    def oracle(self, task: BernoulliArms) -> Tensor:
        return task.probs.amax(-1)

    def random_return(self, task: BernoulliArms) -> Tensor:
        return task.probs.mean(-1)

    def sketch(self, task: BernoulliArms, episodes: int = 1) -> Sketch[Pull]:
        """One line per arm: its probability as a bar, then its pulls in time, blue where it paid and red where not."""
        return probabilities(task.probs[0].tolist(), pulls=episodes)
