"""The sentences that a constructor's wrong count and a user's impossible task get."""

from __future__ import annotations

from torch import Tensor

from metarl.family import Task
from metarl.tree import named_leaves


def whole_number(name: str, value: int, least: int = 1) -> int:
    """`value`. Raises ValueError if it is not an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return value


def within(name: str, values: Tensor, low: float, high: float) -> None:
    """Raise ValueError unless all numbers of a user's task are from `low` to `high`."""
    outside = (values < low) | (values > high)
    if bool(outside.any()):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {values[outside][0].item():g}.")


def positive(task: Task) -> None:
    """Raise ValueError unless all numbers of a user's task, such as multipliers of a mass, are above 0."""
    for name, values in named_leaves(task).items():
        if bool((values <= 0).any()):
            raise ValueError(f"{type(task).__name__}.{name} must be above 0, got {values[values <= 0][0].item():g}.")


def possible(condition: Tensor, sentence: str) -> None:
    """Raise ValueError with the sentence unless the condition holds everywhere."""
    if not bool(condition.all()):
        raise ValueError(sentence)
