"""PPO on the exact belief about the task: read `agent.py` first."""

from metarl.agents.belief.agent import BeliefPPO
from metarl.agents.belief.config import BeliefConfig

__all__ = ["BeliefConfig", "BeliefPPO"]
