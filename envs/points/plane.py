"""Points in the plane: goals, steps, reach, and random positions."""

from __future__ import annotations

import functools
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.places import Ground
from metarl.core.family import Key

MAX_STEP = 0.1  # metres per axis and step


CELL = 0.05  # metres: side of a cell of the drawing grid


class Goal(NamedTuple):
    """The goal's position."""

    position: Tensor  # (B, 2) float32 metres


class Wind(NamedTuple):
    """The wind, which is added to every step."""

    drift: Tensor  # (B, 2) float32 metres per step


class Point(NamedTuple):
    """The agent's position."""

    position: Tensor  # (B, 2) float32 metres


def step_space() -> gymnasium.spaces.Box:
    """Return the action space: metres along x and y."""
    return gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)


def ground_of_goals(low: tuple[float, float], high: tuple[float, float], reach: float = 0.0) -> Ground:
    """Return the drawing grid for goals, from corner to corner; goals pay within `reach` metres."""
    columns, rows = (1 + round((top - bottom) / CELL) for bottom, top in zip(low, high, strict=True))
    return Ground(low, columns, rows, CELL, lambda task: {"goal": task.position}, reach)


def reach(horizon: int, step: float = MAX_STEP) -> float:
    """Return the reach of a point along an axis, in metres, plus one step to cover float32 rounding."""
    return step * (horizon + 1)


def moved(state: Point, action: Tensor) -> Tensor:
    """Return the position (B, 2) after an action, which is clipped to its range."""
    return state.position + action.clamp(-MAX_STEP, MAX_STEP)


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a cached tensor of the values: a rollout recorded as a CUDA graph must not copy from host memory."""
    return torch.tensor(values, device=device)


def uniform_in_ring(key: Key, inner: float, outer: float) -> Tensor:
    """Draw points uniformly over the square ring inner ≤ max norm ≤ outer: float32, shape ``key.shape + (2,)``."""
    u = rng.uniform(key, 3)
    # The area within max norm r grows as r²; on the square of that radius, draw a side and a position on it.
    radius = torch.sqrt(inner**2 + (outer**2 - inner**2) * u[..., 0])
    along = radius * (2.0 * u[..., 1] - 1.0)
    side = (u[..., 2] * 4).to(torch.int64)
    across = torch.where(side % 2 == 0, radius, -radius)
    x_first = side < 2
    return torch.stack([torch.where(x_first, across, along), torch.where(x_first, along, across)], dim=-1)
