"""Points in the plane: goals, steps, places drawn at random, and expectations over random starts."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key
from metarl.envs.drawing.planes import XY

MAX_STEP = 0.1  # metres per axis and step


class Goal(NamedTuple):
    """The place to go to."""

    position: Tensor  # (B, 2) float32 metres


class Point(NamedTuple):
    """The agent's place."""

    position: Tensor  # (B, 2) float32 metres


def step_space() -> gymnasium.spaces.Box:
    """The action space: metres along x and y."""
    return gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)


def reach(horizon: int, step: float = MAX_STEP) -> float:
    """The farthest that a point can get along an axis, in metres, with one step to spare for float32's rounding."""
    return step * (horizon + 1)


def moved(state: Point, action: Tensor) -> Tensor:
    """The position (B, 2) after an action, which is clipped to its range."""
    return state.position + action.clamp(-MAX_STEP, MAX_STEP)


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A tensor of the values, made once: a recorded rollout must not copy from the host's memory."""
    return torch.tensor(values, device=device)


def walked(horizon: int, device: torch.device) -> Tensor:
    """The farthest that a point can get along an axis in 1 … horizon steps: float64 (horizon,) metres."""
    return MAX_STEP * torch.arange(1, horizon + 1, device=device, dtype=torch.float64)


def uniform_in_ring(key: Key, inner: float, outer: float) -> Tensor:
    """Points uniform over the square ring inner ≤ max norm ≤ outer: float32, shape ``key.shape + (2,)``."""
    u = rng.uniform(key, 3)
    # The area within max norm r grows as r²; on the square of that radius, a side and a place on it.
    radius = torch.sqrt(inner**2 + (outer**2 - inner**2) * u[..., 0])
    along = radius * (2.0 * u[..., 1] - 1.0)
    side = (u[..., 2] * 4).to(torch.int64)
    across = torch.where(side % 2 == 0, radius, -radius)
    x_first = side < 2
    return torch.stack([torch.where(x_first, across, along), torch.where(x_first, along, across)], dim=-1)


def over_starts(goal: Tensor, low: XY, high: XY, integral: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean (B, …) over starts uniform in a rectangle of a function of their distances to `goal` along the two axes.

    ``integral(a, b)`` is its integral over distances up to a and b, float64 (B, 1) each. The rectangle is four such
    integrals, one per quadrant around the goal, subtracted where the goal lies outside.
    """
    quadrants: list[Tensor] = []
    for x_side, y_side in itertools.product((-1, 1), repeat=2):
        a = (high[0] - goal[:, :1].double()) if x_side > 0 else (goal[:, :1].double() - low[0])
        b = (high[1] - goal[:, 1:].double()) if y_side > 0 else (goal[:, 1:].double() - low[1])
        quadrants.append(a.sign() * b.sign() * integral(a.abs(), b.abs()))
    return torch.stack(quadrants).sum(0) / ((high[0] - low[0]) * (high[1] - low[1]))


def norms(a: Tensor, b: Tensor) -> Tensor:
    """∫∫ √(x² + y²) over 0 ≤ x ≤ a, 0 ≤ y ≤ b."""
    a, b = a.clamp_min(1e-12), b.clamp_min(1e-12)
    return (2.0 * a * b * torch.hypot(a, b) + a**3 * torch.asinh(b / a) + b**3 * torch.asinh(a / b)) / 6.0


def disc_corner(a: Tensor, b: Tensor, r: float) -> Tensor:
    """Area of x² + y² ≤ r² within 0 ≤ x ≤ a, 0 ≤ y ≤ b, for a, b ≤ r."""
    segments = a * (r**2 - a**2).clamp_min(0.0).sqrt() + b * (r**2 - b**2).clamp_min(0.0).sqrt()
    cut = 0.5 * (segments + r**2 * (torch.asin(a / r) + torch.asin(b / r) - math.pi / 2))
    return torch.where(a**2 + b**2 <= r**2, a * b, cut)
