"""Translations of arithmetic that IEEE 754 or whole numbers fix to the last bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from metarl.fast.rows.tape import Operation, Ref
from metarl.fast.rows.writer import DONE, Writer, scalar, shaped


def elementwise(template: str, compare: bool = False) -> Any:
    """Make the translation of an operation on all elements, in the result's type or that of the comparison."""

    def translate(writer: Writer, operation: Operation) -> str | None:
        args, alpha = operation.args, operation.kwargs.get("alpha", 1)
        if alpha != 1 or len(args) > 2 or operation.kwargs.keys() - {"alpha"}:
            return None
        dtype = _common(writer, args) if compare else writer.value(operation.results[0]).dtype
        return shaped(writer, operation, template.format(*(writer.name(arg, dtype) for arg in args)), *args)

    return translate


def _common(writer: Writer, args: tuple[Any, ...]) -> torch.dtype:
    """The type in which numbers are compared."""
    values = [
        torch.empty(writer.value(a.number).shape, dtype=writer.value(a.number).dtype, device="meta")
        if isinstance(a, Ref)
        else a
        for a in args
    ]
    return torch.result_type(*values) if len(values) > 1 else values[0].dtype


def whole_only(template: str) -> Any:
    """Make the translation of an operation that is exact for whole numbers alone."""
    plain = elementwise(template)

    def translate(writer: Writer, operation: Operation) -> str | None:
        if writer.value(operation.results[0]).dtype.is_floating_point:
            return None
        divisor = operation.args[-1]  # by zero NumPy and torch differ
        if isinstance(divisor, Ref) or divisor == 0:
            return None
        found: str | None = plain(writer, operation)
        return found

    return translate


def power(writer: Writer, operation: Operation) -> str | None:
    base, exponent = operation.args
    if exponent != 2 or isinstance(exponent, Ref):
        return None
    name = writer.name(base, writer.value(operation.results[0]).dtype)
    return f"{name} * {name}"


def where(writer: Writer, operation: Operation) -> str:
    chosen, *both = operation.args
    out = writer.value(operation.results[0])
    names = [writer.name(each, out.dtype) for each in both]
    if writer.single(chosen) and all(writer.single(each) == (math.prod(out.shape) == 1) for each in both):
        same = all(writer.value(each.number).shape == out.shape for each in both)
        if math.prod(out.shape) == 1 or same:
            return f"{names[0]} if {writer.name(chosen)} else {names[1]}"
    return shaped(writer, operation, f"np.where({writer.name(chosen)}, {names[0]}, {names[1]})", *operation.args)


def clamp(writer: Writer, operation: Operation) -> str | None:
    """Clip as torch does: NaN stays, and so does the sign of a zero at the bound 0."""
    given, bounds = operation.args[0], dict(zip(("min", "max"), operation.args[1:], strict=False)) | operation.kwargs
    if operation.name in ("clamp_min", "clamp_max"):
        bounds = {operation.name[-3:]: operation.args[1]}
    if any(isinstance(bound, Ref) for bound in bounds.values()):
        return None
    dtype, result = writer.value(operation.results[0]).dtype, f"v{operation.results[0]}"
    writer.lines.append(f"{result} = {writer.name(given, dtype)}")
    for side, beyond, nearer in (("min", "<", "maximum"), ("max", ">", "minimum")):
        if bounds.get(side) is None:
            continue
        bound = writer.constant(scalar(bounds[side], dtype))
        if writer.single(given):
            writer.lines.append(f"if {result} {beyond} {bound}: {result} = {bound}")
        elif bounds[side] != 0 or not dtype.is_floating_point:
            writer.lines.append(f"{result} = np.{nearer}({result}, {bound})")
        else:
            writer.lines.append(f"{result} = np.where({result} {beyond} {bound}, {bound}, {result})")
    return DONE


def converted(writer: Writer, operation: Operation) -> str | None:
    return writer.name(operation.args[0], writer.value(operation.results[0]).dtype)


def reduced(method: str) -> Any:
    """Make the translation of a reduction whose order does not matter: of truths, of whole numbers."""

    def translate(writer: Writer, operation: Operation) -> str | None:
        source, *rest = operation.args
        value, out = writer.value(source.number), writer.value(operation.results[0])
        if operation.kwargs or value.dtype.is_floating_point or len(rest) > 2:
            return None
        name = writer.name(source, None if method in ("all", "any") else out.dtype)
        if method in ("all", "any") and value.dtype is not torch.bool:
            return None
        if writer.single(source):
            return name
        axes = rest[0] if rest else None
        axes = tuple(axes) if isinstance(axes, (list, tuple)) else axes
        if math.prod(out.shape) > 1:
            return f"{name}.{method}(axis={axes if axes != () else None}).reshape({out.shape})"
        size = math.prod(value.shape)
        if method in ("all", "any") and size <= 4:
            word = " & " if method == "all" else " | "
            places = np.ndindex(*value.shape)
            return word.join(f"{name}[{', '.join(map(str, place))}]" for place in places)
        return f"{name}.{method}()"

    return translate
