"""Agents that stable-baselines3 trains (Raffin et al. 2021): baselines for meta-learning.

Training is SB3's own loop on `SB3VecEnv`, with SB3's networks and updates. The evaluator plays these agents like any
other agent: on the same tasks, with addressed noise. The baselines are different values of one configuration:

=======================  ==========================================================================================
baseline                 fields of `PPOConfig`, and of the run
=======================  ==========================================================================================
multi-task PPO           the defaults: one policy for all tasks, without memory
multi-task, fine-tuned   ``test_steps: 10``: PPO updates on each task from the trained parameters (transfer learning)
from scratch             the same with ``total_iterations: 0``: from random parameters, on each task separately
told the task            ``task_input: true``: an oracle, for families without a scripted one
RecurrentPPO             ``recurrent: true``: sb3-contrib's RecurrentPPO on whole trials (RL² with a stock library)
=======================  ==========================================================================================

An update on a task fills SB3's rollout buffer with the task's round and calls SB3's ``train``; a test compares this
with SB3's own ``learn``. As SB3's guide recommends, policies act in units of half the action range and rewards are
scaled.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import Tensor
from torch.func import functional_call, vmap

from metarl.agents.random import FixedAgent
from metarl.agents.sb3.config import PPOConfig
from metarl.agents.sb3.models import (
    METRICS,
    Actor,
    Prepared,
    distribution_of,
    filled_buffer,
    is_recurrent,
    make_model,
    recent_episodes,
    recurrent_distribution,
    remember_episodes,
    reward_scale,
    seeded,
)
from metarl.agents.sb3.policies import acting, check_played, in_the_space, statistics_of
from metarl.core.agent import Learned, OwnLoopAgent, at, load_optimizer_state, optimizer_state
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution, make_distribution
from metarl.core.errors import short, truth
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.faults.given import check_is_family
from metarl.core.rollout import Acted, Memory, NotFinite, Rollout, TrialProtocol
from metarl.core.tree import features
from metarl.core.units import component_sizes
from metarl.interop.flat import flat_space, flatten
from metarl.interop.sb3_env import SB3VecEnv
from metarl.learning.images import check_no_images

ZIP = "stable_baselines3.zip"
"""File of the model in SB3's own format, next to a run's checkpoint, for ``PPO.load``. Parts of it are pickled; metarl
never reads it."""


EPISODES = "optimizer.recent_episodes"
"""Key in `SB3Agent.state_dict` of the latest episodes, whose mean return is logged. Like the optimiser's state it is
only for training: neither the file of the best agent nor the agents that ship with the package contain it."""


class SB3Memory(NamedTuple):
    """The agent's memory in a trial: the LSTM's state, the task if the policy sees it, and each task's parameters."""

    state: tuple[Tensor, ...]  # recurrent: (1, B, H) twice
    task: Tensor  # (N, D) the task as a vector; (N, 0) if the policy does not see it
    learned: dict[str, Tensor]  # (N, …) each task's own parameters and optimiser, named as in `state_dict`, or empty
    updates: Tensor  # () int64: updates on each task


