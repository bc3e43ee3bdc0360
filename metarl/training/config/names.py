"""The names of families and agents in configurations: registered ids, never module paths.

A configuration is only data, and reading it imports nothing. Packages that register ids are imported only if the user
allows it (``--allow PACKAGE``).
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarl.core.agent import AgentConfig, agent_class, agent_registered_in, registered_agents
from metarl.core.errors import brief, unknown
from metarl.core.family import TaskFamily
from metarl.core.options import own_options
from metarl.core.registry import family_class, registered, registered_in
from metarl.training.config.errors import ConfigError, shown
from metarl.training.config.old import former_name

SEE_FAMILIES = "metarl envs"
"""The command that shows all families."""


BASES: dict[str, type] = {"family": TaskFamily, "agent": AgentConfig}
"""The fields whose values are objects with their own options, and the classes of these objects."""


class Named(NamedTuple):
    """A factory of a family or of an agent's configuration, and its name in a config file."""

    factory: Callable[..., Any]
    name: str

    @property
    def short(self) -> str:
        """The name without namespace and version."""
        return short_name(self.name)


def short_name(id: str) -> str:
    """Return ``GridNavi`` for ``metarl/GridNavi-v0``."""
    return re.sub(r".*/|-v\d+$", "", id)


def find_named(field: str, name: Any, declared: Sequence[str] = ()) -> Named:
    """Find the factory with this name for the `field` ("family" or "agent").

    `name` is a registered id or the name inside one, in any case. Raises ConfigError for an unknown name; the message
    lists the packages that a file has `declared` to register it.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{field} must be a name, such as {_EXAMPLES[field]}, got {shown(name)}.")
    module, _, inside = name.rpartition(":")
    id = _registered_as(field, inside)
    if id is None:
        raise ConfigError(_not_registered(field, inside, [module] if module else declared))
    factory = family_class(id) if field == "family" else agent_class(id)
    if "name" in own_options(factory):
        raise ConfigError(f"The {field} {id} has an option called 'name', which stands for the {field}: rename it.")
    return Named(factory, id)


_EXAMPLES = {"family": "GridNavi", "agent": "RL2"}


def allow(packages: Iterable[str]) -> None:
    """Import packages that register families or agents, including from the working directory.

    Raises ConfigError if a package cannot be imported.
    """
    for package in packages:
        if str(Path.cwd()) not in sys.path:  # the command `metarl` does not look there, as `python -m` does
            sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name is not None and (package == error.name or package.startswith(f"{error.name}.")):
                where = f"neither in {brief(str(Path.cwd()))!r} nor among the installed packages"
                raise ConfigError(f"There is no module {brief(package)!r}, {where}.") from error
            raise ConfigError(f"The module {brief(package)!r} needs {error.name!r}, which is not installed.") from error
        except Exception as error:  # anything that a module of the user's raises
            what = brief(" ".join(f"{type(error).__name__}: {error}".split()), 160)
            raise ConfigError(f"The module {brief(package)!r} cannot be imported: {what}.") from error


def ids(field: str) -> list[str]:
    """Return all ids registered for the `field`."""
    return registered() if field == "family" else registered_agents()


def names_of(field: str) -> list[str]:
    """Return all short names of the `field`."""
    return sorted({short_name(id) for id in ids(field)})


def home_of(field: str, id: str) -> str:
    """Return the module that registered an id; importing it registers the id."""
    return registered_in(id) if field == "family" else agent_registered_in(id)


def _registered_as(field: str, name: str) -> str | None:
    """Return the id that `name` refers to; None if there is none. Raises ConfigError for an ambiguous name."""
    known = ids(field)
    for meant in (name, former_name(field, name)):
        if meant in known:
            return meant
    same = [id for id in known if _squeezed(name) in (_squeezed(id), _squeezed(short_name(id)))]
    same = [id for id in same if id.startswith("metarl/")] or same
    if len({re.sub(r"-v\d+$", "", id) for id in same}) > 1:
        raise ConfigError(f"The {field} {name!r} is ambiguous: give the full name, {' or '.join(same[:4])}.")
    return max(same, key=lambda id: int((re.findall(r"-v(\d+)$", id) or [0])[0]), default=None)


def _squeezed(name: str) -> str:
    """Normalise a name: ``GridNavi``, ``gridnavi`` and ``grid_navi`` give the same."""
    return re.sub(r"[\s_-]", "", name).casefold()


def _not_registered(field: str, name: str, declared: Sequence[str]) -> str:
    """Return the message for an unknown name."""
    name, declared = brief(name), [brief(package, 30) for package in declared[:3]]
    module, _, cls = name.rpartition(".")
    if module == "__main__":
        return (
            f"The {field} {name!r} is defined in the program itself (__main__), where no other can find it, so "
            "the run could not be loaded: put it into a module that registers it, and give --allow MODULE, or "
            "allow=['MODULE'] in Python."
        )
    if module and "/" not in name:
        id = f"{module.partition('.')[0]}/{cls}-v0" if field == "family" else cls.removesuffix("Config") or cls
        line = f'metarl.{"register" if field == "family" else "register_agent"}("{id}", {cls})'
        return (
            f"The {field} {name!r} must be a registered name, not the path of a class: put {line} into the module "
            f"{module}, and give --allow {module} --{field} {id}."
        )
    if declared:
        packages = " ".join(f"--allow {package}" for package in declared)
        return (
            f"The {field} {name!r} is registered by another package, and reading a configuration imports none: "
            f"if you trust it, give {packages}, or allow={list(declared)} in Python."
        )
    other = "/" in name and not name.startswith("metarl/")
    hint = " Another package's needs --allow PACKAGE." if other else ""
    what = "task family" if field == "family" else field
    see = SEE_FAMILIES if field == "family" and not other else ""
    return unknown(what, brief(name, 40), ids(field) if "/" in name else names_of(field), see=see) + hint
