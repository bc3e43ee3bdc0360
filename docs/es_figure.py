"""The figure of evolution strategies: what they reach next to the same policies trained by gradients."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colour
from metarl.report.figures import png
from metarl.report.images import image_png

Record = Mapping[str, Mapping[str, Any]]


class Panel(NamedTuple):
    """A family, with the presets that are compared on it."""

    title: str
    presets: Mapping[str, str]  # title of the agent → preset, the evolution strategy first
    experience: str  # what the points of a curve count
    measure: str  # what the points are means of, with its unit
    told: str  # what the optimum is told
    logarithmic: bool = False


PANELS = (
    Panel(
        "Bernoulli bandit, 100 pulls",
        {"ES": "es_bernoulli_bandit", "RL²": "rl2_bernoulli_bandit"},
        "pull of the trial",
        "reward of the pull",
        "told the best arm",
        logarithmic=True,
    ),
    Panel(
        "Navigation2D",
        {"ES-MAML": "es_maml_navigation2d", "MAML": "maml_navigation2d"},
        "policy-gradient steps on the task",
        "return of an episode",
        "told the goal",
    ),
)


def places(curve: Mapping[str, Any]) -> list[int]:
    """What the points of a curve count: 5 for ``episode 5``, 2 for ``2 gradient steps``."""
    return [int(next(word for word in label.split() if word.isdigit())) for label, *_ in curve["points"]]


def draw(record: Record, path: Path) -> None:
    """A panel for each family: return of an episode over the experience on a task, with bands of 95 %.

    `record` is that of `benchmarks.presets`; the curves are of the split that the presets are about.
    """
    figure = Figure(figsize=(5.2 * len(PANELS), 4.2), layout="constrained")
    for ax, panel in zip(figure.subplots(1, len(PANELS), squeeze=False).flat, PANELS, strict=True):
        draw_panel(ax, panel, record)
    write(figure, path)


def draw_panel(ax: Axes, panel: Panel, record: Record) -> None:
    """Draw the curves of a family, and random play and the optimum as horizontal lines."""
    for number, (title, preset) in enumerate(panel.presets.items()):
        curve = record[preset]["splits"][record[preset]["target"]]
        at, (middle, low, high) = places(curve), np.array([numbers for _, *numbers in curve["points"]]).T
        label = f"{title}, {record[preset]['env_steps'] / 1e6:.0f} M environment steps of training"
        style = "s--" if number == 0 else "o-"  # not by colour alone
        ax.plot(at, middle, style, markersize=5, color=colour(title), label=label)
        ax.fill_between(at, low, high, color=colour(title), alpha=0.2, linewidth=0)
    lines = {panel.told: ("oracle", OPTIMUM, ":"), "random play": ("random", RANDOM, "-.")}
    for label, (name, shade, style) in lines.items():
        if curve[name] is not None:  # the same tasks for both presets
            ax.axhline(curve[name] / curve["episodes"], color=shade, linestyle=style, linewidth=1.2, label=label)
    if panel.logarithmic:
        ax.set_xscale("log")
    ax.set_xticks(at, list(map(str, at)))
    ax.minorticks_off()
    ax.set_title(f"{panel.title}, {record[preset]['target']}")
    ax.set_xlabel(panel.experience)
    ax.set_ylabel(panel.measure)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=2)


def write(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG with a palette, which has about a third of the size."""
    with Image.open(io.BytesIO(png(figure))) as image:
        path.write_bytes(image_png(image.convert("RGB")))
