"""Encoders of observations and of steps, which make networks independent of the family's units.

Encoded steps are the inputs of a recurrent policy (Duan et al. 2016; Wang et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import AnyFamily, Part, Task
from metarl.core.units import ALIKE, action_size, action_units, first_action, inverse, one_hot_places
from metarl.learning import ranks
from metarl.learning.estimators import pooled, running_size
from metarl.learning.images import ImagesInVector, is_image, parts_of_space

SCALE_TASKS = 512
"""Number of training tasks whose mean and standard deviation standardise the task that ``critic: task`` sees."""


def scale_tasks(family: AnyFamily) -> Task:
    """Return `SCALE_TASKS` training tasks, which standardise the task that a critic sees.

    The key is the same for every seed, so that the critic sees the task in the same units for every seed.
    """
    return family.sample_tasks(rng.key(0), SCALE_TASKS)


class Scaling(nn.Module):
    """Scales observations to vectors with coordinates of about 1, whatever their units.

    Each coordinate of a bounded observation space is scaled to [-1, 1]; coordinates with the bounds 0 and 1 (one-hot
    ones) are not scaled. With `follows`, for spaces whose bounds are far from the visited states, coordinates are
    standardised instead: `follow` tracks mean and variance, and values beyond `LIMIT` standard deviations are clipped.
    An unbounded coordinate is 0 until the first `follow`, and so is one that has never changed. The pixels of an image
    (`metarl.learning.images`) are scaled to [0, 1] by its bounds and never standardised.

    The convention has a `version`, which is part of the state. A state without a version has version 1 and keeps its
    convention: raw coordinates until the first `follow`, no clipping, standard deviations averaged.
    """

    VERSION = 2
    LIMIT = 10.0

    centre: Tensor
    scale: Tensor
    version: Tensor
    plain: Tensor | None  # the coordinates that are not pixels; None: there are no images

    def __init__(
        self, observation_space: gymnasium.Space[Any], follows: bool = False, parts: Sequence[Part] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(observation_space, gymnasium.spaces.Box):
            raise ValueError(f"The observation space must be a Box, got {observation_space}.")
        self.parts = parts_of_space(observation_space, parts)
        self.follows = follows
        self.number = self.VERSION  # `version` as an int: on a GPU, reading a tensor synchronises
        low = torch.as_tensor(observation_space.low, dtype=torch.float32).flatten()
        high = torch.as_tensor(observation_space.high, dtype=torch.float32).flatten()
        # Zeros of a one-hot vector must stay zero. Bounds near the largest float mean "unbounded".
        known = (low.abs() < 1e30) & (high.abs() < 1e30) & (high > low)
        unit = (low == 0.0) & (high == 1.0)
        bounded = known & ~unit
        other = torch.where(unit, 1.0, 0.0) if follows else torch.ones_like(low)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0))
        self.register_buffer("scale", torch.where(bounded, 2 / (high - low), other))
        self.register_buffer("version", torch.tensor(self.VERSION))
        self.size = low.numel()
        self.register_buffer("plain", None, persistent=False)
        if any(is_image(part.space) for part in self.parts):
            self._scale_images()

    def _scale_images(self) -> None:
        """Set the scales that map pixels from their bounds to [0, 1], and record which coordinates are not pixels."""
        plain, first = torch.ones(self.size, dtype=torch.bool), 0
        for part in self.parts:
            coordinates = slice(first, first + part.size)
            first += part.size
            if is_image(part.space):
                low, high = (torch.as_tensor(b, dtype=torch.float32) for b in (part.space.low, part.space.high))
                self.centre[coordinates] = low.flatten()
                self.scale[coordinates] = inverse(high - low).flatten()
                plain[coordinates] = False
        self.plain = plain.nonzero().squeeze(1)

    def scaled(self, obs: Tensor, batch_dims: int) -> Tensor:
        """Scale observations with `batch_dims` leading batch dimensions to ``(…, size)``."""
        x = (obs.flatten(batch_dims) - self.centre) * self.scale
        return x.clamp(-self.LIMIT, self.LIMIT) if self.follows and self.number > 1 else x

    def follow(self, obs: Tensor, mask: Tensor, weight: float) -> None:
        """Move mean and variance towards those of `obs` ``(T, B, *O)`` by `weight` in [0, 1].

        The variance is that of the pooled batches (see `pooled`).
        """
        followed: slice | Tensor = slice(None) if self.plain is None else self.plain
        seen = obs.flatten(2)[..., followed][mask > 0]
        if not seen.shape[1]:  # there are only images
            return
        std, mean = torch.std_mean(seen, dim=0, correction=0)
        mean, std = ranks.moments(mean, std, len(seen))
        if self.number == 1:
            self.centre.lerp_(mean, weight)
            self.scale.copy_(1.0 / torch.lerp(1.0 / self.scale, std.clamp_min(1e-3), weight))
            return
        mean, std = pooled((self.centre[followed], inverse(self.scale[followed])), (mean, std), weight)
        self.centre[followed] = mean
        self.scale[followed] = torch.where(std > ALIKE * mean.abs(), 1.0 / std, 0.0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load a state; a state without a version has version 1."""
        version = state_dict.setdefault(f"{prefix}version", torch.tensor(1))
        self.number = int(version)
        if self.number == 1:
            self._fill_in(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Add the entries that a state of version 1 lacks."""


class StepEncoder(Scaling):
    """Encodes a step: scaled observation, previous action, previous reward and done as one vector per row.

    Discrete actions, and the components of MultiDiscrete ones, are one-hot; Box actions are in the units of
    `action_units`. The reward is divided by its running size (the root mean square of the nonzero rewards, see
    `follow_rewards`), clipped to ±`LIMIT` and multiplied by `reward_scale`; it is 0 until the first reward. (Version 1
    leaves actions and rewards unscaled.) With `transition` the vector also contains the observation before the previous
    action, so that one input holds the whole last transition (observation, action, reward, next observation). With
    `reactive` it contains only the observation.

    An agent then applies two trained modules to these vectors: `images`, networks that replace pixels by features (None
    without images), and `embed`, a linear layer with `embed_size` ReLU units (None if that is 0). `output_size` is the
    size of the result.
    """

    action_centre: Tensor
    action_scale: Tensor
    component: Tensor
    choice: Tensor
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
        parts: Sequence[Part] | None = None,
    ) -> None:
        super().__init__(observation_space, follows, parts)
        self.reward_scale = reward_scale
        self.num_actions = action_size(action_space)
        self.first_action = first_action(action_space)
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        self.several = isinstance(action_space, gymnasium.spaces.MultiDiscrete)
        if isinstance(action_space, gymnasium.spaces.MultiDiscrete):
            for name, places in zip(("component", "choice"), one_hot_places(action_space), strict=True):
                self.register_buffer(name, places, persistent=False)
        self.reactive = reactive
        self.last_size = self.size if transition else 0
        self.raw_size = self.size if reactive else self.size + self.last_size + self.num_actions + 2
        if isinstance(action_space, gymnasium.spaces.Box):
            centre, unit = action_units(action_space)
            self.register_buffer("action_centre", centre)
            self.register_buffer("action_scale", 1.0 / unit)
        self.register_buffer("reward_size", torch.zeros(()))
        self.register_buffer("reward_batches", torch.zeros(()))
        self.images = self._image_networks() if self.plain is not None else None
        seen = self.raw_size if self.images is None else self.images.output_size
        self.embed = nn.Linear(seen, embed_size) if embed_size else None
        self.output_size = embed_size or seen

    def _image_networks(self) -> ImagesInVector:
        """Make the networks for the images in the vectors of `raw`."""
        names = [part.name for part in self.parts]
        between: list[int | str] = [] if self.reactive else [self.num_actions + 2]
        return ImagesInVector(self.parts, [*names, *between, *(names if self.last_size else [])])

    def initial(self, batch: int) -> Tensor:
        """Return the `last_obs` of `raw` at the start of a trial: zeros ``(B, last_size)``."""
        return torch.zeros(batch, self.last_size, device=self.centre.device)

    def raw(self, step: Step, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Encode steps, without `embed`; return the vectors, and the last observation for the next call.

        A Step of ``(B, …)`` tensors gives ``(B, raw_size)``, one of ``(T, B, …)`` tensors gives ``(T, B, raw_size)``.
        `last_obs` ``(B, last_size)`` comes from `initial` or the previous call. The method uses no trained parameters.
        """
        obs = self.scaled(step.obs, step.prev_reward.ndim)
        if self.reactive:
            return obs, last_obs
        parts = [obs, self._action(step), self._reward(step.prev_reward)[..., None], step.prev_done[..., None]]
        if self.last_size:
            parts.append(last_obs if obs.ndim == 2 else torch.cat([last_obs[None], obs[:-1]]))
            last_obs = obs if obs.ndim == 2 else obs[-1]
        return torch.cat(parts, dim=-1), last_obs

    def begins_episode(self, raw: Tensor) -> Tensor:
        """Return whether encoded steps ``(…, raw_size)`` are the first of an episode, bool ``(…)``.

        The first of a trial is the one without a previous action, which only Discrete actions show.
        """
        action, done = raw[..., self.size : self.size + self.num_actions], raw[..., self.size + self.num_actions + 1]
        return (done > 0.5) | (action == 0.0).all(-1)

    def only_observation(self, raw: Tensor) -> Tensor:
        """Return encoded steps ``(…, raw_size)`` with zeros in place of all but the observation."""
        return torch.cat([raw[..., : self.size], torch.zeros_like(raw[..., self.size :])], dim=-1)

    def follow_rewards(self, reward: Tensor, mask: Tensor) -> None:
        """Update the running size of rewards by an iteration ``(T, B)``; all iterations with rewards weigh the same."""
        if self.number == 1:
            return
        size, batches = running_size(self.reward_size, self.reward_batches, reward * mask)
        self.reward_size.copy_(size)
        self.reward_batches.copy_(batches)

    def in_reward_sizes(self, x: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
        """Divide `x`, in units of rewards, by the running size of rewards after an update by `reward` ``(T, B)``.

        Version 1 returns `x` unchanged.
        """
        if self.number == 1:
            return x
        return x * inverse(running_size(self.reward_size, self.reward_batches, reward * mask)[0])

    def _action(self, step: Step) -> Tensor:
        action = step.prev_action
        if self.discrete:  # "no action" matches no index, so it becomes the zero vector
            numbers = torch.arange(self.num_actions, device=action.device) + self.first_action
            return (action[..., None] == numbers).to(torch.float32)
        if self.several:
            return (action[..., self.component] == self.choice).to(torch.float32)
        if self.number == 1:
            return action
        # At the start of a trial the previous action is the centre of the range, which becomes 0.
        return (action - self.action_centre) * self.action_scale

    def _reward(self, reward: Tensor) -> Tensor:
        if self.number == 1:
            return reward * self.reward_scale
        return (reward * inverse(self.reward_size)).clamp(-self.LIMIT, self.LIMIT) * self.reward_scale

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        for name in ("action_centre", "action_scale", "reward_size", "reward_batches"):
            if hasattr(self, name):
                state_dict.setdefault(f"{prefix}{name}", getattr(self, name).clone())
