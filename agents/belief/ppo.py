"""PPO on a belief about the task: the common part of `BeliefPPO` (exact belief) and `VariBAD` (learned belief).

The agent's memory is the belief and the time in the trial. Its policy is an MLP on the observation, the belief's
features and the fraction of the trial that is over. Like RL²'s policy, it is trained with PPO (Schulman et al. 2017) on
the return of the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.belief.config import PPOOnBeliefConfig
from metarl.agents.belief.network import BeliefNetwork
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import columns, features, take
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.estimators import explained_variance, follow, gae, meta_batch_mean, normalise, share_of_trial
from metarl.learning.losses import PPO_METRICS, ppo_loss


class BeliefMemory(NamedTuple):
    """The agent's memory: the belief and the time in the trial."""

    belief: Any  # a state of the agent's `belief`
    episode: Tensor  # (B,) int64: number of finished episodes
    since: Tensor  # (B,) int64: steps since the start of the episode


class Batch(NamedTuple):
    """The steps of a trial as the update uses them; every tensor is ``(T, B, …)``."""

    inputs: Tensor  # (T, B, F)
    action: Tensor  # (T, B) or (T, B, A) in the network's own units
    log_prob: Tensor  # (T, B) under the policy that acted
    advantage: Tensor  # (T, B)
    target: Tensor  # (T, B) the critic's target, standardised like its output
    mask: Tensor  # (T, B) 0 for padding


class Inference(Protocol):
    """Step-by-step inference about the task of a trial; `metarl.core.beliefs.belief.Belief` is exact."""

    size: int

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Any:
        """Return the initial belief of `rows` trials."""

    def posterior(self, belief: Any, step: Step) -> Any:
        """Return the belief after a step."""

    def features(self, belief: Any) -> Tensor:
        """Return the policy's input, float32 ``(B, size)``."""


