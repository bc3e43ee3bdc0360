"""ES: a recurrent policy as in RL², trained with evolution strategies (Salimans et al. 2017).

The policy keeps its memory through all episodes of a trial, like that of RL² (Duan et al. 2016), and its fitness is the
return of the trial. Training needs no gradients, neither through time nor of a critic. Each task of the meta-batch has
`population` rows, and row p plays with the p-th perturbed policy. Evaluations have one row per task, which plays with
the mean parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.es.config import ESConfig
from metarl.agents.es.network import ESNetwork
from metarl.agents.es.population import Population
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import tree_map


class ESMemory(NamedTuple):
    """The agent's memory; E is the number of rows per task, and 1 before the first step."""

    state: Tensor  # (N, E, H) the GRU's state
    last_obs: Tensor  # (N, E, O), or (N, E, 0) without `transition_input`


class ES(LearningAgent, config=ESConfig):
    """The agent; see the module's docstring. Its memory is the state of a GRU."""

    config: ESConfig

    def __init__(self, config: ESConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.config, self.family, self.device = config, family, torch.device(device)
        self.protocol = TrialProtocol(
            envs_per_task=config.population, test_envs_per_task=1, noises=1 if config.common_noise else None
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ESNetwork(config, family).to(self.device)
        self.population = Population(self.net, config, rng.fold(rng.key(seed, self.device), 1))

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        state = self.net.memory.initial(num_tasks, self.device)
        return ESMemory(state[:, None], self.net.encoder.initial(num_tasks)[:, None])

    def act(self, memory: ESMemory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            policy, memory = self._policies(memory, step)
            units = self.net.policy.head.actions
            action = units.to_family(policy.mode() if greedy else policy.sample(key))
            log_prob = policy.log_prob(units.to_own(action))
            return Acted(action, log_prob, torch.zeros_like(log_prob)), memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the recurrent state has already adapted

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        """Take one optimiser step, from the trial returns of all perturbed policies."""
        (rollout,) = trial
        reward, encoder = rollout.outcome.reward * rollout.mask, self.net.encoder
        encoder.follow_rewards(rollout.outcome.reward, rollout.mask)
        if self.config.norm_obs:
            encoder.follow(rollout.step.obs, rollout.mask, 1.0 / (self.population.updates + 1))
        return self.population.step(reward.sum(0).unflatten(0, (-1, self.config.population)), progress)

    def _policies(self, memory: ESMemory, step: Step) -> tuple[Distribution, ESMemory]:
        """Return the policies of all rows, and the memory after the step.

        If a task has as many rows as the population has policies, each row has its own policy; otherwise all rows have
        the mean policy.
        """
        tasks, rows = len(memory.state), len(step.prev_reward)
        each = rows // tasks
        state, last_obs = (part.expand(tasks, each, -1) for part in memory)
        x, last_obs = self.net.encoder.raw(step, last_obs.flatten(0, 1))
        x = x.unflatten(0, (tasks, each))
        if each == self.config.population:
            x, state = (part.transpose(0, 1) for part in (x, state))  # (P, N, …)
            policy, state = self.net.policies(self.population.perturbed_params, x, state)
            policy, state = tree_map(lambda part: part.transpose(0, 1), (policy, state))
        else:
            policy, state = self.net(x.flatten(0, 1), state.flatten(0, 1))
            policy, state = tree_map(lambda part: part.unflatten(0, (tasks, each)), (policy, state))
        flat: Distribution = tree_map(lambda part: part.flatten(0, 1), policy)
        return flat, ESMemory(state, last_obs.unflatten(0, (tasks, each)))

    @torch.no_grad()
    def memory_features(self, memory: ESMemory, step: Step) -> Mapping[str, Tensor]:
        return {"state": self._policies(memory, step)[1].state.flatten(0, 1)}

    @torch.no_grad()
    def action_distribution(self, memory: ESMemory, step: Step) -> Distribution:
        return self._policies(memory, step)[0]

    def state_dict(self) -> dict[str, Tensor]:
        net = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        return {**net, **self.population.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.population.load_state_dict(state)
