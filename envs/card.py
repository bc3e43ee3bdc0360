"""What a task family says about itself, taken apart: its docstring's sections, its defaults and its spaces in short."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any, NamedTuple

from gymnasium import spaces

from metarl.family import TaskFamily, family_class, make, registered, unknown
from metarl.options import MISSING, options_of


class Card(NamedTuple):
    """One registered family, made with its defaults."""

    id: str
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
        """``GridNavi(episodes_per_trial=4)``: the family with its defaults."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.defaults.items())
        return f"{type(self.family).__name__}({options})"


def card(id: str) -> Card:
    """The card of a registered family. Raises ValueError for an unknown id."""
    family = make(id)
    summary, sections = parts(type(family).__doc__ or "")
    options = options_of(family_class(id))
    return Card(id, summary, sections, {k: v for k, v in options.items() if v is not MISSING}, family)


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


def parts(docstring: str) -> tuple[str, dict[str, str]]:
    """The first paragraph as one line, and the text under each heading (a line of its own that ends with a colon)."""
    first, *rest = re.split(r"^(\w[\w ]*):\n", inspect.cleandoc(docstring) + "\n", flags=re.MULTILINE)
    summary = " ".join(first.strip().split("\n\n")[0].split())
    return summary, {rest[i]: textwrap.dedent(rest[i + 1]).strip() for i in range(0, len(rest), 2)}


def find(name: str) -> str:
    """The id that `name` means: an id, or the name inside one, ``GridNavi`` for ``metarl/GridNavi-v0``.

    Upper and lower case are the same. Raises ValueError, with the nearest name, where there is none, or several.
    """
    wanted = name.lower()
    ids = registered()
    found = [id for id in ids if wanted in (id.lower(), id.lower().partition("/")[2], short_name(id).lower())]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} may be {' or '.join(found)}: give the whole id.")
    raise ValueError(unknown("task family", name, ids if "/" in name else [short_name(id) for id in ids]))


def short_name(id: str) -> str:
    """``GridNavi`` of ``metarl/GridNavi-v0``."""
    return id.partition("/")[2].rpartition("-v")[0]


def short_space(space: spaces.Space[Any]) -> str:
    """``Discrete(5)``, or ``Box(2)`` with the shape; nothing of the bounds."""
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n})"
    return f"{type(space).__name__}({', '.join(map(str, space.shape or ()))})"


def length(family: TaskFamily) -> str:
    """``15 × 4``: steps of an episode, and episodes of a trial."""
    return f"{family.horizon} × {family.episodes_per_trial}"
