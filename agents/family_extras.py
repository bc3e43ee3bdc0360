"""Additions to a family that leave it unchanged: baselines to compare with, pictures and measures of behaviour.

This package and other projects register their own::

    metarl.register_baseline(Mine, "sweep", lambda family, device: Sweep(family.size, device))
    metarl.agents.family_extras.register_picture(Mine, "visits", draw_visits)

The ready-made baselines of the package are in `metarl.agents.reference.catalogue`, its picture of bandits in
`metarl.report.best_arm`, its pictures and measures of supervised learning in `metarl.report.few_shot`.
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
"""(family, device) → agent; `...` because each takes its own family."""


Draw = Callable[..., "Figure | bytes | None"]
"""(family, curve, watched) → a figure, or the bytes of a PNG or GIF file; None if there is nothing to show.

`curve` is the `AdaptationCurve` of an evaluation, `watched` the agent that played it, with its actions and tasks
(`metarl.evaluation.playback.Watched`)."""


Measure = Callable[..., dict[str, float]]
"""(agent, family, split, tasks, seed, greedy) → numbers by name, of trials on that many tasks of an evaluation."""


_BASELINES: dict[str, dict[type, MakeAgent]] = {}  # name → family → how it is made


_PICTURES: dict[str, dict[type, Draw]] = {}  # name → family → how it is drawn


_MEASURES: dict[str, dict[type, Measure]] = {}  # one name → family → how they are taken


def register_baseline(family: str | type[TaskFamily], name: str, make: MakeAgent) -> None:
    """Make a ready-made agent known under `name` for a family, given as its class or its id.

    ``make(family, device)`` builds the agent, an `Agent` that acts on that device. It serves families of exactly this
    class, since a subclass may need another agent; TaskFamily itself stands for all families. Then
    ``metarl compare … --baselines NAME`` takes it. A baseline called ``oracle``, which is told the task, is the upper
    bound in curves over steps. Registering it again from the same place is harmless. Raises ValueError for another
    agent under a taken name, and for an id whose family is made by a function.
    """
    _register(_BASELINES, "baseline", family, name, make)


def baselines_for(family: TaskFamily) -> list[str]:
    """Return the names that `baseline` takes for this family."""
    return [name for name, makers in _BASELINES.items() if _exactly(makers, family) is not None]


def baseline(name: str, family: TaskFamily, device: torch.device | str = "cpu") -> Agent:
    """Make the ready-made agent of this name for `family`. Raises ValueError, with the nearest name, if none exists."""
    make = _exactly(_BASELINES.get(name, {}), family)
    if make is None:
        where, see = f" for {type(family).__name__}", "metarl.agents.reference.catalogue.baselines_for(family)"
        raise ValueError(unknown("baseline", name, baselines_for(family), where, see))
    return make(family, device)


def register_picture(family: str | type[TaskFamily], name: str, draw: Draw) -> None:
    """Add a picture of behaviour to the end of runs on a family, given as its class or its id, and its subclasses.

    It is shown in TensorBoard as ``eval/<split>/<name>`` and written to ``RUN_DIR/evaluation/<split>_<name>.png``.
    Raises ValueError as `register_baseline` does.
    """
    _register(_PICTURES, "picture", family, name, draw)


def pictures_for(family: TaskFamily) -> dict[str, Draw]:
    """Return the pictures that are registered for this family's class or a base of it, by name."""
    found: dict[str, Draw] = {}
    for name, drawers in _PICTURES.items():
        nearest = next((drawers[cls] for cls in type(family).__mro__ if cls in drawers), None)
        if nearest is not None:
            found[name] = nearest
    return found


def register_measures(family: str | type[TaskFamily], measure: Measure) -> None:
    """Add measures to evaluations of a family, given as its class or its id, and its subclasses.

    Training's last evaluation and ``metarl evaluate`` write them to ``<split>_measures.json``; TensorBoard shows the
    former's as ``eval/<split>/<name>``. Raises ValueError as `register_baseline` does.
    """
    _register(_MEASURES, "set of", family, "measures", measure)


def measures_for(family: TaskFamily) -> Measure | None:
    """Return what measures this family's class or the nearest base of it that has measures; None if there is none."""
    known = _MEASURES.get("measures", {})
    return next((known[cls] for cls in type(family).__mro__ if cls in known), None)


def _register(
    table: dict[str, dict[type, Any]], kind: str, family: str | type[TaskFamily], name: str, value: Callable[..., Any]
) -> None:
    cls = family_class(family) if isinstance(family, str) else family
    if not (isinstance(cls, type) and issubclass(cls, TaskFamily)):
        raise ValueError(f"A {kind} is registered for a class of task families or the id of one, got {family!r}.")
    if not callable(value):
        raise ValueError(f"A {kind} {name!r} needs a function that makes it, got {short(value)}.")
    known = table.setdefault(name, {})
    if cls in known and _place(known[cls]) != _place(value):
        raise ValueError(f"There is already a {kind} {name!r} for {cls.__name__}.")
    known[cls] = value


def _place(value: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the place of a function or a class in its source, which is the same after a reload of its module."""
    code = getattr(value, "__code__", None)
    line = None if code is None else code.co_firstlineno
    return getattr(value, "__module__", None), getattr(value, "__qualname__", id(value)), line


def _exactly(makers: dict[type, MakeAgent], family: TaskFamily) -> MakeAgent | None:
    return makers.get(type(family), makers.get(TaskFamily))
