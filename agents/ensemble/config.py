"""The options of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.ensemble.weights import WEIGHTS
from metarl.core.agent import AgentConfig
from metarl.core.options import POSITIVE_FINITE, one_of, option

MIXES = ("step", "episode")
"""Things that are combined: the action distributions of each step, or the members' ways to play an episode."""


@dataclass
class EnsembleConfig(AgentConfig):
    """The options of an ensemble."""

    weights: str = option("uniform", one_of(*WEIGHTS))
    """Trust in the members: uniform, all the same; likelihood, by Bayes' rule; hedge, by what they earn."""
    mix: str = option("step", one_of(*MIXES))
    """Combined things: the action distributions of each step, or the members' ways to play an episode."""
    rate: float | None = option(None, POSITIVE_FINITE)
    """Hedge's learning rate; null: that of its bound."""
