"""A convex combination of trained agents: read `agent.py` for the mixture, `weights.py` for who is trusted how much."""

from metarl.agents.ensemble.agent import Ensemble
from metarl.agents.ensemble.config import EnsembleConfig

__all__ = ["Ensemble", "EnsembleConfig"]
