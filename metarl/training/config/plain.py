"""Checks that values of options are plain data and do not name classes or functions to import or call.

jsonargparse accepts the path of a class or a function for options of such types, and ``class_path`` for options of any
type. A configuration is only data, so neither is passed to it.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import os
import types
import typing
from collections.abc import Collection, Hashable, Mapping
from typing import Any, get_args, get_origin

import yaml

from metarl.training.config.errors import ConfigError, shown
from metarl.training.config.safe_yaml import Misleading, Refused, load_yaml

_LEAVES = {int, float, bool, str, bytes, type(None), None, Any, object, inspect.Parameter.empty, Ellipsis}


LARGEST = 2**63 - 1
"""The largest integer that a tensor can hold."""


_OBJECTS = ("class_path", "init_args", "dict_kwargs")


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Flatten nested values: ``{"agent.lr": 0.001}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) and value else {f"{before}{key}": value}
    return found


def check_plain(key: str, hint: Any, value: Any) -> None:
    """Raise ConfigError for a value of the option `key`, of type `hint`, that would be more than data."""
    if not is_plain(hint):
        raise ConfigError(
            f"{key} takes a Python object, which a configuration cannot hold: register a function that makes it, or "
            "functools.partial, under an id of its own."
        )
    if names_object(value):
        raise ConfigError(f"{key} must be plain data, and a 'class_path' in it names a class: write the value itself.")
    number = _largest(value)
    if number > LARGEST:
        raise ConfigError(f"{key} must be at most 2^63 - 1, got {shown(value)}.")


def check_typed(key: str, hint: Any, text: str) -> None:
    """Raise ConfigError for text on the command line that is unsafe or misleading as YAML."""
    try:
        load_yaml(text)
    except Misleading as error:
        if not _may_be_text(hint):
            raise ConfigError(error.inside(f"the value of --{key}")) from error
    except Refused as error:
        raise ConfigError(error.inside(f"the value of --{key}")) from error
    except yaml.YAMLError:
        pass  # a text, or a mistake that the option's type will show


def is_plain(hint: Any, inside: tuple[Any, ...] = ()) -> bool:
    """Return True if all values of a type are data: numbers, strings, enums, paths, and containers of these."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is typing.Literal or hint in inside:
        return True
    if origin is not None:
        container = origin in (typing.Union, types.UnionType, typing.Annotated)
        container = container or (isinstance(origin, type) and issubclass(origin, Collection))
        parts = parts[:1] if origin is typing.Annotated else parts
        return container and all(is_plain(part, (*inside, hint)) for part in parts)
    if isinstance(hint, Hashable) and hint in _LEAVES:
        return True
    if isinstance(hint, typing.TypeVar) or _home(hint) == "jsonargparse":
        return True  # of an option without a type, or with one that cannot be found: any value
    if not isinstance(hint, type):
        return False
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields") or typing.is_typeddict(hint):
        try:
            return all(is_plain(part, (*inside, hint)) for part in typing.get_type_hints(hint).values())
        except (NameError, TypeError):  # names that only type checkers know
            return False
    return hint in (list, tuple, dict, set, frozenset) or issubclass(hint, (enum.Enum, os.PathLike))


def _home(hint: Any) -> str:
    """Return the package that defines a type, or the class of its stand-in."""
    return str(getattr(hint, "__module__", type(hint).__module__)).partition(".")[0]


def names_object(value: Any) -> bool:
    """Return True if a value, or YAML text in it, has a key that makes jsonargparse create an object."""
    if isinstance(value, str):
        try:
            data = load_yaml(value)
        except yaml.YAMLError:
            return False
        return not isinstance(data, str) and names_object(data)
    if isinstance(value, Mapping):
        return any(key in _OBJECTS or names_object(inner) for key, inner in value.items())
    return isinstance(value, (list, tuple)) and any(map(names_object, value))


def _largest(value: Any) -> int:
    """Return the magnitude of the largest integer in a value."""
    if isinstance(value, int):
        return abs(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return max(map(_largest, parts), default=0)


def _may_be_text(hint: Any) -> bool:
    return hint in (str, Any, object) or any(map(_may_be_text, get_args(hint)))
