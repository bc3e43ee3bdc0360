"""Translations to calls of torch, and of functions of NumPy arrays."""

from __future__ import annotations

import math
from typing import Any

import torch

from metarl.fast.rows.tape import DTYPES, NotRecorded, Operation, Ref, Value
from metarl.fast.rows.writer import DONE, Writer

UNARY = {"sin", "cos", "tan", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "atan", "erf", "sqrt", "rsqrt"}
"""Functions of one float that have a method which works in place."""
QUICKER: dict[str, Any] = {
    **{name: getattr(torch, name) for name in ("sum", "amax", "amin", "argmax", "cumsum", "maximum", "minimum")},
    "linalg_vector_norm": torch.linalg.vector_norm,
}
"""Python's functions for operations whose arguments are the same: calls of an operation itself take longer."""


def called(writer: Writer, operation: Operation) -> str:
    """Translate to a call of torch, on tensors that share the arrays' memory."""
    args, results = operation.args, operation.results
    if operation.name in UNARY and len(args) == 1 and writer.single(args[0]):
        value = writer.value(results[0])
        if value.dtype == writer.value(args[0].number).dtype and value.dtype.is_floating_point:
            return _in_place(writer, operation, value)
    called = QUICKER.get(operation.name, operation.function)
    if operation.function._schema.is_mutable:  # type: ignore[attr-defined]
        called = _not_in_place(operation)

    def written(tree: Any) -> str:
        if isinstance(tree, Ref):
            return f"from_numpy({_array(writer, tree)})"
        if isinstance(tree, (tuple, list)):
            return f"[{', '.join(map(written, tree))}]"
        return writer.constant(tree)

    writer.names["from_numpy"] = torch.from_numpy
    function = writer.constant(called, "f")
    given = [written(arg) for arg in args] + [f"{name}={written(arg)}" for name, arg in operation.kwargs.items()]
    call = f"{function}({', '.join(given)})"
    if len(results) == 1:
        end = "[" + ", ".join("0" for _ in writer.value(results[0]).shape) + "]" if _one(writer, results[0]) else ""
        return f"{call}.numpy(){end.replace('[]', '[()]')}"
    targets = [f"v{number}" for number in results]
    writer.lines.append(f"{', '.join(targets)}, = {call}")
    writer.lines += [f"{target} = {target}.numpy()" for target in targets]
    return _singles(writer, operation)


def _not_in_place(operation: Operation) -> Any:
    """Return the twin of an operation in place that makes a new tensor."""
    overload = operation.function._overloadname  # type: ignore[attr-defined]
    twin = getattr(getattr(torch.ops.aten, operation.name, None), overload, None)
    if twin is None:
        raise NotRecorded(f"{operation.name} works in place")
    return twin


def on_host(writer: Writer, operation: Operation) -> str:
    """Call a function of NumPy arrays."""
    given = [_array(writer, ref) for ref in operation.args]
    targets = [f"v{number}" for number in operation.results]
    writer.lines.append(f"{', '.join(targets)}, = {writer.constant(operation.function, 'f')}({', '.join(given)})")
    return _singles(writer, operation)


def _one(writer: Writer, number: int) -> bool:
    return math.prod(writer.value(number).shape) == 1


def _array(writer: Writer, ref: Ref) -> str:
    """Write a value as an array of its own shape."""
    value = writer.value(ref.number)
    if value.constant is not None:
        return writer.constant(value.constant)
    return f"v{ref.number}.reshape({value.shape})" if _one(writer, ref.number) else f"v{ref.number}"


def _singles(writer: Writer, operation: Operation) -> str:
    """Turn the results that are arrays of one number to scalars."""
    writer.lines += [f"v{n} = v{n}.reshape(-1)[0]" for n in operation.results if _one(writer, n)]
    return DONE


def _in_place(writer: Writer, operation: Operation, value: Value) -> str:
    """Call a function of one number on memory that the program keeps for it."""
    box = DTYPES[value.dtype].__name__
    writer.boxes.setdefault(box, set()).add(operation.name)
    writer.lines.append(f"{box}[0] = {writer.name(operation.args[0])}")
    writer.lines.append(f"{box}_{operation.name}()")
    return f"{box}[0]"
