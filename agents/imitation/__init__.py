"""Learning by imitation: read `agent.py` for what DPT and DAgger share, `behaviour.py` for how each plays."""

from metarl.agents.imitation.agent import DPT, DAgger
from metarl.agents.imitation.config import DAggerConfig, DPTConfig

__all__ = ["DPT", "DAgger", "DAggerConfig", "DPTConfig"]
