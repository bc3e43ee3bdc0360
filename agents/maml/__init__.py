"""MAML by policy gradients, and its relatives."""

from metarl.agents.maml.agent import MAML
from metarl.agents.maml.config import MAMLConfig

__all__ = ["MAML", "MAMLConfig"]
