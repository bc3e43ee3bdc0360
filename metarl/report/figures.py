"""Figures of an evaluation: the tasks on which an agent does well, and those on which it fails.

The functions here only draw; `metarl.report.behaviour` plays and assembles the pictures of a run.
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
"""Most rows of the map of tasks."""


MAX_COLUMNS = 25
"""Most columns of the map of tasks; neighbouring points of longer trials are averaged."""


MAX_PANELS = 8
"""Most panels of the picture of task parameters."""


MAX_COMPONENTS = 8
"""Most components of a task field; a larger field is summarised by its mean and maximum."""


# ---- tasks × points ------------------------------------------------------------------------------------------------


class TaskRows(NamedTuple):
    """The data of the map of tasks, best task first."""

    task: NDArray[np.int64]  # (rows,) number of the task in its split
    score: Array  # (rows,)
    returns: Array  # (rows, columns) return of an episode
    edges: Array  # (columns + 1,) column edges on the axis of points


def task_rows(curve: AdaptationCurve) -> TaskRows:
    """Return at most `MAX_TASKS` tasks, evenly spaced in the ranking by score, best first; averaged over seeds."""
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
    """Draw the return of each task (row) at each point (column), and the scores and optimum on the right."""
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
    """One quantity that varies between tasks."""

    name: str
    values: Array  # (tasks, 1), or (tasks, 2) for a position in the plane


def panels(task: Task, scores: Array, optimum: NDArray[Any] | None = None) -> list[Panel]:
    """Return a panel per varying number of the task; two numbers that form a position in the plane share one.

    A field with more than `MAX_COMPONENTS` numbers is summarised by its mean and maximum; constants are left out.
    `optimum` (tasks,), if it varies, comes first. Of more than `MAX_PANELS` panels, those with the strongest rank
    correlation with the scores are kept.
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
    """Draw the tasks' parameters against their scores; None if no number of the task varies."""
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
    """Draw scores in the plane: as cells if the positions are few integers, otherwise as dots."""
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
    ax.set_facecolor("0.93")  # cells without a task
    ax.set_aspect("equal", adjustable="datalim" if not whole else "box")
    ax.set_xlabel(f"{panel.name}[0]")
    ax.set_ylabel(f"{panel.name}[1]")
    _colour_bar(figure, drawn, mean, "score", ax)


def group_means(x: Array, y: Array, groups: int = 10) -> tuple[Array, Array]:
    """Return the means of `x` and `y` in equal groups by `x`, or for each value of `x` if there are few."""
    values, member = np.unique(x, return_inverse=True)
    if len(values) > groups:
        member = x.argsort(kind="stable").argsort() * groups // len(x)
    count = np.bincount(member)
    return np.bincount(member, x) / count, np.bincount(member, y) / count


def _numbers(task: Task) -> list[tuple[str, Array]]:
    """Return each field's name and numbers ``(tasks, components)``; nested fields have dotted names."""
    fields = named_leaves(task).items()
    return [(name, value.reshape(len(value), -1).cpu().numpy().astype(np.float64)) for name, value in fields]


def _split(name: str, values: Array) -> list[Panel]:
    """Return the panels of one field."""
    components = values.shape[1]
    if components <= 2 and (values.std(axis=0) > 0.0).all():
        return [Panel(name, values)]
    if components <= MAX_COMPONENTS:
        return [Panel(f"{name}[{i}]", values[:, i : i + 1]) for i in range(components)]
    summed_up = {"mean": values.mean(axis=1), "largest": values.max(axis=1)}
    return [Panel(f"{name}, {how} of {components}", value[:, None]) for how, value in summed_up.items()]


def _rank_correlation(x: Array, y: Array) -> float:
    """Return Spearman's rank correlation; 0 if one of them is constant."""
    from scipy.stats import rankdata  # slow import

    ranks = [rankdata(values) for values in (x, y)]
    if min(rank.std() for rank in ranks) == 0.0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


# ---- files --------------------------------------------------------------------------------------------------------


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file with 100 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


# ---- words and colours ---------------------------------------------------------------------------------------------


def title(curve: AdaptationCurve, what: str, width: int = 80) -> str:
    """Return a figure's title: agent and split, and below them the question that the figure answers."""
    return textwrap.fill(f"{curve.agent} on {curve.family}, {curve.split}", width) + "\n" + textwrap.fill(what, width)


def _score_label(curve: AdaptationCurve) -> str:
    return "score: return of an episode, last round" if curve.rounds else "score: return of the whole trial"


def _scale(curve: AdaptationCurve) -> int:
    """Return the number of episodes that a score sums over."""
    return 1 if curve.rounds else len(curve.labels)


def _limits(values: Array) -> tuple[float, float]:
    """Return the limits of the colour scale, without outliers, so that other differences stay visible."""
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
    bar.ax.yaxis.set_label_position("left")  # on the right it would look like the label of the next panel
