"""NumPy functions, such as a simulator's step, inside a family's step.

Torch operations can be recorded and replayed in another way. `on_host` lets such a recording contain a NumPy function
as a single operation. The result of the function must depend on nothing but its arguments.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

Function = Callable[..., Sequence[np.ndarray]]
"""A function that takes NumPy arrays and returns new ones."""


Watcher = Callable[[Function, Sequence[Tensor]], Sequence[Tensor]]


_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


def on_host(function: Function, *tensors: Tensor) -> Sequence[Tensor]:
    """Call `function` with the values of the tensors; return its results as tensors on the device of the last one."""
    watcher = _watcher.get()
    return plainly(function, tensors) if watcher is None else watcher(function, tensors)


def plainly(function: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Call the function like `on_host` without a watcher."""
    device = tensors[-1].device
    arrays = (tensor.detach().cpu().numpy() for tensor in tensors)
    return [torch.from_numpy(result).to(device) for result in function(*arrays)]


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` handle the calls of `on_host` in this block and thread."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)
