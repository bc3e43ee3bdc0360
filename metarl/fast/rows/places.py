"""Translations of what moves numbers to other places: views, joins and indices."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from metarl.fast.rows.tape import DTYPES, Operation, Value
from metarl.fast.rows.writer import DONE, Writer


def view(writer: Writer, operation: Operation) -> str:
    """Translate what only moves numbers to other places: the places are found out by moving their own numbers."""
    source, out = writer.value(operation.args[0].number), [writer.value(n) for n in operation.results]
    name = writer.name(operation.args[0])
    places = torch.arange(math.prod(source.shape)).reshape(source.shape)
    moved = operation.function(places, *operation.args[1:], **operation.kwargs)
    for number, each, value in zip(
        operation.results, [moved] if isinstance(moved, Tensor) else moved, out, strict=True
    ):
        writer.lines.append(f"v{number} = {_moved(writer, name, source.shape, each.numpy(), value)}")
    return DONE


def _moved(writer: Writer, name: str, shape: tuple[int, ...], places: np.ndarray, value: Value) -> str:
    one = math.prod(shape) == 1
    if places.size == 1:
        index = ", ".join(map(str, map(int, np.unravel_index(int(places.reshape(-1)[0]), shape))))
        return name if one else f"{name}[{index}]"
    if one:
        return f"np.full({value.shape}, {name})"
    flat = places.reshape(-1)
    steps = np.diff(flat)
    if len(flat) == math.prod(shape) and (steps == 1).all():
        return name if value.shape == shape else f"{name}.reshape({value.shape})"
    if flat.size and (steps == steps[:1]).all() and steps[:1].tolist() != [0] and steps[0] > 0:
        part = f"{flat[0]}:{flat[-1] + 1}:{steps[0]}"
        in_row = len(shape) == len(value.shape) == 2 and shape[0] == value.shape[0] == 1
        return f"{name}[:, {part}]" if in_row else f"{name}.reshape(-1)[{part}].reshape({value.shape})"
    return f"{name}.reshape(-1)[{writer.constant(places)}]"


def joined(writer: Writer, operation: Operation) -> str | None:
    """Translate `stack` and `cat`."""
    parts, value = operation.args[0], writer.value(operation.results[0])
    axis = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("dim", 0)
    axis %= len(value.shape)
    dtype = f"np.{DTYPES[value.dtype].__name__}"
    if all(map(writer.single, parts)):
        names = "".join(f"{writer.name(part, value.dtype)}, " for part in parts)
        if len(parts) == 1:
            return names.rstrip(", ")
        lead = len(value.shape) - 1
        return f"np.array({'(' * lead}({names}){',)' * lead}, {dtype}).reshape({value.shape})"
    pieces = []
    for part in parts:
        shape = list(writer.value(part.number).shape)
        if operation.name == "stack":
            shape.insert(axis, 1)
        if shape == [0]:  # torch skips it
            continue
        name = writer.name(part, value.dtype)
        if writer.single(part):
            name = f"np.full({tuple(shape)}, {name})"
        elif operation.name == "stack":
            name = f"{name}.reshape({tuple(shape)})"
        pieces.append(name)
    return f"np.concatenate(({', '.join(pieces)},), {axis})"


def indexed(writer: Writer, operation: Operation) -> str | None:
    """Translate ``x[indices]`` with whole numbers."""
    source, indices = operation.args
    given = [i for i in indices if i is not None]
    if any(writer.value(i.number).dtype is not torch.int64 for i in given) or writer.single(source):
        return None
    parts = ", ".join(":" if i is None else writer.name(i) for i in indices)
    return _picked(writer, operation, f"{writer.name(source)}[{parts}]")


def gathered(writer: Writer, operation: Operation) -> str | None:
    source, axis, index = operation.args
    shape = writer.value(index.number).shape
    if writer.single(source) or not shape:
        return None
    grid = np.indices(shape)
    axis %= len(shape)
    parts = []
    for each, length in enumerate(shape):
        if each == axis:
            parts.append(writer.name(index))
        else:
            parts.append("0" if length == 1 else writer.constant(grid[each]))
    return _picked(writer, operation, f"{writer.name(source)}[{', '.join(parts)}]")


def _picked(writer: Writer, operation: Operation, expression: str) -> str:
    """Give what an index has picked the recorded shape; one number may be an array or a scalar before."""
    shape = writer.value(operation.results[0]).shape
    indices = [i for arg in operation.args[1:] for i in (arg if isinstance(arg, (list, tuple)) else [arg])]
    if math.prod(shape) > 1:
        return f"{expression}.reshape({shape})"
    if all(writer.single(i) for i in indices if i is not None) and None not in indices:
        rank = len(writer.value(operation.args[0].number).shape)
        if operation.name == "gather" or len(indices) == rank:
            return expression
    return f"{expression}.reshape(-1)[0]"
