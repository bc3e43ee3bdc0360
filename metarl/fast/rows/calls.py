"""Translations to calls of torch, and of functions of NumPy arrays."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch

from metarl.fast.rows.tape import DTYPES, NotRecorded, Operation, Ref
from metarl.fast.rows.writer import DONE, Writer

UNARY = {"sin", "cos", "tan", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "atan", "erf", "sqrt", "rsqrt"}
"""Functions of one float that have a method which works in place."""
REDUCED = {"sum", "amax", "amin"}
"""Reductions that take ``out=``."""
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
            return _in_place(writer, operation)
    if operation.name in REDUCED and not writer.single(args[0]) and _one(writer, results[0]) and not operation.kwargs:
        return _reduced(writer, operation)
    called = QUICKER.get(operation.name, operation.function)
    if operation.function._schema.is_mutable:  # type: ignore[attr-defined]
        called = _not_in_place(operation)

    def written(tree: Any) -> str:
        if isinstance(tree, Ref):
            if not writer.value(tree.number).dense:  # another order of sums, and another kernel
                raise NotRecorded(f"{operation.name} reads numbers that do not lie one after the other")
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
    if _one(writer, ref.number):
        return f"v{ref.number}.reshape({value.shape})"
    return f"np.ascontiguousarray(v{ref.number})"


def _singles(writer: Writer, operation: Operation) -> str:
    """Turn the results that are arrays of one number to scalars."""
    writer.lines += [f"v{n} = v{n}.reshape(-1)[0]" for n in operation.results if _one(writer, n)]
    return DONE


def _in_place(writer: Writer, operation: Operation) -> str:
    """Call a function of one number on memory that the program keeps for it."""
    kind = DTYPES[writer.value(operation.results[0]).dtype]
    name = f"{operation.name}_{kind.__name__}"

    def own() -> dict[str, Any]:
        box = np.zeros(1, kind)
        return {f"{name}_box": box, name: getattr(torch.from_numpy(box), f"{operation.name}_")}

    writer.own[name] = own
    writer.lines += [f"{name}_box[0] = {writer.name(operation.args[0])}", f"{name}()"]
    return f"{name}_box[0]"


def _reduced(writer: Writer, operation: Operation) -> str:
    """Reduce an array to one number, both in memory that the program keeps for them."""
    source, *rest = operation.args
    before, after = writer.value(source.number), writer.value(operation.results[0])
    function, name = QUICKER[operation.name], f"{operation.name}_{operation.results[0]}"

    def own() -> dict[str, Any]:
        box, out = np.zeros(before.shape, DTYPES[before.dtype]), np.zeros(after.shape, DTYPES[after.dtype])
        tensors = torch.from_numpy(box), torch.from_numpy(out)
        call = functools.partial(function, tensors[0], *rest, out=tensors[1])
        return {f"{name}_box": box, name: call, f"{name}_out": out.reshape(-1)}

    writer.own[name] = own
    writer.lines += [f"{name}_box[:] = v{source.number}", f"{name}()"]
    return f"{name}_out[0]"
