"""Cards of task families: the sections of their docstrings, their defaults, and their spaces in short."""

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
    """One family, made with its defaults."""

    id: str  # where it is not registered, ``module:Class``
    summary: str  # the docstring's first paragraph
    sections: dict[str, str]  # heading → text with its line ends, without the indentation
    defaults: dict[str, Any]  # the options of the constructor that have one
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
    """The card of a family: of a registered id, or of ``module:Class``.

    Raises ValueError for an unknown name, and where the family cannot be made with its defaults.
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
    """The cards of all registered families that can be made here, and the ids of the others by what they lack."""
    cards: list[Card] = []
    missing: dict[str, list[str]] = {}
    for id in registered():
        try:
            cards.append(card(id))
        except ValueError as error:
            missing.setdefault(str(error), []).append(id)
    return cards, missing


def find(name: str) -> str:
    """Find the id that `name` means: an id, or the name inside one, ``GridNavi`` for ``metarl/GridNavi-v0``.

    Upper and lower case are the same. ``module:name`` imports a module first, and may name a class of it that is not
    registered (``module:Class``, or ``module.Class``). Raises ValueError, with the nearest name, where there is none,
    or several.
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
    """The registered ids that may be meant."""
    wanted = name.lower()
    return [id for id in registered() if wanted in (id.lower(), id.lower().partition("/")[2], short_name(id).lower())]


def load(module: str) -> ModuleType:
    """Import a module of another project, which may register families. Raises ValueError that says why it cannot."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(f"There is no module {module!r}, neither here nor among the installed ones.") from error
        raise ValueError(f"The module {module!r} needs {error.name!r}, which is not installed.") from error
    except Exception as error:  # whatever a module of the user's raises while it is imported
        raise ValueError(f"The module {module!r} cannot be imported: {type(error).__name__}: {error}.") from error


def _class(name: str) -> type[TaskFamily]:
    """The class behind ``module:Class``. Raises ValueError if it is no task family."""
    module, _, inside = name.rpartition(":")
    cls = getattr(load(module), inside, None)
    if not _is_family(cls):
        raise ValueError(f"{name} must be a task family, a class that inherits from metarl.TaskFamily.")
    return cls


def _is_family(value: Any) -> TypeGuard[type[TaskFamily]]:
    return isinstance(value, type) and issubclass(value, TaskFamily) and value is not TaskFamily


def short_name(id: str) -> str:
    """The name inside an id: ``GridNavi`` for ``metarl/GridNavi-v0``."""
    return id.partition("/")[2].rpartition("-v")[0]


def short_space(space: spaces.Space[Any]) -> str:
    """A space in a word: ``Discrete(5)``, ``MultiDiscrete(3, 2)``, or ``Box(2)`` with the shape, without the bounds."""
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({', '.join(map(str, space.nvec.ravel().tolist()))})"
    return f"{type(space).__name__}({', '.join(map(str, space.shape or ()))})"


def length(family: TaskFamily) -> str:
    """The length of a trial, ``15 × 4``: steps of an episode, and episodes."""
    return f"{family.horizon} × {family.episodes_per_trial}"
