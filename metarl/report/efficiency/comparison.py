"""Sample efficiency of several agents, family by family: tables, figure and files of ``metarl compare --x …``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from metarl.evaluation.files import replace_file, replacing, to_json
from metarl.evaluation.results import short
from metarl.report.efficiency import figure as drawing
from metarl.report.efficiency import table
from metarl.report.efficiency.panel import Panel
from metarl.report.efficiency.training_curve import AXES


@dataclass(frozen=True)
class EfficiencyComparison:
    """Panels of training curves over `x`, "train_steps" or "time". Raises ValueError if there are none."""

    panels: Sequence[Panel]
    x: str = "train_steps"

    def __post_init__(self) -> None:
        if self.x not in AXES:
            raise ValueError(f"x must be one of {', '.join(AXES)}, got {self.x!r}.")
        if not self.panels:
            raise ValueError("A comparison needs at least one agent.")

    def tables(self, panel: Panel, width: int = 80) -> list[Table]:
        """Return the rows of a panel for the terminal; columns beyond `width` continue in another table."""
        return table.terminal_tables(panel.rows(), panel.bounds, f"{panel.family}, {panel.split}", self.x, width)

    def markdown(self) -> str:
        """Return all tables, with the notes below."""
        parts = [f"# Return by {AXES[self.x]}"]
        for panel in self.panels:
            parts.append(f"## {panel.family}, {panel.split}\n{table.markdown_table(panel.rows(), self.x)}")
            parts += [f"({name}): {short(value)}" for name, value in panel.bounds.items()]
            parts.append(" ".join(panel.notes(self.x)))
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Draw a panel for each family: mean, interval and final evaluation of every agent."""
        return drawing.figure(self.panels, self.x)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``<x>.json``, ``.csv`` (every evaluation of every seed), ``.md`` and ``.png``; returns their paths."""
        stem = Path(folder) / self.x
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(suffix) for suffix in (".json", ".csv", ".md", ".png")]
        replace_file(paths[0], to_json(self._document(), indent=1, ensure_ascii=False) + "\n")
        replace_file(paths[1], self._csv())
        replace_file(paths[2], self.markdown())
        with replacing(paths[3]) as file:
            self.figure().savefig(file, format="png", dpi=110)
        return paths

    def _document(self) -> dict[str, Any]:
        """The content of the JSON file."""
        panels = []
        for panel in self.panels:
            about = {"family": panel.family, "split": panel.split, "notes": panel.notes(self.x)}
            scale = None if panel.scale is None else panel.scale._asdict()
            panels.append(about | {"scale": scale, "bounds": panel.bounds, "agents": panel.rows()})
        return {"x": self.x, "panels": panels}

    def _csv(self) -> str:
        """A row for every evaluation of every seed."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        numbers_of = ["train_steps", "seconds", "return", "low", "high"]
        writer.writerow(["family", "split", "agent", "seed", *numbers_of, "at_end"])
        for panel in self.panels:
            for curve in panel.curves:
                for seed, each in enumerate(curve.histories):
                    columns = (each.train_steps, each.seconds, each.returns, each.low, each.high)
                    for point, (steps, *numbers) in enumerate(zip(*columns, strict=True), start=1):
                        at_end = int(each.final is not None and point == len(each.returns))
                        cells = [f"{steps:.0f}", *(f"{number:.9g}" for number in numbers), at_end]
                        writer.writerow([panel.family, panel.split, curve.name, seed, *cells])
        return text.getvalue()
