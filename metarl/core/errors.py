"""Error messages for a user's mistakes: what is wrong, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

SHORT_LIST = 8
"""Largest number of names that a message lists in full; of a longer list it shows only the nearest ones."""


NEAREST = 5
"""Number of names shown of a longer list."""


SHOWN = 60
"""Largest number of characters of the user's input that a message repeats."""


def brief(text: str, limit: int = SHOWN) -> str:
    """Cut the middle out of a long text, so that a message that repeats it stays short."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-(limit // 2) :]}"


def printable(text: str) -> str:
    """Escape characters that are not printable, such as control characters and broken characters."""
    return text if text.isprintable() else "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text)


def short(value: Any, limit: int = SHOWN) -> str:
    """Show any value on one line, shortened if it is long, for messages that end with "got …"."""
    if isinstance(value, int) and value.bit_length() > 10_000:  # Python refuses to print such numbers
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, str):
        return repr(brief(value, limit))
    if isinstance(value, (list, tuple, dict)) and len(value) > limit:
        return f"a {type(value).__name__} of {len(value):,}"
    return brief(" ".join(repr(value).split()), limit)


def unknown(kind: str, given: Any, known: Iterable[str], where: str = "", see: str = "") -> str:
    """Return the message for a name that does not exist: ``Unknown split: 'tset'. Did you mean 'test'? Known: …``.

    `where` follows the kind, such as `` of GridNavi``. `see` is a call or a command that shows all names.
    """
    return f"Unknown {kind}{where}: {short(given)}. {nearest(given, known, see=see)}"


def nearest(
    given: Any,
    known: Iterable[str],
    every: str = "Known",
    count: str = "There are",
    see: str = "",
    width: int = 100,
) -> str:
    """Return the name that was probably meant, then all known names of a short list or the nearest of a long one.

    `every` introduces a complete list, and `count` the number of names after the nearest ones, which take at most
    `width` characters.
    """
    names = list(known)
    given = brief(str(given)) if isinstance(given, (str, int, float)) else ""  # a long text takes long to compare
    meant = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    question = f"Did you mean {meant[0]!r}? " if meant else ""
    if len(names) <= SHORT_LIST:
        return f"{question}{every}: {', '.join(names)}."
    near = difflib.get_close_matches(given, names, n=NEAREST, cutoff=0.0)
    while len(near) > 1 and len(", ".join(near)) > width:
        near.pop()
    return f"{question}Nearest: {', '.join(near)}. {count} {len(names)}{f'; see {see}' if see else ''}."


class UnknownOption(TypeError, ValueError):
    """An unknown keyword argument: a TypeError as in any Python call, and a ValueError like metarl's other errors.

    The message uses Python's wording, since TorchRL drops keywords only after a TypeError with this wording.
    """

    name: str = ""
    known: tuple[str, ...] = ()


class WrongResult(ValueError):
    """A method of a family or an agent violated its contract; the one-sentence message says where.

    `places` grows as the error propagates through rounds, evaluations and iterations.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence.rstrip(".")
        self.places: list[str] = []

    def __str__(self) -> str:
        return f"{self.sentence} ({'; '.join(self.places)})." if self.places else f"{self.sentence}."


class NotReset(ResetNeeded, ValueError, AttributeError):
    """An environment was used before its first `reset`: Gymnasium's error, and a ValueError like metarl's other errors.

    It is also an AttributeError, so that `hasattr` is False for attributes that `reset` has not set yet.
    """

    def __init__(self) -> None:
        super().__init__("Call reset() first: no trial has begun.")


def add_place(error: BaseException, place: str) -> None:
    """Add where an error happened: to the message of a WrongResult, as a note to any other error."""
    if isinstance(error, WrongResult):
        error.places.append(place)
    else:
        error.add_note(f"({place})")


def unknown_option(callee: str, name: str, known: Iterable[str], see: str = "") -> UnknownOption:
    """Return the error for the unknown keyword `name`, with the nearest names that `callee` accepts."""
    names = tuple(known)
    takes = nearest(name, names, "It takes", "It takes", see) if names else "It takes none."
    error = UnknownOption(f"{callee} got an unexpected keyword argument {brief(name)!r}. {takes}")
    error.name, error.known = name, names
    return error


def whole_number(name: str, value: int, least: int = 1) -> int:
    """Return `value`. Raises ValueError if it is not an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {short(value)}.")
    return value


def truth(name: str, value: Any) -> bool:
    """Return a Python or NumPy boolean as a bool. Raises ValueError for anything else, such as "yes"."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{name} must be True or False, got {short(value)}.")


def check_counts(**counts: Any) -> None:
    """Raise ValueError for a number below 1."""
    for name, number in counts.items():
        if isinstance(number, (int, np.integer)) and number < 1:
            raise ValueError(f"{name} must be at least 1, got {short(int(number))}.")
