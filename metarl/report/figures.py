"""Figures of an evaluation: on which tasks an agent does well, and where it fails.

Everything here draws what it is given; `metarl.report.behaviour` plays and puts the pictures of a run together.
"""

from __future__ import annotations

import io
import textwrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metarl.core.family import Task
from metarl.core.tree import named_leaves
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import OPTIMUM, colour

Array = NDArray[np.float64]


MAX_TASKS = 200
"""Rows of the map of tasks at most."""


MAX_COLUMNS = 25
"""Columns of the map of tasks at most; the points of longer trials are averaged in groups of neighbours."""


MAX_PANELS = 8
"""Panels of the picture of task parameters at most."""


MAX_COMPONENTS = 8
"""Components of a task's field at most; one with more is summed up by their mean and their largest."""


# ---- tasks × points ------------------------------------------------------------------------------------------------


class TaskRows(NamedTuple):
    """The data of the map of tasks, best task first."""

    task: NDArray[np.int64]  # (rows,) number of the task in its split
    score: Array  # (rows,)
    returns: Array  # (rows, columns) return of an episode
    edges: Array  # (columns + 1,) where the columns begin and end on the axis of points


def task_rows(curve: AdaptationCurve) -> TaskRows:
    """At most `MAX_TASKS` tasks, evenly spaced over the ranking by score from the best to the worst; means of seeds."""
    scores = curve.scores.mean(axis=0, dtype=np.float64)
    ranking = np.argsort(-scores, kind="stable")
    spaced = np.linspace(0, len(ranking) - 1, min(len(ranking), MAX_TASKS)).round().astype(int)
    task = ranking[spaced]
    returns = curve.returns.mean(axis=0, dtype=np.float64)[task]
    groups = np.array_split(np.arange(returns.shape[1]), min(returns.shape[1], MAX_COLUMNS))
    binned = np.stack([returns[:, group].mean(axis=1) for group in groups], axis=1)
    edges = np.array([group[0] for group in groups] + [returns.shape[1]]) + (-0.5 if curve.rounds else 0.5)
    return TaskRows(task, scores[task], binned, edges)


def task_map(curve: AdaptationCurve) -> Figure:
    """Draw the return of each task (a row) at each point (a column); to the right, the scores next to the optimum."""
    rows = task_rows(curve)
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    y = np.arange(len(rows.task) + 1)
    mesh = left.pcolormesh(rows.edges, y, rows.returns, **_colours(rows.returns))
    _colour_bar(figure, mesh, rows.returns, "return of an episode", left)
    left.set_ylim(len(rows.task), 0)
    left.set_yticks([0.5, len(rows.task) / 2, len(rows.task) - 0.5], ["best", "median", "worst"])
    left.set_ylabel(f"{len(rows.task)} of {curve.returns.shape[1]} tasks, sorted by score")
    width = int(np.ceil(curve.returns.shape[2] / rows.returns.shape[1]))
    grouped = f" (means of {width} neighbours)" if width > 1 else ""
    left.set_xlabel(("gradient steps" if curve.rounds else "episode of the trial") + grouped)
    left.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    middle = y[:-1] + 0.5
    if curve.oracle is not None:
        optimum = curve.oracle[rows.task] * _scale(curve)
        right.plot(optimum, middle, ".", color=OPTIMUM, markersize=3, label="known-task optimum")
    right.plot(rows.score, middle, color=colour(curve.agent), label="score")
    right.set_xlabel(_score_label(curve))
    right.grid(alpha=0.3)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize="small")
    figure.suptitle(title(curve, "is it good on all tasks?"), fontsize="medium")
    return figure


# ---- task parameters -----------------------------------------------------------------------------------------------


class Panel(NamedTuple):
    """One thing in which tasks differ."""

    name: str
    values: Array  # (tasks, 1), or (tasks, 2) for a place in the plane


def panels(task: Task, scores: Array, optimum: NDArray[Any] | None = None) -> list[Panel]:
    """Panels of what varies between tasks: one per number of the task, one for two that are a place in the plane.

    A field with more than `MAX_COMPONENTS` numbers is summed up by their mean and their largest; what is the same in
    all tasks is left out. `optimum` (tasks,), if it varies, comes first. Of more than `MAX_PANELS` those stay whose
    rank correlation with the scores is strongest.
    """
    found = [] if optimum is None else [Panel("known-task optimum", np.asarray(optimum, np.float64)[:, None])]
    found += [panel for name, values in _numbers(task) for panel in _split(name, values)]
    found = [panel for panel in found if panel.values.std(axis=0).max() > 1e-6 * (1.0 + np.abs(panel.values).max())]
    strength = [
        np.inf if panel.name == "known-task optimum" else max(abs(_rank_correlation(x, scores)) for x in panel.values.T)
        for panel in found
    ]
    kept = sorted(np.argsort(-np.array(strength), kind="stable")[:MAX_PANELS])
    return [found[index] for index in kept]


