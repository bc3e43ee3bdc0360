"""Agents that stable-baselines3 trains: the baselines that meta-learning is measured against (Raffin et al. 2021).

Training is SB3's own loop on `SB3VecEnv`, networks and updates are its own too. The evaluator plays them like every
other agent: on the same tasks, with addressed noise. They are values of one configuration:

=======================  ==========================================================================================
baseline                 fields of `PPOConfig`, and of the run
=======================  ==========================================================================================
multi-task PPO           the defaults: one policy for all tasks, without memory
multi-task, fine-tuned   ``test_steps: 10``: PPO updates on each task from the trained parameters (transfer learning)
from scratch             the same with ``total_iterations: 0``: from random parameters, on each task alone
told the task            ``task_input: true``: an oracle, where a family has no scripted one
RecurrentPPO             ``recurrent: true``: sb3-contrib's RecurrentPPO on whole trials (RL² by the stock library)
=======================  ==========================================================================================

An update on a task fills SB3's rollout buffer with what was played and calls SB3's ``train``; a test holds it equal to
SB3's own ``learn``. Policies act in units of half the action range, and rewards are scaled, as SB3's guide advises.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarl import rng
from metarl.agent import LearningAgent, at, load_optimizer_state, optimizer_state
from metarl.agents.baselines import RandomAgent
from metarl.agents.sb3_config import PPOConfig
from metarl.batch_env import Step
from metarl.distributions import Categorical, DiagonalGaussian, Distribution
from metarl.family import Key, Task, TaskFamily, features
from metarl.rollout import Acted, Memory, Rollout, TrialProtocol, episode_returns, run_trial
from metarl.sb3_env import SB3VecEnv
from metarl.stream import flatten

ZIP = "stable_baselines3.zip"
"""The model in SB3's own format, beside a run's checkpoint: for ``PPO.load``. It holds pickled parts, which metarl
itself neither needs nor reads."""

METRICS = {
    "train/policy_gradient_loss": "loss/policy",
    "train/value_loss": "loss/value",
    "train/entropy_loss": "loss/entropy",
    "train/approx_kl": "loss/approx_kl",
    "train/clip_fraction": "loss/clip_fraction",
    "train/explained_variance": "loss/explained_variance",
}
"""SB3's names of what an update reports, and ours."""


class SB3Memory(NamedTuple):
    """What a trial carries: nothing, the LSTM's state, or what every task has learned."""

    state: tuple[Tensor, ...]  # recurrent: (1, B, H) twice
    task: Tensor  # (N, D) what the policy is told of the task; (N, 0): nothing
    learned: dict[str, Tensor]  # (N, …) each task's own parameters and optimiser, named as in `state_dict`; empty: none
    updates: Tensor  # () int64: updates on each task


