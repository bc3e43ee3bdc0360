"""The figure of sample efficiency: a panel for each family, every agent's return by its training."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colours
from metarl.evaluation.results import short
from metarl.report.efficiency.panel import Panel
from metarl.report.efficiency.training_curve import AXES, TrainingCurve

COLUMNS = 3
"""Most panels per row."""
LEGEND = {1: 3, 2: 4, 3: 6}
"""Entries of the legend side by side, by the panels: as many as have room below them."""


def figure(panels: Sequence[Panel], x: str) -> Figure:
    """Draw a panel for each family over the axis `x`, with one legend for all of them."""
    columns = min(len(panels), COLUMNS)
    lines = -(-len(panels) // columns)
    whole = Figure(figsize=(max(5.2 * columns, 6.8), 4.2 * lines + 0.4), layout="constrained")
    shades = colours(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    for number, panel in enumerate(panels, start=1):
        _draw(whole.add_subplot(lines, columns, number), panel, x, shades)
    legend: dict[str, Artist] = {}
    for ax in whole.axes:
        legend |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = sorted(legend, key=lambda label: label not in shades)  # the agents first
    whole.legend(
        [legend[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=min(len(labels), LEGEND[columns]),
        frameon=False,
    )
    return whole


def _draw(ax: Axes, panel: Panel, x: str, shades: Mapping[str, str]) -> None:
    for curve in panel.curves:
        shade, mark = shades[curve.name], "o" if _as_recorded(curve) else ""
        ax.plot(curve.at, curve.mean(), color=shade, marker=mark, markersize=3.5, label=curve.name)
        ax.fill_between(curve.at, *curve.interval(), color=shade, alpha=0.2, linewidth=0)
        if len(curve.histories) > 1:  # the band of two or three seeds does not show the single curves
            for at, each in zip(curve.places, curve.histories, strict=True):
                ax.plot(at, each.returns, color=shade, linewidth=0.8, alpha=0.45)
        if curve.final is not None:
            last, low, high = curve.last()
            error = [[max(0.0, last - low)], [max(0.0, high - last)]]
            ax.errorbar(curve.at[-1], last, yerr=error, fmt="D", markersize=6, capsize=4, color=shade, zorder=3)
            ax.plot([], [], "D", markersize=6, color="0.35", label="evaluation at the end")
    _limit(ax, panel)
    _scale_steps(ax, panel, x)
    ax.set_title(textwrap.fill(f"{panel.family}, {panel.split}", 60), fontsize="medium")
    ax.set_xlabel(AXES[x])
    ax.set_ylabel("return of an episode after adaptation")
    ax.grid(alpha=0.3)


def _as_recorded(curve: TrainingCurve) -> bool:
    """Return whether the points of a curve are evaluations of every seed, so that markers are meaningful."""
    return all(np.array_equal(curve.at, at) for at in curve.places) and len(curve.at) <= 40


def _limit(ax: Axes, panel: Panel) -> None:
    """Limit the height to the curves and draw the bounds; a bound that would flatten the curves is only a note.

    The band of two or three seeds may be many times as wide as the curves.
    """
    seeds = [each.returns for curve in panel.curves for each in curve.histories]
    values = np.concatenate([*seeds, *(np.append(curve.mean(), curve.last()[0]) for curve in panel.curves)])
    span = float(np.ptp(values)) or max(1.0, abs(float(values[0])))
    low, high, beyond = float(values.min()), float(values.max()), []
    for name, value in panel.bounds.items():
        if values.min() - 1.5 * span <= value <= values.max() + 1.5 * span:
            shade, label = (OPTIMUM, "known-task optimum") if name == "oracle" else (RANDOM, "random policy, mean")
            ax.axhline(value, linestyle="--", linewidth=1.2, color=shade, label=label)
            low, high = min(low, value), max(high, value)
        else:
            what = "known-task optimum" if name == "oracle" else "random policy"
            beyond.append(f"{what} {short(value)}, {'above' if value > high else 'below'}")
    bands = np.concatenate([np.append(curve.interval(), curve.last()[1:]) for curve in panel.curves])
    low = min(low, max(float(bands.min()), low - 0.4 * span))
    high = max(high, min(float(bands.max()), high + 0.4 * span))
    margin = 0.05 * max(high - low, span)
    ax.set_ylim(low - margin, high + margin)
    if beyond:
        plain = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        said = ax.text(0.98, 0.03, "\n".join(beyond), transform=ax.transAxes, ha="right", bbox=plain)
        said.set(fontsize="small", color="0.35")


def _scale_steps(ax: Axes, panel: Panel, x: str) -> None:
    """Make the axis logarithmic where trainings differ much in length, or an early point would hide at its edge."""
    firsts, ends = [curve.at[0] for curve in panel.curves], [curve.at[-1] for curve in panel.curves]
    if min(firsts) > 0 and (max(ends) > 8 * min(ends) or max(ends) > 40 * min(firsts)):
        ax.set_xscale("log")
        decades = np.log10(max(ends) / min(firsts))
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(0.0, 1.04 * max(ends))
    ax.xaxis.set_major_formatter(EngFormatter(sep=" ") if x == "train_steps" else "{x:,.0f}")
