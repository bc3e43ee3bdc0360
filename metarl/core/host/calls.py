"""Functions of NumPy arrays inside of a family's step, such as a simulator's.

What torch does can be recorded and played again in another way. `on_host` lets such a recording hold a function of
NumPy arrays as one operation: it must be a function of its arguments alone.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

Function = Callable[..., Sequence[np.ndarray]]
"""Takes NumPy arrays, and returns several that it has made."""


Watcher = Callable[[Function, Sequence[Tensor]], Sequence[Tensor]]


_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


def on_host(function: Function, *tensors: Tensor) -> Sequence[Tensor]:
    """Call `function` with the values of the tensors; return its results as tensors on the device of the last one."""
    watcher = _watcher.get()
    return plainly(function, tensors) if watcher is None else watcher(function, tensors)


def plainly(function: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Do what `on_host` does where nobody watches."""
    device = tensors[-1].device
    arrays = (tensor.detach().cpu().numpy() for tensor in tensors)
    return [torch.from_numpy(result).to(device) for result in function(*arrays)]


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` call the functions of `on_host` inside, in this thread."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)
