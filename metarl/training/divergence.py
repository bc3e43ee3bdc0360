"""Runs whose numbers are no longer finite: the check after every iteration, and the sentence that ends the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

CAUSES = {
    "observation": "The observations of the family must be finite.",
    "reward": "The rewards of the family must be finite.",
    "action": "The agent's own numbers were no longer finite when it acted: a lower agent.lr may help.",
    "update": "All that was played is finite: a lower agent.lr may help.",
    None: "Either the family's numbers are not finite, or a lower agent.lr may help.",  # an agent that plays for itself
}
"""Advice for a run that diverged, by the first thing that was not finite. Parameters do not tell: an update from
rewards that are not numbers spoils them, too."""


class Diverged(RuntimeError):
    """A metric is not a finite number."""


def finite(metrics: Mapping[str, float]) -> bool:
    """True if all metrics are finite numbers."""
    return all(map(math.isfinite, metrics.values()))


def check_finite(metrics: Mapping[str, float], culprit: str | None, iteration: int, kept: Path) -> None:
    """Raise Diverged, one sentence, unless all metrics are finite; `kept` is where the last checkpoint is or would be.

    `culprit` is what was the first to be not finite, a key of `CAUSES`.
    """
    if finite(metrics):
        return
    tag, value = next((tag, value) for tag, value in metrics.items() if not math.isfinite(value))
    then = f"The checkpoint before it is kept in {kept}." if kept.exists() else "There was no checkpoint yet."
    raise Diverged(f"Training stopped in iteration {iteration}, because {tag} became {value}. {then} {CAUSES[culprit]}")
