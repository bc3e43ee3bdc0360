"""Agents: one algorithm, one file."""

from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.sb3_config import PPOConfig

__all__ = ["MAML", "RL2", "MAMLConfig", "PPOConfig", "RL2Config"]
