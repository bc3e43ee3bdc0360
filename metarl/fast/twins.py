"""Plain functions with a fast twin.

A plain function defines a result. Its fast twin gives the same numbers up to rounding, in less time, on some kinds of
device; `metarl.fast` registers for every part where it is used::

    @twin("tanh")
    def tanh(x): return torch.tanh(x)              # the definition

    register("tanh", fast_tanh, on=("cpu",))       # in metarl.fast: used on a CPU

Inside ``with plain():`` all calls go to plain functions, and environments are plain ones; inside
``with plain("tanh"):`` only calls of this part do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from metarl.core.batch_env import BatchEnv, step_by
from metarl.core.errors import unknown

STEPPING = "stepping"
P = ParamSpec("P")
R = TypeVar("R")

_FAST: dict[str, tuple[Callable[..., Any], frozenset[str], Callable[..., bool] | None]] = {}
_plain: frozenset[str] = frozenset()  # the parts whose plain functions are used


def twin(part: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let calls of the decorated function go to the fast twin of `part` if there is one for the device.

    The device is that of the first tensor among the positional arguments, or in a tuple among them.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            fast, devices, suits = _FAST.get(part, _NONE)
            if part in _plain or _device_of(args) not in devices or not (suits is None or suits(*args, **kwargs)):
                return function(*args, **kwargs)
            result: R = fast(*args, **kwargs)
            return result

        return chosen

    return decorate


def register(part: str, fast: Callable[..., Any], on: Sequence[str], suits: Callable[..., bool] | None = None) -> None:
    """Use `fast`, which takes the same arguments as the plain function of `part`, on devices of the kinds `on`.

    ``suits(*args)`` tells whether it can handle the arguments; None: it can handle all that the plain function can.
    """
    _FAST[part] = fast, frozenset(on), suits


def registered_parts() -> dict[str, frozenset[str]]:
    """Return all parts that have a fast twin, with the kinds of device on which it is used."""
    return {part: devices for part, (_, devices, _) in _FAST.items()}


@contextmanager
def plain(*parts: str) -> Iterator[None]:
    """Use the plain functions of these parts inside, for comparisons; of all parts if none is named.

    It holds for all threads. The part `STEPPING` stands for the environments that `metarl.core.batch_env.make_env`
    makes. Raises ValueError for an unknown part.
    """
    global _plain
    every = {STEPPING, *_FAST}
    for part in parts:
        if part not in every:
            raise ValueError(unknown("part", part, sorted(every)))
    chosen = frozenset(parts or every)
    before, _plain = _plain, _plain | chosen
    kind = step_by(BatchEnv) if STEPPING in chosen else None
    try:
        yield
    finally:
        _plain = before
        if kind is not None:
            step_by(kind)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for the fast twin of a part that has none; it is used on no device."""


_NONE: tuple[Callable[..., Any], frozenset[str], None] = _nothing, frozenset(), None


def _device_of(args: tuple[Any, ...]) -> str:
    for arg in args:
        first = arg[0] if isinstance(arg, tuple) and arg else arg
        if isinstance(first, Tensor):
            return first.device.type
    raise TypeError("A function with a fast twin needs a tensor among its positional arguments.")
