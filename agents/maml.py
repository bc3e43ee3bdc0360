"""MAML: a policy whose parameters a few gradient steps turn into another one for each task (Finn et al. 2017).

A trial is rounds of trajectories with a policy-gradient step of each task's own copy of the parameters between them.
Meta-training differentiates the return of the last round with respect to the parameters that all copies started from,
through those steps. Its relatives are values of one configuration:

===========  =============================================================================  =======================
variant      fields                                                                         source
===========  =============================================================================  =======================
MAML         the defaults: ``inner_loss: vpg, outer: trpo, trust: adapted``                 Finn et al. 2017
FOMAML       ``first_order: true``                                                          Finn et al. 2017, §5.2
E-MAML       ``exploration: 1.0``                                                           Stadie et al. 2018
DiCE-MAML    ``inner_loss: dice``                                                           Foerster et al. 2018
ProMP        ``outer: ppo, inner_loss: likelihood_ratio, inner_kl_coef: 5e-4``              Rothfuss et al. 2019
ANIL         ``adapted: head``                                                              Raghu et al. 2020
Meta-SGD     ``rates: per_parameter``                                                       Li et al. 2017
Reptile      ``outer: reptile``                                                             Nichol et al. 2018
===========  =============================================================================  =======================

All tasks are one batch: parameters are ``(N, …)``, samples ``(N, M, …)`` with M = trajectories × steps, and the policy
runs on all of them by batched matrix products, which a test holds equal to `torch.func.vmap`. Tasks share nothing, so
that the gradient of the *sum* of the tasks' losses holds every task's own gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarl import rng
from metarl.agent import ClippedAdam, LearningAgent, at
from metarl.agents.inner_losses import INNER_LOSSES
from metarl.agents.maml_config import MAMLConfig
from metarl.agents.meta_steps import META_STEPS, Adapted, Meta, Path, descend, judge, propose
from metarl.agents.rounds import Round, by_task, credited, detached, episode_time, join, make_round, mean_of_rounds
from metarl.batch_env import Step
from metarl.capture import Captured
from metarl.distributions import Distribution
from metarl.estimators import discounted_returns, explained_variance, linear_baseline, mean_square, running_size
from metarl.family import Key, Task, TaskFamily
from metarl.nets import MLPPolicy, Scaling, ValueNetwork
from metarl.profiling import phase, record_function
from metarl.rollout import Acted, Memory, Rollout, TrialProtocol


class MAMLNetwork(nn.Module):
    """What is meta-learned: the policy's initial parameters, and step sizes if they are learned."""

    def __init__(self, config: MAMLConfig, family: TaskFamily) -> None:
        super().__init__()
        self.scaling = Scaling(family.observation_space, follows=config.norm_obs)
        if config.obs_unit is not None:
            self.scaling.centre.zero_()
            self.scaling.scale.fill_(1.0 / config.obs_unit)
        self.policy = MLPPolicy(
            self.scaling.size,
            family.action_space,
            list(config.hidden_sizes),
            config.activation,
            config.init_std,
            config.min_std,
        )
        named = list(self.policy.named_parameters())
        # Which of the policy's parameters the gradient steps change, by number.
        self.adapted = [n for n, (name, _) in enumerate(named) if config.adapted == "all" or name.startswith("head.")]
        shapes = {
            "fixed": [],
            "scalar": [torch.Size([1])],
            "per_step": [torch.Size([config.inner_steps])],
            "per_parameter": [named[n][1].shape for n in self.adapted],
        }[config.rates]
        self.rates = nn.ParameterList(torch.full(shape, float(config.fast_lr)) for shape in shapes)
        self.critic = ValueNetwork(self.scaling.size) if config.baseline == "network" else None


class MAMLMemory(NamedTuple):
    """What a trial carries from round to round."""

    params: tuple[Tensor, ...]  # (N, …) each task's own copy of the policy's parameters
    steps: Tensor  # () int64: gradient steps taken


