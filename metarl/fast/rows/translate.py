"""Tapes as Python programs: NumPy's scalars for tensors of one number, NumPy's arrays for others.

An operation on tensors of one number takes torch about a microsecond, and NumPy's scalars a twentieth of that. Only
operations whose result IEEE 754 or integer arithmetic fixes to the last bit are written in NumPy; all others, such as a
cosine or the sum of several numbers, go on as calls of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.fast.rows.tape import DTYPES, NotRecorded, Operation, Ref, Tape, Value

UNARY = {"sin", "cos", "tan", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "atan", "erf", "sqrt", "rsqrt"}
"""Functions of one float that have a method which works in place."""


class Writer:
    """Writes the program of a tape: `source`, which defines ``make(constants…)``, and the `names` of its constants."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"np": np}
        self.boxes: dict[str, set[str]] = {}  # by NumPy's type, the functions that work on one number in place
        for operation in tape.operations:
            handler = HANDLERS.get(operation.name, called)
            expression = handler(self, operation)
            if expression is None:
                expression = called(self, operation)
            if expression != DONE:
                self.lines.append(f"v{operation.results[0]} = {expression}")

    def value(self, number: int) -> Value:
        return self.tape.values[number]

    def constant(self, value: Any, kind: str = "c") -> str:
        name = f"{kind}{len(self.names)}"
        self.names[name] = value
        return name

    def single(self, thing: Any) -> bool:
        """Tell whether an argument is one number: a scalar of the program."""
        return not isinstance(thing, Ref) or int(np.prod(self.value(thing.number).shape)) == 1

    def name(self, thing: Any, dtype: torch.dtype | None = None) -> str:
        """The name of an argument, converted to `dtype`."""
        if not isinstance(thing, Ref):
            return self.constant(_scalar(thing, dtype))
        value = self.value(thing.number)
        if value.constant is not None:
            array = value.constant if dtype is None else value.constant.astype(DTYPES[dtype])
            return self.constant(array.reshape(-1)[0] if array.size == 1 else array)
        name = f"v{thing.number}"
        if dtype is None or dtype == value.dtype:
            return name
        return self.converted(name, value.dtype, dtype, self.single(thing))

    def converted(self, name: str, source: torch.dtype, target: torch.dtype, single: bool) -> str:
        if target is torch.bool:
            return f"({name} != 0)"
        if single and not (source.is_floating_point and not target.is_floating_point):
            return f"np.{DTYPES[target].__name__}({name})"
        return f"{name}.astype(np.{DTYPES[target].__name__})"


DONE = ""


