"""Sample efficiency of several agents, family by family: tables, figure and files of ``metarl compare --x …``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.table import Table

from metarl.evaluation.files import replace_file, replacing, to_json
from metarl.evaluation.results import short
from metarl.report.efficiency import figure as drawing
from metarl.report.efficiency import table
from metarl.report.efficiency.training_curve import AXES, TrainingCurve, common_range

THRESHOLDS = (50, 90)
"""Per cent of the way from the start of the scale to its end, to which steps are counted."""


class Scale(NamedTuple):
    """The way on which thresholds lie, with the words for its ends."""

    start: float
    end: float
    from_what: str
    to_what: str

    def at(self, percent: float) -> float:
        """Return the return at so many per cent of the way."""
        return self.start + percent / 100.0 * (self.end - self.start)


@dataclass(frozen=True)
class Panel:
    """Training curves of several agents on the tasks of one family and split."""

    family: str
    split: str
    curves: tuple[TrainingCurve, ...]

    @property
    def bounds(self) -> dict[str, float]:
        """Returns of an episode of "oracle" and "random" on most tasks, where an evaluation at the end knows them."""
        finals = [curve.final for curve in self.curves if curve.final is not None]
        found: dict[str, float] = {}
        for final in sorted(finals, key=lambda final: -final.returns.shape[1]):
            found = final.bounds | found
        return {name: found[name] for name in ("oracle", "random") if name in found}

    @property
    def scale(self) -> Scale | None:
        """From random play to the known-task optimum; where one is not known, the first or the best that was reached.

        None where there is no way between them.
        """
        means = [curve.mean() for curve in self.curves]
        start, end = min(mean[0] for mean in means), max(mean.max() for mean in means)
        found = Scale(
            self.bounds.get("random", float(start)),
            self.bounds.get("oracle", float(end)),
            "random" if "random" in self.bounds else "the lowest first evaluation",
            "the known-task optimum" if "oracle" in self.bounds else "the best that was reached",
        )
        return found if found.end > found.start else None

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary of numbers per agent, the best at the end first; None for what is unknown or never reached."""
        rows = [self._row(curve) for curve in self.curves]
        return sorted(rows, key=lambda row: -row["last"])

    def _row(self, curve: TrainingCurve) -> dict[str, Any]:
        last, low, high = curve.last()
        row: dict[str, Any] = {
            "agent": curve.name,
            "seeds": len(curve.histories),
            "last": last,
            "interval": (low, high),
        }
        for percent in THRESHOLDS:
            reached = None if self.scale is None else curve.to_reach(self.scale.at(percent))
            row[f"to_{percent}"], row[f"to_{percent}_or_before"] = reached or (None, None)
        shared = common_range(self.curves)
        low_ends, high_ends = curve.interval()
        ends = [(each.train_steps[-1], each.seconds[-1]) for each in curve.histories]
        steps, seconds = (float(sum(each) / len(ends)) for each in zip(*ends, strict=True))
        return row | {
            "area_under_curve": None if shared is None else curve.area(*shared),
            "train_steps": steps,
            "seconds": seconds if seconds == seconds else None,
            "interval_of": curve.interval_of(),
            "points": {"at": curve.at, "mean": curve.mean(), "low": low_ends, "high": high_ends},
        }

    def notes(self, x: str) -> list[str]:
        """Sentences that say what the numbers are."""
        found = [
            f"Return of an episode at the last point of adaptation, by the evaluations on {self.split!r} during training "
            "and the one at the end."
        ]
        if self.scale is not None:
            start, end, from_what, to_what = self.scale
            found.append(
                f"50 % and 90 %: of the way from {from_what} ({short(start)}) to {to_what} ({short(end)}); ≤: there at the "
                "first evaluation."
            )
        shared = common_range(self.curves)
        unit = "steps" if x == "train_steps" else "s"
        found.append(
            "Mean height: none, since the curves have no range in common."
            if shared is None and len(self.curves) > 1
            else "" if shared is None else f"Mean height: of the curve from {shared[0]:,.0f} to {shared[1]:,.0f} {unit}, "
            "which all curves cover."
        )  # fmt: skip
        if any(len(curve.histories) > 1 for curve in self.curves):
            found.append("Several seeds: means where all have been, each interpolated between its evaluations.")
        return [sentence for sentence in found if sentence]


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
        """The rows of a panel for the terminal; columns beyond `width` stand in a further table, no number is cut."""
        return table.terminal_tables(panel.rows(), panel.bounds, f"{panel.family}, {panel.split}", self.x, width)

    def markdown(self) -> str:
        """All tables, with the notes below."""
        parts = [f"# Return by {AXES[self.x]}"]
        for panel in self.panels:
            parts.append(f"## {panel.family}, {panel.split}\n{table.markdown_table(panel.rows(), self.x)}")
            parts += [f"({name}): {short(value)}" for name, value in panel.bounds.items()]
            parts.append(" ".join(panel.notes(self.x)))
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Draw a panel for each family: mean, interval and the evaluation at the end of every agent."""
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
        writer.writerow(
            ["family", "split", "agent", "seed", "train_steps", "seconds", "return", "low", "high", "at_end"]
        )
        for panel in self.panels:
            for curve in panel.curves:
                for seed, each in enumerate(curve.histories):
                    columns = (each.train_steps, each.seconds, each.returns, each.low, each.high)
                    for point, (steps, *numbers) in enumerate(zip(*columns, strict=True), start=1):
                        at_end = int(each.final is not None and point == len(each.returns))
                        cells = [f"{steps:.0f}", *(f"{number:.9g}" for number in numbers), at_end]
                        writer.writerow([panel.family, panel.split, curve.name, seed, *cells])
        return text.getvalue()
