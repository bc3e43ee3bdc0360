"""Checks of a task that a user gives, and of what the methods of a family return: one sentence for what is wrong.

Tasks of a user get tensors in place of NumPy arrays. Checks of results look at types, shapes and devices, not at
values.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import AnyFamily, State, Task
from metarl.core.tree import leaves, named_leaves, take

SHOWN_NUMBERS, SHOWN_FIELDS = 4, 4
"""Numbers of a field, and fields, of a task at most that a sentence shows."""


def within(name: str, values: Tensor, low: float, high: float) -> None:
    """Raise ValueError unless all numbers of a user's task are from `low` to `high`."""
    outside = (values < low) | (values > high)
    if bool(outside.any()):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {values[outside][0].item():g}.")


def positive(task: Any) -> None:
    """Raise ValueError unless all numbers of a user's task, such as multipliers of a mass, are above 0."""
    for name, values in named_leaves(task).items():
        if bool((values <= 0).any()):
            raise ValueError(f"{type(task).__name__}.{name} must be above 0, got {values[values <= 0][0].item():g}.")


def possible(condition: Tensor, sentence: str) -> None:
    """Raise ValueError with the sentence unless the condition holds everywhere."""
    if not bool(condition.all()):
        raise ValueError(sentence)


@functools.cache
def machine_memory() -> float:
    """Return the bytes of memory that this process may have: the machine's, or its container's; inf if unknown."""
    found = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a system without sysconf
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(ValueError, OSError):  # no container, or one without a limit: "max"
            found.append(float(Path(limit).read_text(encoding="ascii")))
    return min(found)


def check_memory(what: str, numbers: float, smaller: str) -> None:
    """Raise ValueError if float32 `numbers` are more than the memory of this machine, and of its GPU, can hold.

    It is called with the least that is needed, before anything is allocated. `smaller` names what to make smaller.
    """
    have = machine_memory()
    if 4 * numbers > have and torch.cuda.is_available():
        have = max(have, float(torch.cuda.get_device_properties(0).total_memory))
    if 4 * numbers > have:
        raise ValueError(
            f"{what} needs about {4e-9 * numbers:.3g} GB of memory, and this machine has {1e-9 * have:.3g} GB: "
            f"lower {smaller}."
        )


def row_numbers(family: AnyFamily) -> int:
    """Return the numbers of one step of one row in a rollout: observation, action, reward, log-probability …"""
    return math.prod(family.observation_space.shape or ()) + math.prod(family.action_space.shape or ()) + 6


def task_numbers(family: AnyFamily) -> int:
    """Return the numbers in one task."""
    return sum(leaf.numel() for leaf in leaves(_pattern(family)))


def described(value: Any) -> str:
    """Describe a tensor as ``float64 of shape (7, 1)``, a NumPy array likewise, anything else by its type."""
    if isinstance(value, Tensor):
        return f"{dtype_name(value.dtype)} of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array: {value.dtype} of shape {value.shape}"
    return f"a value of {type(value).__name__}"


def shown_task(task: Task, row: int) -> str:
    """Write the values of a row's task, shortened: ``Goal(position=[0.5, -1.25])``."""
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
    if not isinstance(value, Tensor) or value.shape[:1] != (rows,):
        return f"{what} must be a tensor with one row per task, got {described(value)} for {rows} rows."
    return None if device is None or value.device == device else _elsewhere(what, value, device)


def _elsewhere(what: str, value: Tensor, device: torch.device) -> str:
    return f"{what} must be on the device of the keys, {device}, got a tensor on {value.device}."


def wrong_state(family: AnyFamily, method: str, state: State, rows: int, like: State | None = None) -> str | None:
    """Say what is wrong with a state that `reset` or `step` returned; `like` is a right one."""
    name = f"{type(family).__name__}.{method}"
    device = leaves(like)[0].device if like is not None else None
    found = wrong_rows(f"Every part of the state that {name} returns", state, rows, device)
    if found is not None or like is None:
        return found
    given = "as the one that it was given" if method == "step" else "in every episode"
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
    """Say what is wrong with what `observe` returned; None if nothing is."""
    name, shape = type(family).__name__, family.observation_space.shape
    return wrong_tensor(f"The observations of {name}{method}", obs, torch.float32, rows, shape, device)


def wrong_step(family: AnyFamily, state: State, stepped: Any, rows: int) -> str | None:
    """Say what is wrong with what `step` returned for the right state `state`; None if nothing is."""
    name, device = type(family).__name__, leaves(state)[0].device
    if not isinstance(stepped, tuple) or len(stepped) != 3:
        return f"{name}.step must return (state, reward, terminated), got {described(stepped)}."
    new, reward, terminated = stepped
    return (
        wrong_state(family, "step", new, rows, state)
        or wrong_tensor(f"The rewards of {name}.step", reward, torch.float32, rows, device=device)
        or wrong_tensor(f"The endings of {name}.step (`terminated`)", terminated, torch.bool, rows, device=device)
    )


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def checked_task(family: AnyFamily, task: Any) -> Task:
    """Return `task` as a NamedTuple of tensors that `family` can play, with one row per task.

    Types and shapes must be those of `family.sample_tasks`. NumPy arrays and scalars become tensors (copies) of the
    right type if they are of the same kind of number or a simpler one; a tensor must already have the right type.

    Raises ValueError, one sentence, for another kind of value, a wrong shape or type, a number that is not finite, or a
    task that the family's `check_task` refuses.
    """
    pattern = _pattern(family)
    if type(task) is not type(pattern):
        kind, given = type(pattern).__name__, type(task).__name__
        raise ValueError(f"A task of {type(family).__name__} is a {kind}, got a value of {given}.")
    made = _field(type(pattern).__name__, task, pattern)
    rows = sorted({len(leaf) for leaf in leaves(made)})
    if len(rows) > 1 or not rows[0]:
        numbers = ", ".join(map(str, rows))
        raise ValueError(f"All fields of a {type(pattern).__name__} must have one row per task, got {numbers} rows.")
    family.check_task(made)
    return made


@functools.lru_cache(maxsize=64)
def _pattern(family: AnyFamily) -> Task:
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
    """Copy an array to a tensor; return None if that would change the kind of number, as from float to int."""
    wanted = torch.empty(0, dtype=dtype).numpy().dtype
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        return None
    with np.errstate(over="ignore"):  # numbers too large for float32 become inf, which is then refused
        return torch.from_numpy(np.array(array, dtype=wanted))