def _scalar(number: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None:
        dtype = torch.bool if isinstance(number, bool) else torch.int64 if isinstance(number, int) else torch.float32
    with np.errstate(all="ignore"):
        return DTYPES[dtype](number)


def shaped(writer: Writer, operation: Operation, expression: str, *args: Any) -> str:
    """Give an element-wise result the recorded shape, which leading dimensions of one number may have lost."""
    shape = writer.value(operation.results[0]).shape
    if int(np.prod(shape)) == 1:
        return expression
    found = np.broadcast_shapes(*(() if writer.single(a) else writer.value(a.number).shape for a in args))
    return expression if found == shape else f"({expression}).reshape({shape})"


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
    if writer.single(chosen) and all(writer.single(each) == (np.prod(out.shape) == 1) for each in both):
        same = all(writer.value(each.number).shape == out.shape for each in both)
        if np.prod(out.shape) == 1 or same:
            return f"{names[0]} if {writer.name(chosen)} else {names[1]}"
    return shaped(writer, operation, f"np.where({writer.name(chosen)}, {names[0]}, {names[1]})", *operation.args)


def clamp(writer: Writer, operation: Operation) -> str | None:
    """Clip as torch does: not a number stays, and so does a zero's sign."""
    given, bounds = operation.args[0], dict(zip(("min", "max"), operation.args[1:], strict=False)) | operation.kwargs
    if operation.name in ("clamp_min", "clamp_max"):
        bounds = {operation.name[-3:]: operation.args[1]}
    if any(isinstance(bound, Ref) for bound in bounds.values()):
        return None
    dtype, result = writer.value(operation.results[0]).dtype, f"v{operation.results[0]}"
    writer.lines.append(f"{result} = {writer.name(given, dtype)}")
    for side, beyond in (("min", "<"), ("max", ">")):
        if bounds.get(side) is None:
            continue
        bound = writer.constant(_scalar(bounds[side], dtype))
        if writer.single(given):
            writer.lines.append(f"if {result} {beyond} {bound}: {result} = {bound}")
        else:
            writer.lines.append(f"{result} = np.where({result} {beyond} {bound}, {bound}, {result})")
    return DONE


def converted(writer: Writer, operation: Operation) -> str | None:
    return writer.name(operation.args[0], writer.value(operation.results[0]).dtype)


def view(writer: Writer, operation: Operation) -> str:
    """Translate what only moves numbers to other places: the places are found out by moving their own numbers."""
    source, out = writer.value(operation.args[0].number), [writer.value(n) for n in operation.results]
    name = writer.name(operation.args[0])
    places = torch.arange(int(np.prod(source.shape))).reshape(source.shape)
    moved = operation.function(places, *operation.args[1:], **operation.kwargs)
    for number, each, value in zip(
        operation.results, [moved] if isinstance(moved, Tensor) else moved, out, strict=True
    ):
        writer.lines.append(f"v{number} = {_moved(writer, name, source.shape, each.numpy(), value)}")
    return DONE


def _moved(writer: Writer, name: str, shape: tuple[int, ...], places: np.ndarray, value: Value) -> str:
    one = int(np.prod(shape)) == 1
    if places.size == 1:
        index = ", ".join(map(str, map(int, np.unravel_index(int(places.reshape(-1)[0]), shape))))
        return name if one else f"{name}[{index}]"
    if one:
        return f"np.full({value.shape}, {name})"
    flat = places.reshape(-1)
    steps = np.diff(flat)
    if len(flat) == int(np.prod(shape)) and (steps == 1).all():
        return name if value.shape == shape else f"{name}.reshape({value.shape})"
    if flat.size and (steps == steps[:1]).all() and steps[:1].tolist() != [0] and steps[0] > 0:
        return f"{name}.reshape(-1)[{flat[0]}:{flat[-1] + 1}:{steps[0]}].reshape({value.shape})"
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
    if int(np.prod(shape)) > 1:
        return f"{expression}.reshape({shape})"
    if all(writer.single(i) for i in indices if i is not None) and None not in indices:
        rank = len(writer.value(operation.args[0].number).shape)
        if operation.name == "gather" or len(indices) == rank:
            return expression
    return f"{expression}.reshape(-1)[0]"


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
        if np.prod(out.shape) > 1:
            return f"{name}.{method}(axis={axes if axes != () else None}).reshape({out.shape})"
        size = int(np.prod(value.shape))
        if method in ("all", "any") and size <= 4:
            word = " & " if method == "all" else " | "
            places = np.ndindex(*value.shape)
            return word.join(f"{name}[{', '.join(map(str, place))}]" for place in places)
        return f"{name}.{method}()"

    return translate


def on_host(writer: Writer, operation: Operation) -> str:
    """Call a function of NumPy arrays; those of one number have their shape only there."""
    called(writer, operation, host=True)
    return DONE


def called(writer: Writer, operation: Operation, host: bool = False) -> str:
    """Translate to a call of torch, on tensors that share the arrays' memory."""
    function, values = operation.function, writer.tape.values
    args = operation.args
    if operation.name in UNARY and writer.single(args[0]) and len(args) == 1:
        value = values[operation.results[0]]
        if value.dtype == values[args[0].number].dtype and value.dtype.is_floating_point:
            return _in_place(writer, operation, value)
    if not host and function._schema.is_mutable:
        raise NotRecorded(f"{operation.name} works in place")
    refs: list[Ref] = []

    def pack(tree: Any) -> Any:
        if isinstance(tree, Ref):
            if tree not in refs:
                refs.append(tree)
            return lambda given, at=refs.index(tree): given[at]
        if isinstance(tree, (tuple, list)):
            parts = [pack(part) for part in tree]
            return lambda given: [part(given) for part in parts]
        return lambda given: tree

    packed, kwargs = pack(list(args)), {name: pack(part) for name, part in operation.kwargs.items()}
    shapes = [values[ref.number].shape for ref in refs]
    outs = [values[number] for number in operation.results]

    def call(*arrays: Any) -> Any:
        given = [np.asarray(array).reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
        if host:
            results = function(*packed(given))
        else:
            tensors = [torch.from_numpy(array) for array in given]
            result = function(*packed(tensors), **{name: part(tensors) for name, part in kwargs.items()})
            results = [each.numpy() for each in ([result] if isinstance(result, Tensor) else result)]
        rows = [each.reshape(-1)[0] if each.size == 1 else each for each in results]
        return rows[0] if len(outs) == 1 else rows

    name = writer.constant(call, "f")
    targets = ", ".join(f"v{number}" for number in operation.results)
    given = []
    for ref in refs:
        constant = values[ref.number].constant
        given.append(writer.name(ref) if constant is None else writer.constant(constant))
    writer.lines.append(f"{targets} = {name}({', '.join(given)})")
    return DONE


def _in_place(writer: Writer, operation: Operation, value: Value) -> str:
    """Call a function of one number on memory that the program keeps for it."""
    box = DTYPES[value.dtype].__name__
    writer.boxes.setdefault(box, set()).add(operation.name)
    writer.lines.append(f"{box}[0] = {writer.name(operation.args[0])}")
    writer.lines.append(f"{box}_{operation.name}()")
    return f"{box}[0]"


HANDLERS: dict[str, Callable[[Writer, Operation], str | None]] = {
    "add": elementwise("{} + {}"),
    "sub": elementwise("{} - {}"),
    "rsub": elementwise("{1} - {0}"),
    "mul": elementwise("{} * {}"),
    "div": elementwise("{} / {}"),
    "neg": elementwise("-{}"),
    "abs": elementwise("abs({})"),
    "bitwise_and": elementwise("{} & {}"),
    "bitwise_or": elementwise("{} | {}"),
    "bitwise_xor": elementwise("{} ^ {}"),
    "bitwise_not": elementwise("~{}"),
    "logical_and": elementwise("{} & {}"),
    "logical_or": elementwise("{} | {}"),
    "logical_not": elementwise("~{}"),
    "__rshift__": elementwise("{} >> {}"),
    "__lshift__": elementwise("{} << {}"),
    "bitwise_right_shift": elementwise("{} >> {}"),
    "bitwise_left_shift": elementwise("{} << {}"),
    "remainder": whole_only("{} % {}"),
    "floor_divide": whole_only("{} // {}"),
    "eq": elementwise("{} == {}", compare=True),
    "ne": elementwise("{} != {}", compare=True),
    "lt": elementwise("{} < {}", compare=True),
    "le": elementwise("{} <= {}", compare=True),
    "gt": elementwise("{} > {}", compare=True),
    "ge": elementwise("{} >= {}", compare=True),
    "pow": power,
    "where": where,
    "clamp": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp,
    "_to_copy": converted,
    "stack": joined,
    "cat": joined,
    "index": indexed,
    "gather": gathered,
    "all": reduced("all"),
    "any": reduced("any"),
    "sum": reduced("sum"),
    "on_host": on_host,
    **{
        name: view
        for name in (
            "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "select", "slice", "expand", "permute", "t",
            "transpose", "unbind", "split", "split_with_sizes", "detach", "alias", "clone", "lift_fresh", "flip",
            "repeat", "as_strided", "unfold", "diagonal", "narrow", "contiguous",
        )
    },
}  # fmt: skip
