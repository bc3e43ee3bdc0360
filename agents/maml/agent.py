"""MAML: initial parameters from which a few gradient steps adapt a policy to a task (Finn et al. 2017).

A trial consists of several rounds of trajectories. Between two rounds, each task's copy of the parameters takes a
gradient step on its policy's return (the inner loop). The outer step improves the return of the last round: it
differentiates that return with respect to the initial parameters, through the gradient steps. The variants of MAML are
different values of one configuration:

===========  =============================================================================  =======================
variant      fields                                                                         source
===========  =============================================================================  =======================
MAML         the defaults: ``inner_loss: vpg, outer: trpo``                                 Finn et al. 2017
FOMAML       ``first_order: true``                                                          Finn et al. 2017, §5.2
E-MAML       ``exploration: 1.0``                                                           Stadie et al. 2018
DiCE-MAML    ``inner_loss: dice``                                                           Foerster et al. 2018
ProMP        ``inner_loss: likelihood_ratio, outer: {name: ppo, inner_kl_coef: 5e-4}``      Rothfuss et al. 2019
ANIL         ``adapted: head``                                                              Raghu et al. 2020
Meta-SGD     ``rates: per_parameter``                                                       Li et al. 2017
Reptile      ``outer: reptile``                                                             Nichol et al. 2018
supervised   ``inner_loss: supervised, outer: supervised``                                  Finn et al. 2017, §5.1
===========  =============================================================================  =======================

The supervised variant needs a family that knows the correct actions (`TaskFamily.target`). The points of a round are
then the examples of one gradient step, and the loss after the step is computed on the new points of the next round.

All tasks form one batch: parameters are ``(N, …)`` and samples ``(N, M, …)``, with M = trajectories × steps. Batched
matrix products compute the policies of all tasks; a test compares them with `torch.func.vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.maml.acting import ActingMAML
from metarl.agents.maml.adaptation import INNER_OBJECTIVES, Adaptation, Meta, likelihood_ratio, rows_of
from metarl.agents.maml.config import MAMLConfig, PPOStep, SupervisedStep, TRPOStep
from metarl.agents.maml.network import MAMLNetwork
from metarl.agents.maml.ppo import PPO
from metarl.agents.maml.reptile import Reptile
from metarl.agents.maml.rounds import Samples, by_task, credited, episode_time, make_samples
from metarl.agents.maml.supervised import Supervised
from metarl.agents.maml.trpo import TRPO
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily, has_target
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol, no_target
from metarl.core.tree import detach
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.estimators import (
    discounted_returns,
    explained_variance,
    linear_baseline,
    mean_square,
    running_size,
)


class MAMLMemory(NamedTuple):
    """The agent's memory between two rounds of a trial."""

    params: tuple[Tensor, ...]  # (N, …) each task's own copy of the policy's parameters
    steps: Tensor  # () int64: gradient steps taken


