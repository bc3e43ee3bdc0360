"""The table at the end of a run or an evaluation, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from metarl.curve import AdaptationCurve, chosen_points, generalisation_gaps, short

BARS = "▁▂▃▄▅▆▇█"
"""Of a sparkline, from its lowest value to its highest."""


def adaptation_table(curves: Mapping[str, AdaptationCurve]) -> Table:
    """A table for the terminal: for each name (a split) the curve, and below it what random and the optimum get.

    Columns: at most six points, the score (the trial's total, or the last round) with its 95 % interval, and the
    score normalised so that random is 0 and the known-task optimum 1. The curves must have the same labels.
    Raises ValueError if there are none, or their points differ.
    """
    if not curves:
        raise ValueError("There must be at least one curve to show.")
    first = next(iter(curves.values()))
    if any(curve.labels != first.labels for curve in curves.values()):
        raise ValueError("A table shows curves with the same points, but their labels differ.")
    shown = chosen_points(len(first.labels), 6)
    # Narrow enough for 80 columns: the word of the labels stands over the first number only.
    padding = (0, 1 if len(shown) <= 4 else 0, 0, 0)
    table = Table(
        box=box.SIMPLE, padding=padding, show_edge=False, min_width=60, title_justify="left", caption_justify="left"
    )
    table.title, table.caption = _title(first), _caption(first, _shapes(curves), _lost(curves))
    table.add_column("\ntasks", no_wrap=True)
    for point in shown:
        word, number = _split_label(first.labels[point])
        table.add_column(f"{word if point == shown[0] else ''}\n{number}", justify="right", no_wrap=True)
    table.add_column("last\nround" if first.rounds else f"total\nof {len(first.labels)}", justify="right", no_wrap=True)
    table.add_column("95 %\ninterval", justify="right", no_wrap=True)
    table.add_column("normal-\nised", justify="right", no_wrap=True)
    for name, curve in curves.items():
        _add_rows(table, name, curve, shown)
    return table


def _add_rows(table: Table, name: str, curve: AdaptationCurve, shown: list[int]) -> None:
    numbers, mean = curve.summary(), curve.mean()
    table.add_row(
        Text(name, style="bold"),
        *(Text(short(mean[point]), style="bold") for point in shown),
        Text(short(numbers["score"]), style="bold"),
        Text(f"[{short(numbers['score_low'])}, {short(numbers['score_high'])}]"),
        Text(f"{numbers['normalised']:.3f}" if "normalised" in numbers else "", style="bold"),
    )
    scale = 1 if curve.rounds else len(curve.labels)
    for bound, value in curve.bounds.items():
        label, place = ("optimum", "1") if bound == "oracle" else ("random", "0")
        cells = [*(short(value) for _ in shown), short(value * scale), "", place if "normalised" in numbers else ""]
        table.add_row(f"  {label}", *cells, style="dim")
    table.add_section()


def _split_label(label: str) -> tuple[str, str]:
    """("episode", "3") of "episode 3", ("gradient steps", "3") of "3 gradient steps"."""
    number = next((word for word in label.split() if word.isdigit()), "")
    return " ".join(word for word in label.split() if word != number), number


def _title(curve: AdaptationCurve) -> Text:
    return Text(f"{curve.agent} on {curve.family}: return of an episode", style="bold not italic")


def sparkline(values: NDArray[Any], low: float, high: float, width: int = 12) -> str:
    """A curve as at most `width` bars, the lowest at `low` and the highest at `high`; beyond them it is cut off."""
    if high == low:
        raise ValueError(f"low and high must differ, got {low:g} for both.")
    shown = values[np.linspace(0, len(values) - 1, min(len(values), width)).round().astype(int)]
    levels = np.clip((shown - low) / (high - low), 0.0, 1.0) * (len(BARS) - 1)
    return "".join(BARS[level] for level in levels.round().astype(int))


def _shapes(curves: Mapping[str, AdaptationCurve]) -> str:
    """``train ▁▅█, test ▁▄█``: of the curves that have a scale."""
    shapes = []
    for name, curve in curves.items():
        bounds = curve.bounds
        if len(curve.labels) > 1 and len(bounds) == 2 and bounds["random"] != bounds["oracle"]:
            shapes.append(f"{name} {sparkline(curve.mean(), bounds['random'], bounds['oracle'])}")
    return ", ".join(shapes)


def _lost(curves: Mapping[str, AdaptationCurve]) -> str:
    """``test 0.09 [-0.02, 0.20], ood 20.2 [19.3, 21.1]``: what the score on each split is below that on train."""
    gaps = generalisation_gaps(curves).items()
    return ", ".join(f"{name} {short(gap)} [{short(low)}, {short(high)}]" for name, (gap, low, high) in gaps)


def _caption(curve: AdaptationCurve, shapes: str, lost: str) -> Text:
    seeds, tasks, _ = curve.returns.shape
    how = "takes its most likely action (greedy)" if curve.greedy else "samples its actions, as in training"
    over = "tasks" if seeds == 1 else f"{seeds} seeds × tasks"
    text = f"Mean over {tasks} tasks a split, interval by bootstrap over {over}. The agent {how}."
    if shapes:
        text = f"From random (▁) to the optimum (█): {shapes}. {text}"
    if lost:
        text += f" Below train (generalisation gap): {lost}."
    if curve.oracle is not None:
        text += " Optimum: best known return when the task is told, which no agent has in its first episode."
    return Text(text, style="dim not italic")
