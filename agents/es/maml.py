"""ES-MAML: initial parameters from which policies adapt, learned without second derivatives (Song et al. 2020).

The fitness of initial parameters θ is the return after adaptation, F(U(θ)), where U takes some steps on the task's own
trajectories. MAML differentiates U; ES-MAML treats F(U(θ ± σ ε)) as a black box (section 3.1 of the paper, algorithm
2). Here U is MAML's inner loop: policy-gradient steps, which need only first derivatives. It runs on the samples of
each pair of a task and a perturbed policy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarl.agents.es.config import ESMAMLConfig
from metarl.agents.es.population import Population
from metarl.agents.maml.adaptation import Adaptation, vpg
from metarl.agents.maml.rounds import make_samples
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import tree_map
from metarl.learning.encoder import Scaling
from metarl.learning.images import check_no_images
from metarl.learning.nets import MLPPolicy


class ESMAMLMemory(NamedTuple):
    """The agent's memory between two rounds. In training, N is tasks × population after the first inner step."""

    params: tuple[Tensor, ...]  # (N, …) adapted parameters; those of the mean policy, (tasks, …), before the first step
    steps: Tensor  # () int64: inner steps taken


class ESMAMLNetwork(nn.Module):
    """The policy with the mean initial parameters, on scaled observations."""

    def __init__(self, config: ESMAMLConfig, family: TaskFamily) -> None:
        super().__init__()
        check_no_images(family, "ESMAML")
        self.scaling = Scaling(family.observation_space)
        sizes, stds = list(config.hidden_sizes), (config.init_std, config.min_std)
        self.policy = MLPPolicy(self.scaling.size, family.action_space, sizes, config.activation, *stds)


class ESMAML(LearningAgent, config=ESMAMLConfig):
    """The agent; see the module's docstring. In training, the rows of a task are (policy, trajectory)."""

    config: ESMAMLConfig
    step_name = "policy-gradient step"

    def __init__(
        self, config: ESMAMLConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.family, self.device = config, family, torch.device(device)
        self.protocol = TrialProtocol(
            rounds=config.inner_steps + 1,
            episodes=1,
            envs_per_task=config.population * config.fast_batch_size,
            test_rounds=config.test_steps + 1,
            test_envs_per_task=config.test_fast_batch_size or config.fast_batch_size,
            noises=config.fast_batch_size if config.common_noise else None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ESMAMLNetwork(config, family).to(self.device)
        names = tuple(name for name, _ in self.net.policy.named_parameters())
        self.adaptation = Adaptation(
            self.net.policy,
            names,
            tuple(range(len(names))),
            vpg,
            config.fast_lr,
            inner_steps=config.inner_steps,
            later_rate=config.later_rate,
        )
        self.population = Population(self.net.policy, config, rng.fold(rng.key(seed, self.device), 1))

    @property
    def title(self) -> str:
        return "ES-MAML"

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        mean = tuple(p.detach() for p in self.net.policy.parameters())
        return ESMAMLMemory(self.adaptation.initial(mean, num_tasks), torch.tensor(0))

    def act(self, memory: ESMAMLMemory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            policy = self._policies(memory, self.net.scaling.scaled(step.obs, 1))
            units = self.net.policy.head.actions
            action = units.to_family(policy.mode() if greedy else policy.sample(key))
            log_prob = policy.log_prob(units.to_own(action))
            return Acted(action, log_prob, torch.zeros_like(log_prob)), memory

    def adapt(self, memory: ESMAMLMemory, rollout: Rollout) -> Memory:
        """Take one policy-gradient step on each task, or on each pair of a task and a perturbed policy."""
        params = memory.params
        if self._of_population(memory, rollout.mask.shape[1]):
            tasks, each = len(params[0]), self.population.perturbed_params
            params = tuple(each[n].expand(tasks, *each[n].shape).flatten(0, 1) for n in self.adaptation.names)
        rows = rollout._replace(
            acted=rollout.acted._replace(action=self.net.policy.head.actions.to_own(rollout.acted.action))
        )
        x, config = self.net.scaling.scaled(rollout.step.obs, 2), self.config
        samples = make_samples(rows, x, len(params[0]), gamma=config.gamma, gae_lambda=config.gae_lambda)
        sizes = self.adaptation.step_sizes((), int(memory.steps))
        params, _ = self.adaptation.inner_step(params, sizes, samples)
        return ESMAMLMemory(params, memory.steps + 1)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        """Take one optimiser step, from the last round's returns of all perturbed policies."""
        last, config = trial[-1], self.config
        returns = (last.outcome.reward * last.mask).sum(0)
        by_policy = returns.unflatten(0, (-1, config.population, config.fast_batch_size)).mean(-1)  # (N, P)
        return self.population.step(by_policy, progress)

    def _of_population(self, memory: ESMAMLMemory, rows: int) -> bool:
        """Return True if a round with that many rows is one of the population before adaptation."""
        return rows // len(memory.params[0]) == self.config.population * self.config.fast_batch_size

    def _policies(self, memory: ESMAMLMemory, x: Tensor) -> Distribution:
        """Return the policies of all rows for features ``(B, F)``."""
        tasks, names = len(memory.params[0]), self.adaptation.names
        if not self._of_population(memory, len(x)):
            policies = self.adaptation.policies(memory.params, x.unflatten(0, (tasks, -1)))
            flat: Distribution = tree_map(lambda part: part.flatten(0, 1), policies)
            return flat
        each = self.population.perturbed_params
        x = (
            x.unflatten(0, (tasks, self.config.population, -1)).transpose(0, 1).flatten(1, 2)
        )  # (P, rows of a policy, F)
        found = self.adaptation.policies([each[name] for name in names], x)
        rows: Distribution = tree_map(lambda part: part.unflatten(1, (tasks, -1)).transpose(0, 1).flatten(0, 2), found)
        return rows

    def state_dict(self) -> dict[str, Tensor]:
        net = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        return {**net, **self.population.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.population.load_state_dict(state)
