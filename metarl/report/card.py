"""Cards of task families: docstring sections, defaults, and a short form of their spaces."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard

from gymnasium import spaces

from metarl.core.errors import brief, unknown
from metarl.core.family import TaskFamily
from metarl.core.options import MISSING, options_of
from metarl.core.registry import family_class, registered
from metarl.interop.docstrings import parts


class Card(NamedTuple):
    """The card of one family with its defaults."""

    id: str  # ``module:Class`` if it is not registered
    summary: str  # the docstring's first paragraph
    sections: dict[str, str]  # heading → text with line breaks, without indentation
    defaults: dict[str, Any]  # options of the constructor with a default
    family: TaskFamily

    @property
    def line(self) -> str:
        """The first sentence of the docstring, without its full stop."""
        return self.summary.partition(". ")[0].rstrip(".")

    @property
    def call(self) -> str:
        """The call that makes the family with its defaults: ``GridNavi(episodes_per_trial=4)``."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.defaults.items())
        return f"{type(self.family).__name__}({options})"


def card(id: str) -> Card:
    """Return the card of a family: of a registered id, or of ``module:Class``.

    Raises ValueError if the name is unknown, or the family cannot be made with its defaults.
    """
    factory = _class(id) if ":" in id else family_class(id)
    options = options_of(factory)
    needed = [name for name, value in options.items() if value is MISSING]
    if needed:
        raise ValueError(f"{id} has no card, since it cannot be made without {' and '.join(needed)}.")
    try:
        family = factory()
    except ValueError:
        raise
    except Exception as error:  # of another project's constructor
        raise ValueError(f"{id} cannot be made: {type(error).__name__}: {error}.") from error
    summary, sections = parts(type(family).__doc__ or "")
    return Card(id, summary, sections, options, family)


def all_cards() -> tuple[list[Card], dict[str, list[str]]]:
    """Return the cards of all registered families that can be made, and the ids of the others by missing package."""
    cards: list[Card] = []
    missing: dict[str, list[str]] = {}
    for id in registered():
        try:
            cards.append(card(id))
        except ValueError as error:
            missing.setdefault(str(error), []).append(id)
    return cards, missing


def find(name: str) -> str:
    """Find the id for `name`: an id, or the name inside one, such as ``GridNavi`` for ``metarl/GridNavi-v0``.

    The name is not case-sensitive. ``module:name`` imports a module first, and may name a class of it that is not
    registered (``module:Class``, or ``module.Class``). Raises ValueError, with the closest name, if there is no match
    or more than one.
    """
    if ":" in name:
        module, _, inside = name.rpartition(":")
        if isinstance(getattr(load(module), inside, None), type):
            _class(name)
            return name
        if not _ids(inside) and "/" not in inside:
            there = [key for key, value in vars(load(module)).items() if _is_family(value)]
            if not there:
                raise ValueError(f"The module {module!r} has no task family, so none named {brief(inside)!r}.")
            raise ValueError(unknown("task family", inside, there, where=f" in {module}"))
        return find(inside)
    module, _, inside = name.rpartition(".")
    if module and "/" not in name:
        return find(f"{module}:{inside}")
    ids, found = registered(), _ids(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} is ambiguous: give the full id, {' or '.join(found)}.")
    known = ids if "/" in name else [short_name(id) for id in ids]
    raise ValueError(unknown("task family", name, known, see="metarl envs"))


def _ids(name: str) -> list[str]:
    """Return the registered ids that match."""
    wanted = name.lower()
    return [id for id in registered() if wanted in (id.lower(), id.lower().partition("/")[2], short_name(id).lower())]


def load(module: str) -> ModuleType:
    """Import a module of another project, which may register families. Raises ValueError if the import fails."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(f"There is no module {module!r}, neither here nor among the installed ones.") from error
        raise ValueError(f"The module {module!r} needs {error.name!r}, which is not installed.") from error
    except Exception as error:  # the user's module may raise any exception on import
        raise ValueError(f"The module {module!r} cannot be imported: {type(error).__name__}: {error}.") from error


def _class(name: str) -> type[TaskFamily]:
    """Return the class of ``module:Class``. Raises ValueError if it is not a task family."""
    module, _, inside = name.rpartition(":")
    cls = getattr(load(module), inside, None)
    if not _is_family(cls):
        raise ValueError(f"{name} must be a task family, a class that inherits from metarl.TaskFamily.")
    return cls


def _is_family(value: Any) -> TypeGuard[type[TaskFamily]]:
    return isinstance(value, type) and issubclass(value, TaskFamily) and value is not TaskFamily


def short_name(id: str) -> str:
    """Return the name inside an id: ``GridNavi`` for ``metarl/GridNavi-v0``."""
    return id.partition("/")[2].rpartition("-v")[0]


def short_space(space: spaces.Space[Any]) -> str:
    """Format a space briefly: ``Discrete(5)``, ``MultiDiscrete(3, 2)``, or ``Box(2)`` with its shape only."""
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({', '.join(map(str, space.nvec.ravel().tolist()))})"
    return f"{type(space).__name__}({', '.join(map(str, space.shape or ()))})"


def length(family: TaskFamily) -> str:
    """Format the length of a trial as steps × episodes: ``15 × 4``."""
    return f"{family.horizon} × {family.episodes_per_trial}"
