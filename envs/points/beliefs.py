"""Beliefs over goals on a half circle, on a grid of angles, and over the wind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, GridBelief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.points.plane import Goal, Point, Wind, moved

CELLS = 720
"""Cells of the grid, each a quarter of a degree."""


SHOWN = 90
"""Number of equal arcs whose masses are features."""


ROUNDING = 2e-6
"""Largest float32 rounding error of a distance, in metres."""


class Searched(NamedTuple):
    """The angles that are still possible, and the position before the next step."""

    log_mass: Tensor  # (B, M) float32
    position: Tensor  # (B, 2) float32 metres
    steps: Tensor  # (B,) int64: steps taken in, the first observation included


class GoalOnArc(GridBelief):
    """The belief over a goal at a uniform angle on a half circle of radius 1, from rewards that depend on its distance.

    A cell of the grid is ruled out once no goal in it explains an observed reward; a cell at the edge of the disc
    that pays is kept whole. Next to a grid of 5760 cells, along trials that visit points of the arc, half the sum of
    the masses' differences is 0.0034 (SparsePointRobot) and 0.0030 (SemiCircle) in the mean over the steps before the
    goal is found. Over all steps it is 0.0019, 0.0001 with ``dense=True``, and 0.036 in SemiCircle, where only the
    disc's edge tells more about a goal that was found, so that in the end few cells are left.

    `features` are the masses of 90 equal arcs over that of the likeliest; then, in metres along x and y, mean and
    standard deviation of the goal's place, and how far off the nearest place is where it may be.
    """

    def __init__(self, distances: Callable[[Tensor], tuple[Tensor, Tensor]], side: float, cells: int = CELLS) -> None:
        """Create the belief for the upper (`side` 1) or lower (-1) half circle.

        ``distances(reward)`` gives the smallest and the largest distance to the goal after a step with this reward.
        """
        middles = _on_circle((torch.arange(cells) + 0.5) * math.pi / cells)
        super().__init__(Goal(side * middles))
        self.distances, self.side, self.size = distances, side, SHOWN + 6

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Searched:
        steps = torch.zeros(rows, dtype=torch.int64, device=device)
        return Searched(self.uniform(rows, device), torch.zeros(rows, 2, device=device), steps)

    def posterior(self, belief: Searched, step: Step) -> Searched:
        nearest, farthest = self._ranges(moved(Point(belief.position), step.prev_action))
        least, greatest = self.distances(step.prev_reward)
        possible = (farthest + ROUNDING >= least[:, None]) & (nearest - ROUNDING <= greatest[:, None])
        first = belief.steps == 0  # the first step of a trial follows no action
        likelihood = torch.where(possible | first[:, None], 0.0, -torch.inf)
        return Searched(updated(belief.log_mass, likelihood), step.obs, belief.steps + 1)

    def _ranges(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest distance from a position ``(B, 2)`` to each cell: ``(B, M)`` each."""
        edges = torch.arange(self.count + 1, device=place.device) * (math.pi / self.count)
        place = self.side * place
        x, y = place[:, None].unbind(-1)
        ends = (place[:, None] - _on_circle(edges)).norm(dim=-1)  # (B, M + 1)
        nearest, farthest = (pick(ends[:, :-1], ends[:, 1:]) for pick in (torch.minimum, torch.maximum))
        # On the ray from the centre through the position the distance is smallest, opposite to it largest.
        radius = place.norm(dim=-1, keepdim=True)
        before, beyond = ((edges[:-1] <= angle) & (angle <= edges[1:]) for angle in (y.atan2(x), (-y).atan2(-x)))
        return torch.where(before, (1.0 - radius).abs(), nearest), torch.where(beyond, 1.0 + radius, farthest)

    def features(self, belief: Searched) -> Tensor:
        probs, places = self.probs(belief), self.tasks_on(belief.log_mass.device).position
        arcs = probs.reshape(len(probs), SHOWN, -1).sum(-1)
        mean = probs @ places
        std = (probs @ places**2 - mean**2).clamp_min(0.0).sqrt()
        away = places - belief.position[:, None]  # (B, M, 2)
        distance = torch.where(probs > 0.0, away.norm(dim=-1), torch.inf)
        nearest = away[torch.arange(len(away), device=away.device), distance.argmin(-1)]
        return torch.cat([arcs / arcs.amax(-1, keepdim=True), mean, std, nearest], dim=1)

    def log_prob(self, belief: Searched, task: Goal) -> Tensor:
        """Return the log density of a goal's angle, in 1 / radians; minus infinity off the half circle."""
        x, y = (self.side * task.position).unbind(-1)
        angle = torch.atan2(y, x)
        cell = (angle * self.count / math.pi).floor().to(torch.int64)
        mass = belief.log_mass.gather(1, cell.clamp(0, self.count - 1)[:, None])[:, 0]
        # Rounding may move the angle 0 slightly below 0.
        on = (angle > -1e-5) & ((task.position.norm(dim=-1) - 1.0).abs() < 1e-4)
        return torch.where(on, mass + math.log(self.count / math.pi), -torch.inf)


