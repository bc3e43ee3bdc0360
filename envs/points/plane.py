"""Points in the plane: their goals, steps and reach, and places drawn at random."""

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


CELL = 0.05  # metres: the side of a cell of the ground


class Goal(NamedTuple):
    """The place to go to."""

    position: Tensor  # (B, 2) float32 metres


class Wind(NamedTuple):
    """The wind: what is added to every step."""

    drift: Tensor  # (B, 2) float32 metres per step


class Point(NamedTuple):
    """The agent's place."""

    position: Tensor  # (B, 2) float32 metres


def step_space() -> gymnasium.spaces.Box:
    """The action space: metres along x and y."""
    return gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)


def ground_of_goals(low: tuple[float, float], high: tuple[float, float], reach: float = 0.0) -> Ground:
    """The ground for goals, from one corner to the other; goals pay within `reach` metres."""
    columns, rows = (1 + round((top - bottom) / CELL) for bottom, top in zip(low, high, strict=True))
    return Ground(low, columns, rows, CELL, lambda task: {"goal": task.position}, reach)


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
