"""VariBAD: read `agent.py` first, then `elbo.py`."""

from metarl.agents.varibad.agent import VariBAD
from metarl.agents.varibad.config import VariBADConfig

__all__ = ["VariBAD", "VariBADConfig"]
