"""RL² with recurrent PPO: read `agent.py` first."""

from metarl.agents.rl2.agent import RL2
from metarl.agents.rl2.config import RL2Config

__all__ = ["RL2", "RL2Config"]
