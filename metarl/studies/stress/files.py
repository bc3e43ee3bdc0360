"""The table, the figure and the files of a stress test."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM, colour
from metarl.evaluation.files import replace_file, replacing, to_json
from metarl.evaluation.results import short
from metarl.studies.stress.study import Result, Study


def stress_table(study: Study) -> Table:
    """Return a table with one row per condition, followed by the reasons why others do not apply."""
    left_out = "".join(f" No {name}: {reason}." for name, reason in study.left_out.items())
    table = Table(
        box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", caption_justify="left",
        title=Text(f"{study.agent} on {study.family}, {study.split}: return of an episode", style="bold not italic"),
        caption=Text(
            f"{study.tasks} tasks × {study.repeats} repeats, the same with and without. Lost: paired, 95 % interval "
            "over tasks. Kept: 1 means that nothing is lost, 0 the return of random play under the same condition; as "
            f"a share of the optimum's return where that is known.{left_out}",
            style="dim not italic",
        ),
    )  # fmt: skip
    retrained = any(each.retrained is not None for each in study.results)
    columns = ["condition", "", "undis-\nturbed", "under\nstress", "lost", "95 %\ninterval", "kept", "random", "told"]
    for column in [*columns, *(["retrained"] if retrained else [])]:
        table.add_column(column, justify="left" if column in ("condition", "") else "right")
    before = ""
    for each in study.results:
        lost, low, high = each.lost
        told, again = ("" if value is None else short(value) for value in (each.oracle, each.retrained))
        table.add_row(
            each.stress if each.stress != before else "", each.about, short(each.plain), short(each.score), short(lost),
            f"[{short(low)}, {short(high)}]", f"{each.kept:.2f}", short(each.random), told,
            *([again] if retrained else []),
        )  # fmt: skip
        before = each.stress
    return table


def draw(study: Study) -> Figure:
    """Draw the retained fraction under each condition: 1 means no loss, 0 is random play."""
    rows = len(study.results)
    figure = Figure(figsize=(7.5, 1.3 + 0.34 * rows), layout="constrained")
    ax = figure.add_subplot()
    groups = list(dict.fromkeys(each.stress for each in study.results))
    places = [number + 0.6 * groups.index(each.stress) for number, each in enumerate(study.results)]
    for place, each in zip(places, study.results, strict=True):
        _draw_row(ax, place, each, colour(study.agent))
    ax.axvline(0.0, color=RANDOM, linestyle="--", linewidth=1.2)
    ax.axvline(1.0, color=OPTIMUM, linestyle="--", linewidth=1.2)
    ax.set_yticks(places, [f"{each.stress}, {each.about}" for each in study.results])
    ax.set_ylim(max(places, default=0) + 0.7, -0.7)
    ax.set_xlim(-0.25, 1.25)
    diamonds = "\n◆ trained under the condition" if any(each.retrained is not None for each in study.results) else ""
    ax.set_xlabel(f"share kept, with its 95 % interval: 0 is random play, 1 loses nothing{diamonds}")
    ax.set_title(f"{study.agent} on {study.family.partition('(')[0]}, {study.split}", loc="left", fontsize="medium")
    ax.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(left=False)
    return figure


def _draw_row(ax: Axes, place: float, each: Result, shade: Any) -> None:
    """Draw the fraction and its interval, or a note that there is no scale."""
    if each.kept != each.kept:
        ax.text(0.5, place, "random play is as good as can be expected", va="center", ha="center", size=8, color="0.4")
        return
    _, low, high = each.lost
    ends = [each.share(each.plain - high), each.share(each.plain - low)]
    ax.plot([0.0, each.kept], [place, place], color=shade, linewidth=7, alpha=0.25, solid_capstyle="butt")
    ax.plot(ends, [place, place], color=shade, linewidth=3, solid_capstyle="butt")
    ax.plot(each.kept, place, "o", color=shade, markersize=7, clip_on=True)
    if each.retrained is not None:
        ax.plot(each.share(each.retrained), place, "D", color="0.25", markersize=6, clip_on=True)


def save(study: Study, folder: Path) -> list[Path]:
    """Write ``stress.json``, ``stress.csv`` and ``stress.png`` into an existing folder; return the paths."""
    rows = [row(each) for each in study.results]
    head = {name: value for name, value in study._asdict().items() if name != "results"}
    replace_file(folder / "stress.json", to_json({**head, "results": rows}) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    replace_file(folder / "stress.csv", text.getvalue())
    with replacing(folder / "stress.png") as file:
        draw(study).savefig(file, dpi=120, format="png")
    return [folder / f"stress.{ending}" for ending in ("json", "csv", "png")]


def row(each: Result) -> dict[str, Any]:
    """Return a result as plain data."""
    lost, low, high = each.lost
    kept = each.kept if each.kept == each.kept else None
    return {**each._asdict(), "lost": lost, "lost_low": low, "lost_high": high, "kept": kept}
