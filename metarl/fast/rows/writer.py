"""The source of a program while it is being written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from metarl.fast.rows.tape import DTYPES, Operation, Ref, Tape, Value

DONE = ""
"""The translation of an operation that has written all its lines itself."""


Translation = Callable[["Writer", Operation], str | None]
"""Writes an operation: the expression of its only result, or `DONE`; None if it has to be a call of torch."""


Own = Callable[[], dict[str, Any]]
"""Makes memory that a program works on, and functions of it, by their names."""


class Writer:
    """Collects the program of a tape: its `lines`, and the constants that they name.

    The value of number n is the variable ``vn``.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"np": np}
        self.own: dict[str, Own] = {}  # what every copy of the program makes for itself, by its first name

    def value(self, number: int) -> Value:
        """Return what is known of a value."""
        return self.tape.values[number]

    def constant(self, value: Any, kind: str = "c") -> str:
        """Make a constant of the program; return its name."""
        name = f"{kind}{len(self.names)}"
        self.names[name] = value
        return name

    def single(self, thing: Any) -> bool:
        """Tell whether an argument is one number: a scalar of the program."""
        return not isinstance(thing, Ref) or math.prod(self.value(thing.number).shape) == 1

    def name(self, thing: Any, dtype: torch.dtype | None = None) -> str:
        """Return an argument's name, converted to `dtype`."""
        if not isinstance(thing, Ref):
            return self.constant(scalar(thing, dtype))
        value = self.value(thing.number)
        if value.constant is not None:
            array = value.constant if dtype is None else value.constant.astype(DTYPES[dtype])
            return self.constant(array.reshape(-1)[0] if array.size == 1 else array)
        name = f"v{thing.number}"
        if dtype is None or dtype == value.dtype:
            return name
        return self.converted(name, value.dtype, dtype, self.single(thing))

    def converted(self, name: str, source: torch.dtype, target: torch.dtype, single: bool) -> str:
        """Write a conversion as torch makes it."""
        if target is torch.bool:
            return f"({name} != 0)"
        if single and not (source.is_floating_point and not target.is_floating_point):
            return f"np.{DTYPES[target].__name__}({name})"
        return f"{name}.astype(np.{DTYPES[target].__name__})"


def scalar(number: Any, dtype: torch.dtype | None) -> Any:
    """Return a Python number as NumPy's scalar."""
    if dtype is None:
        dtype = torch.bool if isinstance(number, bool) else torch.int64 if isinstance(number, int) else torch.float32
    with np.errstate(all="ignore"):
        return DTYPES[dtype](number)


def shaped(writer: Writer, operation: Operation, expression: str, *args: Any) -> str:
    """Give an element-wise result the recorded shape, which leading dimensions of one number may have lost."""
    shape = writer.value(operation.results[0]).shape
    if math.prod(shape) == 1:
        return expression
    found = np.broadcast_shapes(*(() if writer.single(a) else writer.value(a.number).shape for a in args))
    return expression if found == shape else f"({expression}).reshape({shape})"
