"""Beliefs over goals in the plane, from rewards that are distances."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.points.beliefs import ROUNDING
from metarl.envs.points.plane import Goal, Point, moved

CELLS = 720
"""Cells of the circle on which the goal lies after the first reward."""


class Region(NamedTuple):
    """The region of the goals, which are uniform over inner ≤ max norm ≤ outer."""

    outer: float  # metres
    inner: float = 0.0  # metres

    def holds(self, place: Tensor, margin: Tensor | float = ROUNDING) -> Tensor:
        """Return which positions ``(…, 2)`` are inside, or at most `margin` metres outside: bool ``(…)``."""
        far = place.abs().amax(-1)
        return (far <= self.outer + margin) & (far >= self.inner - margin)

    def squares(self, device: torch.device, side: float = 0.025) -> Tensor:
        """Return the centres of squares of about this side that tile the region: float32 ``(N, 2)``."""
        count = round(2.0 * self.outer / side)
        line = self.outer * ((2.0 * torch.arange(count, device=device) + 1.0) / count - 1.0)
        every = torch.cartesian_prod(line, line)
        return every[self.holds(every)]

    @property
    def area(self) -> float:
        """The area in m²."""
        return 4.0 * (self.outer**2 - self.inner**2)


class Sighted(NamedTuple):
    """The circle given by the first reward, and the log mass of its arcs."""

    log_mass: Tensor  # (B, CELLS) float32: log mass of equal arcs of the circle
    centre: Tensor  # (B, 2) float32 metres: the position at the first reward
    radius: Tensor  # (B,) float32 metres: the distance that it gave
    rewards: Tensor  # (B,) int64: observed rewards
    position: Tensor  # (B, 2) float32 metres: the position before the next step
    steps: Tensor  # (B,) int64: steps taken in, the first observation included


class GoalByDistance(Belief):
    """The belief over a goal that is uniform over a region, from rewards equal to minus its distance.

    After the first reward it is uniform over the part of a circle inside the region. An arc of this circle,
    of half a degree, is ruled out once no goal on it has an observed distance; three positions not on one line
    leave one or two arcs. So in the end the mean is off by an arc at most: after 12 random actions on training tasks by
    0.0008 m in the mean and 0.0028 m at most in Navigation2D, 0.0023 m and 0.0097 m in PointRobot. The end of an
    episode carries less information than the distance, and is not used.

    `features` are the mean and standard deviation of both coordinates, in units of the region's half side, and whether
    a reward was observed. The density of a task is per area before the first reward, and per length of the circle
    after it.
    """

    size = 5

    def __init__(self, region: Region, cells: int = CELLS) -> None:
        self.region, self.cells = region, cells

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Sighted:
        mass = torch.full((rows, self.cells), -math.log(self.cells), device=device)
        place, zeros = torch.zeros(rows, 2, device=device), torch.zeros(rows, device=device)
        count = zeros.to(torch.int64)
        return Sighted(mass, place, zeros, count, place, count)

    def posterior(self, belief: Sighted, step: Step) -> Sighted:
        place, distance = moved(Point(belief.position), step.prev_action), -step.prev_reward
        told = belief.steps > 0  # the first step of a trial has no reward
        first = told & (belief.rewards == 0)
        centre = torch.where(first[:, None], place, belief.centre)
        radius = torch.where(first, distance, belief.radius)
        nearest, farthest = self._ranges(centre, radius, place)
        possible = (farthest + ROUNDING >= distance[:, None]) & (nearest - ROUNDING <= distance[:, None])
        half = radius[:, None] * math.pi / self.cells + ROUNDING
        inside = self.region.holds(self._middles(centre, radius), half)
        possible = torch.where(first[:, None], inside, possible) | ~told[:, None]
        log_mass = updated(belief.log_mass, torch.where(possible, 0.0, -torch.inf))
        return Sighted(log_mass, centre, radius, belief.rewards + told, step.obs, belief.steps + 1)

    def features(self, belief: Sighted) -> Tensor:
        seen = (belief.rewards > 0)[:, None]
        mean, std = self.moments(belief)
        return torch.cat([mean / self.region.outer, std / self.region.outer, seen.to(torch.float32)], dim=1)

    def task_mean(self, belief: Sighted) -> Tensor:
        return self.moments(belief)[0]

    def moments(self, belief: Sighted) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of both coordinates in metres: float32 ``(B, 2)`` each."""
        middles, mass = self._middles(belief.centre, belief.radius), belief.log_mass.exp()[..., None]
        mean = (mass * middles).sum(1)
        std = (mass * (middles - mean[:, None]) ** 2).sum(1).sqrt()
        seen, (outer, inner) = (belief.rewards > 0)[:, None], self.region
        of_region = math.sqrt((outer**4 - inner**4) / (outer**2 - inner**2) / 3.0)
        return torch.where(seen, mean, 0.0), torch.where(seen, std, of_region)

    def log_prob(self, belief: Sighted, task: Goal) -> Tensor:
        away = task.position - belief.centre
        cell = (torch.atan2(away[:, 1], away[:, 0]) * self.cells / (2.0 * math.pi)).floor().to(torch.int64)
        mass = belief.log_mass.gather(1, cell.remainder(self.cells)[:, None])[:, 0]
        density = mass - (belief.radius * 2.0 * math.pi / self.cells).clamp_min(1e-9).log()
        on = (away.norm(dim=-1) - belief.radius).abs() <= ROUNDING
        before = torch.where(self.region.holds(task.position), -math.log(self.region.area), -torch.inf)
        return torch.where(belief.rewards > 0, torch.where(on, density, -torch.inf), before)

    def weighted_tasks(self, belief: Sighted) -> tuple[Goal, Tensor]:
        """Return the centres of the arcs, and of small squares, which hold the mass before the first reward."""
        middles, device = self._middles(belief.centre, belief.radius), belief.centre.device
        squares = self.region.squares(device)
        seen, rows = (belief.rewards > 0)[:, None], len(belief.centre)
        before = torch.full((rows, len(squares)), 1.0 / len(squares), device=device)
        mass = torch.cat([torch.where(seen, belief.log_mass.exp(), 0.0), torch.where(seen, 0.0, before)], dim=1)
        return Goal(torch.cat([middles, squares.expand(rows, -1, -1)], dim=1).flatten(0, 1)), mass

    def _middles(self, centre: Tensor, radius: Tensor) -> Tensor:
        """Return the centres of the arcs, float32 ``(B, cells, 2)``."""
        return self._points(centre, radius, torch.arange(self.cells, device=centre.device) + 0.5)

    def _points(self, centre: Tensor, radius: Tensor, number: Tensor) -> Tensor:
        angle = number * (2.0 * math.pi / self.cells)
        return centre[:, None] + radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)

    def _ranges(self, centre: Tensor, radius: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest distance from a position to each arc: float32 ``(B, cells)`` each."""
        edges = self._points(centre, radius, torch.arange(self.cells + 1, device=place.device))
        ends = (place[:, None] - edges).norm(dim=-1)
        nearest, farthest = (pick(ends[:, :-1], ends[:, 1:]) for pick in (torch.minimum, torch.maximum))
        # On the line through the place and the centre the distance is least, and beyond the centre it is greatest.
        x, y = (place - centre).unbind(-1)
        away = (place - centre).norm(dim=-1)
        towards = (y.atan2(x) * self.cells / (2.0 * math.pi)).remainder(self.cells)[:, None]
        arc = torch.arange(self.cells, device=place.device)
        here = [((towards + turn).remainder(self.cells) - arc - 0.5).abs() <= 0.501 for turn in (0.0, self.cells / 2)]
        least, greatest = (radius - away).abs()[:, None], (radius + away)[:, None]
        return torch.where(here[0], least, nearest), torch.where(here[1], greatest, farthest)
