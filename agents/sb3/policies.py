"""Policies of stable-baselines3 and sb3-contrib as distributions that draw with addressed keys."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor

from metarl.agents.sb3.models import from_torch
from metarl.core.distributions import Categorical, DiagonalGaussian
from metarl.core.family import TaskFamily
from metarl.core.units import first_actions
from metarl.interop.sb3_env import SB3VecEnv


def _contrib(*names: str) -> tuple[type, ...]:
    """Import classes of sb3-contrib, named as ``"module:Class"``; return none if it is not installed."""
    try:
        parts = [name.split(":") for name in names]
        return tuple(getattr(importlib.import_module(f"sb3_contrib.{module}"), name) for module, name in parts)
    except ImportError:
        return ()


BY_DISTRIBUTION = (ActorCriticPolicy,)
"""PPO, A2C, TRPO and RecurrentPPO: the network returns a distribution."""


EPSILON_GREEDY = (DQNPolicy, *_contrib("qrdqn.policies:QRDQNPolicy"))


SQUASHED = (SACPolicy, *_contrib("tqc.policies:TQCPolicy", "crossq.policies:CrossQPolicy"))
"""SAC, TQC and CrossQ: a normal distribution, squashed by tanh to (-1, 1)."""


DETERMINISTIC = (TD3Policy, *_contrib("ars.policies:ARSPolicy"))
"""TD3, DDPG and ARS: exploration noise is not part of the policy."""


PLAYED = "PPO, A2C, DQN, SAC, TD3, DDPG, and of sb3-contrib RecurrentPPO, TRPO, QR-DQN, TQC, CrossQ, ARS"


class Squashed(NamedTuple):
    """Independent normal distributions, squashed by tanh to (-1, 1) (Haarnoja et al. 2018, appendix C)."""

    normal: DiagonalGaussian

    def sample(self, key: Tensor) -> Tensor:
        return torch.tanh(self.normal.sample(key))

    def mode(self) -> Tensor:
        return torch.tanh(self.normal.mode())

    def log_prob(self, action: Tensor) -> Tensor:
        inside = action.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        return self.normal.log_prob(torch.atanh(inside)) - torch.log(1.0 - inside * inside).sum(-1)


class Certain(NamedTuple):
    """A single action, taken with probability 1."""

    action: Tensor

    def sample(self, key: Tensor) -> Tensor:
        return self.action

    def mode(self) -> Tensor:
        return self.action

    def log_prob(self, action: Tensor) -> Tensor:
        return torch.zeros(len(action))


def check_played(model: Any) -> None:
    """Raise ValueError for a model with an unknown kind of policy."""
    if not isinstance(model.policy, (*BY_DISTRIBUTION, *EPSILON_GREEDY, *SQUASHED, *DETERMINISTIC)):
        raise ValueError(f"SB3Model plays {PLAYED}; got {type(model.policy).__name__}.")


def acting(model: Any, x: Tensor) -> Any:
    """Return a model's action distribution, in the policy's own units, for the inputs `x` ``(B, …)``.

    DQN and QR-DQN take a random action with the final `exploration_rate` of their training.
    """
    policy: Any = model.policy
    if isinstance(model.policy, SQUASHED):
        mean, log_std, more = policy.actor.get_action_dist_params(x)
        found: Any = from_torch(policy.actor.action_dist.proba_distribution(mean, log_std, **more).distribution)
        return Squashed(found)
    if isinstance(model.policy, BY_DISTRIBUTION):
        found = from_torch(policy.get_distribution(x).distribution)
        return Squashed(found) if policy.squash_output else found
    action = policy._predict(x, deterministic=True)
    if isinstance(model.policy, DETERMINISTIC):
        return Certain(action)
    count = int(policy.action_space.n)
    best = (action[:, None] == torch.arange(count)).to(torch.float32)
    return Categorical.from_logits((best * (1.0 - model.exploration_rate) + model.exploration_rate / count).log())


def in_the_space(policy: Any, action: Tensor, space: spaces.Space) -> Tensor:
    """Convert a policy's actions to the family's: unsquash or clip them, as in SB3; Discrete ones begin at `start`."""
    if isinstance(space, spaces.Discrete):
        return action + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return action + first_actions(space)
    assert isinstance(space, spaces.Box)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return low + 0.5 * (action + 1.0) * (high - low) if policy.squash_output else action.clamp(low, high)


def statistics_of(
    model: Any, given: VecNormalize | str | Path | bool | None, family: TaskFamily, trial: bool
) -> VecNormalize | None:
    """Return the `VecNormalize` of the model's observations: the given one, or that of the model's environment.

    Raises ValueError if the model was trained with VecNormalize but there are no statistics, since `model.save` does
    not write them. For a loaded off-policy model (DQN, SAC, TD3, …) this is detected only if observations have bounds.
    """
    if given is False:
        return None
    if isinstance(given, (str, Path)):
        given = _load(given, SB3VecEnv(family, 1, trial=trial))
    if given is not None and not isinstance(given, VecNormalize):
        raise ValueError(f"vec_normalize must be a VecNormalize, the path of its file, or False, got {given!r}.")
    found: VecNormalize | None = model.get_vec_normalize_env() if given is None else given
    if found is None and _was_normalised(model):
        raise ValueError(
            "The model was trained with VecNormalize: give its statistics, SB3Model(…, vec_normalize=PATH), "
            "or vec_normalize=False if it did not normalise observations."
        )
    if found is not None and found.norm_obs:
        theirs, ours = found.observation_space.shape, model.observation_space.shape
        if theirs != ours:
            raise ValueError(f"The statistics must be of observations of shape {ours}, as the model's, got {theirs}.")
    return found


def _was_normalised(model: Any) -> bool:
    """Return True if a model was trained with VecNormalize: SB3 then also saves the last unnormalised observations."""
    if model._last_original_obs is None or not isinstance(model, OffPolicyAlgorithm):
        return model._last_original_obs is not None
    # Off-policy models store earlier observations in the same attribute if nothing was normalised.
    last, space = model._last_obs, model.observation_space
    assert isinstance(space, spaces.Box)
    return last is not None and bool(((last < space.low) | (last > space.high)).any())


def _load(path: str | Path, env: SB3VecEnv) -> VecNormalize:
    """Load a file of ``VecNormalize.save``. The file is pickled, so only one that the user names is ever opened."""
    try:
        return VecNormalize.load(str(path), env)
    except OSError:
        raise
    except Exception as error:  # unpickling may raise any error, and SB3 checks the shapes
        raise ValueError(f"{path} has no VecNormalize statistics for these observations ({error}).") from error
