"""The goals of robots: a speed, a direction, a position."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Velocity(NamedTuple):
    """The target speed along x."""

    velocity: Tensor  # (B,) float32 m/s


class Direction(NamedTuple):
    """The target direction along x."""

    direction: Tensor  # (B,) float32, 1 forwards or -1 backwards


class Heading(NamedTuple):
    """The target direction in the plane."""

    direction: Tensor  # (B, 2) float32, a unit vector


class Place(NamedTuple):
    """The target position."""

    position: Tensor  # (B, 2) float32 metres


def both_ways() -> Direction:
    """Return the two directions."""
    return Direction(torch.tensor([-1.0, 1.0]))


def way(task: Direction) -> str:
    """Describe the direction of the first row."""
    return "forwards" if float(task.direction[0]) > 0 else "backwards"


def along_x() -> Heading:
    """Return the two headings along x."""
    return Heading(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def unit_vectors(angle: Tensor) -> Tensor:
    """Return unit vectors (B, 2) of angles (B,) in rad."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1)
