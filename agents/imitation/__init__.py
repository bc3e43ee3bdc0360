"""Imitation learning: `agent.py` is the common part, `behaviour.py` how DPT and DAgger play.

`distillation.py` is Algorithm Distillation, which learns from recorded learning histories.
"""

from metarl.agents.imitation.agent import DPT, DAgger
from metarl.agents.imitation.config import ADConfig, DAggerConfig, DPTConfig
from metarl.agents.imitation.distillation import AD

__all__ = ["AD", "DPT", "ADConfig", "DAgger", "DAggerConfig", "DPTConfig"]
