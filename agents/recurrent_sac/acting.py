"""The module that acts for an exported recurrent SAC agent: the actor without the critics."""

from __future__ import annotations

import copy

from metarl.agents.recurrent_sac.network import Memory, Policy, SACNetwork
from metarl.core.batch_env import Step
from metarl.learning.acting import ActingModule


class ActingSAC(ActingModule):
    """The step encoder, and the actor with its history."""

    def __init__(self, net: SACNetwork) -> None:
        super().__init__()
        self.encoder, self.actor = copy.deepcopy(net.encoder), copy.deepcopy(net.actor)
        self.actions = net.actions

    def initial(self, rows: int) -> Memory:
        return Memory(self.actor.history.memory.initial(rows))

    def forward(self, step: Step, memory: Memory) -> tuple[Policy, Memory]:
        raw, _ = self.encoder.raw(step, self.encoder.initial(step.obs.shape[0]))
        seen, state = self.actor.history.step(raw, memory.state)
        return self.actor.policy(seen), Memory(state)
