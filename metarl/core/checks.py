"""Checks of tasks that a user passes in, with one-sentence errors, and conversion of NumPy arrays to tensors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core import rng
from metarl.core.family import AnyFamily, Task
from metarl.core.faults.results import described, dtype_name
from metarl.core.tree import leaves, named_leaves


def within(name: str, values: Tensor, low: float, high: float) -> None:
    """Raise ValueError unless all `values` of a user's task are from `low` to `high`."""
    outside = (values < low) | (values > high)
    if bool(outside.any()):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {values[outside][0].item():g}.")


def positive(task: Any) -> None:
    """Raise ValueError unless all values of a user's task, such as multipliers of a mass, are above 0."""
    for name, values in named_leaves(task).items():
        if bool((values <= 0).any()):
            raise ValueError(f"{type(task).__name__}.{name} must be above 0, got {values[values <= 0][0].item():g}.")


def possible(condition: Tensor, sentence: str) -> None:
    """Raise ValueError with this sentence unless the condition holds everywhere."""
    if not bool(condition.all()):
        raise ValueError(sentence)


def checked_task(family: AnyFamily, task: Any) -> Task:
    """Return `task` as a NamedTuple of tensors that `family` can play, with one row per task.

    Types and shapes must be those of `family.sample_tasks`. NumPy arrays and scalars are copied to tensors of the right
    type if they can be cast without changing the kind of number; a tensor must already have the right type.

    Raises ValueError for another kind of value, a wrong shape or type, a number that is not finite, or a task that the
    family's `check_task` rejects.
    """
    pattern = pattern_task(family)
    check_kind(family, task)
    made = _field(type(pattern).__name__, task, pattern)
    rows = sorted({len(leaf) for leaf in leaves(made)})
    if len(rows) > 1 or not rows[0]:
        numbers = ", ".join(map(str, rows))
        raise ValueError(f"All fields of a {type(pattern).__name__} must have one row per task, got {numbers} rows.")
    family.check_task(made)
    return made


def check_kind(family: AnyFamily, task: Any) -> None:
    """Raise ValueError unless a task has the type of the family's tasks; its values are not checked."""
    kind = type(pattern_task(family))
    if type(task) is kind:
        return
    several = isinstance(task, (list, tuple)) and len(task) > 0 and all(type(each) is kind for each in task)
    advice = ": give one task of the list" if several else ""
    name, given = type(family).__name__, type(task).__name__
    raise ValueError(f"A task of {name} must be a {kind.__name__}, got a value of {given}{advice}.")


@functools.lru_cache(maxsize=64)
def pattern_task(family: AnyFamily) -> Task:
    """Return a valid task of one row, as a pattern."""
    return family.sample_tasks(rng.key(0), 1, family.splits[0])


def _field(where: str, given: Any, pattern: Any) -> Any:
    """Check a field against the type and the trailing shape of `pattern`; `where` names it."""
    if not isinstance(pattern, Tensor):
        if type(given) is not type(pattern):
            raise ValueError(f"{where} must be a {type(pattern).__name__}, got {described(given)}.")
        parts = zip(type(pattern)._fields, given, pattern, strict=True)
        return type(pattern)(*(_field(f"{where}.{name}", value, like) for name, value, like in parts))
    value: Any = _as_tensor(given, pattern.dtype) if isinstance(given, (np.ndarray, np.generic)) else given
    good = isinstance(value, Tensor) and value.dtype == pattern.dtype and value.ndim == pattern.ndim
    if not good or value.shape[1:] != pattern.shape[1:]:
        shape = f"(N, {', '.join(map(str, pattern.shape[1:]))})" if pattern.ndim > 1 else "(N,)"
        raise ValueError(f"{where} must be {dtype_name(pattern.dtype)} of shape {shape}, got {described(given)}.")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{where} must be finite, got nan or inf.")
    return value.detach() if value.requires_grad else value


def _as_tensor(array: np.ndarray | np.generic, dtype: torch.dtype) -> Tensor | None:
    """Copy an array to a tensor; return None if that would change the kind of number, such as from float to int."""
    wanted = torch.empty(0, dtype=dtype).numpy().dtype
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        return None
    with np.errstate(over="ignore"):  # numbers too large for float32 become inf, which is rejected later
        return torch.from_numpy(np.array(array, dtype=wanted))


def same_spaces(agent: Any, family: AnyFamily) -> None:
    """Raise ValueError unless `agent` was made for the observation shape and the actions of `family`.

    Bounds of observations may differ. Agents without a family (baselines) are not checked.
    """
    known: AnyFamily | None = getattr(agent, "family", None)
    if known is None or known is family:
        return
    name, theirs, ours = type(agent).__name__, type(known).__name__, type(family).__name__
    if known.observation_space.shape != family.observation_space.shape:
        shapes = known.observation_space.shape, family.observation_space.shape
        raise ValueError(
            f"This {name} was made for observations of shape {shapes[0]} ({theirs}), "
            f"but those of {ours} have the shape {shapes[1]}."
        )
    if known.action_space != family.action_space:
        raise ValueError(
            f"This {name} was made for the actions {_actions(known.action_space)} ({theirs}), "
            f"but those of {ours} are {_actions(family.action_space)}."
        )


def _actions(space: spaces.Space[Any]) -> str:
    """``0 … 4``, or the space itself."""
    if isinstance(space, spaces.Discrete):
        return f"{space.start} … {space.start + space.n - 1}"
    return str(space)
