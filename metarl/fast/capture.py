"""Work on a GPU that is recorded once as a CUDA graph and replayed from then on.

Small networks on thousands of rows are bound by the launching of kernels: a replay launches all of a recording's with
one call. What cannot be recorded (because it waits for the device, or copies from the host's memory) goes on as plain
calls, by itself. On a CPU a `Captured` function is the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UP = 3
"""Plain calls before a recording: they make what is made at a first use, such as an optimiser's state."""


Signature = tuple[Any, ...]


class Captured:
    """`function`, whose arguments and result are trees of tensors on `device`, replayed where it can be.

    Each combination of shapes and types is recorded for itself, on its fourth call; the three before it are plain ones
    that count. `function` must do the same operations at every call: what it decides in Python, it decides once, while
    it is recorded, and other values than tensors must not be among its arguments. Parameters that it reads or changes
    in place are seen as they are at each replay. Results are copies, so that they outlive the next call.

    `why_not` says why calls are plain ones for good: None while recordings are made and used.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        self.function, self.device = function, device
        self.why_not: str | None = None if device.type == "cuda" else f"{device.type} has no graphs"
        self._calls: dict[Signature, int] = {}
        self._recordings: dict[Signature, Recording] = {}

    def __call__(self, *args: Any) -> Any:
        if self.why_not is not None:
            return self.function(*args)
        leaves, spec = pytree.tree_flatten(args)
        signature = (spec, *((leaf.shape, leaf.dtype) for leaf in leaves))
        number = self._calls[signature] = self._calls.get(signature, 0) + 1
        if number <= WARM_UP:
            return _beside(lambda: self.function(*args))
        if signature not in self._recordings:
            try:
                self._recordings[signature] = self._record(leaves, spec)
            except RuntimeError as error:
                self.why_not = str(error).partition("\n")[0]
                return self.function(*args)
        return self._recordings[signature].replay(leaves)

    def _record(self, leaves: list[Tensor], spec: pytree.TreeSpec) -> Recording:
        return Recording(self.function, leaves, spec)


class Recording:
    """A CUDA graph of one call, with the memory that it reads its arguments from and leaves its result in."""

    def __init__(self, function: Callable[..., Any], leaves: list[Tensor], spec: pytree.TreeSpec) -> None:
        self.inputs = [leaf.clone() for leaf in leaves]
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph):
            result = function(*pytree.tree_unflatten(self.inputs, spec))
        self.outputs, self.spec = pytree.tree_flatten(result)

    def replay(self, leaves: list[Tensor]) -> Any:
        torch._foreach_copy_(self.inputs, leaves)
        self.graph.replay()
        return pytree.tree_unflatten([output.clone() for output in self.outputs], self.spec)


def _beside(function: Callable[[], Any]) -> Any:
    """Call on a stream of its own, as a recording does: a backward pass remembers the stream of its forward pass."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        result = function()
    current.wait_stream(side)
    return result
