"""The figure of all presets: scores between random play and the known-task optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metarl.evaluation import stats
from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colour
from metarl.evaluation.results import short


class Dot(NamedTuple):
    """What the figure shows of a preset: returns of an episode."""

    preset: str
    about: str  # "GridNavi, all"
    first: float  # in the first episode, or before any gradient step
    score: float  # mean over the trial's episodes, or after the last gradient step
    low: float  # of the score's 95 % interval
    high: float
    random: float | None
    optimum: float | None

    def normalised(self, value: float) -> float:
        """On the scale on which random is 0 and the optimum 1."""
        assert self.random is not None and self.optimum is not None
        return float(stats.normalise(value, self.random, self.optimum))

    @property
    def has_scale(self) -> bool:
        return self.random is not None and self.optimum is not None and self.random != self.optimum


def dots(record: Mapping[str, Mapping[str, Any]]) -> list[Dot]:
    """A dot for each preset of the record that `benchmarks.presets` writes, on the split that the preset is about."""
    found = []
    for preset, entry in record.items():
        curve = entry["splits"][entry["target"]]
        per_episode = [
            None if curve[name] is None else curve[name] / curve["episodes"]
            for name in ("score", "low", "high", "random", "oracle")
        ]
        about = f"{curve['family'].partition('(')[0]}, {entry['target']}"
        found.append(Dot(preset, about, curve["points"][0][1], *per_episode))
    return found


def draw(dots: Sequence[Dot], path: Path, note: str) -> None:
    """A line per preset, with its score between random play and the known-task optimum; below, those without one.

    The presets stand in groups by family and split, in each the best on top; `note` says whose numbers these are.
    """
    scaled, others = [d for d in dots if d.has_scale], [d for d in dots if not d.has_scale]
    scaled.sort(key=lambda d: (d.about, -d.normalised(d.score)))
    groups = list(dict.fromkeys(d.about for d in scaled))
    figure = Figure(figsize=(10, 1.2 + 0.27 * (len(scaled) + len(others)) + 0.12 * len(groups)), layout="constrained")
    heights = [max(len(scaled), 1), max(len(others), 1)]
    upper, lower = figure.subplots(2, 1, height_ratios=heights) if others else (figure.add_subplot(), None)
    _draw_dots(upper, scaled, groups)
    upper.set_xlabel("score: 0 is random play, 1 the best that is possible when the task is told")
    if lower is not None:
        _write_table(lower, others)
    figure.suptitle(f"What the presets reach; {note}", fontsize="medium")
    figure.savefig(path, dpi=90)


def _draw_dots(ax: Axes, dots: Sequence[Dot], groups: Sequence[str]) -> None:
    places = [number + 0.5 * groups.index(d.about) for number, d in enumerate(dots)]
    for y, d in zip(places, dots, strict=True):
        shade = colour(d.preset)
        low, score, high, first = (d.normalised(value) for value in (d.low, d.score, d.high, d.first))
        ax.plot([first, score], [y, y], color=shade, linewidth=1, alpha=0.5)
        ax.plot(first, y, "o", markersize=5, markerfacecolor="white", markeredgecolor=shade)
        ax.plot([low, high], [y, y], color=shade, linewidth=3.5, solid_capstyle="butt")
        ax.plot(score, y, "o", markersize=6.5, color=shade)
        ax.annotate(f"{score:.2f}", (1.0, y), (8, 0), ax.get_yaxis_transform(), "offset points", va="center", size=8)
    ax.axvline(0.0, color=RANDOM, linestyle="--", linewidth=1.2)
    ax.axvline(1.0, color=OPTIMUM, linestyle="--", linewidth=1.2)
    ax.set_yticks(places, [f"{d.preset}  ({d.about})" for d in dots], fontsize="small")
    ax.set_ylim(max(places, default=0) + 0.7, -0.7)
    ax.grid(axis="x", alpha=0.3)
    marks = [
        Line2D(
            [],
            [],
            color="0.4",
            marker="o",
            markerfacecolor="white",
            linestyle="",
            label="first episode, or before any gradient step",
        ),
        Line2D(
            [],
            [],
            color="0.4",
            marker="o",
            label="mean of the trial's episodes, or after the last gradient step, with its 95 % interval",
        ),
    ]
    ax.legend(handles=marks, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False, fontsize="small")


def _write_table(ax: Axes, dots: Sequence[Dot]) -> None:
    """Returns of an episode where no optimum is known."""
    ax.set_axis_off()
    columns = (0.0, 0.33, 0.62, 0.85)
    rows = [("no known optimum: return of an episode", "", "score and 95 % interval", "random")]
    for d in dots:
        interval = f"{short(d.score)} [{short(d.low)}, {short(d.high)}]"
        rows.append((d.preset, d.about, interval, "" if d.random is None else short(d.random)))
    for number, row in enumerate(rows):
        for x, text in zip(columns, row, strict=True):
            y = 1.0 - (number + 0.5) / len(rows)
            ax.text(
                x, y, text, transform=ax.transAxes, va="center", size="small", color="0.3" if number == 0 else "black"
            )