class WindState(NamedTuple):
    """The wind, once it was observed, and the position before the next step."""

    drift: Tensor  # (B, 2) float32 metres per step; zeros while unknown
    known: Tensor  # (B,) bool
    position: Tensor  # (B, 2) float32 metres
    steps: Tensor  # (B,) int64: steps taken in, the first observation included


class FeltWind(Belief):
    """The belief over a wind that one step reveals, for episodes of at least two steps.

    `log_density` ``(wind)`` is that of the prior. After a step the density is uniform over the square of winds that
    float32 cannot distinguish from the observed one, of side 4e-6 m per step; `features` are whether the wind is
    known, and the wind in units of `scale`.
    """

    size = 3

    def __init__(self, log_density: Callable[[Tensor], Tensor], scale: float) -> None:
        self.log_density, self.scale = log_density, scale

    def prior(self, rows: int, device: torch.device | str = "cpu") -> WindState:
        zeros = torch.zeros(rows, 2, device=device)
        steps = torch.zeros(rows, dtype=torch.int64, device=device)
        return WindState(zeros, steps > 0, zeros, steps)

    def posterior(self, belief: WindState, step: Step) -> WindState:
        felt = step.obs - moved(Point(belief.position), step.prev_action)
        # After the end of an episode the observation is the start of the next one.
        tells = (belief.steps > 0) & (step.prev_done < 0.5) & ~belief.known
        drift = torch.where(tells[:, None], felt, belief.drift)
        return WindState(drift, belief.known | tells, step.obs, belief.steps + 1)

    def features(self, belief: WindState) -> Tensor:
        return torch.cat([belief.known[:, None].to(torch.float32), belief.drift / self.scale], dim=1)

    def task_mean(self, belief: WindState) -> Tensor:
        return belief.drift  # 0 before it is known: the priors are symmetric

    def log_prob(self, belief: WindState, task: Wind) -> Tensor:
        """Return the log density of a wind, in 1 / (metres per step)²."""
        near = ((task.drift - belief.drift).abs() <= ROUNDING).all(-1)
        after = torch.where(near, -2.0 * math.log(2.0 * ROUNDING), -torch.inf)
        return torch.where(belief.known, after, self.log_density(task.drift))


def square(side: float) -> Callable[[Tensor], Tensor]:
    """Return the log density of the uniform distribution over the square [-side, side]²."""
    return lambda wind: torch.where((wind.abs() <= side).all(-1), -2.0 * math.log(2.0 * side), -torch.inf)


def square_ring(inner: float, outer: float) -> Callable[[Tensor], Tensor]:
    """Return the log density of the uniform distribution over the square ring inner ≤ max norm ≤ outer."""

    def log_density(wind: Tensor) -> Tensor:
        far = wind.abs().amax(-1)
        inside = (far >= inner - ROUNDING) & (far <= outer + ROUNDING)
        return torch.where(inside, -math.log(4.0 * (outer**2 - inner**2)), -torch.inf)

    return log_density


def _on_circle(angle: Tensor) -> Tensor:
    """Return points of the unit circle, float32 ``(…, 2)``."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1)
