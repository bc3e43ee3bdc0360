"""The networks of recurrent soft actor-critic: actor and critics, with separate memories, and target networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.distributions import Categorical
from metarl.core.family import TaskFamily
from metarl.core.units import ActionUnits, action_size
from metarl.learning.encoder import StepEncoder
from metarl.learning.memories import make_memory, sequences
from metarl.learning.nets import linear
from metarl.learning.soft import BatchedMLP, Choices, Point, SquashedGaussian, all_choices

if TYPE_CHECKING:
    from metarl.agents.recurrent_sac import RecurrentSACConfig

Policy = SquashedGaussian | Point | Categorical


class SACNetwork(nn.Module):
    """All networks. `encoder` only scales its inputs; trained embeddings belong to the actor or the critics."""

    task_centre: Tensor
    task_scale: Tensor

    def __init__(self, config: RecurrentSACConfig, family: TaskFamily, tasks: Tensor) -> None:
        """Make the networks. The training tasks `tasks` ``(N, D)`` standardise the task input by their mean and std."""
        super().__init__()
        std, mean = torch.std_mean(tasks, dim=0, correction=0)
        self.register_buffer("task_centre", mean)
        self.register_buffer("task_scale", torch.where(std > 1e-6 * mean.abs(), 1.0 / std, 0.0))
        self.encoder = StepEncoder(
            family.observation_space,
            family.action_space,
            follows=config.norm_obs,
            reactive=config.memory == "reactive",
            parts=family.observation_parts,
        )
        self.actions = ActionUnits(family.action_space)
        self.actor = Actor(config, self.encoder, action_size(family.action_space), self.actions.continuous)
        told = tasks.shape[1] if config.critic == "task" else 0
        self.critic = Critic(config, self.encoder, action_size(family.action_space), self.actions.continuous, told)
        self.encoder.images = None  # each history has its own image network
        self.critic_target = _target(self.critic)
        self.actor_target = _target(self.actor) if config.algorithm == "td3" else None
        self.log_alpha = nn.Parameter(torch.tensor(config.init_alpha).log())

    def told(self, task: Tensor) -> Tensor:
        """Standardise tasks ``(B, D)`` by the training tasks; a feature that never varies becomes 0."""
        return (task - self.task_centre) * self.task_scale

    def random_action(self, step: Step, key: Tensor, repeat: float) -> tuple[Tensor, Tensor]:
        """Draw a uniform action per key ``(B,)``; return the actions, in own units, and their log-probabilities.

        With `repeat` above 1, an action is repeated for that many steps of an episode on average, and the
        log-probability is that of drawing it.
        """
        size, continuous = self.actor.size, self.actions.continuous
        action = 2.0 * rng.uniform(key, size) - 1.0 if continuous else rng.integers(key, 1, size).squeeze(-1)
        log_prob = torch.full(key.shape, -size * math.log(2.0) if continuous else -math.log(size), device=key.device)
        if repeat > 1.0:
            before = self.actions.to_own(step.prev_action)
            first = (before == 0.0).all(-1) if continuous else before < 0  # no previous action
            stays = (rng.uniform(rng.fold(key, 1), 1).squeeze(-1) > 1.0 / repeat) & ~first & (step.prev_done == 0.0)
            action = torch.where(stays[:, None] if continuous else stays, before, action)
        return action, log_prob

    def taken(self, values: Tensor, action: Tensor) -> Tensor:
        """Return the values ``(N, T, B)`` of the actions taken, from the critics' outputs ``(N, T, B, K)``."""
        if self.actions.continuous:
            return values.squeeze(-1)
        return values.gather(-1, action.expand(len(values), *action.shape)[..., None]).squeeze(-1)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Return the trained parameters with their names, grouped by optimiser."""

        def named(prefix: str) -> list[tuple[str, nn.Parameter]]:
            return [(name, p) for name, p in self.named_parameters() if name.startswith(prefix)]

        prefixes = ("actor.history.", "actor.head.", "critic.history.", "critic.head.", "log_alpha")
        return {prefix.removesuffix("."): named(prefix) for prefix in prefixes}

    def see(self, raw: Tensor, burn_in: Tensor) -> dict[str, Seen]:
        """Return, by the name of the network, what its heads read at every step ``(T, B, F)``.

        `burn_in` ``(S, B, F)`` holds the steps before, through which no gradient flows. All memories are run in one
        pass over time, so that one backward pass gives the gradients of all networks.
        """
        networks: dict[str, Actor | Critic] = {
            "actor": self.actor,
            "critic": self.critic,
            "critic_target": self.critic_target,
        }
        if self.actor_target is not None:
            networks["actor_target"] = self.actor_target
        histories = [network.history for network in networks.values()]
        memories = [history.memory for history in histories]
        states: list[Any] = [None] * len(histories)
        if len(burn_in):
            with torch.no_grad():
                before = sequences(memories, [history.embed(burn_in) for history in histories], states)
            states = [state for _, state in before]
        embedded = [history.embed(raw) for history in histories]
        outputs = [output for output, _ in sequences(memories, embedded, states)]
        return dict(zip(networks, map(Seen, outputs, embedded), strict=True))

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield each target network with its online network."""
        yield self.critic_target, self.critic
        if self.actor_target is not None:
            yield self.actor_target, self.actor


