"""Units: observations, actions and rewards as networks see them, the same in whatever units a family has them."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

NO_ACTION = -1
"""`Step.prev_action` of a Discrete space from 0 at a trial's start: no action came before. Encoders show zeros."""


ALIKE = 1e-6
"""Numbers whose standard deviation is less than this share of their size differ by rounding alone."""


def action_size(space: gymnasium.Space[Any]) -> int:
    """Length of an encoded action, and of a policy head's output: n for Discrete(n), A for a Box of shape (A,)."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"The action space must be Discrete or a one-dimensional Box, got {space}.")


def first_action(space: gymnasium.Space[Any]) -> int:
    """The first action of a Discrete space, which networks call 0; 0 for a Box."""
    return int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0


class ActionUnits(nn.Module):
    """Between a family's actions and a network's own, the same in whatever units the family has them.

    A network counts the actions of a Discrete space from 0, and measures those of a Box in the units of `action_units`,
    or in `unit` where that is given. Its distributions are over its own actions, and so are log-probabilities,
    entropies and divergences: of a Box they are densities per unit.
    """

    centre: Tensor
    unit: Tensor

    def __init__(self, space: gymnasium.Space[Any], unit: float | None = None) -> None:
        super().__init__()
        self.first = first_action(space)
        self.continuous = isinstance(space, gymnasium.spaces.Box)
        if isinstance(space, gymnasium.spaces.Box):
            centre, half_range = action_units(space)
            self.register_buffer("centre", centre, persistent=False)
            given = half_range if unit is None else torch.full_like(half_range, unit)
            self.register_buffer("unit", given, persistent=False)

    def to_family(self, own: Tensor) -> Tensor:
        """The family's actions for the network's ``(…)`` or ``(…, A)``."""
        if self.continuous:
            return self.centre + self.unit * own
        return own + self.first if self.first else own

    def to_own(self, action: Tensor) -> Tensor:
        """The other way round, up to rounding."""
        if self.continuous:
            return (action - self.centre) / self.unit
        return action - self.first if self.first else action


class Scaling(nn.Module):
    """Observations as vectors of a size that networks like, whatever their units.

    Each coordinate of a bounded observation space is scaled to [-1, 1]; those that lie within 0 … 1 (one-hot ones) stay
    as they are. Where the bounds say little of what is visited, `follows` scales by what was seen instead: `follow`
    tracks mean and variance, and what lies further than `LIMIT` standard deviations out is clipped. Until the first
    `follow` a coordinate without bounds is shown as 0, and so is one that has never changed.

    The convention has a `version`, which is part of the state. A state of version 1, which had no number, is loaded as
    what it was: raw coordinates until the first `follow`, no clipping, standard deviations averaged.
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
        self.number = self.VERSION  # `version` as an int: a look at a tensor would be a wait for the device
        low = torch.as_tensor(observation_space.low, dtype=torch.float32).flatten()
        high = torch.as_tensor(observation_space.high, dtype=torch.float32).flatten()
        # A zero of a one-hot vector must stay a zero. Bounds such as the largest float are none.
        known = (low.abs() < 1e30) & (high.abs() < 1e30) & (high > low)
        unit = (low == 0.0) & (high == 1.0)
        bounded = known & ~unit
        other = torch.where(unit, 1.0, 0.0) if follows else torch.ones_like(low)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0))
        self.register_buffer("scale", torch.where(bounded, 2 / (high - low), other))
        self.register_buffer("version", torch.tensor(self.VERSION))
        self.size = low.numel()

    def scaled(self, obs: Tensor, batch_dims: int) -> Tensor:
        """Observations with `batch_dims` leading dimensions and the space's own after them: ``(…, size)``."""
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
        """A state without a version is of version 1."""
        version = state_dict.setdefault(f"{prefix}version", torch.tensor(1))
        self.number = int(version)
        if self.number == 1:
            self._fill_in(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Add to a state of version 1 what it had not."""


def inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x > 0.0, 1.0 / x, 0.0)


def pooled(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], weight: Tensor | float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of two samples taken as one, in which the new one has the share `weight`.

    What lies between their means is in it, as it is not in the mean of their standard deviations (Chan et al. 1979).
    """
    (mean, std), (new_mean, new_std) = old, new
    between = weight * (1.0 - weight) * (new_mean - mean) ** 2
    variance = (1.0 - weight) * std**2 + weight * new_std**2 + between
    return torch.lerp(mean, new_mean, weight), variance.sqrt()


def mean_square(x: Tensor) -> Tensor:
    """Of the entries ``(…, M)`` that are not 0, ``(…)``; 0 if there are none.

    As the size of rewards it does not fall where they are rare.
    """
    square = x**2
    return square.sum(-1) / (square > 0.0).sum(-1).clamp_min(1)


def running_size(size: Tensor, batches: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """`size`, the root mean square of what was not 0 in so many `batches`, and their number, with one more of them.

    All batches with anything but 0 count alike.
    """
    new = mean_square(x.flatten())
    batches = batches + (new > 0.0)
    weight = torch.where(new > 0.0, 1.0 / batches, 0.0)
    return torch.lerp(size**2, new, weight).sqrt(), batches


def action_units(space: gymnasium.spaces.Box) -> tuple[Tensor, Tensor]:
    """Centre and unit of each coordinate of a Box of actions, ``(A,)`` each: what networks call 0 and 1.

    Half the range around its middle; without bounds 1 around 0, with one bound 1 around what lies 1 inside of it. A
    bound as far out as 1e30 is none, and the unit of a coordinate that can only be one number is 1.
    """
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (space.low, space.high))
    below, above = low.abs() < 1e30, high.abs() < 1e30
    one = torch.ones_like(low)
    half = torch.where(below & above & (high > low), (high - low) / 2, one)
    centre = torch.where(below, low + half, torch.where(above, high - half, torch.zeros_like(low)))
    return torch.where(high > low, centre, low), half


def no_action(space: gymnasium.Space[Any], rows: int, device: torch.device | str = "cpu") -> Tensor:
    """What stands for the previous action at a trial's start: one less than the first of a Discrete space.

    Of a Box, the centre of `action_units`, which is 0 where the range lies evenly around it or has no bounds.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return torch.full((rows,), int(space.start) + NO_ACTION, dtype=torch.int64, device=device)
    assert isinstance(space, gymnasium.spaces.Box)
    centre = action_units(space)[0]
    if not bool(centre.any()):  # made where it is needed: a copy from the host would not let a GPU record the reset
        return torch.zeros((rows, *space.shape), device=device)
    return centre.to(device).expand(rows, *space.shape).clone()
