"""Beliefs over a direction in the plane, from rewards for the velocity along it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import GridBelief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.mujoco.beliefs.follower import ROUNDING, Followed, Follower, Moved, rewards
from metarl.envs.mujoco.goals import Heading, unit_vectors
from metarl.envs.mujoco.robots import RobotFamily

CELLS = 720
"""Cells of the grid of angles."""


SHOWN = 90
"""Number of equal arcs whose masses are features."""


class Facing(NamedTuple):
    """The angles that are still possible, and the robot."""

    log_mass: Tensor  # (B, M) float32
    robot: Followed


class TargetHeading(GridBelief):
    """The belief over a direction at a uniform angle in [low, high), from rewards for the velocity along it.

    A reward leaves the directions at one angle to the velocity: one to the left and one to the right. A cell of the
    grid, of half a degree on a whole circle, is ruled out once no direction in it would have paid what was seen.
    `features` are the masses of 90 equal arcs over that of the likeliest.
    """

    def __init__(self, family: RobotFamily[Heading], low: float = 0.0, high: float = 2.0 * math.pi) -> None:
        """Create the belief for angles from `low` to `high`, in radians."""
        self.low, self.width = low, (high - low) / CELLS
        super().__init__(Heading(unit_vectors(self._angles(torch.arange(CELLS) + 0.5))))
        self.family, self.follower, self.size = family, Follower(family.robot), SHOWN

    def _angles(self, number: Tensor) -> Tensor:
        return self.low + number * self.width

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Facing:
        return Facing(self.uniform(rows, device), self.follower.prior(rows, device))

    def posterior(self, belief: Facing, step: Step) -> Facing:
        moved, robot = self.follower.follow(belief.robot, step)
        velocity, paid = self._along(moved, step.prev_reward)
        least, greatest = self._ranges(velocity)
        possible = (greatest + ROUNDING >= paid[:, None]) & (least - ROUNDING <= paid[:, None])
        likelihood = torch.where(possible | ~moved.told[:, None], 0.0, -torch.inf)
        return Facing(updated(belief.log_mass, likelihood), robot)

    def _along(self, moved: Moved, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rewards for both axes as directions ``(B, 2)``, and the actual reward ``(B,)``."""
        axes = Heading(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], device=reward.device))
        nothing, x, y = rewards(self.family, axes, moved).unbind(1)
        return torch.stack([x - nothing, y - nothing], dim=1), reward - nothing

    def _ranges(self, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest reward of the directions in each cell: float32 ``(B, M)`` each."""
        edges = self._angles(torch.arange(self.count + 1, device=velocity.device))
        ends = velocity @ unit_vectors(edges).T
        least, greatest = (pick(ends[:, :-1], ends[:, 1:]) for pick in (torch.minimum, torch.maximum))
        speed = velocity.norm(dim=-1, keepdim=True)
        # In the cell with the angle of the velocity, the largest reward is the speed itself.
        cell = torch.arange(self.count, device=velocity.device)
        angle = torch.atan2(velocity[:, 1], velocity[:, 0])[:, None]
        ahead, behind = (
            ((angle + turn - self.low).remainder(2.0 * math.pi) / self.width - cell - 0.5).abs() <= 0.501
            for turn in (0.0, math.pi)
        )
        return torch.where(behind, -speed, least), torch.where(ahead, speed, greatest)

    def features(self, belief: Facing) -> Tensor:
        arcs = self.probs(belief).reshape(len(belief.log_mass), SHOWN, -1).sum(-1)
        return arcs / arcs.amax(-1, keepdim=True)

    def log_prob(self, belief: Facing, task: Any) -> Tensor:
        """Return the log density of a direction's angle, in 1 / radians; minus infinity outside the prior."""
        angle = torch.atan2(task.direction[:, 1], task.direction[:, 0])
        # Rounding may move the angle `low` slightly below `low`.
        place = (angle - self.low + 1e-5).remainder(2.0 * math.pi) / self.width
        inside = place < self.count + 2e-5 / self.width
        mass = belief.log_mass.gather(1, place.floor().to(torch.int64).clamp(0, self.count - 1)[:, None])[:, 0]
        return torch.where(inside, mass - math.log(self.width), -torch.inf)
