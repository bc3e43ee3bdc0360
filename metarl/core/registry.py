"""The registry of task families: register, find and make families by ids such as ``metarl/GridNavi-v0``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from metarl.core.errors import brief, short
from metarl.core.options import options_of, own_options, refused, takes_any

if TYPE_CHECKING:
    from metarl.core.family import AnyFamily


# The registry holds only strings at first, so that torch and the families are not imported until a family is made.

_REGISTRY: dict[str, Callable[..., AnyFamily] | str] = {}


_REGISTERED_IN: dict[str, str] = {}


_ON_REGISTER: list[Callable[[str], None]] = []


def register(id: str, family: Callable[..., AnyFamily] | str) -> None:
    """Register `family` under `id`, e.g. ``"theirs/Mine-v0"``.

    `family` is a TaskFamily class, ``"module:Class"``, or a factory: a callable that makes a family from options, such
    as a function or ``functools.partial(GridNavi, episodes_per_trial=8)``.

    After ``import metarl`` the id is also a Gymnasium id. Registering the same family again has no effect. Raises
    ValueError for another family under a taken id, a malformed id, or a `family` of another kind.
    """
    if not isinstance(id, str) or "/" not in id or "-v" not in id:
        raise ValueError(f"A family's id must be like 'namespace/Name-v0', got {short(id)}.")
    if not isinstance(family, str) and not callable(family):
        raise ValueError(f"{id} needs a TaskFamily class, or a function that returns a family, got {short(family)}.")
    if _REGISTRY.get(id, family) is not family and _path(_REGISTRY[id]) != _path(family):
        raise ValueError(f"The id {id!r} is already taken by {_path(_REGISTRY[id])}.")
    _REGISTRY[id] = family
    _REGISTERED_IN[id] = sys._getframe(1).f_globals.get("__name__", "__main__")
    for hook in _ON_REGISTER:
        hook(id)


def registered_in(id: str) -> str:
    """Return the module that registered an id; importing it registers the id."""
    return _REGISTERED_IN[id]


def registered() -> list[str]:
    """Return the ids of all registered families, sorted."""
    return sorted(_REGISTRY)


def family_class(id: str) -> Callable[..., AnyFamily]:
    """Return the class or factory registered under an id.

    Raises ValueError for an unknown id; the message names the nearest one.
    """
    if not isinstance(id, str):
        raise ValueError(f"A family's id must be a string, such as 'metarl/GridNavi-v0', got {short(id)}.")
    if id not in _REGISTRY:
        from metarl.core.errors import unknown

        raise ValueError(unknown("task family", id, registered(), see="metarl.registered()"))
    entry = _REGISTRY[id]
    if isinstance(entry, str):
        module, _, name = entry.partition(":")
        entry = getattr(importlib.import_module(module), name)
    return entry


def make(id: str, **kwargs: Any) -> AnyFamily:
    """Make the family registered as `id`; keyword arguments are its options.

    Every family accepts ``train_tasks=N``, which makes its split `train` a fixed list of N tasks.

    Raises ValueError for an unknown id, and UnknownOption (a ValueError) for an unknown option.
    """
    factory = family_class(id)
    length = kwargs.pop("train_tasks", None) if "train_tasks" not in options_of(factory) else None
    family: AnyFamily = build(factory, kwargs, id, also=("train_tasks",), see=f"metarl envs {id}")
    if length is not None:
        family.train_on(length)
    return family


def build(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    name: str,
    kind: type | None = None,
    also: Iterable[str] = (),
    see: str = "",
) -> Any:
    """Call `factory` with these options and return the result; error messages call the factory `name`.

    Raises UnknownOption for an option that the factory does not accept; the message contains the nearest of its options
    and of `also`, and `see`, a command that shows all. Raises ValueError unless the result is a `kind`, by default a
    TaskFamily.
    """
    from metarl.core.family import TaskFamily

    kind = TaskFamily if kind is None else kind
    wrong = None if takes_any(factory) else next((each for each in options if each not in own_options(factory)), None)
    if wrong is None:
        try:
            made = factory(**options)
        except TypeError as error:
            wrong = refused(error, options)
            if wrong is None:
                raise
        except (MemoryError, OverflowError, ValueError) as error:
            if isinstance(error, ValueError) and "Maximum allowed" not in str(error):  # NumPy's dimension limit
                raise
            raise ValueError(f"{name} cannot be made with numbers as large as {brief(repr(options))}.") from error
    if wrong is not None:
        from metarl.core.errors import unknown_option

        raise unknown_option(name, wrong, dict.fromkeys([*options_of(factory), *also]), see)
    if not isinstance(made, kind):
        raise ValueError(f"{name} must make a {kind.__name__}, got a value of {type(made).__name__}.")
    return made


def on_register(hook: Callable[[str], None]) -> None:
    """Call `hook(id)` for every family registered so far or later (used by the Gymnasium view)."""
    _ON_REGISTER.append(hook)
    for id in registered():
        hook(id)


def _path(family: Callable[..., AnyFamily] | str) -> str:
    """Identify a registered family by a path that a reload of its module does not change."""
    if isinstance(family, str):
        return family
    if isinstance(family, partial):
        return f"{_path(family.func)} with {family.args or ''}{family.keywords}"
    path = f"{family.__module__}:{getattr(family, '__qualname__', type(family).__qualname__)}"
    code = getattr(family, "__code__", None)
    return f"{path} in line {code.co_firstlineno}" if "<" in path and code is not None else path