def where(curve: AdaptationCurve, task: Task) -> Figure | None:
    """Draw the tasks' parameters against their scores; None where no number of the task varies."""
    scores = curve.scores.mean(axis=0, dtype=np.float64)
    optimum = None if curve.oracle is None else curve.oracle * _scale(curve)
    shown = panels(task, scores, optimum)
    if not shown:
        return None
    columns = min(len(shown), 4 if len(shown) > 6 else 3)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(max(4.2 * columns, 6.4), 3.7 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax, panel in zip(axes, shown, strict=False):
        if panel.values.shape[1] == 2:
            _draw_map(figure, ax, panel, scores)
        else:
            _draw_panel(ax, panel, scores, colour(curve.agent))
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    figure.suptitle(
        title(curve, f"where does it fail? {_score_label(curve).capitalize()}", 32 * columns), fontsize="medium"
    )
    return figure


def _draw_panel(ax: Axes, panel: Panel, scores: Array, shade: str) -> None:
    x = panel.values[:, 0]
    ax.plot(x, scores, ".", color=shade, markersize=4, alpha=max(0.35, min(0.8, 100 / len(x))), mew=0, label="a task")
    if panel.name == "known-task optimum":
        ends = [x.min(), x.max()]
        ax.plot(ends, ends, "--", color=OPTIMUM, linewidth=1.2, label="as good as told the task")
    ax.plot(*group_means(x, scores), "o-", color=shade, markersize=4, linewidth=1.5, label="mean")
    ax.set_xlabel(panel.name)
    ax.set_ylabel("score")
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small", frameon=False)


def _draw_map(figure: Figure, ax: Axes, panel: Panel, scores: Array) -> None:
    """Draw scores in the plane: as cells where the places are few whole numbers, otherwise as dots."""
    places, member = np.unique(panel.values, axis=0, return_inverse=True)
    mean = np.bincount(member.ravel(), scores) / np.bincount(member.ravel())
    whole = bool((places == places.round()).all()) and np.ptp(places, axis=0).max() <= 40
    if whole:
        low, high = places.min(axis=0).astype(int), places.max(axis=0).astype(int)
        cells = np.full((high - low + 1)[::-1], np.nan)
        cells[tuple((places.astype(int) - low).T[::-1])] = mean
        x, y = (np.arange(low[axis], high[axis] + 2) - 0.5 for axis in (0, 1))
        drawn: Collection = ax.pcolormesh(x, y, cells, **_colours(mean))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        drawn = ax.scatter(places[:, 0], places[:, 1], c=mean, s=14, linewidths=0, **_colours(mean))
    ax.set_facecolor("0.93")  # what no task has
    ax.set_aspect("equal", adjustable="datalim" if not whole else "box")
    ax.set_xlabel(f"{panel.name}[0]")
    ax.set_ylabel(f"{panel.name}[1]")
    _colour_bar(figure, drawn, mean, "score", ax)


def group_means(x: Array, y: Array, groups: int = 10) -> tuple[Array, Array]:
    """Means of `x` and `y` in equal groups by `x`, or for each value of `x` where there are few."""
    values, member = np.unique(x, return_inverse=True)
    if len(values) > groups:
        member = x.argsort(kind="stable").argsort() * groups // len(x)
    count = np.bincount(member)
    return np.bincount(member, x) / count, np.bincount(member, y) / count


def _numbers(task: Task) -> list[tuple[str, Array]]:
    """Every field's name and its numbers ``(tasks, components)``; fields of nested tuples by a dotted name."""
    fields = named_leaves(task).items()
    return [(name, value.reshape(len(value), -1).cpu().numpy().astype(np.float64)) for name, value in fields]


def _split(name: str, values: Array) -> list[Panel]:
    """The panels of one field."""
    components = values.shape[1]
    if components <= 2 and (values.std(axis=0) > 0.0).all():
        return [Panel(name, values)]
    if components <= MAX_COMPONENTS:
        return [Panel(f"{name}[{i}]", values[:, i : i + 1]) for i in range(components)]
    summed_up = {"mean": values.mean(axis=1), "largest": values.max(axis=1)}
    return [Panel(f"{name}, {how} of {components}", value[:, None]) for how, value in summed_up.items()]


def _rank_correlation(x: Array, y: Array) -> float:
    """Spearman's rank correlation; 0 where one of them does not vary."""
    from scipy.stats import rankdata  # which takes a while

    ranks = [rankdata(values) for values in (x, y)]
    if min(rank.std() for rank in ranks) == 0.0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


# ---- files --------------------------------------------------------------------------------------------------------


def png(figure: Figure) -> bytes:
    """The figure as a PNG file of 100 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


# ---- words and colours ---------------------------------------------------------------------------------------------


def title(curve: AdaptationCurve, what: str, width: int = 80) -> str:
    """Title of a figure: the agent and the split, and below them the question that the figure answers."""
    return textwrap.fill(f"{curve.agent} on {curve.family}, {curve.split}", width) + "\n" + textwrap.fill(what, width)


def _score_label(curve: AdaptationCurve) -> str:
    return "score: return of an episode, last round" if curve.rounds else "score: return of the whole trial"


def _scale(curve: AdaptationCurve) -> int:
    """Episodes that a score sums up."""
    return 1 if curve.rounds else len(curve.labels)


def _limits(values: Array) -> tuple[float, float]:
    """Values at which colours begin and end: outliers are cut off, so that the others keep their differences."""
    low, high = np.percentile(values, [2, 98])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _colours(values: Array) -> dict[str, Any]:
    low, high = _limits(values)
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _colour_bar(figure: Figure, drawn: Collection, values: Array, label: str, ax: Axes) -> None:
    low, high = _limits(values)
    below, above = bool(values.min() < low), bool(values.max() > high)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    bar = figure.colorbar(drawn, ax=ax, label=label, extend=extend[below, above])
    bar.ax.yaxis.set_label_position("left")  # at the right it would read as the label of the next panel
