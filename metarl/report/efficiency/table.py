"""The tables of sample efficiency, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from metarl.evaluation.results import short
from metarl.report.comparison_table import tables_within

Row = Mapping[str, Any]
"""The numbers of an agent; see `Panel.rows`."""


def headings(x: str) -> dict[str, str]:
    """Return the columns by the keys of a row, with the unit of the axis `x`."""
    unit = "steps" if x == "train_steps" else "seconds"
    return {
        "agent": "\nagent",
        "seeds": "\nseeds",
        "last": "at the end,\n95 % interval",
        "to_50": f"{unit}\nto 50 %",
        "to_90": f"{unit}\nto 90 %",
        "area_under_curve": "mean\nheight",
        "train_steps": "training\nsteps",
        "seconds": "training\nseconds",
    }


def terminal_tables(rows: Sequence[Row], bounds: Mapping[str, float], title: str, x: str, width: int) -> list[Table]:
    """Tables of `rows` for the terminal, with random and the known-task optimum below; the first has the title."""
    shown = headings(x)
    cells = [_cells(row) for row in rows]
    for name, value in bounds.items():
        cells.append(dict.fromkeys(shown, "") | {"agent": f"({name})", "last": short(value)})
    return tables_within(cells, shown, title, width)


def markdown_table(rows: Sequence[Row], x: str) -> str:
    """All columns of `rows` as a Markdown table, without a line end at its end."""
    shown = headings(x)
    lines = [" | ".join(heading.replace("\n", " ").strip() for heading in shown.values())]
    lines += [" | ".join(_cells(row)[key].replace("|", "\\|") for key in shown) for row in rows]
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join([first, "|---" + "|---:" * (len(shown) - 1) + "|", *others])


def _cells(row: Row) -> dict[str, str]:
    """A row's numbers as text, by the keys of `headings`."""
    low, high = row["interval"]
    found = {
        "agent": row["agent"],
        "seeds": str(row["seeds"]),
        "last": f"{short(row['last'])} [{short(low)}, {short(high)}]",
        "area_under_curve": "-" if row["area_under_curve"] is None else short(row["area_under_curve"]),
        "train_steps": f"{row['train_steps']:,.0f}",
        "seconds": "" if row["seconds"] is None else f"{row['seconds']:,.0f}",
    }
    for key in ("to_50", "to_90"):
        found[key] = "-" if row[key] is None else f"{'≤ ' if row[f'{key}_or_before'] else ''}{row[key]:,.0f}"
    return found
