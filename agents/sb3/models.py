"""Bridges to stable-baselines3: models, environments for their training, buffers and distributions."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn

from metarl.agents.random import RandomAgent
from metarl.agents.sb3.config import PPOConfig
from metarl.core import rng
from metarl.core.agent import at
from metarl.core.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    make_distribution,
)
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, episode_returns, play_rounds
from metarl.core.units import component_sizes, first_actions

METRICS = {
    "train/policy_gradient_loss": "loss/policy",
    "train/value_loss": "loss/value",
    "train/entropy_loss": "loss/entropy",
    "train/approx_kl": "loss/approx_kl",
    "train/clip_fraction": "loss/clip_fraction",
    "train/explained_variance": "loss/explained_variance",
}
"""SB3's names of an update's metrics, mapped to the log tags of metarl."""


class Actor(nn.Module):
    """The acting part of an SB3 policy: from features to the logits or the mean of an action."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy
        parts = ("mlp_extractor.policy_net.", "action_net.")
        self.used = [name for name, _ in policy.named_parameters() if name.startswith(parts)]

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.policy.action_net(self.policy.mlp_extractor.forward_actor(x))
        return outputs


class Prepared(VecEnvWrapper):
    """An environment for SB3: Box actions in [-1, 1], (Multi)Discrete actions from 0, and scaled rewards."""

    def __init__(self, venv: VecEnv, reward_scale: float) -> None:
        space = venv.action_space
        self.scale: tuple[Tensor, Tensor] | None = None  # centre and half the range of continuous actions
        self.first: int | Tensor = 0  # the first discrete action, (A,) for MultiDiscrete ones; SB3 counts from 0
        if isinstance(space, spaces.Box):
            if not space.is_bounded():
                raise ValueError(f"PPO needs actions with finite bounds, got {space}.")
            low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
            self.scale = ((low + high) / 2, (high - low) / 2)
            space = spaces.Box(-1.0, 1.0, space.shape)
        elif isinstance(space, spaces.Discrete):
            self.first, space = int(space.start), spaces.Discrete(int(space.n))
        elif isinstance(space, spaces.MultiDiscrete):
            self.first, space = first_actions(space), spaces.MultiDiscrete(space.nvec)
        super().__init__(venv, action_space=space)
        self.reward_scale = reward_scale

    def to_family(self, action: Tensor) -> Tensor:
        """Convert the policy's actions to the family's."""
        return action + self.first if self.scale is None else self.scale[0] + self.scale[1] * action

    def from_family(self, action: Tensor) -> Tensor:
        """Convert the family's actions to the policy's."""
        return action - self.first if self.scale is None else (action - self.scale[0]) / self.scale[1]

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(self.to_family(torch.as_tensor(actions)).numpy())

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        return obs, rewards * np.float32(self.reward_scale), dones, infos


def reward_scale(family: TaskFamily) -> float:
    """Return the default value of `PPOConfig.reward_scale` for a family."""
    key = rng.key(0)
    tasks = family.sample_tasks(key, 64, family.splits[0])
    (trial,) = play_rounds(RandomAgent(family), family, tasks, key, episodes=1)
    size = float((episode_returns(trial.played, 1) ** 2).mean().sqrt())
    return 1.0 / max(size, 1.0)


def distribution_of(outputs: Tensor, policy: Any) -> Distribution:
    """Return the action distribution for the outputs of an SB3 policy's last layer."""
    spread = policy.log_std if isinstance(policy.action_space, spaces.Box) else None
    return make_distribution(outputs, spread, component_sizes(policy.action_space))


def recurrent_distribution(
    policy: Any, x: Tensor, state: tuple[Tensor, ...], starts: Tensor
) -> tuple[Distribution, tuple[Tensor, ...]]:
    """Return a recurrent policy's action distribution and its next state; `starts` (B,) is 1 to reset it first."""
    found, state = policy.get_distribution(x, state, starts)
    return from_torch(found.distribution), state


def from_torch(distribution: Any) -> Distribution:
    """Convert an SB3 distribution to one of metarl, which draws with addressed keys."""
    if isinstance(distribution, torch.distributions.Categorical):
        return Categorical.from_logits(distribution.logits)
    if isinstance(distribution, list):  # one for each component of a MultiDiscrete action
        logits = [each.logits for each in distribution]
        return MultiCategorical.from_logits(torch.cat(logits, dim=-1), [each.shape[-1] for each in logits])
    return DiagonalGaussian(distribution.mean, distribution.stddev.log())


def is_recurrent(model: Any) -> bool:
    """Return True if a model's policy has sb3-contrib's LSTM."""
    try:
        from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    except ImportError:
        return False
    return isinstance(model.policy, RecurrentActorCriticPolicy)


