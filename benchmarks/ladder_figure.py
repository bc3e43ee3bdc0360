"""The figure of the ladder: a panel for each family, with a line for each rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colour
from metarl.evaluation.results import short

COLUMNS = 2
KINDS = {"no memory": "memoryless", "RL²": "rl2", "hyper-RL²": "hyper", "VariBAD": "varibad", "exact belief": "belief"}
"""Rung → the kind of agent whose colour it has; classical players have that of Bayes-optimal ones."""


def draw(ladders: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the ladders and write the figure. Rungs stand one above the other, the told one on top."""
    columns = min(COLUMNS, len(ladders))
    rows = -(-len(ladders) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.1 * rows + 0.7), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, one in zip(panels, ladders.values(), strict=False):
        draw_panel(ax, one)
    for ax in panels[len(ladders) :]:
        ax.set_axis_off()
    marks = [
        Line2D([], [], color="0.3", marker="o", markersize=6.5, linewidth=3, label="mean and 95 % interval"),
        Line2D([], [], color="0.3", marker="o", markersize=4, markerfacecolor="white", linestyle="", label="a seed"),
    ]
    if len(panels) > len(ladders):
        panels[-1].legend(handles=marks, loc="center", frameon=False)
    else:
        figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def draw_panel(ax: Axes, one: Mapping[str, Any]) -> None:
    """Draw a family's rungs on its scale; the numbers next to the points are returns of a trial."""
    rungs = [row for row in one["rungs"] if row["normalised"][0] is not None]
    for y, row in enumerate(rungs):
        draw_rung(ax, y, row)
    ax.axvline(0.0, color=RANDOM, linestyle="--", linewidth=1, zorder=0)
    ax.axvline(1.0, color=OPTIMUM, linestyle=":", linewidth=1, zorder=0)
    ax.set_yticks(range(len(rungs)), [row["rung"] for row in rungs], fontsize="small")
    ax.set_ylim(-0.6, len(rungs) - 0.4)
    ax.set_xlim(*limits(rungs))
    ax.set_title(f"{one['title']} ({one['split']})", fontsize="medium")
    ax.set_xlabel(f"0: random, 1: {one['one_is']}", fontsize="small")
    ax.grid(axis="x", alpha=0.3)


def draw_rung(ax: Axes, y: int, row: Mapping[str, Any]) -> None:
    """Draw a rung's mean, interval and seeds at height `y`, and write its return at the right edge."""
    shade = shade_of(row["rung"])
    mean, low, high = row["normalised"]
    ax.plot([low, high], [y, y], color=shade, linewidth=3, solid_capstyle="butt", alpha=0.55)
    seeds = row["normalised_by_seed"]
    if len(seeds) > 1:
        ax.plot(seeds, [y] * len(seeds), "o", markersize=4, markerfacecolor="white", markeredgecolor=shade)
    ax.plot(mean, y, "o", markersize=6.5, color=shade, alpha=0.9)
    text = short(row["score"])
    if row["low"] != row["high"]:
        text += f" [{short(row['low'])}, {short(row['high'])}]"
    ax.annotate(text, (1.0, y), (6, 0), ax.get_yaxis_transform(), "offset points", va="center", size=8, color=shade)


def shade_of(rung: str) -> str:
    """The colour of a rung."""
    if rung == "random":
        return RANDOM
    if rung == "told the task":
        return OPTIMUM
    return colour(KINDS.get(rung, "bayes"))


def limits(rungs: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The ends of the horizontal axis: all means and seeds, and as much of the intervals as is near them.

    An interval of three seeds that differ can be many times as wide as the ladder is high.
    """
    points = [value for row in rungs for value in (row["normalised"][0], *row["normalised_by_seed"])]
    ends = [value for row in rungs for value in row["normalised"]]
    low, high = min(points), max(points)
    room = 0.35 * (high - low)
    return max(min(ends), low - room) - 0.06 * (high - low), min(max(ends), high + room) + 0.06 * (high - low)
