"""Beliefs over a goal position that pays only nearby."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import GridBelief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.mujoco.beliefs.follower import ROUNDING, Followed, Follower, rewards
from metarl.envs.mujoco.goals import Place, unit_vectors
from metarl.envs.mujoco.robots import RobotFamily
from metarl.envs.mujoco.simulator import Physics

CELLS = 1600
"""Cells of the region."""


GOLDEN = math.pi * (3.0 - math.sqrt(5.0))
"""The golden angle: places at its multiples are spread evenly (Vogel 1979)."""


SECTORS = 24
"""Number of sectors whose masses, within and beyond the median radius, are features."""


class PlaceBelief(NamedTuple):
    """The places that are still possible, and the robot."""

    log_mass: Tensor  # (B, M) float32
    found: Tensor  # (B,) bool: the robot has been near the goal
    robot: Followed


class TargetPlace(GridBelief):
    """The belief over a position around the origin, from rewards that give its distance within a radius.

    The cells of the grid are what is nearest to each of 1600 places that are spread evenly, as seeds are on a
    sunflower. A cell is ruled out once no place in a disc around it would have paid what was seen; the disc holds
    the cell. In a disc of 3 m its radius is 0.13 m, so that a place that has been seen from all sides is known to about
    that.

    `features` are the masses of 48 parts of the region over that of the likeliest, mean and standard deviation of both
    coordinates over the region's radius, and whether the place has been near.
    """

    def __init__(
        self,
        family: RobotFamily[Place],
        at: Callable[[Physics], Tensor],
        radius: float,
        radii: Callable[[Tensor], Tensor],
        log_density: Callable[[Tensor], Tensor],
    ) -> None:
        """Make the belief.

        ``at(physics)`` is where the robot is, ``(B, 2)``; within `radius` metres a place pays 1 less its distance.
        ``radii(u)`` are the distances from the origin of the shares u of the places, and ``log_density(radius)`` is
        the prior's density there in 1 / m².
        """
        number = torch.arange(CELLS)
        out = radii((number + 0.5) / CELLS)
        super().__init__(Place(out[:, None] * unit_vectors(number * GOLDEN)))
        self.family, self.at, self.radius, self.log_density = family, at, radius, log_density
        self.follower, self.reach = Follower(family.robot), _reach(self.tasks.position, radii)
        self.far = float(radii(torch.tensor([1.0])))
        angle = torch.atan2(self.tasks.position[:, 1], self.tasks.position[:, 0])
        sector = ((angle + math.pi) * SECTORS / (2.0 * math.pi)).floor().to(torch.int64).clamp(0, SECTORS - 1)
        self.part = 2 * sector + (number >= CELLS // 2)
        self.size = 2 * SECTORS + 5

    def prior(self, rows: int, device: torch.device | str = "cpu") -> PlaceBelief:
        robot = self.follower.prior(rows, device)
        return PlaceBelief(self.uniform(rows, device), robot.steps > 0, robot)

    def posterior(self, belief: PlaceBelief, step: Step) -> PlaceBelief:
        moved, robot = self.follower.follow(belief.robot, step)
        here = self.at(moved.after).float()
        # The rewards for a goal at this position, and for one far away.
        least = rewards(self.family, Place(torch.full((1, 2), 1e6, device=here.device)), moved)[:, 0]
        more = step.prev_reward - least
        near = more > 0.5
        distance = 1.0 + self.radius - more
        away = (here[:, None] - self.tasks_on(here.device).position).norm(dim=-1)
        ring = (away - distance[:, None]).abs() <= self.reach + ROUNDING
        outside = away > self.radius - self.reach - ROUNDING
        possible = torch.where(near[:, None], ring, outside) | ~moved.told[:, None]
        log_mass = updated(belief.log_mass, torch.where(possible, 0.0, -torch.inf))
        return PlaceBelief(log_mass, belief.found | (near & moved.told), robot)

    def features(self, belief: PlaceBelief) -> Tensor:
        mass, place = self.probs(belief), self.tasks_on(belief.log_mass.device).position
        parts = mass.new_zeros(len(mass), 2 * SECTORS).index_add(1, self.part.to(mass.device), mass)
        mean = mass @ place
        std = (mass[..., None] * (place - mean[:, None]) ** 2).sum(1).sqrt()
        shown = [parts / parts.amax(-1, keepdim=True), mean / self.far, std / self.far]
        return torch.cat([*shown, belief.found[:, None].to(torch.float32)], dim=1)

    def log_prob(self, belief: PlaceBelief, task: Any) -> Tensor:
        """Return the log density of a position in 1 / m²: the prior times the likelihood ratio of its cell."""
        cell = torch.cdist(task.position, self.tasks_on(task.position.device).position).argmin(1)
        mass = belief.log_mass.gather(1, cell[:, None])[:, 0]
        return self.log_density(task.position.norm(dim=-1)) + mass + math.log(self.count)


def _reach(cells: Tensor, radii: Callable[[Tensor], Tensor]) -> float:
    """Return the radius in metres of a disc around the centre of a cell that covers it, from many points."""
    share = (torch.arange(200) + 0.5) / 200
    edges = torch.tensor([0.0, 1.0])
    angle = (torch.arange(720) + 0.5) * (2.0 * math.pi / 720)
    places = radii(torch.cat([share, edges]))[:, None, None] * unit_vectors(angle)
    return 1.02 * float(torch.cdist(places.flatten(0, 1), cells).amin(1).amax())
