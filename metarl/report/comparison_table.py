"""The tables of a comparison, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarl.evaluation.results import short
from metarl.report.table import width_of

Row = Mapping[str, Any]
"""The numbers of an agent on a split; see `Comparison.rows`."""


HEADINGS = {
    "agent": "\nagent",
    "seeds": "\nseeds",
    "tasks": "\ntasks",
    "first": "first\npoint",
    "last": "last point,\n95 % interval",
    "normalised": "normal-\nised",
    "env_steps": "steps\nbefore it",
    "to_90": "episodes\nto 90 %",
    "steps_to_90": "steps\nto 90 %",
    "difference": "difference\nto the first",
    "beats": "beats\nthe first",
}
"""Columns of the tables, by the keys of `Comparison.rows`."""


def terminal_tables(rows: Sequence[Row], bounds: Mapping[str, float], title: str, width: int) -> list[Table]:
    """Return tables of `rows` for the terminal, with random and the known-task optimum below; the first has the title.

    Columns that do not fit into `width` characters continue in another table, with the agents' names; numbers are
    never cut.
    """
    cells = [dict(zip(HEADINGS, _cells(row), strict=True)) for row in rows]
    for name, value in bounds.items():
        cells.append(dict.fromkeys(HEADINGS, "") | {"agent": f"({name})", "last": short(value)})
    return tables_within(cells, HEADINGS, title, width)


def tables_within(
    cells: Sequence[Mapping[str, str]], headings: Mapping[str, str], title: str, width: int
) -> list[Table]:
    """Return tables of text by the keys of `headings`, the first of which is "agent"; empty columns are left out.

    Columns that do not fit into `width` characters continue in another table, with the agents' names.
    """
    shown = [key for key in headings if key == "agent" or any(row[key] for row in cells)]
    parts: list[list[str]] = [[]]
    for key in shown[1:]:
        if parts[-1] and width_of(_columns(cells, headings, ["agent", *parts[-1], key])) > width:
            parts.append([])
        parts[-1].append(key)
    tables = [_columns(cells, headings, ["agent", *part]) for part in parts]
    tables[0].title = Text(title, style="bold not italic")
    return tables


def _columns(cells: Sequence[Mapping[str, str]], headings: Mapping[str, str], keys: list[str]) -> Table:
    """Return a table of some columns."""
    table = Table(box=box.SIMPLE, show_edge=False, title_justify="left", padding=(0, 1, 0, 0))
    for key in keys:
        table.add_column(headings[key], justify="left" if key == "agent" else "right", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(row[key]) for key in keys), style="dim" if row["agent"].startswith("(") else "")
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Format a row's numbers, in the order of `HEADINGS`."""
    low, high = row["interval"]
    text = {
        "agent": row["agent"],
        "seeds": str(row["seeds"]),
        "tasks": f"{row['tasks']:,}" + (f" × {row['repeats']}" if row["repeats"] > 1 else ""),
        "first": short(row["first"]),
        "last": f"{short(row['last'])} [{short(low)}, {short(high)}]",
        "normalised": "" if row["normalised"] is None else f"{row['normalised']:.3f}",
        "env_steps": f"{row['env_steps']:,.0f}",
        "difference": "" if row["difference"] is None else gap_text("", row["difference"]).strip(),
        "beats": "" if row["beats"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row["beats"]),
    }
    for key in ("to_90", "steps_to_90"):
        text[key] = "-" if row[key] is None else f"{row[key]:,.0f}"
    return [text[key] for key in HEADINGS]


def markdown_table(rows: Sequence[Row]) -> str:
    """Return all columns of `rows` as a Markdown table, without a final newline."""
    lines = [" | ".join(_one_line(heading) for heading in HEADINGS.values())]
    lines += [" | ".join(_cells(row)) for row in rows]
    rule = "|---" + "|---:" * (len(HEADINGS) - 1) + "|"
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join([first, rule, *others])


def _one_line(heading: str) -> str:
    return heading.replace("-\n", "").replace("\n", " ").strip()


def gap_text(split: str, gap: tuple[float, float, float]) -> str:
    """Format a difference with its interval: ``test 0.09 [-0.02, 0.20]``."""
    return f"{split} {short(gap[0])} [{short(gap[1])}, {short(gap[2])}]"
