"""Tasks that are places, such as goals: the ground on which they lie, and beliefs as maps of the ground."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Ground(NamedTuple):
    """A rectangle of square cells on which the tasks of a family are places.

    The observation is the agent's own place, two numbers. `TaskFamily.ground` makes the ground, for pictures of
    beliefs.
    """

    low: tuple[float, float]  # x, y of the centre of the lower left cell
    columns: int
    rows: int
    side: float  # length of a cell's side, in the unit of the observation
    places: Callable[[Any], dict[str, Tensor]]  # tasks -> their places, each (B, 2), by name, such as "key" and "door"
    reach: float = 0.0  # distance from its place within which a task gives a reward

    def points(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the centres of the cells, row by row from the lower left, float32 ``(rows · columns, 2)``."""
        xs = self.low[0] + self.side * torch.arange(self.columns, dtype=torch.float64)
        ys = self.low[1] + self.side * torch.arange(self.rows, dtype=torch.float64)
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], dim=1).to(torch.float32).to(device)


def goal_masses(ground: Ground, tasks: Any, mass: Tensor, points: Tensor) -> dict[str, Tensor]:
    """Return the mass of tasks at each of the ground's `points`, by the name of the place, float32 ``(B, P)``.

    `mass` is ``(B, M)``, and `tasks` has B · M rows (`Belief.weighted_tasks`).
    """
    return {
        name: spread(points, places.reshape(*mass.shape, 2).to(torch.float32), mass)
        for name, places in ground.places(tasks).items()
    }


def spread(points: Tensor, places: Tensor, mass: Tensor) -> Tensor:
    """Distribute masses ``(B, M)`` at `places` ``(B, M, 2)`` over the `points` ``(P, 2)`` of a lattice: ``(B, P)``.

    The mass of a place is split bilinearly between the four points around it; a place outside the lattice counts to its
    edge. The sum over a whole lattice is therefore the sum of the masses.
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
