"""Plain functions with a fast twin.

A plain function says what is computed. Its fast twin gives the same numbers up to rounding, sooner, on some kinds of
device; it lives in `metarl.fast`, which says for every part where it is used::

    @twin("tanh")
    def tanh(x): return torch.tanh(x)              # what is meant

    register("tanh", fast_tanh, on=("cpu",))       # in metarl.fast: what runs on a CPU

Inside ``with plain():`` every call goes to the plain function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_FAST: dict[str, tuple[Callable[..., Any], frozenset[str]]] = {}
_plain = False


def twin(part: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let calls of the decorated function go to the fast twin of `part` where there is one.

    The device is that of the first tensor among the positional arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            fast, devices = _FAST.get(part, (None, None))
            if fast is None or devices is None or _plain or _device_of(args) not in devices:
                return function(*args, **kwargs)
            result: R = fast(*args, **kwargs)
            return result

        return chosen

    return decorate


def register(part: str, fast: Callable[..., Any], on: Sequence[str]) -> None:
    """Use `fast`, which takes the same arguments as the plain function of `part`, on devices of the kinds `on`."""
    _FAST[part] = fast, frozenset(on)


def registered_parts() -> dict[str, frozenset[str]]:
    """All parts that have a fast twin, with the kinds of device on which it is used."""
    return {part: devices for part, (_, devices) in _FAST.items()}


@contextmanager
def plain() -> Iterator[None]:
    """Use the plain functions inside, for comparisons. It holds for all threads."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def _device_of(args: tuple[Any, ...]) -> str:
    return next(arg for arg in args if isinstance(arg, Tensor)).device.type