class MAML(LearningAgent, config=MAMLConfig):
    """The agent; see the module's docstring. Its memory is every task's copy of the policy's parameters."""

    config: MAMLConfig

    def __init__(
        self, config: MAMLConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        if config.supervised and not has_target(family):
            raise ValueError(no_target(family))
        self.config, self.family, self.device = config, family, torch.device(device)
        self.supervised = config.supervised
        self.protocol = TrialProtocol(
            rounds=config.inner_steps + 1,
            episodes=1,
            envs_per_task=config.fast_batch_size,
            test_rounds=config.test_steps + 1,
            test_envs_per_task=config.test_fast_batch_size,
            targets=config.supervised,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = MAMLNetwork(config, family).to(self.device)
        self.adaptation = Adaptation(
            policy=self.net.policy,
            names=tuple(name for name, _ in self.net.policy.named_parameters()),
            inner_params=self.net.inner_params,
            inner_objective=INNER_OBJECTIVES.get(config.inner_loss),
            fast_lr=config.fast_lr,
            rates=config.rates,
            inner_steps=config.inner_steps,
            later_rate=config.later_rate,
            first_order=config.first_order,
            outer=slice(1, None) if config.meta_rounds == "all" else slice(-1, None),
            likelihoods=not config.supervised,
        )
        self.meta: Meta = (*self.net.policy.parameters(), *self.net.rates)
        self.outer = self._outer_step()
        self.critic_optimizer: ClippedAdam | None = None
        if self.net.critic is not None:
            named = self.net.critic.named_parameters(prefix="critic")
            self.critic_optimizer = ClippedAdam(named, config.critic_lr)
        self.reward_size, self.reward_batches = (torch.zeros((), device=self.device) for _ in range(2))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.updates = 0

    def _outer_step(self) -> TRPO | PPO | Reptile | Supervised:
        config = self.config
        if isinstance(config.outer, (PPOStep, SupervisedStep)):
            named = (pair for pair in self.net.named_parameters() if not pair[0].startswith("critic."))
            by_adam = PPO if isinstance(config.outer, PPOStep) else Supervised
            return by_adam(self.adaptation, self.meta, config, self.device, named)
        return (TRPO if isinstance(config.outer, TRPOStep) else Reptile)(
            self.adaptation, self.meta, config, self.device
        )

    @property
    def title(self) -> str:
        return self.config.title

    @property
    def values(self) -> Callable[[Rollout], Tensor] | None:
        return None if self.net.critic is None else self._values

    @property
    def captured(self) -> dict[str, Captured]:
        return self.outer.captured

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return MAMLMemory(self.adaptation.initial(detach(self.meta), num_tasks), torch.tensor(0))

    def act(self, memory: MAMLMemory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            policies = self._policies(memory, step)
            own = policies.mode() if greedy else policies.sample(key.reshape(len(memory.params[0]), -1))
            units = self.net.policy.head.actions
            action = units.to_family(own)
            log_prob = policies.log_prob(units.to_own(action)).flatten()
            return Acted(action.flatten(0, 1), log_prob, torch.zeros_like(log_prob)), memory

    def _policies(self, memory: MAMLMemory, step: Step) -> Distribution:
        """Return the policies ``(N, M)`` of N tasks with M rows each."""
        x = self.net.scaling.scaled(step.obs, 1).unflatten(0, (len(memory.params[0]), -1))
        return self.adaptation.policies(memory.params, x)

    def action_distribution(self, memory: MAMLMemory, step: Step) -> Distribution:
        with torch.no_grad():
            return rows_of(self._policies(memory, step))

    def adapt(self, memory: MAMLMemory, rollout: Rollout) -> Memory:
        """Take one gradient step on each task, with the samples of the round."""
        return self._stepped(memory, rollout, self.adaptation)

    def adapt_from_others(self, memory: MAMLMemory, rollout: Rollout) -> Memory:
        """Take one gradient step on each task, with the samples of a round that another policy played.

        ``rollout.acted.log_prob`` is the log-probability under that other policy. The step ascends the likelihood
        ratio times the advantage: a policy gradient that importance-samples the actions (Tang & Abbeel 2010), in the
        states that the other policy reached. For a round that the agent itself played, this equals `adapt`. A
        supervised step needs no likelihood.
        """
        by_ratio = self.adaptation._replace(inner_objective=likelihood_ratio)
        supervised = self.adaptation.inner_objective is None
        return self._stepped(memory, rollout, self.adaptation if supervised else by_ratio)

    def _stepped(self, memory: MAMLMemory, rollout: Rollout, adaptation: Adaptation) -> MAMLMemory:
        samples = self.samples(rollout, len(memory.params[0]))
        sizes = adaptation.step_sizes(detach(self.meta), int(memory.steps))
        params, _ = adaptation.inner_step(memory.params, sizes, samples)
        return MAMLMemory(params, memory.steps + 1)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        tasks = trial[0].mask.shape[1] // self.config.fast_batch_size
        with record_function("metarl/advantage"):
            rounds = [self.samples(rollout, tasks) for rollout in trial]
            if self.config.exploration:
                rounds = credited(rounds, self.adaptation.outer)
        metrics = self.outer.step(rounds, progress, rng.fold(self.key, self.updates))
        metrics |= self._fit(trial)
        self.updates += 1
        if self.net.rates:
            metrics["loss/fast_lr"] = float(torch.cat([rate.detach().flatten() for rate in self.net.rates]).mean())
        if self.net.policy.head.log_std is not None:
            metrics["loss/log_std"] = float(self.net.policy.head.log_std.detach().mean())
        return metrics

    @torch.no_grad()
    def samples(self, rollout: Rollout, tasks: int) -> Samples:
        """Turn a round of `tasks` tasks into samples for gradient steps."""
        config, x = self.config, self.net.scaling.scaled(rollout.step.obs, 2)
        if self.supervised and not isinstance(rollout.target, Tensor):
            raise ValueError("A supervised loss needs target actions, and this rollout has none.")
        acted = rollout.acted._replace(action=self.net.policy.head.actions.to_own(rollout.acted.action))
        samples = make_samples(
            rollout._replace(acted=acted),
            x,
            tasks,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            norm_adv=config.norm_adv,
            baseline=linear_baseline if self.net.critic is None else self._learned_baseline,
        )
        if self.supervised:
            samples = samples._replace(target=by_task(self.net.policy.head.actions.to_own(rollout.target), tasks))
        return samples if config.norm_adv else self._in_reward_sizes(samples, rollout)

    def _in_reward_sizes(self, samples: Samples, rollout: Rollout) -> Samples:
        """Divide advantages by the running size of rewards; before the first update, by their size in this round."""
        own = mean_square(by_task(rollout.outcome.reward * rollout.mask, len(samples.x))).sqrt()[:, None]  # (N, 1)
        size = torch.where(self.reward_size > 0.0, self.reward_size, own)
        advantage, scale = (torch.where(size > 0.0, x / size, 0.0) for x in (samples.advantage, samples.return_scale))
        return samples._replace(advantage=advantage, return_scale=scale)

    def _learned_baseline(self, x: Tensor, time: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
        assert self.net.critic is not None
        value: Tensor = self.net.critic(x, time)
        return value

    @torch.no_grad()
    def _values(self, rollout: Rollout) -> Tensor:
        """Return the learned baseline's values ``(T, B)`` before each step."""
        assert self.net.critic is not None
        value: Tensor = self.net.critic(self.net.scaling.scaled(rollout.step.obs, 2), episode_time(rollout))
        return value

    def _fit(self, trial: list[Rollout]) -> dict[str, float]:
        """Fit the learned baseline and update the running scales, after the outer step and for the next iteration."""
        metrics = {}
        weight = max(0.02, 1.0 / (self.updates + 1))
        rewards = torch.cat([(rollout.outcome.reward * rollout.mask).flatten() for rollout in trial])
        size, batches = running_size(self.reward_size, self.reward_batches, rewards)
        self.reward_size.copy_(size)  # in place, since the gradient steps of a recorded rollout read it
        self.reward_batches.copy_(batches)
        if self.net.critic is not None:
            metrics = self._fit_critic(trial, weight)
        if self.config.norm_obs:
            for rollout in trial[:1]:  # only states of the initial policies, where every adaptation starts
                self.net.scaling.follow(rollout.step.obs, rollout.mask, weight)
        return metrics

    def _fit_critic(self, trial: list[Rollout], weight: float) -> dict[str, float]:
        assert self.net.critic is not None and self.critic_optimizer is not None
        batches = []
        for rollout in trial:
            ends = (rollout.outcome.terminated | rollout.outcome.truncated).to(rollout.mask.dtype)
            returns = discounted_returns(rollout.outcome.reward * rollout.mask, ends, self.config.gamma)
            batches.append((self.net.scaling.scaled(rollout.step.obs, 2), episode_time(rollout), returns, rollout.mask))
        x, time, returns, mask = (torch.cat(parts) for parts in zip(*batches, strict=True))
        with torch.no_grad():
            explained = explained_variance(self.net.critic(x, time), returns, mask)
            self.net.critic.follow(returns, mask, weight)
        for _ in range(self.config.critic_epochs):
            self.critic_optimizer.zero_grad()
            loss = self.net.critic.loss(x, time, returns, mask)
            loss.backward()
            value_loss = ranks.sum_gradients(self.critic_optimizer.parameters, loss.detach())
            self.critic_optimizer.step()
        return {"loss/explained_variance": float(explained), "loss/value": float(value_loss)}

    def acting_module(self, memory: MAMLMemory) -> ActingMAML:
        return ActingMAML(self.net, memory.params)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **self.outer.state_dict(),
            **(self.critic_optimizer.state_dict() if self.critic_optimizer is not None else {}),
            "reward_size": self.reward_size,
            "reward_batches": self.reward_batches,
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.outer.load_state_dict(state)
        if self.critic_optimizer is not None:
            self.critic_optimizer.load_state_dict(state)
        # Older states have no running size of rewards. Give them size 1, and infinitely many batches so that it stays.
        self.reward_size.copy_(state.get("reward_size", torch.tensor(1.0)))
        self.reward_batches.copy_(state.get("reward_batches", torch.tensor(math.inf)))
        self.updates = int(state["updates"])
