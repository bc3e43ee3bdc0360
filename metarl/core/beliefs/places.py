"""Tasks that are places, such as goals: the ground on which they lie, and beliefs about them as maps of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Ground(NamedTuple):
    """A rectangle of square cells on which the tasks of a family are places.

    The agent's own place is the observation, two numbers. `TaskFamily.ground` makes it, for pictures of beliefs.
    """

    low: tuple[float, float]  # x, y of the middle of the lower left cell
    columns: int
    rows: int
    side: float  # of a cell, in the unit of the observation
    places: Callable[[Any], dict[str, Tensor]]  # tasks -> their places, each (B, 2), by name, such as "key" and "door"
    reach: float = 0.0  # how near to its place a task pays

    def points(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the middles of the cells, row by row from the lower left one: float32 ``(rows · columns, 2)``."""
        xs = self.low[0] + self.side * torch.arange(self.columns, dtype=torch.float64)
        ys = self.low[1] + self.side * torch.arange(self.rows, dtype=torch.float64)
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], dim=1).to(torch.float32).to(device)


def goal_masses(ground: Ground, tasks: Any, mass: Tensor, points: Tensor) -> dict[str, Tensor]:
    """Return the mass of tasks at each of the ground's `points`, for each name of a place: float32 ``(B, P)``.

    `mass` is ``(B, M)``, and `tasks` has B · M rows (`Belief.weighted_tasks`).
    """
    return {
        name: spread(points, places.reshape(*mass.shape, 2).to(torch.float32), mass)
        for name, places in ground.places(tasks).items()
    }


def spread(points: Tensor, places: Tensor, mass: Tensor) -> Tensor:
    """Share out masses ``(B, M)`` at `places` ``(B, M, 2)`` among the `points` ``(P, 2)`` of a lattice: ``(B, P)``.

    A place between points gives to each of the four around it, the more the nearer it is; one outside the lattice gives
    to its edge. So the sum over a whole lattice is the sum of the masses.
    """
    weights, numbers = [], []
    for axis in (0, 1):
        lines, number = torch.unique(points[:, axis], return_inverse=True)
        numbers.append(number)
        at = places[..., axis].clamp(float(lines[0]), float(lines[-1]))
        step = lines.diff().min() if len(lines) > 1 else torch.ones_like(lines[0])
        weight = (1.0 - (at[..., None] - lines).abs() / step).clamp_min(0.0)  # (B, M, lines)
        weights.append(weight / weight.sum(-1, keepdim=True))  # 1 up to rounding
    x, y = weights
    whole: Tensor = (y * mass[..., None]).transpose(1, 2) @ x  # (B, rows, columns)
    found: Tensor = whole[:, numbers[1], numbers[0]]
    return found
