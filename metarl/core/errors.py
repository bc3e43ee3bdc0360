"""Sentences about a user's mistake: what is wrong, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

SHORT_LIST = 8
"""Up to so many names are listed whole; of more only the nearest are shown."""


NEAREST = 5
"""Names that are shown of a longer list."""


def unknown(kind: str, given: str, known: Iterable[str], where: str = "", see: str = "") -> str:
    """The sentence for a name that does not exist: ``Unknown split: 'tset'. Did you mean 'test'? Known: …``.

    `where` follows the kind, such as `` of GridNavi``. `see` is a call or a command that shows all names.
    """
    return f"Unknown {kind}{where}: {given!r}. {nearest(given, known, see=see)}"


def nearest(given: str, known: Iterable[str], every: str = "Known", count: str = "There are", see: str = "") -> str:
    """The name that was probably meant, and the names there are: all of a short list, the nearest of a long one.

    `every` introduces a list that is complete. After the nearest `count` introduces how many there are.
    """
    names = list(known)
    meant = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    question = f"Did you mean {meant[0]!r}? " if meant else ""
    if len(names) <= SHORT_LIST:
        return f"{question}{every}: {', '.join(names)}."
    near = difflib.get_close_matches(given, names, n=NEAREST, cutoff=0.0)
    return f"{question}Nearest: {', '.join(near)}. {count} {len(names)}{f'; see {see}' if see else ''}."


class UnknownOption(TypeError, ValueError):
    """A keyword that is not taken: a TypeError as from any Python call, and a ValueError as metarl's other mistakes.

    TorchRL tries keywords and goes on without those that a TypeError names in Python's words.
    """

    name: str = ""
    known: tuple[str, ...] = ()


def unknown_option(callee: str, name: str, known: Iterable[str], see: str = "") -> UnknownOption:
    """The error for the keyword `name`, in Python's words and with the nearest names that `callee` takes."""
    names = tuple(known)
    takes = nearest(name, names, "It takes", "It takes", see) if names else "It takes none."
    error = UnknownOption(f"{callee} got an unexpected keyword argument {name!r}. {takes}")
    error.name, error.known = name, names
    return error


def whole_number(name: str, value: int, least: int = 1) -> int:
    """`value`. Raises ValueError if it is not an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return value


def check_counts(**counts: Any) -> None:
    """Raise ValueError for a number below 1."""
    for name, number in counts.items():
        if isinstance(number, (int, np.integer)) and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
