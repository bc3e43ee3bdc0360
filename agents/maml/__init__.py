"""MAML with policy gradients, and its variants: read `agent.py` first."""

from metarl.agents.maml.agent import MAML
from metarl.agents.maml.config import MAMLConfig, PPOStep, ReptileStep, SupervisedStep, TRPOStep

__all__ = ["MAML", "MAMLConfig", "PPOStep", "ReptileStep", "SupervisedStep", "TRPOStep"]
