"""Beliefs over finitely many tasks of a robot."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, FiniteBelief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.mujoco.beliefs.follower import ROUNDING, Followed, Follower, rewards, where_unknown
from metarl.envs.mujoco.robots import RobotFamily


class Rewarded(NamedTuple):
    """The tasks that are still possible, and the robot."""

    log_mass: Tensor  # (B, M) float32
    robot: Followed


class ListedByReward(FiniteBelief):
    """The belief over the tasks of a finite split, for families whose tasks differ only in the reward.

    A step is simulated once per row, and a task that would have paid something else is ruled out.
    """

    rounding = ROUNDING
    compared_steps = 6  # every task needs a simulation there

    def __init__(self, family: RobotFamily[Any], split: str) -> None:
        """Create the belief. Raises ValueError for an infinite split."""
        tasks = family.tasks_of(split)
        if tasks is None:
            raise ValueError(f"{type(family).__name__} has no finite list of tasks in {split!r}.")
        super().__init__(tasks)
        self.family, self.follower = family, Follower(family.robot)

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Rewarded:
        return Rewarded(self.uniform(rows, device), self.follower.prior(rows, device))

    def posterior(self, belief: Rewarded, step: Step) -> Rewarded:
        return where_unknown(self._posterior, belief, step, belief.log_mass)

    def _posterior(self, belief: Rewarded, step: Step) -> Rewarded:
        moved, robot = self.follower.follow(belief.robot, step)
        would = rewards(self.family, self.tasks_on(step.obs.device), moved)
        alike = torch.isclose(would, step.prev_reward[:, None], rtol=1e-5, atol=ROUNDING)
        likelihood = torch.where(alike | ~moved.told[:, None], 0.0, -torch.inf)
        return Rewarded(updated(belief.log_mass, likelihood), robot)


def listed(family: RobotFamily[Any], split: str) -> Belief | None:
    """Return the belief over the tasks of a finite split; None for an infinite one.

    Raises ValueError for a split that the family does not have.
    """
    return None if family.num_tasks(split) is None else ListedByReward(family, split)
