"""Divergence: a check after every iteration that metrics are finite, and the message that ends the run if not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from metarl.training.checkpoint import newest

CAUSES = {
    "task": "The tasks of the family must be finite.",
    "observation": "The observations of the family must be finite.",
    "reward": "The rewards of the family must be finite.",
    "action": "The agent's own numbers were no longer finite when it acted: a lower agent.lr may help.",
    "update": "All that was played is finite: a lower agent.lr may help.",
    None: "Either the family's numbers are not finite, or a lower agent.lr may help.",  # an OwnLoopAgent
}
"""Advice for a diverged run, by the value that was first not finite. Parameters would not show the cause, since
non-finite rewards spoil them, too."""


class Culprit(NamedTuple):
    """The first value of an iteration that was not finite."""

    what: str | None  # a key of `CAUSES`
    place: str = ""  # its round, step and row, and the task there

    def __str__(self) -> str:
        return f"{self.what or 'something'}{f' of {self.place}' if self.place else ''}"


class Diverged(RuntimeError):
    """The error for a metric that is not a finite number."""


def finite(metrics: Mapping[str, float]) -> bool:
    """Return True if all metrics are finite."""
    return all(map(math.isfinite, metrics.values()))


def kept(run_dir: Path) -> str:
    """Say where the last checkpoint is."""
    path = newest(run_dir)
    return f"The checkpoint before it is kept in {path}." if path else "There was no checkpoint yet."


def check_finite(metrics: Mapping[str, float], culprit: Culprit | None, iteration: int, run_dir: Path) -> None:
    """Raise Diverged unless all metrics are finite."""
    if finite(metrics):
        return
    tag, value = next((tag, value) for tag, value in metrics.items() if not math.isfinite(value))
    what, place = (None, "") if culprit is None else culprit
    where = f" (first the {what} of {place})" if place else ""
    again = int(metrics.get("train/skipped", 0))
    skipped = f" {again - 1} iterations were skipped before it." if again > 1 else ""
    raise Diverged(
        f"Training stopped in iteration {iteration}, because {tag} became {value}{where}. {kept(run_dir)} "
        f"{CAUSES[what]}{skipped}"
    )
