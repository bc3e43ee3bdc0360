"""The module that acts for an exported RL² agent."""

from __future__ import annotations

import copy

from metarl.agents.rl2.network import RL2Memory, RL2Network
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution, make_distribution
from metarl.learning.acting import ActingModule


class ActingRL2(ActingModule):
    """The encoder, the memory and the policy's head. With ``heads: hyper`` the critic's head is included, too."""

    def __init__(self, net: RL2Network) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.net.infer = None
        if self.net.hyper is None:
            del self.net.critic
        self.actions = self.net.actions

    def initial(self, rows: int) -> RL2Memory:
        return self.net.initial(rows)

    def forward(self, step: Step, memory: RL2Memory) -> tuple[Distribution, RL2Memory]:
        output, x, memory = self.net.read(step, memory)
        if self.net.hyper is None:
            head = self.net.policy
            outputs = head(head.of_memory(output) + head.of_step(x))
        else:
            outputs, _ = self.net.hyper(output, x, None)
        return make_distribution(outputs, self.net.log_std, self.actions.sizes), memory
