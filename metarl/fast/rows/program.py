"""Functions of tensors of one row, played as NumPy programs.

A *row* is a tuple of the values of a tree of tensors in the order of its leaves: NumPy's scalars for tensors of one
number, arrays for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core.tree import leaves, tree_map
from metarl.fast.rows.tape import NotRecorded, Ref, Tape, record
from metarl.fast.rows.translate import translated

MOST = 2000
"""Operations of a tape at most: longer ones take long to compile."""

Row = tuple[Any, ...]
Playing = Callable[..., Row]


class Program:
    """The program of a function, which takes the row of all its arguments and returns that of its result.

    `result` is an example of the result, and tells the shapes and the types. Each `copy` has memory of its own, and may
    be called by one thread at a time.
    """

    def __init__(self, tape: Tape, result: Any) -> None:
        if len(tape.operations) > MOST:
            raise NotRecorded(f"there are {len(tape.operations)} operations, more than {MOST}")
        self.result = result
        writer = translated(tape)
        results = "".join(f"{writer.name(Ref(number))}, " for number in tape.outputs)
        own = [name for make in writer.own.values() for name in make()]
        lines = [
            f"def make({', '.join([*writer.names, *own])}):",
            f"    def program({', '.join(f'v{number}' for number in tape.inputs)}):",
            *(f"        {line}" for line in writer.lines),
            f"        return ({results})",
            "    return program",
        ]
        self.source = "\n".join(lines)
        self._constants, self._own = writer.names, writer.own
        space: dict[str, Any] = {}
        exec(compile(self.source, "<row>", "exec"), space)  # the source is made of numbers and names alone
        self._make = space["make"]

    def copy(self) -> Playing:
        """Return the program with memory of its own."""
        own = {name: made for make in self._own.values() for name, made in make().items()}
        playing: Playing = np.errstate(all="ignore")(self._make(**self._constants, **own))
        return playing

    def tensors(self, row: Row) -> Any:
        """Return the tree of tensors of a result."""
        return as_tensors(row, self.result)


def learned(function: Callable[..., Any], *calls: tuple[Any, ...]) -> Program:
    """Return the program of a function of trees, from several calls that must agree.

    Raises NotRecorded, with the reason, if they do not, or if the program does not give what the function gives, bit
    for bit.
    """
    tapes, results = [], []
    for call in calls:
        found: list[Any] = []

        def flat(*tensors: Tensor, call: tuple[Any, ...] = call, found: list[Any] = found) -> list[Tensor]:
            found.append(function(*_rebuilt(call, iter(tensors))))
            return leaves(found[0])

        tapes.append(record(flat, leaves(call)))
        results.append(found[0])
    if not all(tapes[0].alike(tape) for tape in tapes):
        raise NotRecorded("two calls did not do the same")
    program = Program(tapes[0], results[0])
    playing = program.copy()
    for call, result in zip(calls, results, strict=True):
        if not same_bits(as_row(result), playing(*as_row(call))):
            raise NotRecorded("the program gives other numbers")
    return program


def as_row(tree: Any) -> Row:
    """Return the row of a tree of tensors."""
    arrays = [leaf.detach().numpy() for leaf in leaves(tree)]
    return tuple(array.reshape(-1)[0] if array.size == 1 else array for array in arrays)


def as_tensors(row: Row, like: Any) -> Any:
    """Return a row as a tree of tensors with the shapes of those of `like`."""
    values = iter(row)
    return _rebuilt(like, (torch.from_numpy(np.array(next(values)).reshape(leaf.shape)) for leaf in leaves(like)))


def same_bits(one: Row, other: Row) -> bool:
    """Tell whether two rows have the same types and bits."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _rebuilt(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a tree like `tree` with other tensors."""
    return tree_map(lambda leaf: next(tensors) if isinstance(leaf, Tensor) else leaf, tree)
