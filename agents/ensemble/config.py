"""The options of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.ensemble.weights import WEIGHTS
from metarl.core.agent import AgentConfig
from metarl.core.options import POSITIVE_FINITE, one_of, option

MIXES = ("step", "episode")
"""The kinds of mixture: the action distributions of each step, or the members for each episode."""


@dataclass
class EnsembleConfig(AgentConfig):
    """The options of an ensemble."""

    weights: str = option("uniform", one_of(*WEIGHTS))
    """Weights of the members: uniform (always equal), likelihood (by Bayes' rule), or hedge (by the returns they
    earn)."""
    mix: str = option("step", one_of(*MIXES))
    """Mixture: step (the action distributions of each step), or episode (one member plays each episode)."""
    rate: float | None = option(None, POSITIVE_FINITE)
    """Hedge's learning rate; null: the rate of its regret bound."""
