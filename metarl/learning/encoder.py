"""The encoder of steps: what a recurrent policy sees of each (Duan et al. 2016; Wang et al. 2016)."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from metarl.core.batch_env import Step
from metarl.core.units import Scaling, action_size, action_units, first_action, inverse, running_size


class StepEncoder(Scaling):
    """Scaled observation, previous action, previous reward and done as one vector per row.

    A Discrete action is one-hot; a Box's is shown in the units of `action_units`. The reward is divided by its running
    size (root mean square of the rewards that are not 0, by `follow_rewards`), clipped at `LIMIT` of that and
    multiplied by `reward_scale`; it shows as 0 until the first rewards were seen. (Version 1 shows actions and rewards
    as they are.) With `transition` the observation before the previous action is there too, so that what was learned
    by the last step, (observation, action, reward, next observation), stands in one input; with `reactive` there is
    the observation alone. `embed` is the linear layer to `embed_size` ReLU units after it; None with 0.
    """

    action_centre: Tensor
    action_scale: Tensor
    reward_size: Tensor
    reward_batches: Tensor

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        embed_size: int = 0,
        reward_scale: float = 1.0,
        transition: bool = False,
        follows: bool = False,
        reactive: bool = False,
    ) -> None:
        super().__init__(observation_space, follows)
        self.reward_scale = reward_scale
        self.num_actions = action_size(action_space)
        self.first_action = first_action(action_space)
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        self.reactive = reactive
        self.last_size = self.size if transition else 0
        self.raw_size = self.size if reactive else self.size + self.last_size + self.num_actions + 2
        if isinstance(action_space, gymnasium.spaces.Box):
            centre, unit = action_units(action_space)
            self.register_buffer("action_centre", centre)
            self.register_buffer("action_scale", 1.0 / unit)
        self.register_buffer("reward_size", torch.zeros(()))
        self.register_buffer("reward_batches", torch.zeros(()))
        self.embed = nn.Linear(self.raw_size, embed_size) if embed_size else None
        self.output_size = embed_size or self.raw_size

    def initial(self, batch: int) -> Tensor:
        """What `raw` takes as the last observation at a trial's start: zeros ``(B, last_size)``."""
        return torch.zeros(batch, self.last_size, device=self.centre.device)

    def raw(self, step: Step, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Encode steps: vectors before the hidden layer, and the last observation for the next call.

        A Step of ``(B, …)`` tensors gives ``(B, raw_size)``, one of ``(T, B, …)`` tensors ``(T, B, raw_size)``;
        `last_obs` is what `initial` or the call before gave, ``(B, last_size)``. Nothing in it is learned by gradients.
        """
        obs = self.scaled(step.obs, step.prev_reward.ndim)
        if self.reactive:
            return obs, last_obs
        parts = [obs, self._action(step), self._reward(step.prev_reward)[..., None], step.prev_done[..., None]]
        if self.last_size:
            parts.append(last_obs if obs.ndim == 2 else torch.cat([last_obs[None], obs[:-1]]))
            last_obs = obs if obs.ndim == 2 else obs[-1]
        return torch.cat(parts, dim=-1), last_obs

    def follow_rewards(self, reward: Tensor, mask: Tensor) -> None:
        """Take the rewards of an iteration ``(T, B)`` into their running size: a mean over all iterations with any."""
        if self.number == 1:
            return
        size, batches = running_size(self.reward_size, self.reward_batches, reward * mask)
        self.reward_size.copy_(size)
        self.reward_batches.copy_(batches)

    def in_reward_sizes(self, x: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
        """What is in units of rewards, divided by their running size when `reward` ``(T, B)`` has been taken into it.

        In version 1 it stays as it is.
        """
        if self.number == 1:
            return x
        return x * inverse(running_size(self.reward_size, self.reward_batches, reward * mask)[0])

    def _action(self, step: Step) -> Tensor:
        action = step.prev_action
        if self.discrete:  # what stands for no action equals no index, so it shows as the zero vector
            numbers = torch.arange(self.num_actions, device=action.device) + self.first_action
            return (action[..., None] == numbers).to(torch.float32)
        if self.number == 1:
            return action
        # At a trial's start no action came before: it shows as 0, as the middle of the range does.
        return (action - self.action_centre) * self.action_scale

    def _reward(self, reward: Tensor) -> Tensor:
        if self.number == 1:
            return reward * self.reward_scale
        return (reward * inverse(self.reward_size)).clamp(-self.LIMIT, self.LIMIT) * self.reward_scale

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        for name in ("action_centre", "action_scale", "reward_size", "reward_batches"):
            if hasattr(self, name):
                state_dict.setdefault(f"{prefix}{name}", getattr(self, name).clone())
