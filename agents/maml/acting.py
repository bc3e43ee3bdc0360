"""The module that acts for an exported MAML agent: the policy with the parameters adapted to one task."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.agents.maml.network import MAMLNetwork
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.learning.acting import ActingModule


class ActingMAML(ActingModule):
    """An MLP on the observation. It has no memory: what it learned about the task is in its parameters."""

    def __init__(self, net: MAMLNetwork, params: Sequence[Tensor]) -> None:
        """Make the module from the scales of `net` and from `params` ``(1, …)``, the parameters adapted to one task."""
        super().__init__()
        self.scaling, self.policy = copy.deepcopy(net.scaling), copy.deepcopy(net.policy)
        with torch.no_grad():
            for parameter, (of_task,) in zip(self.policy.parameters(), params, strict=True):
                parameter.copy_(of_task)
        self.actions = self.policy.head.actions

    def initial(self, rows: int) -> tuple[()]:
        return ()

    def forward(self, step: Step, memory: tuple[()]) -> tuple[Distribution, tuple[()]]:
        return self.policy(self.scaling.scaled(step.obs, 1)), ()
