"""Exact expectations over starts that are uniform in a rectangle, for the families' optima."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from metarl.envs.drawing.planes import XY
from metarl.envs.points.plane import MAX_STEP


def walked(horizon: int, device: torch.device) -> Tensor:
    """Return the largest distance that 1 … horizon steps cover along an axis: float64 (horizon,) metres."""
    return MAX_STEP * torch.arange(1, horizon + 1, device=device, dtype=torch.float64)


def over_starts(goal: Tensor, low: XY, high: XY, integral: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the mean (B, …) of a function of the distances to `goal` along both axes, over starts in a rectangle.

    ``integral(a, b)`` integrates it over distances up to a and b, float64 (B, 1) each. The rectangle is four such
    integrals, one per quadrant around the goal, subtracted where the goal lies outside.
    """
    quadrants: list[Tensor] = []
    for x_side, y_side in itertools.product((-1, 1), repeat=2):
        a = (high[0] - goal[:, :1].double()) if x_side > 0 else (goal[:, :1].double() - low[0])
        b = (high[1] - goal[:, 1:].double()) if y_side > 0 else (goal[:, 1:].double() - low[1])
        quadrants.append(a.sign() * b.sign() * integral(a.abs(), b.abs()))
    return torch.stack(quadrants).sum(0) / ((high[0] - low[0]) * (high[1] - low[1]))


def norms(a: Tensor, b: Tensor) -> Tensor:
    """Return ∫∫ √(x² + y²) over 0 ≤ x ≤ a, 0 ≤ y ≤ b."""
    a, b = a.clamp_min(1e-12), b.clamp_min(1e-12)
    return (2.0 * a * b * torch.hypot(a, b) + a**3 * torch.asinh(b / a) + b**3 * torch.asinh(a / b)) / 6.0


def disc_corner(a: Tensor, b: Tensor, r: float) -> Tensor:
    """Return the area of x² + y² ≤ r² within 0 ≤ x ≤ a, 0 ≤ y ≤ b, for a, b ≤ r."""
    segments = a * (r**2 - a**2).clamp_min(0.0).sqrt() + b * (r**2 - b**2).clamp_min(0.0).sqrt()
    cut = 0.5 * (segments + r**2 * (torch.asin(a / r) + torch.asin(b / r) - math.pi / 2))
    return torch.where(a**2 + b**2 <= r**2, a * b, cut)
