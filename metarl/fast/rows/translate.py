"""Tapes as Python programs: NumPy's scalars for tensors of one number, NumPy's arrays for others.

An operation on tensors of one number takes torch about a microsecond, and NumPy's scalars a twentieth of that. Only
operations whose result IEEE 754 or integer arithmetic fixes to the last bit are written in NumPy; all others, such as a
cosine or the sum of several numbers, go on as calls of torch.
"""

from __future__ import annotations

from metarl.fast.rows import arithmetic, calls, places
from metarl.fast.rows.tape import Tape
from metarl.fast.rows.writer import DONE, Translation, Writer

HANDLERS: dict[str, Translation] = {
    "add": arithmetic.elementwise("{} + {}"),
    "sub": arithmetic.elementwise("{} - {}"),
    "rsub": arithmetic.elementwise("{1} - {0}"),
    "mul": arithmetic.elementwise("{} * {}"),
    "div": arithmetic.elementwise("{} / {}"),
    "neg": arithmetic.elementwise("-{}"),
    "abs": arithmetic.elementwise("abs({})"),
    "bitwise_and": arithmetic.elementwise("{} & {}"),
    "bitwise_or": arithmetic.elementwise("{} | {}"),
    "bitwise_xor": arithmetic.elementwise("{} ^ {}"),
    "bitwise_not": arithmetic.elementwise("~{}"),
    "logical_and": arithmetic.elementwise("{} & {}"),
    "logical_or": arithmetic.elementwise("{} | {}"),
    "logical_not": arithmetic.elementwise("~{}"),
    "__rshift__": arithmetic.elementwise("{} >> {}"),
    "__lshift__": arithmetic.elementwise("{} << {}"),
    "bitwise_right_shift": arithmetic.elementwise("{} >> {}"),
    "bitwise_left_shift": arithmetic.elementwise("{} << {}"),
    "remainder": arithmetic.whole_only("{} % {}"),
    "floor_divide": arithmetic.whole_only("{} // {}"),
    "eq": arithmetic.elementwise("{} == {}", compare=True),
    "ne": arithmetic.elementwise("{} != {}", compare=True),
    "lt": arithmetic.elementwise("{} < {}", compare=True),
    "le": arithmetic.elementwise("{} <= {}", compare=True),
    "gt": arithmetic.elementwise("{} > {}", compare=True),
    "ge": arithmetic.elementwise("{} >= {}", compare=True),
    "pow": arithmetic.power,
    "where": arithmetic.where,
    "clamp": arithmetic.clamp,
    "clamp_min": arithmetic.clamp,
    "clamp_max": arithmetic.clamp,
    "_to_copy": arithmetic.converted,
    "stack": places.joined,
    "cat": places.joined,
    "index": places.indexed,
    "gather": places.gathered,
    "all": arithmetic.reduced("all"),
    "any": arithmetic.reduced("any"),
    "sum": arithmetic.reduced("sum"),
    "on_host": calls.on_host,
    **{
        name: places.view
        for name in (
            "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "select", "slice", "expand", "permute", "t",
            "transpose", "unbind", "split", "split_with_sizes", "detach", "alias", "clone", "lift_fresh", "flip",
            "repeat", "as_strided", "unfold", "diagonal", "narrow", "contiguous",
        )
    },
}  # fmt: skip
"""The translations of torch's operations, by their names."""


def translated(tape: Tape) -> Writer:
    """Write the program of a tape. Raises NotRecorded for an operation in place that has no translation."""
    writer = Writer(tape)
    for operation in tape.operations:
        expression = HANDLERS.get(operation.name, calls.called)(writer, operation)
        if expression is None:
            expression = calls.called(writer, operation)
        if expression != DONE:
            writer.lines.append(f"v{operation.results[0]} = {expression}")
    return writer