class SB3Agent(OwnLoopAgent):
    """The agent; see the module's docstring. It always runs on the CPU, where SB3's small networks are fastest."""

    config: PPOConfig
    step_name = "PPO update"

    def __init__(
        self, config: PPOConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make the agent. `device` is ignored: the agent stays on the CPU."""
        check_no_images(family, "PPO of stable-baselines3")
        self.config, self.family, self.seed = config, family, seed
        self.device = torch.device("cpu")
        self.protocol = TrialProtocol()
        if config.test_steps:
            each = config.fast_batch_size
            self.protocol = TrialProtocol(1, 1, each, config.test_steps + 1, each)
        self.costly = config.test_steps > 0
        self.told = config.task_input
        self.steps = config.steps_of(family)
        rows = config.meta_batch_size
        self.play = SB3VecEnv(family, rows, trial=config.recurrent, show_task=config.task_input)
        self.play.looking = True
        self.env = Prepared(VecMonitor(self.play), config.reward_scale or reward_scale(family))
        with seeded(seed):
            self.model = make_model(config, self.env, self.steps, seed)
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
                distribution, state = recurrent_distribution(self.model.policy, x, memory.state, torch.zeros(len(x)))
                memory = memory._replace(state=state)
            else:
                distribution = self._distribution(memory, self._inputs(step.obs, memory))
            action = distribution.mode() if greedy else distribution.sample(key)
            log_prob = distribution.log_prob(action)
        return Acted(self.env.to_family(action), log_prob, torch.zeros_like(log_prob)), memory

    def adapt(self, memory: SB3Memory, rollout: Rollout) -> Memory:
        """Do one PPO update on each task, with the round that the task's own parameters played."""
        if not self.config.test_steps:
            return memory
        trained = {name: value.clone() for name, value in self._learned().items()}
        # A task's first update starts with a fresh optimiser: Adam's moments come from the gradients of other tasks.
        start = {name: value for name, value in trained.items() if not name.startswith("optimizer.")}
        x = self._inputs(rollout.step.obs, memory)
        following = self._inputs(rollout.outcome.final_obs, memory)
        own_actions = self.env.from_family(rollout.acted.action)
        rollout = rollout._replace(acted=rollout.acted._replace(action=own_actions))
        learned, each = [], rollout.mask.shape[1] // len(memory.task)  # a Player may bring more or fewer rows per task
        for number in range(len(memory.task)):
            own = {name: value[number] for name, value in memory.learned.items()}
            self.load_state_dict(start | own)
            rows = slice(number * each, (number + 1) * each)
            buffer = filled_buffer(self.model, rollout, x, following, rows, self.env.reward_scale)
            self._update_on(buffer, memory)
            learned.append({name: value.clone() for name, value in self._learned().items()})
        self.load_state_dict(trained)
        stacked = {name: torch.stack([one[name] for one in learned]) for name in learned[0]}
        return SB3Memory((), memory.task, stacked, memory.updates + 1)

    def learn(self, split: str, progress: float = 0.0) -> Learned:
        """Do one iteration of SB3's own loop."""
        model = self.model
        model.learning_rate = at(self.config.lr, progress)
        model.lr_schedule = FloatSchedule(model.learning_rate)
        before, episodes = model.num_timesteps, model.ep_info_buffer and model.ep_info_buffer.copy()
        with seeded(self.seed + 1_000_003 * (self.updates + 1)) as seed, np.errstate(invalid="ignore", over="ignore"):
            self.env.seed(seed)
            self.env.set_options({"split": split})
            model.set_env(self.env, force_reset=True)  # new episodes in every iteration make resumes exact
            try:
                model.learn(self.steps * self.env.num_envs, log_interval=1_000_000_000, reset_num_timesteps=False)
                metrics = self._metrics()
            except (ValueError, RuntimeError):  # torch's distributions reject NaN
                self.not_finite = self._first_not_finite()
                if self.not_finite is None:
                    raise
                metrics = {"train/return": math.nan}
        self.updates += 1
        if not all(map(math.isfinite, metrics.values())):
            self.not_finite = self._first_not_finite() or NotFinite("update", "")
            if episodes is not None:
                model.ep_info_buffer = episodes  # otherwise mean returns would be NaN for a hundred episodes
        return Learned(metrics | {"loss/lr": model.learning_rate}, model.num_timesteps - before)

    def _first_not_finite(self) -> NotFinite | None:
        """Return the first non-finite number in the last `learn`, of the environment or of the policy."""
        if self.play.not_finite is not None:
            return self.play.not_finite
        spoiled = any(not bool(value.isfinite().all()) for value in self.model.policy.parameters())
        return NotFinite("action", "") if spoiled else None

    def state_dict(self) -> dict[str, Tensor]:
        return self._learned() | {"updates": torch.tensor(self.updates), EPISODES: recent_episodes(self.model)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        policy = self.model.policy
        policy.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        load_optimizer_state(policy.optimizer, self.names, state)
        self.updates = int(state.get("updates", self.updates))
        self.model.num_timesteps = self.updates * self.steps * self.env.num_envs  # as SB3 counts them, for `export`
        if EPISODES in state:  # older checkpoints have none
            remember_episodes(self.model, state[EPISODES])

    def export(self, folder: Path) -> None:
        """Write the model in SB3's own format (`ZIP`)."""
        self.model.save(folder / ZIP)

    def _learned(self) -> dict[str, Tensor]:
        """Return the parameters and the optimiser's state."""
        policy = self.model.policy
        learned = {f"net.{name}": value for name, value in policy.state_dict().items()}
        return learned | optimizer_state(policy.optimizer, self.names)

    def _inputs(self, obs: Tensor, memory: SB3Memory) -> Tensor:
        """Return the policy's inputs ``(…, B, F)``: the observations ``(…, B, *O)`` and, if it sees it, the task."""
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
        spread = None if log_std is None else log_std[:, None].expand_as(outputs).flatten(0, 1)
        return make_distribution(outputs.flatten(0, 1), spread, component_sizes(self.family.action_space))

    def _update_on(self, buffer: RolloutBuffer, memory: SB3Memory) -> None:
        """Update the model with SB3's ``train`` on the steps in `buffer`."""
        model, before = self.model, self.model.rollout_buffer
        model.rollout_buffer, model.lr_schedule = buffer, FloatSchedule(self.config.fast_lr or at(self.config.lr, 0.0))
        with seeded(self.seed + int(memory.updates)), torch.enable_grad():
            model.train()
        model.rollout_buffer = before

    def _metrics(self) -> dict[str, float]:
        found = self.model.logger.name_to_value
        metrics = {ours: float(found[theirs]) for theirs, ours in METRICS.items() if theirs in found}
        if math.isnan(metrics.get("loss/explained_variance", 0.0)):  # undefined where all returns are equal
            del metrics["loss/explained_variance"]
        metrics["loss/entropy"] = -metrics["loss/entropy"]
        episodes = self.model.ep_info_buffer
        if episodes:
            per_trial = self.family.episodes_per_trial if self.config.recurrent else 1
            metrics["train/return"] = float(np.mean([episode["r"] for episode in episodes])) / per_trial
            metrics["train/episode_length"] = float(np.mean([episode["l"] for episode in episodes])) / per_trial
        return metrics


class SB3Model(FixedAgent):
    """A model that a user trained with stable-baselines3 or sb3-contrib on `SB3VecEnv`, as an agent for evaluation::

        metarl.evaluate(SB3Model(PPO.load("model.zip"), family), family)

    Set `trial` to True for a model trained on whole trials (``SB3VecEnv(…, trial=True)``): its inputs are then RL²'s,
    and a recurrent model keeps its state through all episodes of a trial. Otherwise every episode starts with an empty
    state, as in training. Continuous actions are clipped or unsquashed, as in SB3.

    `vec_normalize` is the `VecNormalize` of the model's training, or the path of a file that ``VecNormalize.save``
    wrote, which SB3 unpickles; False means that observations were not normalised. A model that was not loaded from a
    file brings its own. A loaded model that was trained with VecNormalize needs it: without it ValueError is raised
    (for off-policy models only if observations have bounds, since this cannot be detected otherwise).

    Sampled actions follow the distribution of PPO or SAC. DQN takes a random action with the final exploration
    probability of its training. TD3, DDPG and ARS are deterministic.
    """

    def __init__(
        self,
        model: Any,
        family: TaskFamily,
        trial: bool = False,
        vec_normalize: VecNormalize | str | Path | bool | None = None,
    ) -> None:
        super().__init__("cpu")
        check_is_family(family)
        if not hasattr(model, "observation_space") or not hasattr(model, "policy"):
            raise TypeError(f"model must be a model, such as PPO.load returns, got {short(model)}.")
        self.model, self.family, self.trial = model, family, truth("trial", trial)
        expected = (flat_space(family) if trial else family.observation_space).shape
        if model.observation_space.shape != expected or not _same_actions(model.action_space, family.action_space):
            as_trials = not trial and model.observation_space.shape == flat_space(family).shape
            advice = ": it was trained on whole trials, so give trial=True" if as_trials else ""
            raise ValueError(
                f"The model was trained on observations of shape {model.observation_space.shape} and actions "
                f"{short(model.action_space)}, which are not those of {type(family).__name__}"
                f"{' as trials' if trial else ''}{advice}."
            )
        check_played(model)
        self.statistics = statistics_of(model, vec_normalize, family, trial)
        self.size = model.policy.lstm_actor.hidden_size if is_recurrent(model) else 0

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        layers = self.model.policy.lstm_actor.num_layers if self.size else 0
        return tuple(torch.zeros(layers, num_tasks, self.size) for _ in range(2))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        policy, space = self.model.policy, self.family.action_space
        policy.set_training_mode(False)
        with torch.no_grad():
            x = flatten(step, space) if self.trial else step.obs
            if self.statistics is not None:
                x = torch.as_tensor(self.statistics.normalize_obs(x.numpy()))
            if self.size:
                starts = torch.zeros_like(step.prev_done) if self.trial else step.prev_done
                distribution, memory = recurrent_distribution(policy, x, memory, starts)
            else:
                distribution = acting(self.model, x)
            action = distribution.mode() if greedy else distribution.sample(key)
            log_prob = distribution.log_prob(action)
        return Acted(in_the_space(policy, action, space), log_prob, torch.zeros_like(log_prob)), memory


def _same_actions(model: spaces.Space, family: spaces.Space) -> bool:
    """Return True if two action spaces are equal, ignoring the `start` of (Multi)Discrete ones (SB3 counts from 0)."""
    if isinstance(model, spaces.Discrete) and isinstance(family, spaces.Discrete):
        return bool(model.n == family.n)
    if isinstance(model, spaces.MultiDiscrete) and isinstance(family, spaces.MultiDiscrete):
        return np.array_equal(model.nvec, family.nvec)
    return bool(model == family)


def scratch(family: TaskFamily, seed: int = 0) -> SB3Agent:
    """Make PPO from scratch on each task: ten updates, each from 20 episodes (100 if an episode is a single step)."""
    each = 100 if family.horizon == 1 else 20
    return SB3Agent(PPOConfig(num_steps=64, test_steps=10, fast_batch_size=each, fast_lr=1e-3), family, seed)
