"""A tape: the operations on tensors that a function does, one after the other, recorded while it runs once.

A tape can be played again only if the function does the same at every call. It is refused (`NotRecorded`) if a value of
a tensor is looked at, since Python might decide by it; if numbers are drawn from a generator; and if a tensor is
written into that other tensors share. What does not depend on the arguments is a constant of the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.core.host import calls as host
from metarl.core.tree import tree_map

LOOKS = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr, Tensor.__dlpack__}
"""Functions of a tensor's values that torch does not dispatch."""
FILLED = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
"""Operations whose result is made of the shape of a tensor alone."""


class NotRecorded(Exception):
    """The reason why a function cannot be played from a tape; one sentence without its full stop."""


class Ref(NamedTuple):
    """A value of the tape, by its number, in the place of a tensor."""

    number: int


class Value(NamedTuple):
    """A value of the tape: all that is known of it before the tape is played."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    dense: bool  # whether its numbers lie one after the other in memory
    constant: np.ndarray | None = None


class Operation(NamedTuple):
    """One operation of a tape: its name (``mul``), the function, its arguments and the numbers of its results."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]


class Tape(NamedTuple):
    """The recording of a call: `inputs` and `outputs` are values' numbers in the order of the leaves."""

    values: list[Value]
    operations: list[Operation]
    inputs: list[int]
    outputs: list[int]

    def alike(self, other: Tape) -> bool:
        """Tell whether both have the same operations on the same constants."""
        return (
            len(self.operations) == len(other.operations)
            and all(map(_same_operation, self.operations, other.operations))
            and (self.inputs, self.outputs) == (other.inputs, other.outputs)
            and len(self.values) == len(other.values)
            and all(map(_same_value, self.values, other.values))
        )


def _same_operation(one: Operation, other: Operation) -> bool:
    parts = [(getattr(f, "func", f), *getattr(f, "args", ())) for f in (one.function, other.function)]  # of a partial
    return one._replace(function=other.function) == other and parts[0] == parts[1]


def _same_value(one: Value, other: Value) -> bool:
    known = [each.constant.tobytes() if each.constant is not None else None for each in (one, other)]
    return one[:3] == other[:3] and known[0] == known[1]


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Tape:
    """Call ``function(*inputs)``, which returns several tensors, and return the tape of the call.

    Raises NotRecorded if the tape would not be the function.
    """
    inputs = [each.detach().clone() for each in inputs]  # two of them may be one tensor now, and not later
    recorder = _Recorder(inputs)
    with torch.no_grad(), host.watched_by(recorder.on_host), _Looks(recorder), recorder:
        outputs = function(*inputs)
    return Tape(recorder.values, recorder.operations, [*range(len(inputs))], [*map(recorder.number, outputs)])


class _Recorder(TorchDispatchMode):
    """Writes down what is dispatched."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler, which takes seconds

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.operations: list[Operation] = []
        self.inside = False  # of a function on the host, which may look at values
        self._numbers: dict[int, int] = {}
        self._own: set[int] = set()  # the ids of what operations have made
        self._kept: list[Tensor] = []  # so that no tensor gets the id of another
        self._shared: dict[int, int] = {}  # tensors that are known of each storage
        for each in inputs:
            self._know(each, False)

    def number(self, tensor: Tensor) -> int:
        """Return a tensor's number; one that no operation made is a constant."""
        if id(tensor) not in self._numbers:
            self._know(tensor, True)
        return self._numbers[id(tensor)]

    def _know(self, tensor: Tensor, fixed: bool) -> int:
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.dtype not in DTYPES:
            raise NotRecorded(f"there is a tensor of {tensor.dtype} on {tensor.device}")
        if id(tensor) not in self._numbers:
            self._kept.append(tensor)
            storage = tensor.untyped_storage().data_ptr()
            self._shared[storage] = self._shared.get(storage, 0) + 1
        number = self._numbers[id(tensor)] = len(self.values)
        known = self._copied(tensor) if fixed else None
        self.values.append(Value(tuple(tensor.shape), tensor.dtype, tensor.is_contiguous(), known))
        return number

    def _made(self, tensor: Tensor, fixed: bool = False) -> int:
        number = self._know(tensor, fixed)
        self._own.add(id(tensor))
        return number

    def _copied(self, tensor: Tensor) -> np.ndarray:
        before, self.inside = self.inside, True
        try:
            return tensor.detach().numpy().copy()
        finally:
            self.inside = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        numbered = tree_map(self._ref, (tuple(args), kwargs))
        used = _refs(numbered)
        constant = all(self.values[ref.number].constant is not None for ref in used)
        writes = func._schema.is_mutable
        self._check(func, args, constant, writes)
        result = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if writes:
            name = name.removesuffix("_")
        if isinstance(result, (Tensor, tuple, list)):
            outs = [result] if isinstance(result, Tensor) else list(result)
            fixed = constant or name in FILLED
            numbers = tuple(self._made(out, fixed) for out in outs)
            if not fixed:
                self.operations.append(Operation(name, func, numbered[0], numbered[1], numbers))
        elif not constant:
            raise NotRecorded(f"{name} looks at the values of tensors")
        return result

    def _check(self, func: Any, args: Any, constant: bool, writes: bool) -> None:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecorded(f"{func} draws from a generator")
        if torch.Tag.data_dependent_output in func.tags and not constant:
            raise NotRecorded(f"{func} looks at the values of tensors")
        if writes:
            if id(args[0]) not in self._own or self._shared[args[0].untyped_storage().data_ptr()] > 1:
                raise NotRecorded(f"{func} writes into a tensor that others see")

    def _ref(self, leaf: Any) -> Any:
        return Ref(self.number(leaf)) if isinstance(leaf, Tensor) else leaf

    def on_host(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Write down a function of NumPy arrays as one operation."""
        self.inside = True
        try:
            results = host.plainly(function, tensors)
        finally:
            self.inside = False
        args = tuple(Ref(self.number(each)) for each in tensors)
        self.operations.append(Operation("on_host", function, args, {}, tuple(self._made(r) for r in results)))
        return results


class _Looks(TorchFunctionMode):
    """Refuses looks at values that are not dispatched."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LOOKS and not self.recorder.inside:
            number = self.recorder.number(args[0])
            if self.recorder.values[number].constant is None:
                raise NotRecorded(f"{func.__name__} looks at the values of a tensor")
        return func(*args, **(kwargs or {}))


def _refs(tree: Any) -> list[Ref]:
    """The values among the arguments of an operation."""
    if isinstance(tree, Ref):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return [ref for part in parts for ref in _refs(part)]


DTYPES: dict[torch.dtype, Any] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}
"""NumPy's types of the values of a tape."""
