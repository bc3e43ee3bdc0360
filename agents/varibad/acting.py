"""The module that acts for an exported VariBAD agent: the encoder and the policy, without decoder and critic."""

from __future__ import annotations

import copy

import torch

from metarl.agents.belief.ppo import BeliefMemory, after_step
from metarl.agents.varibad.network import VariBADNetwork
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.learning.acting import ActingModule
from metarl.learning.estimators import share_of_trial


class ActingVariBAD(ActingModule):
    """The encoder and the policy. The memory is the encoder's state and the time in the trial."""

    def __init__(self, net: VariBADNetwork, horizon: int, episodes: int) -> None:
        """Copy the networks; `horizon` and `episodes` are those of the training trials."""
        super().__init__()
        self.net = copy.deepcopy(net)
        del self.net.decoder, self.net.critic
        self.actions = self.net.policy.head.actions
        self.horizon, self.episodes = horizon, episodes

    def initial(self, rows: int) -> BeliefMemory:
        zeros = torch.zeros(rows, dtype=torch.int64)
        return BeliefMemory(self.net.belief.prior(rows), zeros, zeros)

    def forward(self, step: Step, memory: BeliefMemory) -> tuple[Distribution, BeliefMemory]:
        episode, since = after_step(memory, step)
        share = share_of_trial(episode, since, self.horizon, self.episodes)
        belief = self.net.belief.posterior(memory.belief, step)
        inputs = self.net.inputs(step.obs, self.net.belief.features(belief), share)
        return self.net.policy(inputs), BeliefMemory(belief, episode, since + 1)
