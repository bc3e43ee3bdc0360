"""Agents: one algorithm, one file."""

from metarl.agents.maml import MAML
from metarl.agents.maml_config import MAMLConfig
from metarl.agents.rl2 import RL2, RL2Config

__all__ = ["MAML", "RL2", "MAMLConfig", "RL2Config"]
