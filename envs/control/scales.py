"""Helpers of classic control: task multipliers, uniform starts, angles."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import short
from metarl.core.family import Key

SPREAD = 1.5  # largest multiplier of `train` and `test`; the smallest is its inverse
BEYOND = 2.0  # factor of the largest multiplier of `ood`
MOST = 10.0  # largest spread


def checked_spread(spread: float) -> float:
    """Return `spread` as a float. Raises ValueError if it is not a number above 1, up to 10."""
    if isinstance(spread, bool) or not isinstance(spread, (int, float)) or not 1.0 < spread <= MOST:
        raise ValueError(f"spread must be a number above 1, up to {MOST:g}, got {short(spread)}.")
    return float(spread)


def multipliers(keys: Key, n: int, split: str, spread: float = SPREAD) -> tuple[Tensor, ...]:
    """Draw `n` independent log-uniform multipliers, float32 ``keys.shape`` each.

    They lie in [1 / spread, spread]; for the split `ood`, outside this range by a factor of up to 2.
    """
    u = rng.uniform(keys, 2 * n)
    if split == "ood":
        # 1 - u lies in (0, 1]; use exp, since the last bit of a power depends on the batch size.
        log = math.log(spread) + math.log(BEYOND) * (1.0 - u[..., :n])
        log = torch.where(u[..., n:] < 0.5, log, -log)
    else:
        log = math.log(spread) * (2.0 * u[..., :n] - 1.0)
    return torch.exp(log).T.contiguous().unbind(0)


def scale_space(kind: type[tuple[Any, ...]], spread: float = SPREAD) -> dict[str, gymnasium.Space[Any]]:
    """Return the training range of a task's multipliers, for `TaskFamily.task_space`."""
    fields: tuple[str, ...] = getattr(kind, "_fields", ())
    return {name: gymnasium.spaces.Box(1.0 / spread, spread, (), np.float32) for name in fields}


def uniform_in(key: Key, n: int, bound: float) -> tuple[Tensor, ...]:
    """Draw `n` numbers ~ U[-bound, bound), float32 ``key.shape`` each."""
    return (bound * (2.0 * rng.uniform(key, n) - 1.0)).T.contiguous().unbind(0)


def wrapped(angle: Tensor) -> Tensor:
    """Wrap an angle to [-π, π]."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
