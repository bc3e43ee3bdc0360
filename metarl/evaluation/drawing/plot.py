"""The plot of an adaptation curve: its mean with an interval, random play, and the optimum of the known task."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colour
from metarl.evaluation.results import Results, short
from metarl.evaluation.step_curve import PULLS

EXPERIENCE = {"episodes": "episodes of experience on the task", "env_steps": "environment steps of experience"}
"""Labels of the experience axes, by the field that they show."""


def plot_curve(results: Results, ax: Axes | None = None, x: str = "points", bounds: bool = True) -> Figure:
    """Draw a curve on `ax`, or on a new figure, and return the figure; see `AdaptationCurve.plot`."""
    if x != "points" and x not in EXPERIENCE:
        raise ValueError(f"x must be 'points', 'episodes' or 'env_steps', got {x!r}.")
    if ax is None:
        ax = Figure(figsize=(6.4, 4.4), layout="constrained").add_subplot()
    curve = results.blocks()
    _draw_mean(ax, curve, _places(curve, x, grouped=curve is not results))
    if bounds:
        _draw_bounds(ax, curve)
    ax.autoscale_view()  # leaves a margin around the dashed lines too
    _name_axes(ax, curve, x, grouped=curve is not results)
    _add_legend(ax, curve)
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _places(curve: Results, x: str, grouped: bool) -> NDArray[np.float64]:
    """Return the positions of the points on the horizontal axis, ``(points,)``."""
    if x != "points":
        return curve.episodes if x == "episodes" else curve.env_steps
    if curve.rounds:
        return np.arange(len(curve.labels), dtype=np.float64)
    # Place a mean over ten pulls in the middle of them.
    return curve.episodes + (0.5 * (PULLS + 1) if grouped else 1.0)


def _draw_mean(ax: Axes, curve: Results, at: NDArray[np.float64]) -> None:
    """Draw the mean with its 95 % band."""
    # Within a round nothing is learned; adaptation happens only between rounds.
    (line,) = ax.plot(
        at, curve.mean(), marker="o" if len(at) <= 20 else "", label=curve.agent, color=colour(curve.agent),
        drawstyle="steps-post" if curve.rounds else "default",
    )  # fmt: skip
    band: dict[str, Any] = {"step": "post"} if curve.rounds else {}
    label = f"95 % interval {curve.interval_of()}"
    ax.fill_between(at, *curve.interval(), color=line.get_color(), alpha=0.25, linewidth=0, label=label, **band)


def _draw_bounds(ax: Axes, curve: Results) -> None:
    """Draw random and oracle as dashed lines; show random only in the legend if its line would flatten the curve."""
    lines, lowest = curve.bounds, float(curve.interval()[0].min())
    near = len(lines) == 2 and lowest > lines["random"] + 0.9 * abs(lines["oracle"] - lines["random"])
    for (name, value), shade in zip(lines.items(), (RANDOM, OPTIMUM), strict=False):
        label = f"{'known-task optimum' if name == 'oracle' else name} {short(value)}"
        if name == "random" and near:
            ax.plot([], [], linestyle="--", linewidth=1.2, color=shade, label=f"{label} (below)")
        else:
            ax.axhline(value, linestyle="--", linewidth=1.2, color=shade, label=label)


def _name_axes(ax: Axes, curve: Results, x: str, grouped: bool) -> None:
    """Set labels, title and the scale of the horizontal axis."""
    ax.set_xlabel(EXPERIENCE.get(x, "gradient steps" if curve.rounds else "episode of the trial"))
    ax.set_ylabel(f"return of an episode{', means over ten' if grouped else ''}")
    ax.set_title(textwrap.fill(f"{curve.family}, {curve.split}", 68), fontsize="medium")
    if x == "points":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    else:
        ax.set_xscale("symlog", linthresh=1.0)
        ax.set_xlim(0.0, 1.5 * max(ax.dataLim.x1, 1.0))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _add_legend(ax: Axes, curve: Results) -> None:
    """Add a legend below the axes that says what the means are over."""
    seeds, tasks, _ = curve.returns.shape
    how = "greedy" if curve.greedy else "sampling"
    often = f" × {curve.repeats} repeats" if curve.repeats > 1 else ""
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # several curves on the same axes have intervals of the same kind
    if len(once) < len(labels):
        once |= {label: Patch(color="0.8") for label in once if labels.count(label) > 1}
    ax.legend(
        once.values(),
        once.keys(),
        title=f"{tasks} tasks{often}, {seeds} seed{'s'[: seeds != 1]}, {how}",
        fontsize="small",
        title_fontsize="small",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=2,
        frameon=False,
    )
