"""A panel: the training curves of several agents on the same tasks, and the numbers that compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from metarl.evaluation.results import short
from metarl.report.efficiency.training_curve import TrainingCurve, common_range

THRESHOLDS = (50, 90)
"""Thresholds in per cent of the scale, for the steps needed to reach them."""


class Scale(NamedTuple):
    """The scale of the thresholds, with descriptions of its ends."""

    start: float
    end: float
    from_what: str
    to_what: str

    def at(self, percent: float) -> float:
        """Return the return at this per cent of the scale."""
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
        last, *interval = curve.last()
        row: dict[str, Any] = {"agent": curve.name, "seeds": len(curve.histories), "last": last, "interval": interval}
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
        """Return sentences that explain the numbers."""
        found = [
            "Return of an episode at the last point of adaptation, by the evaluations during training on the split "
            f"{self.split!r} and the one at the end."
        ]
        if self.scale is not None:
            start, end, from_what, to_what = self.scale
            way = f"from {from_what} ({short(start)}) to {to_what} ({short(end)})"
            found.append(f"50 % and 90 %: of the way {way}; ≤: reached at the first evaluation.")
        if (shared := common_range(self.curves)) is not None:
            unit = "steps" if x == "train_steps" else "seconds"
            stays = "; an agent whose training has ended keeps its return" if len(self.curves) > 1 else ""
            found.append(f"Mean height of the curve: from {shared[0]:,.0f} to {shared[1]:,.0f} {unit}{stays}.")
        if any(len(curve.histories) > 1 for curve in self.curves):
            found.append("Several seeds: their mean, each interpolated between its evaluations.")
        over = dict.fromkeys(curve.interval_of() for curve in self.curves)
        return [*found, f"Intervals during training are {', or '.join(over)}."]
