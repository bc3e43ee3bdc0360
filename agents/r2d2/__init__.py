"""R2D2, trained on replayed trials: read `agent.py` first."""

from metarl.agents.r2d2.agent import R2D2
from metarl.agents.r2d2.config import R2D2Config

__all__ = ["R2D2", "R2D2Config"]
