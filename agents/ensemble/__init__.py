"""A convex combination of trained agents: read `agent.py` for the mixture, `weights.py` for who is trusted how much."""

from metarl.agents.ensemble.agent import Ensemble

__all__ = ["Ensemble"]
