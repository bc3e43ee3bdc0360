"""The adaptation: each task's parameters, some gradient steps after those that all tasks start from.

Nothing is stored here. An `Adaptation` says how a step is made; parameters and the samples of each round go in, adapted
parameters and policies come out, as functions of the parameters at the start if the outer step asks for that.

What a gradient step ascends is an inner objective: one of three with one gradient, the policy gradient, and three
Hessians. Each is a function (log-probabilities of the actions under a policy, samples) → ``(N, M)``, whose sum over a
task's steps, weighted by their advantages, is ascended. The step itself needs the gradient only, and that is the same
for all: Σ ∇log π · A. The meta-gradient goes through the step and needs its derivative, where they differ:

==================  ================================================================  ==========================
objective           its Hessian, as an expectation                                    source
==================  ================================================================  ==========================
`vpg`               not that of the return: blind to the step's own sampling          Williams 1992; Finn et al.
                                                                                      2017, section 4.2
`likelihood_ratio`  that of the return but for what an action owes to those before    Rothfuss et al. 2019
                    it in its episode: with one decision an episode exact             (ProMP), section 5
`dice`              that of the return; of more variance the longer the episode       Foerster et al. 2018
==================  ================================================================  ==========================

``python -m benchmarks.surrogate_hessians`` measures it. At the policy that acted, all ratios are 1. Elsewhere, in the
line search and in later epochs of PPO, they weigh the samples by how likely they still are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.maml.rounds import Samples
from metarl.core.distributions import Distribution
from metarl.core.tree import detach
from metarl.fast.twins import twin
from metarl.learning.nets import MLPPolicy

Params = tuple[Tensor, ...]
"""A policy's parameters, each ``(N, …)``: one copy for each of N tasks."""
Meta = tuple[Tensor, ...]
"""What is meta-learned: the policy's initial parameters, each ``(…)``, then the learned step sizes if there are any."""
StepSizes = list[Tensor | float]
"""The step size of each of the adapted parameters."""
Metrics = dict[str, Tensor]
Loss = Callable[[list[Distribution]], tuple[Tensor, Metrics]]
"""The policies of each round → (loss, metrics)."""


def vpg(log_prob: Tensor, samples: Samples) -> Tensor:
    """Return log π: the score function's objective (Williams 1992), as Finn et al. 2017 differentiate it."""
    return log_prob


def likelihood_ratio(log_prob: Tensor, samples: Samples) -> Tensor:
    """Return π / π_old of each step (Rothfuss et al. 2019, section 5, the low-variance curvature estimator)."""
    return torch.exp(log_prob - samples.log_prob)


def dice(log_prob: Tensor, samples: Samples) -> Tensor:
    """Return ☐(steps up to this one) - ☐(steps before it), ☐ being the ratio of a sequence (Foerster et al. 2018).

    Summed with returns as advantages it is DiCE's Σ_t ☐(a_1 … a_t) r_t but for a constant; the difference is what lets
    a baseline in (Mao et al. 2019; Farquhar et al. 2019, Loaded DiCE). DiCE's ☐ divides by the value that the ratio has
    at the parameters themselves; here it divides by that of the policy that acted, which is the same where it acted.
    """
    log_ratio = (log_prob - samples.log_prob) * (samples.weight > 0)
    return torch.exp(_sum_before(log_ratio, samples.time)) * torch.expm1(log_ratio)


def _sum_before(x: Tensor, time: Tensor) -> Tensor:
    """The sum over the earlier steps of the same episode; `x` and `time` are ``(N, M)``."""
    before = x.cumsum(1) - x
    start = torch.arange(x.shape[1], device=x.device) - time
    return before - before.gather(1, start)


INNER_OBJECTIVES: dict[str, Callable[[Tensor, Samples], Tensor]] = {
    "vpg": vpg,
    "likelihood_ratio": likelihood_ratio,
    "dice": dice,
}


class Adapted(NamedTuple):
    """Where an adaptation led."""

    policies: list[Distribution]  # of each round on its own states: the initial ones first, the adapted ones last
    params: list[Params]  # after each gradient step


