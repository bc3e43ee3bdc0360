"""The networks of PPO on a belief: two MLPs, the policy and the critic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from metarl.core.distributions import Distribution
from metarl.core.family import TaskFamily
from metarl.learning.encoder import Scaling
from metarl.learning.nets import ACTIVATIONS, MLPPolicy, mlp

if TYPE_CHECKING:
    from metarl.agents.belief.config import PPOOnBeliefConfig


class BeliefNetwork(nn.Module):
    """A policy and a critic on inputs ``(…, F)``: observation, features of the belief, and fraction of the trial."""

    task_centre: Tensor
    task_scale: Tensor

    def __init__(self, config: PPOOnBeliefConfig, family: TaskFamily, size: int, tasks: Tensor) -> None:
        """Make the networks for beliefs of `size` features. The `tasks` ``(N, D)`` standardise the task input."""
        super().__init__()
        std, mean = torch.std_mean(tasks, dim=0, correction=0)
        self.register_buffer("task_centre", mean)
        self.register_buffer("task_scale", torch.where(std > 1e-6 * mean.abs(), 1.0 / std, 0.0))
        self.scaling = Scaling(family.observation_space, follows=config.norm_obs)
        inputs, hidden = self.scaling.size + size + 1, list(config.hidden_sizes)
        self.policy = MLPPolicy(inputs, family.action_space, hidden, config.activation, config.init_std)
        nn.init.orthogonal_(self.policy.head.linear.weight, 0.01)
        self.told = config.critic == "task"
        self.critic = mlp([inputs + self.told * tasks.shape[1], *hidden, 1], ACTIVATIONS[config.activation])

    def ppo_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the parameters that PPO trains, with their names."""
        return self.named_parameters()

    def standardised(self, task: Tensor) -> Tensor:
        """Standardise tasks ``(…, D)`` by the training tasks; a feature that never varies becomes 0."""
        return (task - self.task_centre) * self.task_scale

    def inputs(self, obs: Tensor, features: Tensor, share: Tensor) -> Tensor:
        """Return what both networks see, ``(B, F)``."""
        return torch.cat([self.scaling.scaled(obs, 1), features, share[:, None]], dim=-1)

    def shown(self, x: Tensor) -> Tensor:
        """Return what the MLPs read, ``(T, B, …)``, for inputs ``(T, B, F)``: here the inputs themselves."""
        return x

    def forward(self, x: Tensor, task: Tensor) -> tuple[Distribution, Tensor]:
        """Return the policy for inputs ``(T, B, F)``, and the standardised value ``(T, B)``; `task` is ``(B, D)``."""
        x = self.shown(x)
        return self.policy(x), self._value(x, task)

    def value(self, x: Tensor, task: Tensor) -> Tensor:
        """Return the standardised value ``(T, B)`` for inputs ``(T, B, F)``."""
        return self._value(self.shown(x), task)

    def _value(self, x: Tensor, task: Tensor) -> Tensor:
        if self.told:
            told = self.standardised(task)
            x = torch.cat([x, told.expand(*x.shape[:-1], -1)], dim=-1)
        value: Tensor = self.critic(x).squeeze(-1)
        return value