class MAML(LearningAgent):
    """The agent; see the module's docstring. Its memory is every task's copy of the policy's parameters."""

    config: MAMLConfig

    def __init__(
        self, config: MAMLConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.family, self.device = config, family, torch.device(device)
        self.protocol = TrialProtocol(
            config.inner_steps + 1, 1, config.fast_batch_size, config.test_steps + 1, config.test_fast_batch_size
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = MAMLNetwork(config, family).to(self.device)
        self.policy_names = [name for name, _ in self.net.policy.named_parameters()]
        self.meta: Meta = (*self.net.policy.parameters(), *self.net.rates)
        self._saved_optimizer: dict[str, Tensor] = {}
        self.reward_size, self.reward_batches = (torch.zeros((), device=self.device) for _ in range(2))
        self.kl_coef = torch.full((config.inner_steps,), config.inner_kl_coef, device=self.device)
        self.minibatch = Captured(partial(descend, self), self.device)
        self.propose, self.judge = (Captured(partial(part, self), self.device) for part in (propose, judge))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.updates = 0

    @property
    def title(self) -> str:
        return self.config.title

    @cached_property
    def optimizer(self) -> ClippedAdam:
        """Of what is meta-learned; made when it is first needed: acting and other meta-steps do without."""
        return self._adam(at(self.config.lr, 0.0), critic=False)

    @cached_property
    def critic_optimizer(self) -> ClippedAdam:
        """Of the learned baseline."""
        return self._adam(self.config.critic_lr, critic=True)

    def _adam(self, lr: float, critic: bool) -> ClippedAdam:
        named = self.net.named_parameters()
        adam = ClippedAdam((pair for pair in named if pair[0].startswith("critic.") == critic), lr)
        adam.load_state_dict(self._saved_optimizer)
        return adam

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return MAMLMemory(self.copies(tuple(p.detach() for p in self.meta), num_tasks), torch.tensor(0))

    def act(self, memory: MAMLMemory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            tasks = memory.params[0].shape[0]
            x = self.net.scaling.scaled(step.obs, 1).unflatten(0, (tasks, -1))  # (N, rows of a task, F)
            distribution = self._distribution(memory.params, x)
            own = distribution.mode() if greedy else distribution.sample(key.reshape(tasks, -1))
            actions = self.net.policy.head.actions
            action = actions.to_family(own)
            log_prob = distribution.log_prob(actions.to_own(action)).flatten()
            return Acted(action.flatten(0, 1), log_prob, torch.zeros_like(log_prob)), memory

    def adapt(self, memory: MAMLMemory, rollout: Rollout) -> Memory:
        """One gradient step on each task, from the round that its parameters played."""
        number = int(memory.steps)
        params, _ = self.inner_step(self.meta, memory.params, self._round(rollout, len(memory.params[0])), number)
        return MAMLMemory(params, memory.steps + 1)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        tasks = trial[0].mask.shape[1] // self.config.fast_batch_size
        with record_function(phase("advantage")):
            data = [self._round(rollout, tasks) for rollout in trial]
            if self.config.exploration:
                data = credited(data, judged=len(self._judged(data)))
        metrics = META_STEPS[self.config.outer](self, data, progress)
        metrics |= self._fit(trial)
        self.updates += 1
        if self.net.rates:
            metrics["loss/fast_lr"] = float(torch.cat([rate.detach().flatten() for rate in self.net.rates]).mean())
        if self.net.policy.head.log_std is not None:
            metrics["loss/log_std"] = float(self.net.policy.head.log_std.detach().mean())
        return metrics

    def copies(self, meta: Meta, tasks: int) -> tuple[Tensor, ...]:
        return tuple(p.expand(tasks, *p.shape) for p in meta[: len(self.policy_names)])

    def _distribution(self, params: Sequence[Tensor], x: Tensor) -> Distribution:
        """Each task's policy on its own rows: parameters ``(N, …)``, features ``(N, M, F)``."""
        return self.net.policy.of_tasks(dict(zip(self.policy_names, params, strict=True)), x)

    def rate(self, meta: Meta, number: int, n: int) -> Tensor | float:
        """Size of gradient step `number` for the n-th of the adapted parameters."""
        config, rates = self.config, meta[len(self.policy_names) :]
        factor = 1.0 if number < config.inner_steps else config.later_rate
        if config.rates == "fixed":
            return factor * config.fast_lr
        return factor * (rates[n] if config.rates == "per_parameter" else rates[0][min(number, len(rates[0]) - 1)])

    def inner_losses(self, before: Distribution, round: Round) -> Tensor:
        """What a gradient step descends, of each task ``(N,)``; `metarl.agents.inner_losses` has the choices."""
        objective = INNER_LOSSES[self.config.inner_loss](before.log_prob(round.action), round)
        return -(objective * round.advantage * round.weight).sum(-1)

    def inner_step(
        self, meta: Meta, params: Sequence[Tensor], round: Round, number: int, differentiable: bool = False
    ) -> tuple[tuple[Tensor, ...], Distribution]:
        """Every task's parameters after gradient step `number`, and the policies before it on their own states.

        With `differentiable` both are functions of `meta` in autograd's graph.
        """
        config = self.config
        with torch.enable_grad():
            if not differentiable:
                params = [p.detach().requires_grad_() for p in params]
            before = self._distribution(params, round.x)
            losses = self.inner_losses(before, round)
            second = differentiable and not config.first_order
            # FOMAML and evaluations take the gradient as a constant; the graph may still be wanted for `before`.
            gradients = torch.autograd.grad(
                losses.sum(),
                [params[n] for n in self.net.adapted],
                create_graph=second,
                retain_graph=differentiable,
            )
            after = list(params)
            for n, (index, gradient) in enumerate(zip(self.net.adapted, gradients, strict=True)):
                after[index] = params[index] - self.rate(meta, number, n) * gradient
        if not differentiable:
            return tuple(p.detach() for p in after), detached(before)
        return tuple(after), before

    def adapted(self, meta: Meta, data: list[Round], differentiable: bool = False, path: Path | None = None) -> Adapted:
        """The adaptation to all rounds but the last; the adapted policies are given on the states of `judged`.

        `path`, the parameters after each step of another adaptation, replaces the values of this one's but not their
        derivatives: those of a few trajectories can then stand for those of many.
        """
        params = self.copies(meta if differentiable else tuple(p.detach() for p in meta), len(data[0].x))
        inner, ends = [], []
        for number, round in enumerate(data[:-1]):
            params, before = self.inner_step(meta, params, round, number, differentiable)
            if path is not None:
                params = tuple(p + (value - p).detach() for p, value in zip(params, path[number], strict=True))
            inner.append(before)
            ends.append(params)
        played = [*inner, self._distribution(params, data[-1].x)]
        return Adapted(self.judged_policies(played), join(self._trusted(played)), inner, ends)

    def judged_policies(self, played: list[Distribution]) -> Distribution:
        """Of every round's policies those whose return the meta-step improves, as one."""
        joined: Distribution = join(self._judged(played))
        return joined

    def judged(self, data: list[Round]) -> Round:
        """The rounds whose return the meta-step improves, as one."""
        return mean_of_rounds(self._judged(data))

    def trusted(self, data: list[Round]) -> Round:
        """The rounds whose policies a trust-region step may change only a little, as one."""
        return mean_of_rounds(self._trusted(data))

    def _judged(self, rounds: list[Any]) -> list[Any]:
        return rounds[1:] if self.config.meta_rounds == "all" else rounds[-1:]

    def _trusted(self, rounds: list[Any]) -> list[Any]:
        return rounds if self.config.trust == "all" else self._judged(rounds)

    def _round(self, rollout: Rollout, tasks: int) -> Round:
        config, x = self.config, self.net.scaling.scaled(rollout.step.obs, 2)
        baseline = linear_baseline if self.net.critic is None else self._learned_baseline
        acted = rollout.acted._replace(action=self.net.policy.head.actions.to_own(rollout.acted.action))
        with torch.no_grad():
            round = make_round(
                rollout._replace(acted=acted),
                x,
                tasks,
                gamma=config.gamma,
                gae_lambda=config.gae_lambda,
                norm_adv=config.norm_adv,
                baseline=baseline,
            )
            return round if config.norm_adv else self._in_reward_sizes(round, rollout)

    def _in_reward_sizes(self, round: Round, rollout: Rollout) -> Round:
        """Advantages in units of the rewards' running size; before the first update, of the task's own in the round."""
        own = mean_square(by_task(rollout.outcome.reward * rollout.mask, len(round.x))).sqrt()[:, None]  # (N, 1)
        size = torch.where(self.reward_size > 0.0, self.reward_size, own)
        advantage, unit = (torch.where(size > 0.0, x / size, 0.0) for x in (round.advantage, round.unit))
        return round._replace(advantage=advantage, unit=unit)

    def _learned_baseline(self, x: Tensor, time: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
        assert self.net.critic is not None
        value: Tensor = self.net.critic(x, time)
        return value

    def _fit(self, trial: list[Rollout]) -> dict[str, float]:
        """After the meta-step, for the next one: the learned baseline and the scaling follow what was seen."""
        metrics = {}
        weight = max(0.02, 1.0 / (self.updates + 1))
        rewards = torch.cat([(rollout.outcome.reward * rollout.mask).flatten() for rollout in trial])
        self.reward_size, self.reward_batches = running_size(self.reward_size, self.reward_batches, rewards)
        if self.net.critic is not None:
            metrics = self._fit_critic(trial, weight)
        if self.config.norm_obs:
            for rollout in trial[:1]:  # the states of the policy before adaptation: what adaptation starts from
                self.net.scaling.follow(rollout.step.obs, rollout.mask, weight)
        return metrics

    def _fit_critic(self, trial: list[Rollout], weight: float) -> dict[str, float]:
        assert self.net.critic is not None
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
            self.critic_optimizer.step()
        return {"loss/explained_variance": float(explained), "loss/value": float(loss.detach())}

    def state_dict(self) -> dict[str, Tensor]:
        made = [adam.state_dict() for name, adam in vars(self).items() if name in ("optimizer", "critic_optimizer")]
        return {
            **{f"net.{name}": value for name, value in self.net.state_dict().items()},
            **{name: value for state in [self._saved_optimizer, *made] for name, value in state.items()},
            "kl_coef": self.kl_coef,
            "reward_size": self.reward_size,
            "reward_batches": self.reward_batches,
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        for name in ("optimizer", "critic_optimizer"):
            vars(self).pop(name, None)
        self._saved_optimizer = {name: value for name, value in state.items() if name.startswith("optimizer.")}
        self.kl_coef.copy_(state["kl_coef"])
        # An agent from before rewards had a size goes on with those of size 1: no number of batches changes infinity.
        self.reward_size = state.get("reward_size", torch.tensor(1.0)).to(self.device)
        self.reward_batches = state.get("reward_batches", torch.tensor(math.inf)).to(self.device)
        self.updates = int(state["updates"])
