"""The generator of PAIRED: a policy whose action is a task (Dennis et al. 2020, section 5).

From a noise vector z it generates the fields of a task one after the other. Each field has a network that sees z and
the previous fields:

    π(task | z) = Π_f π_f(field f | z, fields before f).

The generator is trained by policy gradients, with the regret on a task as the reward for generating it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core import rng
from metarl.core.checks import pattern_task
from metarl.core.distributions import Distribution
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.tree import named_leaves, tree_map
from metarl.fast.adam import ClippedAdam
from metarl.learning.estimators import normalise_rows
from metarl.learning.losses import clipped_surrogate
from metarl.learning.nets import MLPPolicy

SAMPLE = 512
"""Number of tasks of the split whose frequencies initialise the generator."""

SMALL = 0.01
"""Factor on the initial weights of the last layers, so that the initial frequencies hardly depend on z."""

MIN_STD = 0.02
"""Smallest standard deviation of a number, in units of half its range."""


class Written(NamedTuple):
    """N tasks in the generator's own units."""

    noise: Tensor  # (N, Z) the noise z
    actions: tuple[Tensor, ...]  # one for each field: int64 (N,) or (N, A), or float32 (N, A)
    log_prob: Tensor  # (N,) log π(task | z)


class FieldPolicy(nn.Module):
    """The policy of one field: its distribution given features ``(N, F)``, initially that of the field in `sample`.

    Numbers of a Box are normal and clipped to its bounds.
    """

    def __init__(self, inputs: int, space: gymnasium.Space[Any], hidden_size: int, sample: Tensor) -> None:
        super().__init__()
        self.dtype, self.shape, flat = sample.dtype, space.shape or (), _flat(space)
        self.policy = MLPPolicy(inputs, flat, [hidden_size, hidden_size], min_std=MIN_STD)
        self.box = flat if isinstance(flat, spaces.Box) else None
        discrete = (int(flat.n),) if isinstance(flat, spaces.Discrete) else self.policy.head.actions.sizes
        self.sizes = discrete or ()  # number of choices of each component; empty for a Box
        rows = sample if isinstance(flat, spaces.Discrete) else sample.reshape(len(sample), -1)
        self._begin_as(self.policy.head.actions.to_own(rows.to(torch.int64 if self.sizes else torch.float32)))

    @torch.no_grad()
    def _begin_as(self, own: Tensor) -> None:
        """Initialise the last layer so that the distribution matches these actions ``(M,)`` or ``(M, A)``."""
        head, own = self.policy.head, own.reshape(len(own), -1)
        head.linear.weight.mul_(SMALL)
        if head.log_std is not None:
            head.linear.bias.copy_(own.mean(0))
            head.log_std.copy_(own.std(0).clamp_min(MIN_STD).log())
            return
        counts = [F.one_hot(number, size).sum(0) for number, size in zip(own.T, self.sizes, strict=True)]
        head.linear.bias.copy_((torch.cat(counts) + 1.0).log())  # add one, so that nothing is impossible

    def forward(self, x: Tensor) -> Distribution:
        chosen: Distribution = self.policy(x)
        return chosen

    def code(self, action: Tensor) -> Tensor:
        """Encode actions as features ``(N, A)`` between about -1 and 1, for the next fields."""
        if not self.sizes:
            return action
        last = torch.tensor(self.sizes, device=action.device) - 1
        return 2.0 * action.reshape(len(action), -1) / last.clamp_min(1) - 1.0

    def field(self, action: Tensor) -> Tensor:
        """Convert actions to the field ``(N, …)`` of tasks."""
        values = self.policy.head.actions.to_family(action)
        if self.box is not None:
            low, high = (torch.as_tensor(bound, device=values.device) for bound in (self.box.low, self.box.high))
            values = values.clamp(low, high)
        return values.reshape(len(values), *self.shape).to(self.dtype)


