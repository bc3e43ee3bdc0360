"""The figure of a probe: scores over the steps of the trial, with ceiling and floor."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colour
from metarl.evaluation.probing.probe import Probe
from metarl.evaluation.probing.scores import Decoded
from metarl.report.probing.table import NOTE, WORDS, targets, title

LOWEST = -0.25
"""Lowest score that is drawn; lower ones are clipped."""


def probe_figure(probe: Probe) -> Figure:
    """Draw a panel for each target, and one for the divergence of the actions if requested."""
    shown = targets(probe)
    panels = len(shown) + (probe.divergence is not None)
    figure = Figure(figsize=(4.6 * panels + 0.6, 4.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax, decoded in zip(axes, shown, strict=False):
        _draw(ax, probe, decoded)
    if probe.divergence is not None:
        _draw_divergence(axes[-1], probe)
    for ax in axes:
        _scale(ax, probe)
    who, what = title(probe).rsplit(": ", 1)
    figure.suptitle(f"{textwrap.fill(who, 44 * panels)}\n{what}", fontsize="medium")
    figure.supxlabel(textwrap.fill(NOTE, 50 * panels), fontsize="small", color="0.35")
    return figure


def _draw(ax: Axes, probe: Probe, decoded: Decoded) -> None:
    at, shade = np.array(probe.steps), colour(probe.agent)
    memory, shuffled = decoded.memory, decoded.shuffled
    ax.plot(at, memory.mean[:-1], "o-", color=shade, markersize=4, label=f"its {probe.part}")
    ax.fill_between(at, memory.low[:-1], memory.high[:-1], color=shade, alpha=0.25, linewidth=0)
    if decoded.ceiling is not None:
        ax.plot(at, decoded.ceiling[:-1], "--", color=OPTIMUM, linewidth=1.2, label="the exact belief")
    ax.plot(at, shuffled.mean[:-1], ".:", color=RANDOM, label="shuffled memories")
    ax.fill_between(at, shuffled.low[:-1], shuffled.high[:-1], color=RANDOM, alpha=0.2, linewidth=0)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, LOWEST), min(high, 1.05))
    ax.set_title(f"the {decoded.name}", fontsize="medium")
    ax.set_ylabel(textwrap.fill(WORDS[decoded.measure], 52), fontsize="small")
    ax.legend(fontsize="small", frameon=False, title="95 % intervals", title_fontsize="small")


def _draw_divergence(ax: Axes, probe: Probe) -> None:
    assert probe.divergence is not None and probe.lost is not None
    at, mean, low, high = np.array(probe.steps), *(part[:-1] for part in probe.divergence)
    ax.plot(at, mean, "o-", color=colour(probe.agent), markersize=4)
    ax.fill_between(at, low, high, color=colour(probe.agent), alpha=0.25, linewidth=0)
    ax.set_ylim(bottom=0.0)
    lost = probe.lost
    heading = f"actions; {lost.lost:.3g} [{lost.low:.3g}, {lost.high:.3g}] of return lost"
    ax.set_title(heading, fontsize="medium")
    ax.set_ylabel("KL from the belief agent's actions, nats", fontsize="small")


def _scale(ax: Axes, probe: Probe) -> None:
    """Scale the axis of long trials so that the beginning is visible."""
    ax.set_xlabel("actions taken before")
    ax.grid(alpha=0.3)
    if max(probe.steps) > 20:
        ax.set_xscale("symlog", linthresh=4.0)
        ax.set_xlim(-0.3, 1.2 * max(probe.steps))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
