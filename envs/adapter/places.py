"""Places in a Gymnasium environment that hold a task parameter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.core.errors import short, unknown

KINDS = ("constructor", "attribute", "option", "seed", "model")

_NAME = r"[A-Za-z][A-Za-z0-9_]*"
_PATH = re.compile(rf"(?P<path>{_NAME}(\.{_NAME})*)(\[(?P<index>\w+)\])?")
_NAMED = {"body": "body", "geom": "geom", "site": "site", "jnt": "joint", "dof": "joint", "actuator": "actuator"}
"""First word of a field of a MuJoCo model → the model's accessor by name for its rows."""


@dataclass(frozen=True)
class Place:
    """A place for one task parameter."""

    kind: str
    """One of `KINDS`."""
    path: tuple[str, ...] = ()
    """The name of an argument or option, or a chain of attributes that starts at the environment or its model."""
    index: str | None = None
    """The index in brackets, a number or a name: an array element, or a row of a model's field."""
    factor: bool = False
    """True if the number multiplies the environment's own value."""

    @property
    def name(self) -> str:
        return ".".join(self.path) + ("" if self.index is None else f"[{self.index}]")

    def read(self, env: Any) -> Any:
        """Return the value of an attribute or a model field: a number or a copied array. Raises ValueError."""
        holder, last, rows = self._find(env)
        value = getattr(holder, last, None)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            return value[rows].copy()
        if rows == () and isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            return value
        if isinstance(value, (list, tuple)) and rows != ():
            return value[rows]
        if not hasattr(holder, last) and hasattr(holder, "__dict__"):
            there = [name for name, held in vars(holder).items() if isinstance(held, (int, float)) and name[0] != "_"]
            kind = "attribute" if self.kind == "attribute" else "field of the model"
            raise ValueError(unknown(f"{kind} of {type(env.unwrapped).__name__}", last, there))
        raise ValueError(
            f"{type(env.unwrapped).__name__} has no number in {self.kind}:{self.name}, got {short(value)}."
        )

    def write(self, env: Any, value: Any) -> None:
        """Write a value; arrays are written in place."""
        holder, last, rows = self._find(env)
        held = getattr(holder, last)
        if isinstance(held, np.ndarray):
            held[rows] = value
        elif isinstance(held, (list, tuple)) and rows != ():
            changed = list(held)
            changed[rows] = value
            setattr(holder, last, type(held)(changed))
        else:
            setattr(holder, last, value)

    def _find(self, env: Any) -> tuple[Any, str, Any]:
        """Return the object with the path's last attribute, the attribute's name, and an index into its value or ()."""
        holder = env.unwrapped.model if self.kind == "model" else env.unwrapped
        for name in self.path[:-1]:
            holder = getattr(holder, name, None)
        return holder, self.path[-1], self._rows(env)

    def _rows(self, env: Any) -> Any:
        if self.index is None:
            return ()
        if self.index.isdecimal():
            return int(self.index)
        model, first = env.unwrapped.model, self.path[-1].partition("_")[0]
        named = getattr(model, _NAMED[first])(self.index)  # raises KeyError with all names
        return named.dofadr if first == "dof" else int(named.id)


def place(parameter: str, text: Any, factor: bool = False) -> Place:
    """Parse a place. Raises ValueError if the text is invalid.

    ``constructor`` or ``constructor:name``: an argument of the environment's constructor, by default of the
    parameter's name. ``attribute:unwrapped.gravity``, ``attribute:limits[0]``: an attribute of the environment.
    ``option:name``: an entry of ``reset(options=…)``. ``seed``: the seed of every ``reset``, such as that of a layout.
    ``model:body_mass[torso]``, ``model:opt.gravity[2]``, ``model:geom_friction``: a field of a MuJoCo model, or a row.
    """
    kind, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind not in KINDS:
        raise ValueError(unknown("place", text, KINDS, where=f" in {parameter}.where"))
    if kind == "seed":
        if rest or factor:
            raise ValueError(f"{parameter}.where: 'seed' must stand alone, and cannot be a factor.")
        return Place("seed")
    found = _PATH.fullmatch(rest.removeprefix("unwrapped.") if rest else parameter if kind != "model" else "")
    simple = kind in ("constructor", "option")
    if found is None or (simple and ("." in found["path"] or found["index"])):
        raise ValueError(
            f"{parameter}.where must be like 'constructor:name', 'option:name', 'attribute:unwrapped.name' or "
            f"'model:body_mass[torso]', of names without a leading underscore, got {short(text)}."
        )
    if factor and simple:
        raise ValueError(f"{parameter}.factor: what {kind} has there is not known; give the number itself.")
    if kind == "attribute" and found["index"] and not found["index"].isdecimal():
        raise ValueError(f"{parameter}.where: an index of an attribute is a number, got {short(text)}.")
    if kind == "model" and found["index"] and not found["index"].isdecimal():
        first = found["path"].rpartition(".")[2].partition("_")[0]
        if first not in _NAMED:
            raise ValueError(
                f"{parameter}.where: rows of {found['path']} have numbers and no names, got {short(text)}."
            )
    return Place(kind, tuple(found["path"].split(".")), found["index"], factor)
