"""The default sampler: new tasks of the training split in every iteration."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import LearningAgent
from metarl.core.family import Key
from metarl.core.rollout import Rollout
from metarl.learning.samplers.sampler import Proposal, SamplerOptions, TaskSampler


class Fresh(TaskSampler):
    """Draws tasks from the split: domain randomisation. It has no state."""

    def propose(self, key: Key, n: int) -> Proposal:
        return Proposal(self.fresh(key, n))

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Do nothing, since scores are not used."""


@dataclass(frozen=True)
class FreshOptions(SamplerOptions):
    """New draws from the training split; no options."""

    def build(self, agent: LearningAgent, split: str) -> Fresh:
        return Fresh(agent, split)
