"""Agents: one algorithm, one file."""

from metarl.agents.rl2 import RL2, RL2Config

__all__ = ["RL2", "RL2Config"]