class SB3Agent(LearningAgent):
    """The agent; see the module's docstring. It lives on the CPU, where SB3's small networks are fastest."""

    config: PPOConfig
    own_loop = True

    def __init__(self, config: PPOConfig, family: TaskFamily, seed: int = 0) -> None:
        self.config, self.family, self.seed = config, family, seed
        self.device = torch.device("cpu")
        self.protocol = TrialProtocol()
        if config.test_steps:
            each = config.fast_batch_size
            self.protocol = TrialProtocol(1, 1, each, config.test_steps + 1, each, unit="PPO update", costly=True)
        self.steps = config.steps_of(family)
        rows = config.meta_batch_size
        play = SB3VecEnv(family, rows, trial=config.recurrent, show_task=config.task_input)
        self.env = Prepared(VecMonitor(play), config.reward_scale or reward_scale(family))
        with _seeded(seed):
            self.model = _model(config, self.env, self.steps, seed)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self.actor = Actor(self.model.policy)
        self.names = [name for name, _ in self.model.policy.named_parameters()]
        self.updates = 0

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        state: tuple[Tensor, ...] = ()
        if self.config.recurrent:
            state = (torch.zeros(1, num_tasks, self.config.lstm_size), torch.zeros(1, num_tasks, self.config.lstm_size))
        told = torch.zeros(num_tasks, 0)
        if self.config.task_input:
            if task is None:
                raise ValueError("This agent is told the task (task_input): begin needs it.")
            told = features(task)
        return SB3Memory(state, told, {}, torch.tensor(0))

    def act(self, memory: SB3Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            if self.config.recurrent:
                x = flatten(step, self.family.action_space)
                distribution, state = recurrent_distribution(self.model.policy, x, memory.state)
                memory = memory._replace(state=state)
            else:
                distribution = self._distribution(memory, self._inputs(step.obs, memory))
            action = distribution.mode() if greedy else distribution.sample(key)
            log_prob = distribution.log_prob(action)
        return Acted(self.env.to_family(action), log_prob, torch.zeros_like(log_prob)), memory

    def adapt(self, memory: SB3Memory, rollout: Rollout) -> Memory:
        """One PPO update on each task, from the round that its own parameters played."""
        if not self.config.test_steps:
            return memory
        trained = {name: value.clone() for name, value in self.state_dict().items()}
        # A task's first update has no optimiser's state: averages of other tasks' gradients would only mislead it.
        start = {name: value for name, value in trained.items() if not name.startswith("optimizer.")}
        x = self._inputs(rollout.step.obs, memory)
        following = self._inputs(rollout.outcome.final_obs, memory)
        learned, each = [], self.config.fast_batch_size
        for number in range(len(memory.task)):
            own = {name: value[number] for name, value in memory.learned.items()}
            self.load_state_dict(start | own)
            self._update_on(self._filled(rollout, x, following, slice(number * each, (number + 1) * each)), memory)
            learned.append({name: value.clone() for name, value in self.state_dict().items() if name != "updates"})
        self.load_state_dict(trained)
        stacked = {name: torch.stack([one[name] for one in learned]) for name in learned[0]}
        return SB3Memory((), memory.task, stacked, memory.updates + 1)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        """One iteration of SB3's own loop, which plays for itself: `trial` is not looked at."""
        model = self.model
        model.learning_rate = at(self.config.lr, progress)
        model.lr_schedule = FloatSchedule(model.learning_rate)
        before = model.num_timesteps
        with _seeded(self.seed + 1_000_003 * (self.updates + 1)) as seed:
            self.env.seed(seed)
            self.env.set_options({"split": self.train_split})
            model.set_env(self.env, force_reset=True)  # every iteration begins new episodes, so that a resume is exact
            model.learn(self.steps * self.env.num_envs, log_interval=1_000_000_000, reset_num_timesteps=False)
        self.updates += 1
        return self._metrics() | {"env_steps": float(model.num_timesteps - before), "loss/lr": model.learning_rate}

    def state_dict(self) -> dict[str, Tensor]:
        policy = self.model.policy
        return {
            **{f"net.{name}": value for name, value in policy.state_dict().items()},
            **optimizer_state(policy.optimizer, self.names),
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        policy = self.model.policy
        policy.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        load_optimizer_state(policy.optimizer, self.names, state)
        self.updates = int(state["updates"])

    def export(self, folder: Path) -> None:
        """The model as SB3 saves it (`ZIP`)."""
        self.model.save(folder / ZIP)

    def _inputs(self, obs: Tensor, memory: SB3Memory) -> Tensor:
        """Observations ``(…, B, *O)`` as ``(…, B, F)``, beside them what the policy is told of the task."""
        flat = obs.flatten(obs.ndim - len(self.family.observation_space.shape))
        if not self.config.task_input:
            return flat
        told = memory.task.repeat_interleave(flat.shape[-2] // len(memory.task), dim=0)
        return torch.cat([flat, told.expand(*flat.shape[:-1], -1)], dim=-1)

    def _distribution(self, memory: SB3Memory, x: Tensor) -> Distribution:
        if not memory.learned:
            return distribution_of(self.actor(x), self.model.policy)
        by_task = x.unflatten(0, (len(memory.task), -1))  # (N, rows of a task, F)
        own = {f"policy.{name}": memory.learned[f"net.{name}"] for name in self.actor.used}
        outputs = vmap(lambda parameters, rows: functional_call(self.actor, parameters, (rows,)))(own, by_task)
        log_std = memory.learned.get("net.log_std")
        if log_std is None:
            return Categorical.from_logits(outputs.flatten(0, 1))
        spread = log_std[:, None].expand_as(outputs)
        return DiagonalGaussian(outputs.flatten(0, 1), spread.flatten(0, 1))

    def _filled(self, rollout: Rollout, x: Tensor, following: Tensor, rows: slice) -> RolloutBuffer:
        """SB3's buffer with the steps of some rows, `model` being the policy that played them."""
        policy, outcome = self.model.policy, rollout.outcome
        x, mask = x[:, rows], rollout.mask[:, rows] > 0
        steps, each = mask.shape
        with torch.no_grad():
            values = policy.predict_values(x.flatten(0, 1)).view(steps, each)
            after = policy.predict_values(following[:, rows].flatten(0, 1)).view(steps, each)
        reward = outcome.reward[:, rows] * self.env.reward_scale
        reward = reward + self.config.gamma * after * outcome.truncated[:, rows]  # what SB3's own collection adds
        starts = rollout.step.prev_done[:, rows].clone()
        starts[0] = 1.0
        shape: dict[str, Any] = {"gamma": self.config.gamma, "gae_lambda": self.config.gae_lambda, "device": "cpu"}
        space, action_space = self.model.observation_space, self.model.action_space
        buffer = RolloutBuffer(steps, space, action_space, n_envs=each, **shape)
        action = self.env.from_family(rollout.acted.action[:, rows])
        for t in range(steps):
            buffer.add(
                x[t].numpy(), action[t].numpy(), reward[t].numpy(), starts[t].numpy(), values[t],
                rollout.acted.log_prob[t, rows],
            )  # fmt: skip
        buffer.compute_returns_and_advantage(torch.zeros(each), np.ones(each))
        return buffer if bool(mask.all()) else _without_padding(buffer, mask.numpy(), shape)

    def _update_on(self, buffer: RolloutBuffer, memory: SB3Memory) -> None:
        """SB3's update of the model from these steps."""
        model, before = self.model, self.model.rollout_buffer
        model.rollout_buffer, model.lr_schedule = buffer, FloatSchedule(self.config.fast_lr or at(self.config.lr, 0.0))
        with _seeded(self.seed + int(memory.updates)), torch.enable_grad():
            model.train()
        model.rollout_buffer = before

    def _metrics(self) -> dict[str, float]:
        found = self.model.logger.name_to_value
        metrics = {ours: float(found[theirs]) for theirs, ours in METRICS.items() if theirs in found}
        metrics["loss/entropy"] = -metrics["loss/entropy"]
        episodes = self.model.ep_info_buffer
        if episodes:
            per_trial = self.family.episodes_per_trial if self.config.recurrent else 1
            metrics["train/return"] = float(np.mean([episode["r"] for episode in episodes])) / per_trial
            metrics["train/episode_length"] = float(np.mean([episode["l"] for episode in episodes])) / per_trial
        return metrics


class Actor(nn.Module):
    """The part of SB3's policy that acts: features to the logits, or the mean, of an action."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy
        parts = ("mlp_extractor.policy_net.", "action_net.")
        self.used = [name for name, _ in policy.named_parameters() if name.startswith(parts)]

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.policy.action_net(self.policy.mlp_extractor.forward_actor(x))
        return outputs


class Prepared(VecEnvWrapper):
    """What SB3 trains on: actions in units of half their range around its middle, and scaled rewards."""

    def __init__(self, venv: VecEnv, reward_scale: float) -> None:
        space = venv.action_space
        self.scale: tuple[Tensor, Tensor] | None = None  # middle and half the range of continuous actions
        if isinstance(space, spaces.Box):
            if not space.is_bounded():
                raise ValueError(f"PPO needs actions with finite bounds, got {space}.")
            low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
            self.scale = ((low + high) / 2, (high - low) / 2)
            space = spaces.Box(-1.0, 1.0, space.shape)
        super().__init__(venv, action_space=space)
        self.reward_scale = reward_scale

    def to_family(self, action: Tensor) -> Tensor:
        """Actions of the policy as the family takes them."""
        return action if self.scale is None else self.scale[0] + self.scale[1] * action

    def from_family(self, action: Tensor) -> Tensor:
        """The other way round."""
        return action if self.scale is None else (action - self.scale[0]) / self.scale[1]

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(self.to_family(torch.as_tensor(actions)).numpy())

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        return obs, rewards * np.float32(self.reward_scale), dones, infos


def scratch(family: TaskFamily, seed: int = 0) -> SB3Agent:
    """PPO from scratch on each task: ten updates, each from 20 episodes (100, where an episode is a single step)."""
    each = 100 if family.horizon == 1 else 20
    return SB3Agent(PPOConfig(num_steps=64, test_steps=10, fast_batch_size=each, fast_lr=1e-3), family, seed)


def reward_scale(family: TaskFamily) -> float:
    """See `PPOConfig.reward_scale`."""
    key = rng.key(0)
    trial = run_trial(RandomAgent(family), family, family.sample_tasks(key, 64, family.splits[0]), key, episodes=1)
    size = float((episode_returns(trial[0], 1) ** 2).mean().sqrt())
    return 1.0 / max(size, 1.0)


def distribution_of(outputs: Tensor, policy: Any) -> Distribution:
    """The distribution of actions for the outputs of an SB3 policy's last layer."""
    if isinstance(policy.action_space, gymnasium.spaces.Discrete):
        return Categorical.from_logits(outputs)
    return DiagonalGaussian(outputs, policy.log_std)


def recurrent_distribution(
    policy: Any, x: Tensor, state: tuple[Tensor, ...]
) -> tuple[Distribution, tuple[Tensor, ...]]:
    """The distribution of actions of a sb3-contrib policy, and its LSTM's next state."""
    found, state = policy.get_distribution(x, state, torch.zeros(len(x)))
    inner = found.distribution
    if isinstance(inner, torch.distributions.Categorical):
        return Categorical.from_logits(inner.logits), state
    return DiagonalGaussian(inner.mean, inner.stddev.log()), state


def _model(config: PPOConfig, env: VecEnv, steps: int, seed: int) -> Any:
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
        "target_kl": config.target_kl,
        "stats_window_size": max(100, config.meta_batch_size),
        "seed": seed,
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


def _without_padding(buffer: RolloutBuffer, mask: np.ndarray, shape: Mapping[str, Any]) -> RolloutBuffer:
    """The same steps but those after a row's last episode, as one row."""
    flat = RolloutBuffer(int(mask.sum()), buffer.observation_space, buffer.action_space, n_envs=1, **shape)
    for name in ("observations", "actions", "rewards", "returns", "episode_starts", "values", "log_probs"):
        setattr(flat, name, getattr(buffer, name)[mask][:, None])
    flat.advantages, flat.pos, flat.full = buffer.advantages[mask][:, None], flat.buffer_size, True
    return flat


@contextmanager
def _seeded(seed: int) -> Iterator[int]:
    """SB3 draws from the global generators of Python, NumPy and torch: seed them, and put them back afterwards."""
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
