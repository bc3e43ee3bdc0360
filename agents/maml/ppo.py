"""MAML's outer step with PPO: Adam on the clipped surrogate after adaptation (Schulman et al. 2017).

With likelihood ratios as the inner objective and a penalty on the KL divergence of the policies before each gradient
step, this is ProMP (Rothfuss et al. 2019, algorithm 1). Other losses reuse `Minibatches`, Adam on minibatches of tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.maml.adaptation import Adaptation, Meta, Metrics
from metarl.agents.maml.config import MAMLConfig, PPOStep, SupervisedStep
from metarl.agents.maml.rounds import Samples
from metarl.core import rng
from metarl.core.agent import at
from metarl.core.distributions import Distribution
from metarl.core.family import Key
from metarl.core.tree import chunks, detach, take
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.fast.runtime import samples_at_once
from metarl.learning import ranks
from metarl.learning.losses import clipped_surrogate


class Minibatches(ABC):
    """An outer step of several epochs of Adam over minibatches of tasks; subclasses define the loss."""

    metrics: ClassVar[tuple[str, ...]]
    """The names of the loss's metrics."""

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
        """Return the loss for the policies of all rounds, and metrics; `before` are the acting policies, if used."""

    def epochs(self, rounds: list[Samples], before: list[Distribution], progress: float, key: Key) -> dict[str, float]:
        """Update the meta-parameters on all minibatches of all epochs, shuffled by `key`; return mean metrics."""
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
        """Take one step of Adam on a minibatch; `before` are the acting policies before each gradient step."""
        for parameter in self.meta:
            parameter.grad = None
        sums = torch.zeros(len(self.metrics), device=self.device)
        tasks, samples = rounds[0].x.shape[:2]
        size = self.config.task_chunk or max(1, self.samples_at_once // samples)
        mine = tasks / ranks.shard(tasks).every  # this rank's fraction of the minibatch
        for part, share in chunks(tasks, size):
            chunk, old = take((rounds, before), part)
            metrics = self.add_gradient(chunk, old, share * mine)
            sums = sums + torch.stack([metrics[name] for name in self.metrics]) * (share * mine)
        sums = ranks.sum_gradients(self.optimizer.parameters, sums)
        found = dict(zip(self.metrics, sums, strict=True))
        return found | {"grad_norm": self.optimizer.step(self.adam.max_grad_norm)}

    def add_gradient(self, rounds: list[Samples], before: list[Distribution], share: float) -> Metrics:
        """Add `share` times the loss's gradient to the gradients of the meta-parameters; return the loss's metrics."""
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


class PPO(Minibatches):
    """The outer step with PPO: several epochs of Adam on the clipped surrogate of the adapted policies."""

    metrics: ClassVar[tuple[str, ...]] = ("policy", "entropy", "approx_kl", "clip_fraction")

    def __init__(
        self,
        adaptation: Adaptation,
        meta: Meta,
        config: MAMLConfig,
        device: torch.device,
        named: Iterable[tuple[str, nn.Parameter]],
    ) -> None:
        super().__init__(adaptation, meta, config, device, named)
        assert isinstance(config.outer, PPOStep)
        self.options = config.outer
        self.inner_kl_coef = torch.full((config.inner_steps,), self.options.inner_kl_coef, device=device)

    def step(self, rounds: list[Samples], progress: float, key: Key) -> dict[str, float]:
        """Update the meta-parameters by several epochs of Adam; `key` shuffles the tasks into minibatches."""
        options = self.options
        before = detach(self.adaptation.adapt(self.meta, rounds).policies[:-1]) if options.inner_kl_coef else []
        means = self.epochs(rounds, before, progress, key)
        if options.inner_kl_coef:
            means |= self._adapt_inner_kl_coef(rounds, before)
        return {f"loss/{name}": value for name, value in means.items()} | {"loss/lr": at(options.lr, progress)}

    def loss(
        self, policies: list[Distribution], rounds: list[Samples], before: list[Distribution]
    ) -> tuple[Tensor, Metrics]:
        """Return the clipped surrogate of the outer rounds, plus E-MAML's term and ProMP's penalty, and metrics."""
        config, outer = self.config, self.adaptation.outer
        pairs = zip(policies[outer], rounds[outer], strict=True)
        terms, found = zip(*(self._clipped(policy, samples, samples.advantage) for policy, samples in pairs))
        loss = torch.stack(terms).mean()
        metrics = {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}
        if config.exploration:
            for policy, samples in zip(policies[:-1], rounds[:-1], strict=True):
                loss = loss + config.exploration * self._clipped(policy, samples, samples.credit)[0]
        if self.options.inner_kl_coef:
            for coef, kl in zip(self.inner_kl_coef, _divergences(before, policies, rounds), strict=True):
                loss = loss + coef * kl
        return loss, metrics

    def _clipped(self, policy: Distribution, samples: Samples, advantage: Tensor) -> tuple[Tensor, Metrics]:
        loss, metrics = clipped_surrogate(
            policy.log_prob(samples.action), samples.log_prob, advantage, samples.weight, self.options.clip_coef
        )
        entropy = (detach(policy).entropy() * samples.weight).sum(-1).mean()
        return loss, metrics | {"policy": loss.detach(), "entropy": entropy}

    def _adapt_inner_kl_coef(self, rounds: list[Samples], before: list[Distribution]) -> dict[str, float]:
        """Double (halve) the weight of each gradient step's penalty if its KL is well above (below) the target."""
        target = self.options.inner_kl_target
        policies = self.adaptation.adapt(self.meta, rounds).policies
        kls = ranks.mean(torch.stack(_divergences(before, policies, rounds)), len(rounds[0].x)).tolist()
        for n, kl in enumerate(kls):
            self.inner_kl_coef[n] *= 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0
        # After about 140 halvings a weight would be 0, and doubling could not bring it back.
        self.inner_kl_coef.clamp_min_(torch.finfo(self.inner_kl_coef.dtype).tiny)
        return {"inner_kl": sum(kls) / len(kls), "inner_kl_coef": float(self.inner_kl_coef.mean())}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the optimiser and the weights of ProMP's penalty."""
        return super().state_dict() | {"kl_coef": self.inner_kl_coef}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        super().load_state_dict(state)
        self.inner_kl_coef.copy_(state["kl_coef"])


def _divergences(before: list[Any], policies: list[Distribution], rounds: list[Samples]) -> list[Tensor]:
    """Return the mean KL(before ‖ now) of the policies before each gradient step, on the states they visited."""
    triples = zip(before, policies, rounds, strict=False)
    return [(old.kl(new) * samples.weight).sum(-1).mean() for old, new, samples in triples]