class Adaptation(NamedTuple):
    """How a policy is adapted to the samples of each round in turn."""

    policy: MLPPolicy  # a form without parameters of its own: every task's are put in their place
    names: tuple[str, ...]  # of the policy's parameters, in the order of `Meta` and `Params`
    adapted_params: tuple[int, ...]  # which of them the gradient steps change
    inner_objective: Callable[[Tensor, Samples], Tensor]
    fast_lr: float
    rates: str = "fixed"  # where step sizes come from: `MAMLConfig.rates`
    inner_steps: int = 1  # gradient steps in training
    later_rate: float = 0.5  # factor on the size of those beyond them
    first_order: bool = False
    outer: slice = slice(-1, None)  # the rounds whose return the outer step improves

    def initial(self, meta: Meta, tasks: int) -> Params:
        """A copy of the initial parameters for each task."""
        return tuple(p.expand(tasks, *p.shape) for p in meta[: len(self.names)])

    def policies(self, params: Sequence[Tensor], x: Tensor) -> Distribution:
        """Each task's policy on its own states: parameters ``(N, …)``, features ``(N, M, F)``."""
        return self.policy.of_tasks(dict(zip(self.names, params, strict=True)), x)

    def step_sizes(self, meta: Meta, number: int) -> StepSizes:
        """The size of gradient step `number` for each of the adapted parameters."""
        rates = meta[len(self.names) :]
        factor = 1.0 if number < self.inner_steps else self.later_rate
        if self.rates == "fixed":
            return [factor * self.fast_lr] * len(self.adapted_params)
        if self.rates == "per_parameter":
            return [factor * rate for rate in rates]
        return [factor * rates[0][min(number, len(rates[0]) - 1)]] * len(self.adapted_params)

    def inner_losses(self, policies: Distribution, samples: Samples) -> Tensor:
        """The loss ``(N,)`` that a gradient step descends, task by task."""
        objective = self.inner_objective(policies.log_prob(samples.action), samples)
        return -(objective * samples.advantage * samples.weight).sum(-1)

    def inner_step(
        self, params: Sequence[Tensor], sizes: StepSizes, samples: Samples, differentiable: bool = False
    ) -> tuple[Params, Distribution]:
        """Take one gradient step on every task; return the new parameters, and the policies before the step.

        With `differentiable` both are functions of `params` and `sizes` in autograd's graph. Tasks share nothing, so
        the gradient of the sum of their losses holds each one's own.
        """
        with torch.enable_grad():
            if not differentiable:
                params = [p.detach().requires_grad_() for p in params]
            before = self.policies(params, samples.x)
            loss = self.inner_losses(before, samples).sum()
            # FOMAML and evaluations take the gradient as a constant; the graph may still be wanted for `before`.
            gradients = torch.autograd.grad(
                loss,
                [params[n] for n in self.adapted_params],
                create_graph=differentiable and not self.first_order,
                retain_graph=differentiable,
            )
            after = list(params)
            for index, size, gradient in zip(self.adapted_params, sizes, gradients, strict=True):
                after[index] = params[index] - size * gradient
        return (tuple(after), before) if differentiable else (detach(tuple(after)), detach(before))

    def adapt(
        self, meta: Meta, rounds: list[Samples], differentiable: bool = False, values: list[Params] | None = None
    ) -> Adapted:
        """Adapt to all rounds but the last, each with the parameters that the steps before it led to.

        `values`, parameters after each gradient step of another adaptation, replaces the values of this one's but not
        their derivatives: those of a few trajectories can then stand for those of many.
        """
        params = self.initial(meta if differentiable else detach(meta), len(rounds[0].x))
        policies, steps = [], []
        for number, samples in enumerate(rounds[:-1]):
            params, before = self.inner_step(params, self.step_sizes(meta, number), samples, differentiable)
            if values is not None:
                params = tuple(p + (value - p).detach() for p, value in zip(params, values[number], strict=True))
            policies.append(before)
            steps.append(params)
        return Adapted([*policies, self.policies(params, rounds[-1].x)], steps)

    def meta_gradient(self, meta: Meta, rounds: list[Samples], loss: Loss) -> tuple[list[Tensor], Metrics]:
        """The gradient by `meta` of a loss of all rounds' policies, through the gradient steps; and its metrics."""
        params = detach(self.initial(meta, len(rounds[0].x)))
        sizes = [self.step_sizes(meta, number) for number in range(len(rounds) - 1)]
        by_params, by_sizes, metrics = gradient_through_steps(params, sizes, rounds, self, loss)
        gradients = [gradient.sum(0) for gradient in by_params]
        if rates := meta[len(self.names) :]:
            outputs = [torch.as_tensor(size) for step in sizes for size in step]
            gradients += torch.autograd.grad(outputs, rates, [by_size for step in by_sizes for by_size in step])
        return gradients, metrics


@twin("gradient_through_steps")
def gradient_through_steps(
    params: Params, sizes: list[StepSizes], rounds: list[Samples], adaptation: Adaptation, loss: Loss
) -> tuple[list[Tensor], list[list[Tensor | None]], Metrics]:
    """Differentiate a loss of all rounds' policies by the parameters before the first step and by the step sizes.

    Returns the gradients ``(N, …)`` by the parameters of each task, those by the sizes (None for a size that is a plain
    number), and the loss's metrics.
    """
    start = tuple(p.detach().requires_grad_() for p in params)
    leaves = [[size.detach().requires_grad_() if isinstance(size, Tensor) else size for size in step] for step in sizes]
    current, policies = start, []
    for step, samples in zip(leaves, rounds, strict=False):
        current, before = adaptation.inner_step(current, step, samples, differentiable=True)
        policies.append(before)
    total, metrics = loss([*policies, adaptation.policies(current, rounds[-1].x)])
    wanted = [*start, *(size for step in leaves for size in step if isinstance(size, Tensor))]
    found = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    by_sizes = iter(found[len(start) :])
    return list(found[: len(start)]), [[next(by_sizes, None) for _ in step] for step in leaves], metrics
