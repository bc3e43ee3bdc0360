"""Units: observations, actions and rewards in the units of networks, whatever the units of the family."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

NO_ACTION = -1
"""`Step.prev_action` at a trial's start, for a Discrete space that starts at 0. Encoders show it as zeros."""


ALIKE = 1e-6
"""Numbers whose standard deviation is less than this share of their size differ only by rounding."""


def action_size(space: gymnasium.Space[Any]) -> int:
    """Return the length of an encoded action and of a policy head's output: n for Discrete(n), A for a Box ``(A,)``.

    Raises ValueError for any other space.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"The action space must be Discrete or a one-dimensional Box, got {space}.")


def first_action(space: gymnasium.Space[Any]) -> int:
    """Return the first action of a Discrete space, which networks call 0; 0 for a Box."""
    return int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0


class ActionUnits(nn.Module):
    """Conversion between a family's actions and a network's own actions, which do not depend on the family's units.

    A network counts the actions of a Discrete space from 0, and measures those of a Box in the units of `action_units`.
    Distributions, log-probabilities, entropies and divergences are over its own actions; for a
    Box they are densities in these units.
    """

    centre: Tensor
    unit: Tensor

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        super().__init__()
        self.first = first_action(space)
        self.continuous = isinstance(space, gymnasium.spaces.Box)
        if isinstance(space, gymnasium.spaces.Box):
            centre, unit = action_units(space)
            self.register_buffer("centre", centre, persistent=False)
            self.register_buffer("unit", unit, persistent=False)

    def to_family(self, own: Tensor) -> Tensor:
        """Convert the network's actions ``(…)`` or ``(…, A)`` to the family's."""
        if self.continuous:
            return self.centre + self.unit * own
        return own + self.first if self.first else own

    def to_own(self, action: Tensor) -> Tensor:
        """Convert the family's actions to the network's: the inverse of `to_family`, up to rounding."""
        if self.continuous:
            return (action - self.centre) / self.unit
        return action - self.first if self.first else action


class Scaling(nn.Module):
    """Scaling of observations to vectors with coordinates of about 1, whatever their units.

    Each coordinate of a bounded observation space is scaled to [-1, 1]; coordinates with the bounds 0 and 1 (one-hot
    ones) stay as they are. With `follows`, for spaces whose bounds are far from the visited states, coordinates are
    standardised instead: `follow` tracks mean and variance, and values beyond `LIMIT` standard deviations are clipped.
    Until the first `follow` a coordinate without bounds is shown as 0, and so is one that has never changed.

    The convention has a `version`, which is part of the state. A state of version 1, which has no number, keeps its
    convention: raw coordinates until the first `follow`, no clipping, standard deviations averaged.
    """

    VERSION = 2
    LIMIT = 10.0

    centre: Tensor
    scale: Tensor
    version: Tensor

    def __init__(self, observation_space: gymnasium.Space[Any], follows: bool = False) -> None:
        super().__init__()
        if not isinstance(observation_space, gymnasium.spaces.Box):
            raise ValueError(f"The observation space must be a Box, got {observation_space}.")
        self.follows = follows
        self.number = self.VERSION  # `version` as an int: on a GPU, reading a tensor synchronises
        low = torch.as_tensor(observation_space.low, dtype=torch.float32).flatten()
        high = torch.as_tensor(observation_space.high, dtype=torch.float32).flatten()
        # A zero of a one-hot vector must stay zero. Bounds as large as the largest float mean "unbounded".
        known = (low.abs() < 1e30) & (high.abs() < 1e30) & (high > low)
        unit = (low == 0.0) & (high == 1.0)
        bounded = known & ~unit
        other = torch.where(unit, 1.0, 0.0) if follows else torch.ones_like(low)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0))
        self.register_buffer("scale", torch.where(bounded, 2 / (high - low), other))
        self.register_buffer("version", torch.tensor(self.VERSION))
        self.size = low.numel()

    def scaled(self, obs: Tensor, batch_dims: int) -> Tensor:
        """Scale observations with `batch_dims` leading dimensions before the space's own: ``(…, size)``."""
        x = (obs.flatten(batch_dims) - self.centre) * self.scale
        return x.clamp(-self.LIMIT, self.LIMIT) if self.follows and self.number > 1 else x

    def follow(self, obs: Tensor, mask: Tensor, weight: float) -> None:
        """Move mean and variance towards those of `obs` ``(T, B, *O)`` by `weight` in [0, 1].

        The variance is that of all batches taken as one (see `pooled`).
        """
        seen = obs[mask > 0].flatten(1)
        std, mean = torch.std_mean(seen, dim=0, correction=0)
        if self.number == 1:
            self.centre.lerp_(mean, weight)
            self.scale.copy_(1.0 / torch.lerp(1.0 / self.scale, std.clamp_min(1e-3), weight))
            return
        mean, std = pooled((self.centre, inverse(self.scale)), (mean, std), weight)
        self.centre.copy_(mean)
        self.scale.copy_(torch.where(std > ALIKE * mean.abs(), 1.0 / std, 0.0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load a state; one without a version is of version 1."""
        version = state_dict.setdefault(f"{prefix}version", torch.tensor(1))
        self.number = int(version)
        if self.number == 1:
            self._fill_in(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Add the entries that a state of version 1 lacks."""


def inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 where x is 0."""
    return torch.where(x > 0.0, 1.0 / x, 0.0)


def pooled(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], weight: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of two pooled samples, in which the new one has the share `weight`.

    Unlike the mean of both standard deviations, the result includes the distance of the means (Chan et al. 1979).
    """
    (mean, std), (new_mean, new_std) = old, new
    between = weight * (1.0 - weight) * (new_mean - mean) ** 2
    variance = (1.0 - weight) * std**2 + weight * new_std**2 + between
    return torch.lerp(mean, new_mean, weight), variance.sqrt()


def mean_square(x: Tensor) -> Tensor:
    """Return the mean square of the entries ``(…, M)`` that are not 0, ``(…)``; 0 if there are none.

    As a measure of the size of rewards, it does not depend on how rare rewards are.
    """
    square = x**2
    return square.sum(-1) / (square > 0.0).sum(-1).clamp_min(1)


def running_size(size: Tensor, batches: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Update `size`, the root mean square of the entries that are not 0 over `batches`, by the batch `x`.

    Returns the new size and number of batches. All batches that have an entry other than 0 have the same weight.
    """
    new = mean_square(x.flatten())
    batches = batches + (new > 0.0)
    weight = torch.where(new > 0.0, 1.0 / batches, 0.0)
    return torch.lerp(size**2, new, weight).sqrt(), batches


def action_units(space: gymnasium.spaces.Box) -> tuple[Tensor, Tensor]:
    """Return centre and unit of each coordinate of a Box of actions, ``(A,)`` each: networks call them 0 and 1.

    The centre is the middle of the range and the unit half the range. Without bounds they are 0 and 1; with one bound
    the unit is 1 and the centre lies 1 inside the bound. A bound beyond ±1e30 counts as none. If both bounds are equal
    the unit is 1.
    """
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (space.low, space.high))
    below, above = low.abs() < 1e30, high.abs() < 1e30
    one = torch.ones_like(low)
    half = torch.where(below & above & (high > low), (high - low) / 2, one)
    centre = torch.where(below, low + half, torch.where(above, high - half, torch.zeros_like(low)))
    return torch.where(high > low, centre, low), half


def no_action(space: gymnasium.Space[Any], rows: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the previous action at a trial's start, before any action: one less than a Discrete space's first action.

    For a Box it is the centre of `action_units`, which is 0 if the range is symmetric or has no bounds.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return torch.full((rows,), int(space.start) + NO_ACTION, dtype=torch.int64, device=device)
    assert isinstance(space, gymnasium.spaces.Box)
    centre = action_units(space)[0]
    if not bool(centre.any()):  # made on the device: a copy from the host would prevent the recording of a CUDA graph
        return torch.zeros((rows, *space.shape), device=device)
    return centre.to(device).expand(rows, *space.shape).clone()