def make_model(config: PPOConfig, env: VecEnv, steps: int, seed: int) -> Any:
    arguments: dict[str, Any] = {
        "n_steps": steps,
        "learning_rate": at(config.lr, 0.0),
        "batch_size": config.batch_size,
        "n_epochs": config.update_epochs,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip_coef,
        "ent_coef": config.ent_coef,
        "vf_coef": config.vf_coef,
        "max_grad_norm": config.max_grad_norm,
        "stats_window_size": max(100, config.meta_batch_size),
        "seed": seed % 2**32,  # the range of NumPy's global generator
        "device": "cpu",
    }
    network = {"log_std_init": float(np.log(config.init_std)), "net_arch": list(config.hidden_sizes)}
    if not config.recurrent:
        return PPO("MlpPolicy", env, policy_kwargs=network, **arguments)
    try:
        from sb3_contrib import RecurrentPPO
    except ImportError as error:
        raise ValueError("recurrent needs sb3-contrib: pip install sb3-contrib") from error
    network |= {"lstm_hidden_size": config.lstm_size, "shared_lstm": True, "enable_critic_lstm": False}
    return RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=network, **arguments)


def filled_buffer(
    model: Any, rollout: Rollout, x: Tensor, following: Tensor, rows: slice, scale: float
) -> RolloutBuffer:
    """Fill SB3's rollout buffer with the steps of some rows, in which `model` acted.

    `x` and `following` ``(T, B, F)`` are the policy's inputs before and after each step; actions are the policy's own.
    """
    policy, outcome = model.policy, rollout.outcome
    x, mask = x[:, rows], rollout.mask[:, rows] > 0
    steps, each = mask.shape
    with torch.no_grad():
        values = policy.predict_values(x.flatten(0, 1)).view(steps, each)
        after = policy.predict_values(following[:, rows].flatten(0, 1)).view(steps, each)
    # Like SB3's own collection, add the value of the next state where an episode was truncated.
    reward = outcome.reward[:, rows] * scale + model.gamma * after * outcome.truncated[:, rows]
    starts = rollout.step.prev_done[:, rows].clone()
    starts[0] = 1.0
    shape: dict[str, Any] = {"gamma": model.gamma, "gae_lambda": model.gae_lambda, "device": "cpu"}
    buffer = RolloutBuffer(steps, model.observation_space, model.action_space, n_envs=each, **shape)
    action, log_prob = rollout.acted.action[:, rows], rollout.acted.log_prob[:, rows]
    for t in range(steps):
        seen = (x[t].numpy(), action[t].numpy(), reward[t].numpy(), starts[t].numpy())
        buffer.add(*seen, values[t], log_prob[t])
    buffer.compute_returns_and_advantage(torch.zeros(each), np.ones(each))
    return buffer if bool(mask.all()) else _without_padding(buffer, mask.numpy(), shape)


def _without_padding(buffer: RolloutBuffer, mask: np.ndarray, shape: Mapping[str, Any]) -> RolloutBuffer:
    """Copy all steps to a single row, without those after a row's last episode."""
    flat = RolloutBuffer(int(mask.sum()), buffer.observation_space, buffer.action_space, n_envs=1, **shape)
    for name in ("observations", "actions", "rewards", "returns", "episode_starts", "values", "log_probs"):
        setattr(flat, name, getattr(buffer, name)[mask][:, None])
    flat.advantages, flat.pos, flat.full = buffer.advantages[mask][:, None], flat.buffer_size, True
    return flat


def recent_episodes(model: Any) -> Tensor:
    """Return the returns and lengths of the latest episodes, whose means SB3 logs: ``(window, 2)`` float64.

    Rows beyond the episodes played so far are 0, which is not a valid length.
    """
    window = torch.zeros(model._stats_window_size, 2, dtype=torch.float64)
    for row, episode in enumerate(model.ep_info_buffer or ()):
        window[row, 0], window[row, 1] = float(episode["r"]), float(episode["l"])
    return window


def remember_episodes(model: Any, window: Tensor) -> None:
    """Let a model continue with the `recent_episodes` of another."""
    played = window[window[:, 1] > 0].tolist()
    # Use the types of VecMonitor: a mean in float32 differs from one in float64.
    episodes = [{"r": np.float32(size), "l": np.int32(length)} for size, length in played]
    model.ep_info_buffer = deque(episodes, maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)


@contextmanager
def seeded(seed: int) -> Iterator[int]:
    """Seed the global generators of Python, NumPy and torch, which SB3 uses, and restore them afterwards."""
    seed %= 2**32
    before, numpy_before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield seed
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)
