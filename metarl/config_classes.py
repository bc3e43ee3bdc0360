"""The names of families and agents in a configuration, and what they stand for.

A name is the id of a registered family (``metarl/GridNavi-v0``, or ``module:theirs/Mine-v0`` for a module to import
first), the name inside an id, the name of a class that is imported, or the path of a class or of a factory.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from metarl.agent import AgentConfig
from metarl.config_errors import ConfigError, shown
from metarl.errors import unknown
from metarl.family import TaskFamily
from metarl.registry import family_class, registered, registered_in

SEE_FAMILIES = "metarl envs"
"""The command that shows all families."""
BASES: dict[str, type] = {"family": TaskFamily, "agent": AgentConfig}
"""The fields that hold an object with options of its own, and what it is an instance of."""


class Named(NamedTuple):
    """What makes the family or the agent's configuration, and what a config file calls it."""

    factory: Callable[..., Any]
    name: str

    @property
    def short(self) -> str:
        """The name for people: without module, namespace and version."""
        return re.sub(r".*[/.]|-v\d+$", "", self.name)


def find_class(field: str, name: Any) -> Named:
    """What `name` stands for as the `field` ("family" or "agent"). Raises ConfigError if it stands for nothing."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{field} must be the name of a class, got {shown(name)}.")
    id = family_id(name) if field == "family" else None
    if id is not None:
        return _named(field, family_class(id), f"{name.rpartition(':')[0] or registered_in(id)}:{id}")
    if "." not in name:
        return _named(field, _known_class(field, name), name)
    factory = _at(field, name)
    base = BASES[field]
    if isinstance(factory, type) and not issubclass(factory, base):
        raise ConfigError(f"{field}: {name} is no subclass of {base.__name__}.")
    if not callable(factory):
        raise ConfigError(f"{field}: {name} is neither a class nor a function.")
    if inspect.isabstract(factory):
        raise ConfigError(f"{field}: {name} is the base of the classes that can be used, and none itself.")
    return _named(field, factory, name)


def family_id(name: str) -> str | None:
    """The registered id that `name` stands for; None if `name` is something else, such as a class path.

    `name` may be an id, the name inside an id (``GridNavi``), or ``module:id``, which imports the module first.
    Raises ConfigError for a name that looks like an id and is none.
    """
    module, _, id = name.rpartition(":")
    if module:
        _import(module)
    if id in registered():
        return id
    if "/" in id or module:
        raise ConfigError(unknown("task family", id, registered(), see=SEE_FAMILIES))
    ours = [known for known in registered() if re.sub(r"-v\d+$", "", known.partition("/")[2]) == id]
    return ours[-1] if ours else None


def _named(field: str, factory: Callable[..., Any], given: str) -> Named:
    """With a name that finds it again in another process: of ours the shortest, else a path, or module and id."""
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    if getattr(sys.modules.get(module), name, None) is not factory:  # a partial, a local class: only as it was given
        return Named(factory, given)
    if not module.startswith("metarl."):
        return Named(factory, f"{module}.{name}")
    id = family_id(name) if field == "family" else None
    if field == "agent" or (id is not None and family_class(id) is factory):
        return Named(factory, id or name)
    return Named(factory, f"{module}.{name}")


def _known_class(field: str, name: str) -> type:
    known = {cls.__name__: cls for cls in _subclasses(BASES[field]) if not inspect.isabstract(cls)}
    if name not in known:
        see = SEE_FAMILIES if field == "family" else ""
        raise ConfigError(unknown(f"{field} class", name, names_of(field), see=see))
    return known[name]


def names_of(field: str) -> list[str]:
    """The short names that there are."""
    known = {cls.__name__ for cls in _subclasses(BASES[field]) if not inspect.isabstract(cls)}
    if field == "family":
        known |= {re.sub(r".*/|-v\d+$", "", id) for id in registered()}
    return sorted(known)


def _at(field: str, path: str) -> Any:
    """What stands at the path of a class or a function."""
    where, _, name = path.rpartition(".")
    module, names = _import(where), names_of(field)
    if not hasattr(module, name):
        there = [key for key, value in vars(module).items() if isinstance(value, type)] or names
        raise ConfigError(unknown(f"{field} class", name, sorted(set(there) & set(names) or there), f" in {where}"))
    return getattr(module, name)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            where = f"neither in {str(Path.cwd())!r} nor among the installed packages"
            raise ConfigError(f"There is no module {module!r}, {where}.") from error
        raise ConfigError(f"The module {module!r} needs {error.name!r}, which is not installed.") from error
    except Exception as error:  # anything that a module of the user's raises
        raise ConfigError(f"The module {module!r} cannot be imported: {type(error).__name__}: {error}.") from error


def _subclasses(base: type) -> list[type]:
    direct: list[type] = base.__subclasses__()
    return [*direct, *(cls for child in direct for cls in _subclasses(child))]
