"""MAML's outer step with TRPO (Schulman et al. 2015; Finn et al. 2017, section 5.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agents.maml.adaptation import Adaptation, Meta, Params
from metarl.agents.maml.config import MAMLConfig, TRPOStep
from metarl.agents.maml.rounds import Samples, first_trajectories
from metarl.core.distributions import Distribution
from metarl.core.family import Key
from metarl.core.tree import chunks, detach, join_columns, take
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.losses import surrogate
from metarl.learning.trust_region import fisher_products, full_step, line_search, unflatten

FISHER_STATES = 10_000
"""Steps, over all tasks, from which Fisher products are estimated if `fisher_share` is not given."""


class Proposal(NamedTuple):
    """A full outer step, before the line search shortens it."""

    step: Tensor  # (P,)
    loss: Tensor  # () the surrogate loss before the step
    entropy: Tensor  # () the entropy of the adapted policies
    grad_norm: Tensor  # ()
    before: list[Distribution]  # the constrained policies before the step, for each chunk of tasks


class TRPO:
    """The outer step with TRPO: a natural-gradient step on the surrogate after adaptation, within a KL bound.

    The bound holds for the adapted policies; with ``trust: all`` also for the policies before each gradient step.
    """

    def __init__(self, adaptation: Adaptation, meta: Meta, config: MAMLConfig, device: torch.device) -> None:
        assert isinstance(config.outer, TRPOStep)
        self.adaptation, self.meta, self.config, self.device = adaptation, meta, config, device
        self.options = config.outer
        self.constrained = slice(None) if self.options.trust == "all" else adaptation.outer
        self.propose = Captured(self._propose, device, reduces=True)
        self.loss_and_kl = Captured(self._loss_and_kl, device, reduces=True)
        self.captured = {"Outer steps": self.propose, "Line searches": self.loss_and_kl}

    def step(self, rounds: list[Samples], progress: float, key: Key) -> dict[str, float]:
        """Update the meta-parameters by one step, of the length that the line search accepts."""
        options = self.options
        proposal: Proposal = self.propose(rounds)
        loss, entropy, grad_norm = torch.stack(proposal[1:4]).tolist()

        def evaluate(theta: Tensor) -> tuple[float, float]:
            new_loss, kl = self.loss_and_kl(rounds, proposal.before, theta).tolist()
            return new_loss, kl

        step = line_search(
            _flat(self.meta).detach(),
            proposal.step,
            evaluate,
            loss,
            max_kl=options.max_kl,
            ls_max_steps=options.ls_max_steps,
            ls_backtrack_ratio=options.ls_backtrack_ratio,
        )
        with torch.no_grad():
            for parameter, value in zip(self.meta, unflatten(step.theta, self.meta), strict=True):
                parameter.copy_(value)
        return {
            "loss/surrogate_before": loss,
            "loss/surrogate_after": step.loss,
            "loss/kl_before": 0.0,
            "loss/kl_after": step.kl,
            "loss/line_search_accepted": float(step.accepted),
            "loss/line_search_backtracks": float(step.backtracks),
            "loss/entropy": entropy,
            "loss/grad_norm": grad_norm,
        }

    def _propose(self, rounds: list[Samples]) -> Proposal:
        """Compute the full step: down the natural gradient, up to the KL bound of the quadratic model."""
        options, zero = self.options, torch.zeros((), device=self.device)
        gradient, loss, entropy = zero, zero, zero
        before: list[Distribution] = []
        parts: list[tuple[list[Samples], float, list[Params]]] = []
        for chunk, share in self._chunks(rounds):
            policies, params = self.adaptation.adapt(self.meta, chunk, differentiable=True)
            chunk_loss = self.loss(policies, chunk)
            gradient = gradient + share * _flat(torch.autograd.grad(chunk_loss, self.meta))
            loss = loss + share * chunk_loss.detach()
            last, samples = detach(policies[-1]), chunk[-1]
            entropy = entropy + share * (last.entropy() * samples.weight).sum(-1).mean()
            before.append(join_columns(detach(policies[self.constrained])))
            parts.append((chunk, share, detach(params)))
        tasks, product = len(rounds[0].x), self.fisher(parts)
        gradient, loss, entropy = (ranks.mean(each, tasks) for each in (gradient, loss, entropy))
        step = full_step(
            gradient,
            lambda v: ranks.mean(product(v), tasks),
            max_kl=options.max_kl,
            cg_iters=options.cg_iters,
            cg_damping=options.cg_damping,
        )
        return Proposal(step, loss, entropy, gradient.norm(), before)

    def loss(self, policies: list[Distribution], rounds: list[Samples]) -> Tensor:
        """Return the surrogate loss of the outer rounds, plus E-MAML's term for the rounds before gradient steps."""
        outer = zip(policies[self.adaptation.outer], rounds[self.adaptation.outer], strict=True)
        losses = [surrogate(policy.log_prob(s.action), s.log_prob, s.advantage, s.weight) for policy, s in outer]
        loss = torch.stack(losses).mean()
        if self.config.exploration:
            for policy, s in zip(policies[:-1], rounds[:-1], strict=True):
                term = surrogate(policy.log_prob(s.action), s.log_prob, s.credit, s.weight)
                loss = loss + self.config.exploration * term
        return loss

    def _loss_and_kl(self, rounds: list[Samples], before: list[Distribution], theta: Tensor) -> Tensor:
        """Return the surrogate loss and the mean KL divergence, ``(2,)``, at the meta-parameters `theta` ``(P,)``."""
        meta, found = unflatten(theta, self.meta), torch.zeros(2, device=self.device)
        for (chunk, share), old in zip(self._chunks(rounds), before, strict=True):
            policies, _ = self.adaptation.adapt(meta, chunk)
            new: Any = join_columns(policies[self.constrained])
            kl = (old.kl(new) * self._weight(chunk)).sum(-1).mean()
            found = found + share * torch.stack([self.loss(policies, chunk), kl]).detach()
        return ranks.mean(found, len(rounds[0].x))

    def fisher(self, parts: list[tuple[list[Samples], float, list[Params]]]) -> Callable[[Tensor], Tensor]:
        """Return the function v ↦ F v, where F is the Fisher matrix of the constrained policies, through adaptation.

        A part consists of the rounds of some tasks, their fraction of all tasks, and their parameters after each
        gradient step. The graph of a single part is kept for all products. The graphs of several parts are rebuilt for
        each product, one at a time, to save memory. With `fisher_share` below 1, only some of each task's trajectories
        are used, at the same adapted parameters.
        """
        few = self._fisher_trajectories([rounds for rounds, _, _ in parts])

        def part_products(rounds: list[Samples], share: float, params: list[Params]) -> Callable[[Tensor], Tensor]:
            chosen = [first_trajectories(samples, few, self.config.fast_batch_size) for samples in rounds]
            policies, _ = self.adaptation.adapt(self.meta, chosen, differentiable=True, values=params)
            weight = self._weight(chosen)
            return fisher_products(join_columns(policies[self.constrained]), self.meta, weight * (share / len(weight)))

        if len(parts) == 1:
            return part_products(*parts[0])
        return lambda v: torch.stack([part_products(*part)(v) for part in parts]).sum(0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return an empty state: the outer step has none beyond the meta-parameters."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""

    def _fisher_trajectories(self, chunks: list[list[Samples]]) -> int:
        """Return how many trajectories per task Fisher products are estimated from."""
        share, trajectories = self.options.fisher_share, self.config.fast_batch_size
        if share is None:
            # The Fisher matrix is a mean over states and sets only the direction; the line search checks the step's
            # length on all states. More states cost time and hardly change the direction.
            steps = sum(rounds[-1].x.shape[0] * rounds[-1].x.shape[1] for rounds in chunks)
            steps = ranks.shard(steps).every
            share = min(1.0, FISHER_STATES / steps)
        return math.ceil(share * trajectories)

    def _weight(self, rounds: list[Samples]) -> Tensor:
        """Return the weights of the constrained policies' steps, with the same total weight for every round."""
        constrained = rounds[self.constrained]
        return join_columns([samples.weight for samples in constrained]) / len(constrained)

    def _chunks(self, rounds: list[Samples]) -> list[tuple[list[Samples], float]]:
        """Return the rounds in chunks of `task_chunk` tasks, each with its fraction of all tasks."""
        tasks = len(rounds[0].x)
        return [(take(rounds, part), share) for part, share in chunks(tasks, self.config.task_chunk or tasks)]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
