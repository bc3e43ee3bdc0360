"""Which options a factory takes: a class, or anything else that makes an object when it is called.

Python lets options pass through: a subclass hands its ``**kwargs`` to its parent, a function to the class that it
calls, and `functools.partial` sets some. Their names are found as far as the source shows them; what a factory really
takes shows when it is called.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Factory = Callable[..., Any]
MISSING = inspect.Parameter.empty
"""The default of an option that has to be given."""
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY = (inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),)


def options_of(factory: Factory) -> dict[str, Any]:
    """The options of `factory` and their defaults (`MISSING` where there is none), those that it passes on last."""
    own = own_options(factory)
    if not takes_any(factory):
        return own
    from jsonargparse import ArgumentParser  # slow to import, and rarely needed

    return own | {k: v for k, v in add_arguments(ArgumentParser(), factory, "x").items() if k not in own}


def own_options(factory: Factory) -> dict[str, Any]:
    """The options that stand in the factory's own signature, and their defaults."""
    return {p.name: p.default for p in _parameters(factory) if p.kind in _BY_NAME}


def takes_any(factory: Factory) -> bool:
    """Whether it takes ``**kwargs``, and so may know options that its signature does not show."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in _parameters(factory))


def refused(error: TypeError, given: Collection[str]) -> str | None:
    """Which of the options `given` a call does not take, or sets itself, if that is what `error` says."""
    found = re.search(r"(?:unexpected keyword argument|multiple values for (?:keyword )?argument) '(\w+)'", str(error))
    return found[1] if found and found[1] in given else None


def add_arguments(
    parser: ArgumentParser, factory: Factory, key: str, skip: Collection[str] = (), group: bool = True
) -> dict[str, Any]:
    """Add the options of `factory` to `parser` as ``--key.name`` with their types; returns names and defaults.

    None of them is required there: what is missing shows when the factory is called.
    """
    if isinstance(factory, partial):
        positional = [p.name for p in _parameters(factory.func)][: len(factory.args)]
        found = add_arguments(parser, factory.func, key, {*skip, *positional}, group)
        fixed = {name: value for name, value in factory.keywords.items() if name in found}
        parser.set_defaults({f"{key}.{name}": value for name, value in fixed.items()})
        return found | fixed
    found = _add(parser, factory, key, skip, group)
    onward = _passes_on_to(factory)
    if onward is not None and takes_any(factory) and found.keys() <= own_options(factory).keys():
        found |= add_arguments(parser, onward, key, {*skip, *found}, group=False)
    return found


def _add(parser: ArgumentParser, factory: Factory, key: str, skip: Collection[str], group: bool) -> dict[str, Any]:
    before = len(parser._actions)
    how: dict[str, Any] = {"as_group": group, "skip": {*skip}, "fail_untyped": False}
    if isinstance(factory, type):
        parser.add_class_arguments(factory, key, instantiate=False, **how)
    else:
        parser.add_function_arguments(factory, key, **how)
    found = {}
    for action in parser._actions[before:]:
        if action.dest != key:  # that of the group
            found[action.dest.removeprefix(f"{key}.")] = MISSING if action.required else action.default
            action.required = False
    return found


def _passes_on_to(factory: Factory) -> Factory | None:
    """Where ``**kwargs`` go whose use in the source is not understood: to the parent, or to the class that is made."""
    if isinstance(factory, type):
        later = factory.__mro__[next(i for i, cls in enumerate(factory.__mro__) if "__init__" in vars(cls)) + 1 :]
        return next((cls for cls in later if "__init__" in vars(cls) and cls is not object), None)
    if inspect.ismethod(factory):
        return factory.__self__ if isinstance(factory.__self__, type) else None
    try:
        made = typing.get_type_hints(factory).get("return")
    except (NameError, TypeError):  # names that are known to type checkers alone; not a function
        return None
    return made if isinstance(made, type) else None


def _parameters(factory: Factory) -> Collection[inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters.values()
    except ValueError:  # written in C
        return _ANY
