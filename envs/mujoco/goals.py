"""The goals that robots are given: a speed, a direction, a place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Velocity(NamedTuple):
    """The speed along x that is wanted."""

    velocity: Tensor  # (B,) float32 m/s


class Direction(NamedTuple):
    """The way to run along x."""

    direction: Tensor  # (B,) float32, 1 forwards or -1 backwards


class Heading(NamedTuple):
    """The way to walk in the plane."""

    direction: Tensor  # (B, 2) float32, a unit vector


class Place(NamedTuple):
    """The place to walk to."""

    position: Tensor  # (B, 2) float32 metres


def both_ways() -> Direction:
    """The two directions."""
    return Direction(torch.tensor([-1.0, 1.0]))


def way(task: Direction) -> str:
    """The direction of the first row in words."""
    return "forwards" if float(task.direction[0]) > 0 else "backwards"


def along_x() -> Heading:
    """The two headings along x."""
    return Heading(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def unit_vectors(angle: Tensor) -> Tensor:
    """(B, 2) of angles (B,) in rad."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1)
