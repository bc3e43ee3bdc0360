"""Checks of what the methods of a family return: types, shapes and devices, never values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core.family import AnyFamily, State, Task
from metarl.core.tree import Column, leaves, named_leaves, take

SHOWN_NUMBERS, SHOWN_FIELDS = 4, 4
"""Largest number of values per field, and of fields, that a message shows of a task."""


def described(value: Any) -> str:
    """Describe a tensor as ``float64 of shape (7, 1)``, a NumPy array in the same way, anything else by its type."""
    if isinstance(value, Tensor):
        return f"{dtype_name(value.dtype)} of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array: {value.dtype} of shape {value.shape}"
    return f"a value of {type(value).__name__}"


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def shown_task(task: Task, row: int) -> str:
    """Format the values of a row's task, shortened: ``Goal(position=[0.5, -1.25])``."""
    fields = []
    for name, values in named_leaves(take(task, slice(row, row + 1))).items():
        numbers = values.flatten().tolist()
        more = ", …" if len(numbers) > SHOWN_NUMBERS else ""
        fields.append(f"{name}=[{', '.join(f'{number:.4g}' for number in numbers[:SHOWN_NUMBERS])}{more}]")
    more = ", …" if len(fields) > SHOWN_FIELDS else ""
    return f"{type(task).__name__}({', '.join(fields[:SHOWN_FIELDS])}{more})"


def wrong_tensor(
    what: str,
    value: Any,
    dtype: torch.dtype,
    rows: int,
    shape: tuple[int, ...] = (),
    device: torch.device | None = None,
) -> str | None:
    """Say what is wrong with a result that must be a `dtype` tensor ``(rows, *shape)``; None if nothing is."""
    good = isinstance(value, Tensor) and value.dtype == dtype and value.shape == (rows, *shape)
    if not good:
        wanted = f"{dtype_name(dtype)} of shape ({', '.join(map(str, ('B', *shape)))}{',' * (not shape)})"
        return f"{what} must be {wanted}, got {described(value)} for {rows} rows."
    return None if device is None or value.device == device else _elsewhere(what, value, device)


def wrong_rows(what: str, value: Any, rows: int, device: torch.device | None = None) -> str | None:
    """Say what is wrong with a result that must be a tensor, or a nested NamedTuple of tensors, with `rows` rows."""
    if isinstance(value, tuple) and type(value) is not tuple:
        return next(filter(None, (wrong_rows(what, field, rows, device) for field in value)), None)
    if isinstance(value, Column) and len(value) == rows:
        return None
    if not isinstance(value, Tensor) or value.shape[:1] != (rows,):
        return f"{what} must be a tensor with one row per task, got {described(value)} for {rows} rows."
    return None if device is None or value.device == device else _elsewhere(what, value, device)


def _elsewhere(what: str, value: Tensor, device: torch.device) -> str:
    return f"{what} must be on the device of the keys, {device}, got a tensor on {value.device}."


def wrong_state(family: AnyFamily, method: str, state: State, rows: int, like: State | None = None) -> str | None:
    """Say what is wrong with a state that `reset` or `step` returned; `like` is a correct one."""
    name = f"{type(family).__name__}.{method}"
    device = leaves(like)[0].device if like is not None else None
    found = wrong_rows(f"Every part of the state that {name} returns", state, rows, device)
    if found is not None or like is None:
        return found
    given = "as the one it was given" if method == "step" else "in every episode"
    rule = f"{name} must return a state of the same types and shapes {given}"
    if type(state) is not type(like):
        return f"{rule}, got {described(state)} for {described(like)}."
    for new, old in zip(leaves(state), leaves(like), strict=True):
        if new.dtype != old.dtype or new.shape[1:] != old.shape[1:]:
            return f"{rule}, got {described(new)} for {described(old)}."
    return None


def wrong_observation(
    family: AnyFamily, obs: Any, rows: int, device: torch.device | None = None, method: str = ""
) -> str | None:
    """Say what is wrong with the result of `observe`; None if nothing is."""
    name, shape = type(family).__name__, family.observation_space.shape
    return wrong_tensor(f"The observations of {name}{method}", obs, torch.float32, rows, shape, device)


def wrong_step(family: AnyFamily, state: State, stepped: Any, rows: int) -> str | None:
    """Say what is wrong with the result of `step` for the correct state `state`; None if nothing is."""
    name, device = type(family).__name__, leaves(state)[0].device
    if not isinstance(stepped, tuple) or len(stepped) != 3:
        return f"{name}.step must return (state, reward, terminated), got {described(stepped)}."
    new, reward, terminated = stepped
    return (
        wrong_state(family, "step", new, rows, state)
        or wrong_tensor(f"The rewards of {name}.step", reward, torch.float32, rows, device=device)
        or wrong_tensor(f"The endings of {name}.step (`terminated`)", terminated, torch.bool, rows, device=device)
    )
