"""Recurrent soft actor-critic, trained on replayed trials: read `agent.py` first."""

from metarl.agents.recurrent_sac.agent import RecurrentSAC
from metarl.agents.recurrent_sac.config import RecurrentSACConfig

__all__ = ["RecurrentSAC", "RecurrentSACConfig"]
