"""A GPU that is only pretended, for tests on a machine without one.

Its tensors say that they are on the device `meta`, and keep their values on the CPU. So code that is written for any
device runs to its end, and what a real GPU would refuse is refused: an operation on tensors of two devices always, and
inside of what is recorded also a look at a value, for which a GPU would have to be waited for, and a copy from the
host's memory. That the arithmetic of a GPU is right is not tested here; a test for that needs one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.fast.capture import Captured

GPU = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
LOADS = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
"""The mark of tests that load parameters: torch thinks that nothing can be copied to the device `meta`."""
COPIES = {aten._to_copy.default, aten.copy_.default}
LOOKS = {
    aten._local_scalar_dense.default,
    aten.allclose.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten._linalg_check_errors.default,
}
"""Operations whose result, or its shape, the host has to know."""


class Refused(RuntimeError):
    """The error for what a GPU would refuse, or what a recording could not hold."""


class OnGPU(Tensor):
    """A tensor of the pretended GPU; `host` has its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> OnGPU:
        found: OnGPU = Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=GPU,
        )
        return found

    def __init__(self, host: Tensor) -> None:
        self.host = host

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGPU({self.host!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return performed(func, args, kwargs or {}, None)


class Tape:
    """What a recording holds: operations, with their numbers and with the memory that they read from outside."""

    def __init__(self, arguments: Iterable[OnGPU]) -> None:
        self.operations: list[tuple[Any, ...]] = []
        self.inside = {_memory(leaf) for leaf in arguments}
        self.outside: dict[int, Tensor] = {}  # kept, so that no other tensor takes its place in memory

    def note(self, func: Any, args: Iterable[Any], result: Any) -> None:
        """Add an operation."""
        self.operations.append((str(func), *map(self._told, args)))
        self.inside.update(place for leaf in _tensors([result]) if (place := _memory(leaf)) not in self.outside)

    def _told(self, arg: Any) -> Any:
        if isinstance(arg, (list, tuple)):
            return tuple(map(self._told, arg))
        if not isinstance(arg, Tensor):
            return str(arg)
        if not isinstance(arg, OnGPU):
            return arg.tolist()
        if (place := _memory(arg)) in self.inside:
            return "inside"
        self.outside[place] = arg.host
        return place

    def same_as(self, other: Tape) -> None:
        """Raise Refused unless a replay of this tape would do what the other one did."""
        for mine, theirs in zip_longest(self.operations, other.operations):
            if mine != theirs:
                raise Refused(f"a replay would do {mine}, and the next call did {theirs}")


def _memory(tensor: Tensor) -> int:
    return (tensor.host if isinstance(tensor, OnGPU) else tensor).untyped_storage().data_ptr()


def performed(func: Any, args: Any, kwargs: dict[str, Any], tape: Tape | None) -> Any:
    """Do an operation of torch's on the devices that its tensors say, and note it on the tape of a recording."""
    given = list(_tensors((*args, *kwargs.values())))
    on_gpu = {id(leaf.host): leaf for leaf in given if isinstance(leaf, OnGPU)}
    named = kwargs.get("device")
    there = torch.device(named) == GPU if named is not None else bool(on_gpu)
    if func is aten.copy_.default:
        there = isinstance(args[0], OnGPU)
    if there or on_gpu:
        _check(func, args, given, there, tape is not None)
    if named is not None and there:
        kwargs = kwargs | {"device": CPU}
    result = func(*_hosts(args), **{name: _hosts(arg) for name, arg in kwargs.items()})
    result = _told(result, on_gpu) if there else result
    if tape is not None and (there or on_gpu):
        tape.note(func, (*args, *kwargs.values()), result)
    return result


def _tensors(args: Iterable[Any]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from _tensors(arg)


def _hosts(arg: Any) -> Any:
    """Return the values of tensors in arguments."""
    if isinstance(arg, (list, tuple)):
        return [_hosts(each) for each in arg]
    return arg.host if isinstance(arg, OnGPU) else arg


def _told(result: Any, on_gpu: dict[int, OnGPU]) -> Any:
    """Return a result on the pretended GPU; what was changed in place stays what it was."""
    if isinstance(result, (list, tuple)):
        return tuple(_told(each, on_gpu) for each in result)
    if not isinstance(result, Tensor):
        return result
    return on_gpu[id(result)] if id(result) in on_gpu else OnGPU(result)


def _check(func: Any, args: Any, given: list[Tensor], there: bool, recording: bool) -> None:
    """Raise Refused for what a GPU would refuse, or what a recording could not hold."""
    if any(leaf.device == GPU and not isinstance(leaf, OnGPU) for leaf in given):
        raise AssertionError(f"{func}: a tensor was made where the pretended GPU does not see it")
    if func in COPIES:
        source = args[1] if func is aten.copy_.default else args[0]
        if recording and there is not isinstance(source, OnGPU):
            raise Refused(f"{func}: a copy {'from' if there else 'to'} the host's memory in a recording")
        return
    # A single number on the CPU may be combined with tensors on the GPU entry by entry.
    lone = torch.Tag.pointwise in func.tags or func is aten.index_put_.default
    if len({isinstance(leaf, OnGPU) for leaf in given if leaf.ndim or not lone or isinstance(leaf, OnGPU)}) > 1:
        raise Refused(f"{func}: tensors on two devices")
    if recording and (func in LOOKS or _by_mask(func, args)):
        raise Refused(f"{func}: a look at a value in a recording")


def _by_mask(func: Any, args: Any) -> bool:
    """Whether entries are chosen by a mask, so that how many there are has to be counted first."""
    if func not in (aten.index.Tensor, aten.index_put_.default):
        return False
    return any(index is not None and index.dtype is torch.bool for index in args[1])


class Kernels(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return performed(func, args, kwargs or {}, self.gpu.tape)


class Calls(TorchFunctionMode):
    """Sees those calls of torch's functions that reach no operation which `Kernels` could see."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **(kwargs | {"device": None})).to(kwargs["device"])
        if func is Tensor.tolist and isinstance(args[0], OnGPU):
            return args[0].to(CPU).tolist()
        return func(*args, **kwargs)


class PretendedGPU:
    """The device of a test, and whether what happens now is being recorded."""

    def __init__(self) -> None:
        self.tape: Tape | None = None
        self.tapes: dict[Any, Tape] = {}
        self.calls: dict[Any, int] = {}
        """Calls of each `Captured`, for each combination of shapes, those that were recorded included."""

    @contextmanager
    def recording(self, *arguments: OnGPU) -> Iterator[Tape]:
        """Refuse inside what a recording cannot hold."""
        before, self.tape = self.tape, Tape(arguments)
        try:
            yield self.tape
        finally:
            self.tape = before

    def call(self, captured: Captured, *args: Any) -> Any:
        """Take the place of ``Captured.__call__``: the first call is plain, and all after it are recorded.

        Raises Refused if a replay of the second call would not do what a later call does.
        """
        if captured.device != GPU:
            return captured.function(*args)
        leaves, spec = pytree.tree_flatten(args)
        assert all(isinstance(leaf, OnGPU) for leaf in leaves), "arguments of a recording are tensors on the device"
        signature = captured, spec, *((leaf.shape, leaf.dtype) for leaf in leaves)
        self.calls[signature] = self.calls.get(signature, 0) + 1
        if self.calls[signature] == 1:
            return captured.function(*args)
        with self.recording(*leaves) as tape:
            result = captured.function(*args)
        assert all(isinstance(leaf, OnGPU) for leaf in pytree.tree_leaves(result)), "results are on the device"
        self.tapes.setdefault(signature, tape).same_as(tape)
        return result

    def was_recorded(self, captured: Captured) -> bool:
        """Whether a part was called often enough with the same shapes."""
        return any(signature[0] is captured and number > 2 for signature, number in self.calls.items())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGPU]:
    """A pretended GPU."""
    found = PretendedGPU()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: found.tape is not None)
    monkeypatch.setattr(Captured, "__call__", lambda captured, *args: found.call(captured, *args))
    with Calls(found), Kernels(found):
        yield found


def same(found: Any, wanted: Any) -> None:
    """Assert that trees of tensors, those found on the pretended GPU, hold the same numbers up to rounding."""
    if isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for each, other in zip(found, wanted, strict=True):
            same(each, other)
    elif isinstance(wanted, Tensor):
        assert isinstance(found, OnGPU), "it is on the CPU"
        torch.testing.assert_close(found.host, wanted, rtol=1e-3, atol=1e-4)
    else:
        assert found == wanted
