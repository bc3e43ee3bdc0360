"""GPU functions that are recorded once as a CUDA graph and then replayed.

Small networks on thousands of rows spend most of their time on launching kernels; a replay launches all kernels of a
recording with one call. A function that cannot be recorded (it synchronises, or copies from host memory) is called
eagerly instead. On a CPU a `Captured` function is always called eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UP = 3
"""Eager calls before a recording: they create lazily made objects, such as an optimiser's state."""


Signature = tuple[Any, ...]


class Captured:
    """A function of trees of tensors on `device`, recorded as a CUDA graph and replayed where possible.

    Each combination of shapes and types has a recording of its own, made at the fourth call; the first three calls are
    plain. `function` must do the same operations at every call: decisions in Python are made only once, during the
    recording, and all arguments must be tensors. Each replay sees the current values of parameters that the function
    reads or changes in place. Results are copies, so that the next call does not overwrite them.

    A function that `reduces` sums over several processes, between which nothing is recorded.

    `why_not` is None while recordings are made and used; otherwise the reason why all later calls are plain.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, reduces: bool = False) -> None:
        self.function, self.device = function, device
        self.why_not: str | None = None if device.type == "cuda" else f"{device.type} has no graphs"
        if reduces and torch.distributed.is_available() and torch.distributed.is_initialized():
            self.why_not = "several processes exchange numbers"
        self._calls: dict[Signature, int] = {}
        self._recordings: dict[Signature, Recording] = {}

    def __call__(self, *args: Any) -> Any:
        if self.why_not is not None:
            return self.function(*args)
        leaves, spec = pytree.tree_flatten(args)
        signature = (spec, *((leaf.shape, leaf.dtype) for leaf in leaves))
        number = self._calls[signature] = self._calls.get(signature, 0) + 1
        if number <= WARM_UP:
            return _on_side_stream(lambda: self.function(*args))
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
    """A CUDA graph of one call, with the memory for its arguments and its result."""

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


def _on_side_stream(function: Callable[[], Any]) -> Any:
    """Call on a side stream, as a recording does: a backward pass runs on the stream of its forward pass."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        result = function()
    current.wait_stream(side)
    return result
