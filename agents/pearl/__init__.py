"""PEARL: posterior sampling with a learned posterior. Read `agent.py` first."""

from metarl.agents.pearl.agent import PEARL
from metarl.agents.pearl.config import PEARLConfig

__all__ = ["PEARL", "PEARLConfig"]