class PPOOnBelief(LearningAgent):
    """The agent; see the module's docstring. Subclasses make belief and networks, then call `_setup_training`."""

    protocol = TrialProtocol()
    config: PPOOnBeliefConfig
    family: TaskFamily
    belief: Inference
    net: BeliefNetwork

    def _setup_training(self, seed: int) -> None:
        """Set up training; needs `config`, `family`, `device` and `net`."""
        self.actions = self.net.policy.head.actions
        self.optimizer = ClippedAdam(self.net.ppo_parameters(), at(self.config.lr, 0.0))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.minibatch = Captured(self._descend, self.device, reduces=True)
        self.metrics = [*PPO_METRICS, "grad_norm"]
        self.updates = 0
        # The critic predicts (return - mean) / std. With std = 0, before the first update, every value is 0.
        self.return_mean = torch.zeros((), device=self.device)
        self.return_std = torch.zeros((), device=self.device)

    @property
    def values(self) -> Callable[[Rollout], Tensor]:
        return self._values

    @property
    def captured(self) -> dict[str, Captured]:
        return {"Minibatches": self.minibatch}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return BeliefMemory(self.belief.prior(num_tasks, self.device), zeros, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            inputs, memory = self._see(memory, step)
            policy = self.net.policy(inputs)
            action = self.actions.to_family(policy.mode() if greedy else policy.sample(key))
            log_prob = policy.log_prob(self.actions.to_own(action))  # of the rounded action, as in `update`
            # `update` computes the values, because the critic may need the task.
            return Acted(action, log_prob, torch.zeros_like(log_prob)), memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the belief has already adapted

    def _see(self, memory: BeliefMemory, step: Step) -> tuple[Tensor, BeliefMemory]:
        """Process a step: return the networks' inputs ``(B, F)`` and the memory after the step."""
        episode, since = after_step(memory, step)
        share = self._share(episode, since)
        belief = self.belief.posterior(memory.belief, step)
        inputs = self.net.inputs(step.obs, self.belief.features(belief), share)
        return inputs, BeliefMemory(belief, episode, since + 1)

    def _share(self, episode: Tensor, since: Tensor) -> Tensor:
        """Return the fraction of the trial that is over, from finished episodes and steps of the current one."""
        return share_of_trial(episode, since, self.family.horizon, self.family.episodes_per_trial)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        (rollout,) = trial
        config = self.config
        lr, gamma, ent_coef = (at(schedule, progress) for schedule in (config.lr, config.gamma, config.ent_coef))
        task = features(rollout.task)
        with record_function("metarl/advantage"):
            batch, metrics = self._prepare(rollout, task, gamma)
        self.optimizer.set_lr(lr)
        entropy_weight = torch.tensor(ent_coef, device=self.device)
        keys = rng.fold(rng.fold(self.key, self.updates), torch.arange(config.update_epochs, device=self.device))
        sums, epochs, shard = torch.zeros(len(self.metrics), device=self.device), 0, ranks.shard(len(task))
        for order in rng.permutation(keys, shard.every):
            before = sums
            for minibatch in order.tensor_split(config.num_minibatches):
                rows = shard.own(minibatch, len(task))
                sums = sums + self.minibatch(columns(batch, rows), task[rows], entropy_weight)
            epochs += 1
            approx_kl = (sums - before)[self.metrics.index("approx_kl")] / config.num_minibatches
            if config.target_kl is not None and float(approx_kl) > 1.5 * config.target_kl:
                break
        self.updates += 1
        means = (sums / (epochs * config.num_minibatches)).tolist()
        losses = dict(zip(self.metrics, means, strict=True)) | {name: float(value) for name, value in metrics.items()}
        losses |= {"lr": lr, "gamma": gamma, "epochs": float(epochs)}
        return {f"loss/{name}": value for name, value in losses.items()}

    @torch.no_grad()
    def _prepare(self, rollout: Rollout, task: Tensor, gamma: float) -> tuple[Batch, dict[str, Tensor]]:
        """Return the batch for the update, with advantages and targets, and metrics of both.

        The value after a row's last step of the trial is 0. Episode ends inside the trial are not terminals.
        """
        x, mask = self._inputs(rollout), rollout.mask
        value = self.net.value(x, task) * self.return_std + self.return_mean
        following = torch.cat([mask[1:], torch.zeros_like(mask[:1])])
        reward = rollout.outcome.reward * mask
        advantage = gae(reward, value, 1.0 - following, torch.zeros_like(mask[0]), gamma, self.config.gae_lambda) * mask
        target = advantage + value
        metrics = {
            "explained_variance": explained_variance(value, target, mask),
            "advantage_std": meta_batch_mean(advantage**2, mask).sqrt(),
        }
        follow(self.return_mean, self.return_std, target, mask, weight=max(0.05, 1.0 / (self.updates + 1)))
        target = (target - self.return_mean) / torch.where(self.return_std > 0.0, self.return_std, 1.0)
        action = self.actions.to_own(rollout.acted.action)
        return Batch(x, action, rollout.acted.log_prob, normalise(advantage, mask), target, mask), metrics

    def _inputs(self, rollout: Rollout) -> Tensor:
        """Return the networks' inputs at all steps of a trial, ``(T, B, F)``."""
        memory, seen = self.begin(rollout.mask.shape[1]), []
        for t in range(len(rollout.mask)):
            inputs, memory = self._see(memory, take(rollout.step, t))
            seen.append(inputs)
        return torch.stack(seen)

    @torch.no_grad()
    def _values(self, rollout: Rollout) -> Tensor:
        """Return the critic's values ``(T, B)`` before each step."""
        return self.net.value(self._inputs(rollout), features(rollout.task)) * self.return_std + self.return_mean

    def _descend(self, batch: Batch, task: Tensor, ent_coef: Tensor) -> Tensor:
        """Take one step of Adam on a minibatch; `task` ``(B, D)`` holds the tasks as vectors.

        Returns the values of `self.metrics`, in that order.
        """
        config = self.config
        weight = batch.mask / ranks.total(batch.mask.sum())
        self.optimizer.zero_grad()
        policy, value = self.net(batch.inputs, task)
        loss, found = ppo_loss(
            value, policy, batch.action, batch.log_prob, batch.advantage, batch.target, weight,
            clip_coef=config.clip_coef, vf_coef=config.vf_coef, ent_coef=ent_coef,
        )  # fmt: skip
        loss.backward()
        found = ranks.sum_gradients(self.optimizer.parameters, found)
        grad_norm = self.optimizer.step(config.max_grad_norm)
        return torch.cat([found, grad_norm[None]])

    @torch.no_grad()
    def memory_features(self, memory: Memory, step: Step) -> Mapping[str, Tensor]:
        return {"belief": self.belief.features(self.belief.posterior(memory.belief, step))}

    @torch.no_grad()
    def action_distribution(self, memory: Memory, step: Step) -> Distribution:
        return self.net.policy(self._see(memory, step)[0])

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **self.optimizer.state_dict(),
            "return_mean": self.return_mean,
            "return_std": self.return_std,
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.optimizer.load_state_dict(state)
        self.return_mean.copy_(state["return_mean"])
        self.return_std.copy_(state["return_std"])
        self.updates = int(state["updates"])


def after_step(memory: BeliefMemory, step: Step) -> tuple[Tensor, Tensor]:
    """Return the number of finished episodes and the steps since then, both int64 ``(B,)``, at a step."""
    ended = step.prev_done > 0.5
    return memory.episode + ended, torch.where(ended, 0, memory.since)
