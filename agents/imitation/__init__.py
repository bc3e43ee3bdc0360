"""Learning by imitation: read `agent.py` for what all share, `behaviour.py` for how DPT and DAgger play.

`distillation.py` is Algorithm Distillation, which learns from what others have done.
"""

from metarl.agents.imitation.agent import DPT, DAgger
from metarl.agents.imitation.config import ADConfig, DAggerConfig, DPTConfig
from metarl.agents.imitation.distillation import AD

__all__ = ["AD", "DPT", "ADConfig", "DAgger", "DAggerConfig", "DPTConfig"]