class TaskPolicy(nn.Module):
    """The policy over whole tasks; see the module's docstring. `sample` has the fields ``(M, …)`` of training tasks."""

    def __init__(
        self, space: Mapping[str, gymnasium.Space[Any]], noise: int, hidden_size: int, sample: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.noise, inputs, self.parts = noise, noise, list[FieldPolicy]()
        for name, values in sample.items():
            self.parts.append(FieldPolicy(inputs, space[name], hidden_size, values))
            inputs += math.prod(values.shape[1:])
        self.fields = nn.ModuleList(self.parts)

    @torch.no_grad()
    def write(self, keys: Key) -> Written:
        """Generate a task for each key ``(N,)``."""
        noise = rng.normal(rng.fold(keys, 0), self.noise)
        x, actions, log_prob = noise, list[Tensor](), torch.zeros(len(keys), device=keys.device)
        for number, field in enumerate(self.parts, start=1):
            chosen = field(x)
            actions.append(chosen.sample(rng.fold(keys, number)))
            log_prob = log_prob + chosen.log_prob(actions[-1])
            x = torch.cat([x, field.code(actions[-1])], dim=1)
        return Written(noise, tuple(actions), log_prob)

    def evaluate(self, written: Written) -> tuple[Tensor, Tensor]:
        """Return log π(task | z) of generated tasks, and the sum of their fields' entropies, each ``(N,)``."""
        x, log_prob, entropy = written.noise, torch.zeros_like(written.log_prob), torch.zeros_like(written.log_prob)
        for field, action in zip(self.parts, written.actions, strict=True):
            chosen = field(x)
            log_prob, entropy = log_prob + chosen.log_prob(action), entropy + chosen.entropy()
            x = torch.cat([x, field.code(action)], dim=1)
        return log_prob, entropy


class Generator:
    """A `TaskPolicy` for a family's tasks with an optimiser: PPO on episodes with a single action, the task."""

    def __init__(
        self, family: AnyFamily, split: str, seed: int, device: torch.device, *, noise: int, hidden_size: int, lr: float
    ) -> None:
        self.family = family
        # The key does not depend on the seed, so that all runs start with the same frequencies.
        sample = named_leaves(family.sample_tasks(rng.key(0), SAMPLE, split))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = TaskPolicy(family.task_space, noise, hidden_size, sample).to(device)
        self.optimizer = ClippedAdam(self.net.named_parameters(), lr)

    def write(self, key: Key, n: int) -> Written:
        """Generate `n` tasks; `key` is a scalar."""
        return self.net.write(rng.fold(key, torch.arange(n, device=key.device)))

    def tasks(self, written: Written) -> Task:
        """Convert generated tasks to tasks of the family."""
        fields = iter([field.field(action) for field, action in zip(self.net.parts, written.actions, strict=True)])
        return self.family.reconcile(tree_map(lambda leaf: next(fields), pattern_task(self.family)))

    def update(
        self, written: Written, reward: Tensor, *, epochs: int, clip_coef: float, ent_coef: float, max_grad_norm: float
    ) -> dict[str, float]:
        """Take `epochs` steps on tasks with these rewards ``(N,)``; return the metrics of the last step.

        With several ranks, each takes the same steps on the same tasks.
        """
        advantage = normalise_rows(reward[None], torch.ones_like(reward)[None])[0]  # the baseline is the batch's mean
        found: dict[str, Tensor] = {}
        for _ in range(epochs):
            loss, found = generator_loss(self.net, written, advantage, clip_coef=clip_coef, ent_coef=ent_coef)
            self.net.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            found["grad_norm"] = self.optimizer.step(max_grad_norm)
        return {name: float(value) for name, value in found.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parameters and the optimiser's state."""
        return {f"net.{name}": value for name, value in self.net.state_dict().items()} | self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises RuntimeError if it does not match this generator."""
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.optimizer.load_state_dict(state)


def generator_loss(
    net: TaskPolicy, written: Written, advantage: Tensor, *, clip_coef: float, ent_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return PPO's clipped loss on generated tasks minus ent_coef · entropy, a scalar, and metrics.

    `advantage` is ``(N,)``. For the policy that generated the tasks, the gradient is that of REINFORCE (Williams 1992):
    minus the mean of advantage · ∇ log π(task | z).
    """
    log_prob, entropy = net.evaluate(written)
    every = torch.ones_like(advantage)
    surrogate, metrics = clipped_surrogate(log_prob, written.log_prob, advantage, every, clip_coef)
    return surrogate - ent_coef * entropy.mean(), metrics | {"entropy": entropy.mean().detach()}


def check_space(family: AnyFamily, title: str) -> None:
    """Raise ValueError unless the family declares a space for each field of a task."""
    name, space = type(family).__name__, family.task_space
    for field, pattern in named_leaves(pattern_task(family)).items():
        if field not in space:
            raise ValueError(
                f"{title} makes tasks, and {name} does not declare the space of their field {field!r}: implement "
                "task_space, or choose another task sampler, such as plr."
            )
        kind = space[field]
        bounded = isinstance(kind, spaces.Box) and kind.is_bounded()
        if not bounded and not isinstance(kind, spaces.Discrete | spaces.MultiDiscrete):
            raise ValueError(
                f"{title} makes tasks whose fields lie in Discrete, MultiDiscrete or bounded Box spaces, but "
                f"{name}.task_space has {kind} for {field!r}."
            )
        if kind.shape != pattern.shape[1:]:
            raise ValueError(
                f"{name}.task_space must have spaces of the shapes of a task's fields, got {kind.shape} for {field!r}, "
                f"whose shape is {tuple(pattern.shape[1:])}."
            )


def _flat(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Flatten a space to one dimension; a Discrete space is returned unchanged."""
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.reshape(-1), start=space.start.reshape(-1))
    if isinstance(space, spaces.Box):
        low, high = (bound.reshape(-1).astype("float32") for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=low.dtype.type)
    return space
