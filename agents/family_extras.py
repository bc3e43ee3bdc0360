"""Registries of additions to families: baselines, and pictures and measures of behaviour.

Registering leaves the family unchanged, and other projects can register their own additions::

    metarl.register_baseline(Mine, "sweep", lambda family, device: Sweep(family.size, device))
    metarl.agents.family_extras.register_picture(Mine, "visits", draw_visits)

`metarl.agents.reference.catalogue` has the ready-made baselines of this package, `metarl.report.best_arm` its picture
of bandits, and `metarl.report.few_shot` its pictures and measures of supervised learning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from metarl.core.errors import short, unknown
from metarl.core.family import TaskFamily
from metarl.core.registry import family_class
from metarl.core.rollout import Agent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MakeAgent = Callable[..., Agent]
"""A function (family, device) → agent; `...` because each takes its own class of family."""


Draw = Callable[..., "Figure | bytes | None"]
"""A function (family, curve, watched) → a figure, or the bytes of a PNG or GIF file; None if there is nothing to show.

`curve` is the `AdaptationCurve` of an evaluation, and `watched` the agent that played it, with its actions and tasks
(`metarl.evaluation.playback.Watched`)."""


Measure = Callable[..., dict[str, float]]
"""A function (agent, family, split, tasks, seed, greedy) → numbers by name, from trials on that many tasks."""


_BASELINES: dict[str, dict[type, MakeAgent]] = {}  # name → family → function


_PICTURES: dict[str, dict[type, Draw]] = {}  # name → family → function


_MEASURES: dict[str, dict[type, Measure]] = {}  # the only name, "measures" → family → function


def register_baseline(family: str | type[TaskFamily], name: str, make: MakeAgent) -> None:
    """Register a ready-made agent under `name` for a family, given as its class or its id.

    ``make(family, device)`` builds the agent, an `Agent` that acts on that device. The baseline is available for
    families of exactly this class, since a subclass may need another agent; TaskFamily itself stands for all families.
    ``metarl compare … --baselines NAME`` then accepts it. A baseline called ``oracle``, which knows the task, is the
    upper bound in curves over steps. Registering the same function again has no effect. Raises ValueError for another
    function under a taken name, and for an id whose family is made by a function.
    """
    _register(_BASELINES, "baseline", family, name, make)


def baselines_for(family: TaskFamily) -> list[str]:
    """Return the names of this family's baselines, for `baseline`."""
    return [name for name, makers in _BASELINES.items() if _exactly(makers, family) is not None]


def baseline(name: str, family: TaskFamily, device: torch.device | str = "cpu") -> Agent:
    """Make the ready-made agent `name` for `family`. Raises ValueError, with the nearest name, if it does not exist."""
    make = _exactly(_BASELINES.get(name, {}), family)
    if make is None:
        where, see = f" for {type(family).__name__}", "metarl.agents.reference.catalogue.baselines_for(family)"
        raise ValueError(unknown("baseline", name, baselines_for(family), where, see))
    return make(family, device)


def register_picture(family: str | type[TaskFamily], name: str, draw: Draw) -> None:
    """Register a picture of behaviour, drawn at the end of runs, for a family (its class or its id) and subclasses.

    TensorBoard shows it as ``eval/<split>/<name>``, and it is written to ``RUN_DIR/evaluation/<split>_<name>.png``.
    Raises the errors of `register_baseline`.
    """
    _register(_PICTURES, "picture", family, name, draw)


def pictures_for(family: TaskFamily) -> dict[str, Draw]:
    """Return the pictures registered for this family's class or its bases, by name."""
    found: dict[str, Draw] = {}
    for name, drawers in _PICTURES.items():
        nearest = next((drawers[cls] for cls in type(family).__mro__ if cls in drawers), None)
        if nearest is not None:
            found[name] = nearest
    return found


def register_measures(family: str | type[TaskFamily], measure: Measure) -> None:
    """Register measures, taken in evaluations, for a family (its class or its id) and subclasses.

    The final evaluation of training and ``metarl evaluate`` write them to ``<split>_measures.json``. TensorBoard shows
    those of the final evaluation as ``eval/<split>/<name>``. Raises the errors of `register_baseline`.
    """
    _register(_MEASURES, "set of", family, "measures", measure)


def measures_for(family: TaskFamily) -> Measure | None:
    """Return the measures of this family's class or of its nearest base that has some; None if there are none."""
    known = _MEASURES.get("measures", {})
    return next((known[cls] for cls in type(family).__mro__ if cls in known), None)


def _register(
    table: dict[str, dict[type, Any]], kind: str, family: str | type[TaskFamily], name: str, value: Callable[..., Any]
) -> None:
    cls = family_class(family) if isinstance(family, str) else family
    if not (isinstance(cls, type) and issubclass(cls, TaskFamily)):
        raise ValueError(f"A {kind} must be registered for a TaskFamily class or its id, got {family!r}.")
    if not callable(value):
        raise ValueError(f"A {kind} {name!r} must be a function that makes it, got {short(value)}.")
    known = table.setdefault(name, {})
    if cls in known and _place(known[cls]) != _place(value):
        raise ValueError(f"There is already a {kind} {name!r} for {cls.__name__}.")
    known[cls] = value


def _place(value: Callable[..., Any]) -> tuple[Any, ...]:
    """Identify a function or class by its place in the source, which a reload of its module does not change."""
    code = getattr(value, "__code__", None)
    line = None if code is None else code.co_firstlineno
    return getattr(value, "__module__", None), getattr(value, "__qualname__", id(value)), line


def _exactly(makers: dict[type, MakeAgent], family: TaskFamily) -> MakeAgent | None:
    return makers.get(type(family), makers.get(TaskFamily))