class Seen(NamedTuple):
    """The inputs of a head, computed by its network's history: ``(…, B, F)`` each."""

    output: Tensor  # the memory's output
    embedded: Tensor  # the embedded step


class History(nn.Module):
    """The view of a trial that an actor or critics have: embeddings of the parts of each step, and a memory."""

    def __init__(self, config: RecurrentSACConfig, encoder: StepEncoder) -> None:
        super().__init__()
        self.images = copy.deepcopy(encoder.images)
        seen = encoder.raw_size if self.images is None else self.images.output_size
        inputs, outputs = [seen], [config.obs_embed_size]
        if not encoder.reactive:  # in the order of `StepEncoder`
            inputs = [seen - encoder.num_actions - 2, encoder.num_actions, 2]
            outputs += [config.action_embed_size, config.reward_embed_size]
        layers = list(map(nn.Linear, inputs, outputs))
        self.weights = nn.ParameterList(layer.weight for layer in layers)
        self.biases = nn.ParameterList(layer.bias for layer in layers)
        self.output_size = sum(outputs)
        self.memory = make_memory(config.memory, self.output_size, config.hidden_size)

    def embed(self, raw: Tensor) -> Tensor:
        """Return the embeddings ``(…, E)`` of encoded steps ``(…, F)``."""
        seen = raw if self.images is None else self.images(raw)
        # One matrix product instead of three.
        return F.relu(linear(seen, torch.block_diag(*self.weights), torch.cat(list(self.biases))))

    def step(self, raw: Tensor, state: Any) -> tuple[Seen, Any]:
        """Process one encoded step ``(B, F)``; return the inputs of a head and the new state of the memory."""
        x = self.embed(raw)
        output, state = self.memory.step(x, state)
        return Seen(output, x), state

    def memory_features(self, raw: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the memory after one encoded step ``(B, F)`` as vectors."""
        return self.memory.vectors(self.embed(raw), state)


class Actor(nn.Module):
    """A policy on the history. Its head reads the memory's output and, again, the embedded step."""

    def __init__(self, config: RecurrentSACConfig, encoder: StepEncoder, actions: int, continuous: bool) -> None:
        super().__init__()
        self.size = actions
        self.deterministic, self.continuous = config.algorithm == "td3", continuous
        self.history = History(config, encoder)
        inputs = config.hidden_size, self.history.output_size
        outputs = 2 * actions if continuous and not self.deterministic else actions
        self.head = BatchedMLP(1, inputs, config.head_sizes, outputs)

    def policy(self, seen: Seen) -> Policy:
        """Return the policies for the outputs of the history."""
        outputs = self.head.finish(self.head.begin(*seen)).squeeze(0)
        if self.deterministic:
            return Point(torch.tanh(outputs))
        return SquashedGaussian.from_outputs(outputs) if self.continuous else Categorical.from_logits(outputs)


class Critic(nn.Module):
    """N critics, whose heads share the memory of one history.

    The heads read the memory's output, the embedded step and, with ``critic: task``, the task. For Box actions they
    also read the action; for Discrete actions they return the values of all actions.
    """

    def __init__(
        self, config: RecurrentSACConfig, encoder: StepEncoder, actions: int, continuous: bool, told: int
    ) -> None:
        super().__init__()
        self.history, self.told = History(config, encoder), told > 0
        inputs = [config.hidden_size, self.history.output_size, *([told] if told else [])]
        self.head = BatchedMLP(
            config.num_critics,
            [*inputs, *([actions] if continuous else [])],
            config.head_sizes,
            1 if continuous else actions,
        )

    def first_layer(self, seen: Seen, task: Tensor) -> Tensor:
        """Return what `values` needs for each step ``(T, B, …)``; `task` ``(B, D)`` is the standardised task."""
        task = task.expand(len(seen.output), *task.shape)
        return self.head.begin(*seen, *([task] if self.told else []))

    def values(self, first_layer: Tensor, action: Tensor | None, frozen: bool = False) -> Tensor:
        """Return the values ``(N, T, B, K)``: of the Box `action` ``(T, B, A)`` (K = 1), or (None) of all K actions.

        With `frozen` no gradient reaches the parameters.
        """
        return self.head.finish(first_layer, action, frozen)


class Memory(NamedTuple):
    """The agent's memory between two steps: the state of the actor's history. Acting does not need the critics."""

    state: Any


def choices(policy: Policy, keys: Tensor) -> Choices:
    """Return the choices over which a loss takes the expectation."""
    if isinstance(policy, SquashedGaussian):
        return policy.choices(keys)
    return policy.choices() if isinstance(policy, Point) else all_choices(policy)


def play(policy: Policy, key: Tensor, greedy: bool, noise: float) -> tuple[Tensor, Tensor]:
    """Return actions, in own units, and their log-probabilities; a deterministic policy adds noise of std `noise`."""
    if isinstance(policy, Point):
        return policy.draw(key, 0.0 if greedy else noise)
    if isinstance(policy, SquashedGaussian):
        return (policy.mode(), policy.log_prob_before(policy.mean)) if greedy else policy.draw(key)
    action = policy.mode() if greedy else policy.sample(key)
    return action, policy.log_prob(action)


def _target(network: nn.Module) -> Any:
    return copy.deepcopy(network).requires_grad_(False)
