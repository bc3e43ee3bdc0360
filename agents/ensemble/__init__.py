"""A convex combination of trained agents: `agent.py` is the mixture, `weights.py` computes the members' weights."""

from metarl.agents.ensemble.agent import Ensemble
from metarl.agents.ensemble.config import EnsembleConfig

__all__ = ["Ensemble", "EnsembleConfig"]
