"""Units: conversion between the action units of families and of networks."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.core import rng

NO_ACTION = -1
"""`Step.prev_action` at the start of a trial, for a (Multi)Discrete space that starts at 0. It is encoded as zeros."""


ALIKE = 1e-6
"""Numbers whose standard deviation is less than this fraction of their magnitude differ only by rounding."""


def action_size(space: gymnasium.Space[Any]) -> int:
    """Return the length of an encoded action, which is also that of a policy head's output.

    It is n for Discrete(n), the sum of nvec for MultiDiscrete(nvec), and A for a Box ``(A,)``. Raises ValueError for
    any other space.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    sizes = component_sizes(space)
    if sizes is not None:
        return sum(sizes)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"The action space must be Discrete, or a one-dimensional MultiDiscrete or Box, got {space}.")


def component_sizes(space: gymnasium.Space[Any]) -> tuple[int, ...] | None:
    """Return the number of choices of each component of a one-dimensional MultiDiscrete space; None for others."""
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        return tuple(space.nvec.tolist())
    return None


def first_action(space: gymnasium.Space[Any]) -> int:
    """Return the first action of a Discrete space, which networks number 0; 0 for other spaces."""
    return int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0


def first_actions(space: spaces.MultiDiscrete) -> Tensor:
    """Return the first choice of each component, which networks number 0: int64 ``(A,)``."""
    return torch.as_tensor(space.start, dtype=torch.int64)


def one_hot_places(space: spaces.MultiDiscrete) -> tuple[Tensor, Tensor]:
    """Return the component and the choice of each entry of an encoded action, both int64 ``(sum(nvec),)``.

    The encoding of an action ``(…, A)`` is ``action[..., component] == choice``: the concatenated one-hot encodings of
    its components. "No action" is encoded as zeros.
    """
    sizes = torch.as_tensor(space.nvec, dtype=torch.int64)
    component = torch.arange(len(sizes)).repeat_interleave(sizes)
    within = torch.cat([torch.arange(int(size)) for size in sizes])
    return component, within + first_actions(space)[component]


def uniform_choices(key: Tensor, first: Tensor, sizes: Tensor) -> Tensor:
    """Draw a uniformly random action per key ``(B,)``, int64 ``(B, A)``.

    `first` and `sizes`, int64 ``(A,)``, are the first choice of each component and its number of choices.
    """
    drawn = (rng.uniform(key, len(sizes)) * sizes).to(torch.int64)
    return torch.minimum(drawn, sizes - 1) + first


class ActionUnits(nn.Module):
    """Converts between a family's actions and a network's own actions, which do not depend on the family's units.

    A network counts the actions of a Discrete space, and the choices of each component of a MultiDiscrete one, from 0.
    It measures Box actions in the units of `action_units`. Distributions, log-probabilities, entropies and divergences
    refer to the network's own actions; for a Box they are densities in these units.
    """

    centre: Tensor
    unit: Tensor
    starts: Tensor

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        super().__init__()
        self.first = first_action(space)
        self.continuous = isinstance(space, gymnasium.spaces.Box)
        self.sizes = component_sizes(space)
        if isinstance(space, spaces.MultiDiscrete):
            self.register_buffer("starts", first_actions(space), persistent=False)
        if isinstance(space, gymnasium.spaces.Box):
            centre, unit = action_units(space)
            self.register_buffer("centre", centre, persistent=False)
            self.register_buffer("unit", unit, persistent=False)

    def to_family(self, own: Tensor) -> Tensor:
        """Convert the network's actions ``(…)`` or ``(…, A)`` to the family's."""
        if self.continuous:
            return self.centre + self.unit * own
        if self.sizes is not None:
            return own + self.starts
        return own + self.first if self.first else own

    def to_own(self, action: Tensor) -> Tensor:
        """Convert the family's actions to the network's: the inverse of `to_family`, up to rounding."""
        if self.continuous:
            return (action - self.centre) / self.unit
        if self.sizes is not None:
            return action - self.starts
        return action - self.first if self.first else action


def inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 where x is 0."""
    return torch.where(x > 0.0, 1.0 / x, 0.0)


def action_units(space: gymnasium.spaces.Box) -> tuple[Tensor, Tensor]:
    """Return the centre and the unit of each dimension of a Box of actions, ``(A,)`` each.

    A network's own action 0 is the centre, and 1 is one unit above it. The centre is the middle of the range and the
    unit half the range. Without bounds they are 0 and 1; with one bound the unit is 1 and the centre is 1 inside the
    bound. A bound beyond ±1e30 counts as none. If both bounds are equal, the unit is 1.
    """
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (space.low, space.high))
    below, above = low.abs() < 1e30, high.abs() < 1e30
    one = torch.ones_like(low)
    half = torch.where(below & above & (high > low), (high - low) / 2, one)
    centre = torch.where(below, low + half, torch.where(above, high - half, torch.zeros_like(low)))
    return torch.where(high > low, centre, low), half


def no_action(space: gymnasium.Space[Any], rows: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the previous action at the start of a trial, before any action.

    It is one less than the first action of a Discrete space, and of each component of a MultiDiscrete space. For a Box
    it is the centre of `action_units`, which is 0 if the range is symmetric or unbounded.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return torch.full((rows,), int(space.start) + NO_ACTION, dtype=torch.int64, device=device)
    if isinstance(space, spaces.MultiDiscrete):  # created on the device, as below
        firsts = space.start.tolist()
        columns = [torch.full((rows,), first + NO_ACTION, dtype=torch.int64, device=device) for first in firsts]
        return torch.stack(columns, dim=-1)
    assert isinstance(space, gymnasium.spaces.Box)
    centre = action_units(space)[0]
    if not bool(centre.any()):  # created on the device, since a copy from the host cannot be part of a CUDA graph
        return torch.zeros((rows, *space.shape), device=device)
    return centre.to(device).expand(rows, *space.shape).clone()
