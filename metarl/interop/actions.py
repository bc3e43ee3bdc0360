"""Checked conversion of other libraries' actions to tensors for a family."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core.errors import short


def as_array(actions: Any) -> np.ndarray:
    """Convert actions of any library to an array. Raises ValueError if that is impossible, as for ragged rows."""
    try:
        return np.asarray(actions.detach().cpu() if isinstance(actions, Tensor) else actions)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"An action must consist of numbers, got {short(actions)}.") from error


def checked_action(action: Any, space: gymnasium.Space) -> Tensor:
    """Convert a single environment's action to a tensor of one row. Raises ValueError as `checked_actions` does."""
    given, shape = as_array(action), space.shape or ()
    if given.shape != shape and isinstance(space, spaces.Discrete):
        raise ValueError(f"An action must be {_ranges(*_ends(space))}, got {short(action)}.")
    if given.shape != shape:
        raise ValueError(f"An action must have the shape {shape}, got {given.shape}.")
    return checked_actions(given[None], space, 1, alone=True)


def checked_actions(
    actions: Any, space: gymnasium.Space, n: int, ignored: np.ndarray | None = None, alone: bool = False
) -> Tensor:
    """Convert the actions of `n` rows to a tensor for the family; those of `ignored`, bool ``(n,)``, may be invalid.

    `alone` says that the only row is a single environment, for the error messages.
    Raises ValueError, one sentence, for a wrong shape, an index out of range or a number that is not finite.
    """
    actions, shape = as_array(actions), (n, *(space.shape or ()))
    if actions.shape != shape:
        raise ValueError(f"The actions of {n} rows must have the shape {shape}, got {actions.shape}.")
    looked_at = actions if ignored is None else actions[~ignored]
    said = looked_at[0] if alone else looked_at
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        first, last = _ends(space)
        good = np.issubdtype(actions.dtype, np.integer)
        if not good or bool(((looked_at < first) | (looked_at > last)).any()):
            raise ValueError(f"An action must be {_ranges(first, last)}, got {short(np.asarray(said).tolist())}.")
        made, filler = actions.astype(np.int64), first
    else:
        assert isinstance(space, spaces.Box)
        if not np.issubdtype(actions.dtype, np.floating) and not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"An action must consist of numbers, got values of the type {actions.dtype}.")
        with np.errstate(over="ignore"):  # numbers too large for float32 become inf, which is rejected below
            made, filler = actions.astype(np.float32), np.clip(0.0, space.low, space.high)
    if ignored is not None:
        made[ignored] = filler
    if not np.isfinite(made).all():
        raise ValueError(f"An action must be finite, got {short(said.tolist())}.")
    return torch.as_tensor(made)


class SingleAction:
    """Fast conversion of a single environment's action to a NumPy row, for actions of the expected type.

    A call returns None for any other action; then use `checked_actions`.
    """

    def __init__(self, space: gymnasium.Space) -> None:
        self._whole = isinstance(space, spaces.Discrete)
        if isinstance(space, spaces.Discrete):
            self._first, self._last = int(space.start), int(space.start + space.n - 1)
        self._shape = space.shape if isinstance(space, spaces.Box) else None

    def __call__(self, action: Any) -> Any:
        if self._whole:
            usual = type(action) is int or isinstance(action, np.integer)
            return np.int64(action) if usual and self._first <= action <= self._last else None
        usual = isinstance(action, np.ndarray) and action.dtype == np.float32 and action.shape == self._shape
        if not usual or not all(map(math.isfinite, action.reshape(-1).tolist())):
            return None
        return action.reshape(-1)[0] if action.size == 1 else action[None].copy()


def _ends(space: spaces.Discrete | spaces.MultiDiscrete) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last index, per component if there are several: int64 ``()`` or ``(A,)``."""
    first = np.asarray(space.start, np.int64)
    return first, first + np.asarray(space.n if isinstance(space, spaces.Discrete) else space.nvec, np.int64) - 1


def _ranges(first: np.ndarray, last: np.ndarray) -> str:
    """Describe the range of an index, or of each component: arrays ``()`` or ``(A,)``."""
    if not first.ndim:
        return f"an integer from {first} to {last}"
    each = (f"{low} to {high}" for low, high in zip(first.tolist(), last.tolist(), strict=True))
    return f"{len(first)} integers, from {', '.join(each)}"
