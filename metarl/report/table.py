"""The table at the end of a run or an evaluation, for the terminal."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.evaluation.curve import AdaptationCurve, generalisation_gaps
from metarl.evaluation.results import chosen_points, short

FEW_TASKS = 10
"""With fewer distinct tasks than this, an interval over tasks is unreliable, and tables note it."""


BARS = "▁▂▃▄▅▆▇█"
"""The bars of a sparkline, from its lowest value to its highest."""


def adaptation_table(curves: Mapping[str, AdaptationCurve], width: int = 80) -> Table:
    """Return a table for the terminal: the curve of each name (a split), with random and the optimum below.

    Columns: at most six points, the score (the trial's total, or the last round) with its 95 % interval, and the
    score normalised so that random is 0 and the known-task optimum 1. Where all of them do not fit into `width`
    characters, there are fewer points; no number is cut. The curves must have the same labels.
    Raises ValueError if there are none, or their points differ.
    """
    if not curves:
        raise ValueError("There must be at least one curve to show.")
    first = next(iter(curves.values()))
    if any(curve.labels != first.labels for curve in curves.values()):
        raise ValueError("A table shows curves with the same points, but their labels differ.")
    for points in range(6, 0, -1):
        table = _table(curves, chosen_points(len(first.labels), points))
        if width_of(table) <= width:
            break
    return table


def measures_line(split: str, found: Mapping[str, float]) -> str:
    """Return the measures of a split as a line: ``test: accuracy 0.813, precision 0.812 …``."""
    parts = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.items()]
    return f"{split}: {', '.join(parts)}"


def width_of(table: Table) -> int:
    """Return the width at which a table shows every cell in full; its title and caption wrap."""
    console = Console(width=10_000)
    bare = copy.copy(table)
    bare.title = bare.caption = None
    return console.measure(bare).maximum


def _table(curves: Mapping[str, AdaptationCurve], shown: list[int]) -> Table:
    first = next(iter(curves.values()))
    # Only the first number shows the words of the labels.
    padding = (0, 1 if len(shown) <= 4 else 0, 0, 0)
    table = Table(
        box=box.SIMPLE, padding=padding, show_edge=False, min_width=60, title_justify="left", caption_justify="left"
    )
    table.title, table.caption = _title(first), _caption(curves, _shapes(curves), _lost(curves))
    words, _ = _split_label(first.labels[0])
    lines = words.count(" ") + 2
    table.add_column("tasks".rjust(lines + 4, "\n"), no_wrap=True)
    for point in shown:
        _, number = _split_label(first.labels[point])
        over = words.split() if point == shown[0] else [""] * (lines - 1)
        table.add_column("\n".join([*over, number]), justify="right", no_wrap=True)
    above = "\n" * (lines - 2)
    score = "last\nround" if first.rounds else f"total\nof {len(first.labels)}"
    for heading in (score, "95 %\ninterval", "normal-\nised"):
        table.add_column(above + heading, justify="right", no_wrap=True)
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
    if curve.success is not None:
        shares = curve.success.mean(axis=(0, 1), dtype=np.float64)
        table.add_row("  success", *(f"{100 * shares[point]:.0f} %" for point in shown), "", "", "")
    if "cvar_10" in numbers:
        ends = f"[{short(numbers['cvar_10_low'])}, {short(numbers['cvar_10_high'])}]"
        table.add_row("  worst 10 %", *("" for _ in shown), short(numbers["cvar_10"]), ends, "")
        table.add_row("  worst task", *("" for _ in shown), short(numbers["worst_task"]), "", "")
    scale = 1 if curve.rounds else len(curve.labels)
    for bound, value in curve.bounds.items():
        label, place = ("optimum", "1") if bound == "oracle" else ("random", "0")
        cells = [*(short(value) for _ in shown), short(value * scale), "", place if "normalised" in numbers else ""]
        table.add_row(f"  {label}", *cells, style="dim")
    table.add_section()


def _split_label(label: str) -> tuple[str, str]:
    """Split a label: ("episode", "3") for "episode 3", ("gradient steps", "3") for "3 gradient steps"."""
    number = next((word for word in label.split() if word.isdigit()), "")
    return " ".join(word for word in label.split() if word != number), number


def _title(curve: AdaptationCurve) -> Text:
    return Text(f"{curve.agent} on {curve.family}: return of an episode", style="bold not italic")


def sparkline(values: NDArray[Any], low: float, high: float, width: int = 12) -> str:
    """Draw a curve as at most `width` bars, from `low` to `high`; values beyond are clipped."""
    if high == low:
        raise ValueError(f"low and high must differ, got {low:g} for both.")
    shown = values[np.linspace(0, len(values) - 1, min(len(values), width)).round().astype(int)]
    levels = np.clip((shown - low) / (high - low), 0.0, 1.0) * (len(BARS) - 1)
    return "".join(BARS[level] for level in levels.round().astype(int))


def _shapes(curves: Mapping[str, AdaptationCurve]) -> str:
    """Return sparklines of the curves that have a scale: ``train ▁▅█, test ▁▄█``."""
    shapes = []
    for name, curve in curves.items():
        if len(curve.labels) > 1 and curve.scale is not None:
            shapes.append(f"{name} {sparkline(curve.mean(), *curve.scale)}")
    return ", ".join(shapes)


def _lost(curves: Mapping[str, AdaptationCurve]) -> str:
    """Format the drops in score against train: ``test 0.09 [-0.02, 0.20], ood 20.2 [19.3, 21.1]``."""
    gaps = generalisation_gaps(curves).items()
    return ", ".join(f"{name} {short(gap)} [{short(low)}, {short(high)}]" for name, (gap, low, high) in gaps)


def _caption(curves: Mapping[str, AdaptationCurve], shapes: str, lost: str) -> Text:
    curve = next(iter(curves.values()))
    seeds = len(curve.returns)
    how = "takes its most likely action (greedy)" if curve.greedy else "samples its actions, as in training"
    text = f"{_how_many(curves)} Intervals are {_over_what(curves)}"
    text += f" ({seeds} training seeds)." if seeds > 1 else "."
    text += f" The agent {how}."
    if shapes:
        text = f"From random (▁) to the optimum (█): {shapes}. {text}"
    if lost:
        text += f" Below train (generalisation gap): {lost}."
    if any(each.tail() for each in curves.values()):
        text += " Worst tasks are chosen by one half of their trials and measured on the other."
    if curve.oracle is not None:
        text += " Optimum: best known return if the task is known, as it never is in the first episode."
    return Text(text, style="dim not italic")


def _over_what(curves: Mapping[str, AdaptationCurve]) -> str:
    """Describe the intervals: ``over tasks, of this agent; all: over trials, of this agent on all tasks``."""
    kinds: dict[str, list[str]] = {}
    for name, curve in curves.items():
        kinds.setdefault(curve.interval_of(), []).append(name)
    (first, _), *others = kinds.items()
    return "; ".join([first, *(f"{', '.join(names)}: {over}" for over, names in others)])


def _how_many(curves: Mapping[str, AdaptationCurve]) -> str:
    """Describe the means, and few tasks: ``Means over test: 1000 tasks × 20 repeats; ood: all 3 tasks.``"""
    counts: dict[str, list[str]] = {}
    for name, curve in curves.items():
        tasks = curve.returns.shape[1]
        every = "all " if curve.distinct == tasks else ""
        repeats = f" × {curve.repeats} repeats" if curve.repeats > 1 else ""
        counts.setdefault(f"{every}{tasks} task{'s'[: tasks != 1]}{repeats}", []).append(name)
    if len(counts) == 1:
        text = f"Means over {next(iter(counts))} of a split."
    else:
        text = "Means over " + "; ".join(f"{', '.join(names)}: {count}" for count, names in counts.items()) + "."
    few = [name for name, curve in curves.items() if curve.returns.shape[1] < FEW_TASKS and not curve.every_task]
    if few:
        text += f" Fewer than {FEW_TASKS} tasks ({', '.join(few)}): an interval over them says little about others."
    return text
