"""Adam on a loss of the adapted policies, some tasks at a time: what outer steps by Adam have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.maml.adaptation import Adaptation, Meta, Metrics
from metarl.agents.maml.config import MAMLConfig, PPOStep, SupervisedStep
from metarl.agents.maml.rounds import Samples
from metarl.core import rng
from metarl.core.agent import at
from metarl.core.distributions import Distribution
from metarl.core.family import Key
from metarl.core.tree import chunks, take
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.fast.runtime import samples_at_once
from metarl.learning import ranks


class Minibatches(ABC):
    """An outer step of some epochs of Adam over minibatches of tasks; a subclass says which loss it descends."""

    metrics: ClassVar[tuple[str, ...]]
    """The metrics of the loss."""

    def __init__(
        self,
        adaptation: Adaptation,
        meta: Meta,
        config: MAMLConfig,
        device: torch.device,
        named: Iterable[tuple[str, nn.Parameter]],
    ) -> None:
        assert isinstance(config.outer, (PPOStep, SupervisedStep))
        self.adaptation, self.meta, self.config, self.device = adaptation, meta, config, device
        self.adam = config.outer
        self.optimizer = ClippedAdam(named, at(self.adam.lr, 0.0))
        self.samples_at_once = samples_at_once(device)
        self.minibatch = Captured(self._descend, device, reduces=True)
        self.captured = {"Minibatches": self.minibatch}

    @abstractmethod
    def loss(
        self, policies: list[Distribution], rounds: list[Samples], before: list[Distribution]
    ) -> tuple[Tensor, Metrics]:
        """Return the loss, from the policies of all rounds, and its metrics; `before` are those that acted, if used."""

    def epochs(self, rounds: list[Samples], before: list[Distribution], progress: float, key: Key) -> dict[str, float]:
        """Change the meta-parameters by all minibatches of all epochs, which `key` shuffles; return mean metrics."""
        options, tasks = self.adam, len(rounds[0].x)
        self.optimizer.set_lr(at(options.lr, progress))
        sums: dict[str, Tensor] = {}
        shard = ranks.shard(tasks)
        for epoch in range(options.update_epochs):
            order = rng.permutation(rng.fold(key, epoch), shard.every)
            for minibatch in order.tensor_split(options.num_minibatches):
                whole = options.num_minibatches == 1
                part = (rounds, before) if whole else take((rounds, before), shard.own(minibatch, tasks))
                metrics = self.minibatch(*part)
                sums = {name: value + sums.get(name, 0.0) for name, value in metrics.items()}
        return {name: float(value) / (options.update_epochs * options.num_minibatches) for name, value in sums.items()}

    def _descend(self, rounds: list[Samples], before: list[Distribution]) -> Metrics:
        """Take one step of Adam on some of the tasks; `before` are the acting policies before each gradient step."""
        for parameter in self.meta:
            parameter.grad = None
        sums = torch.zeros(len(self.metrics), device=self.device)
        tasks, samples = rounds[0].x.shape[:2]
        size = self.config.task_chunk or max(1, self.samples_at_once // samples)
        mine = tasks / ranks.shard(tasks).every  # of the minibatch
        for part, share in chunks(tasks, size):
            chunk, old = take((rounds, before), part)
            metrics = self.add_gradient(chunk, old, share * mine)
            sums = sums + torch.stack([metrics[name] for name in self.metrics]) * (share * mine)
        sums = ranks.sum_gradients(self.optimizer.parameters, sums)
        found = dict(zip(self.metrics, sums, strict=True))
        return found | {"grad_norm": self.optimizer.step(self.adam.max_grad_norm)}

    def add_gradient(self, rounds: list[Samples], before: list[Distribution], share: float) -> Metrics:
        """Add `share` times the gradient of the loss to the meta-parameters' gradients; return the loss's metrics."""
        loss = partial(self.loss, rounds=rounds, before=before)
        gradients, metrics = self.adaptation.meta_gradient(self.meta, rounds, loss)
        for parameter, gradient in zip(self.meta, gradients, strict=True):
            gradient.mul_(share)
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimiser's state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        self.optimizer.load_state_dict(state)
