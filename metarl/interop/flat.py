"""A step of a trial as one vector, for libraries without previous action, reward and done."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core.batch_env import Step
from metarl.core.family import TaskFamily
from metarl.core.units import action_size, one_hot_places

_MOST = float(np.finfo(np.float32).max)


def flat_space(family: TaskFamily) -> spaces.Box:
    """Return the space of `flatten`: observation, previous action, previous reward (unbounded), previous done."""
    obs = family.observation_space
    low, high = _bounds_shown(family.action_space)
    low = np.concatenate([obs.low.flatten(), low, [-_MOST, 0.0]]).astype(np.float32)
    high = np.concatenate([obs.high.flatten(), high, [_MOST, 1.0]]).astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def flatten(step: Step, action_space: gymnasium.Space) -> Tensor:
    """Concatenate RL²'s inputs to one vector per row ``(B, D)``, an element of `flat_space`.

    A Discrete action is one-hot, and zero at a trial's start; so is each component of a MultiDiscrete action. A Box's
    action is clipped to its bounds, as families do; a trial starts with the middle of the range (`no_action`).
    """
    action, reward = step.prev_action, step.prev_reward.clamp(-_MOST, _MOST)
    if isinstance(action_space, spaces.Discrete):
        index = torch.arange(int(action_space.n), device=action.device)
        action = action[:, None] - int(action_space.start) == index
    elif isinstance(action_space, spaces.MultiDiscrete):
        component, choice = (part.to(action.device) for part in one_hot_places(action_space))
        action = action[:, component] == choice
    else:
        low, high = (torch.as_tensor(bound, device=action.device) for bound in _bounds_shown(action_space))
        action = torch.maximum(torch.minimum(action.flatten(1), high), low)
    parts = (step.obs, action, reward, step.prev_done)
    return torch.cat([part.reshape(len(part), -1).to(torch.float32) for part in parts], dim=1)


def _bounds_shown(space: gymnasium.Space) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a previous action in `flatten`."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return np.zeros(action_size(space), np.float32), np.ones(action_size(space), np.float32)
    assert isinstance(space, spaces.Box)
    return space.low.flatten(), space.high.flatten()
