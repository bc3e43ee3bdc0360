"""The inner loop of MAML: a few gradient steps from the initial parameters, on each task's own samples.

An `Adaptation` holds no parameters. Its methods take parameters and the samples of each round, and return adapted
parameters and policies. If the outer step asks for it, these are differentiable functions of the initial parameters.

A gradient step ascends one of three inner objectives, which have the same gradient but different Hessians. Each is a
function (log-probabilities of the actions under a policy, samples) → ``(N, M)``, and the step ascends its sum over a
task's steps, weighted by their advantages. The step itself needs only the gradient, which for the policy that acted is
the policy gradient Σ ∇log π · A with all three. The meta-gradient differentiates the step, so it needs the Hessian:

==================  ================================================================  ==========================
objective           expectation of its Hessian                                        source
==================  ================================================================  ==========================
`vpg`               not the Hessian of the return: it ignores that the parameters     Williams 1992; Finn et al.
                    change the distribution of the samples                            2017, section 3.2
`likelihood_ratio`  the Hessian of the return, without the terms between actions of   Rothfuss et al. 2019
                    one episode; exact for episodes of one decision                   (ProMP), section 5
`dice`              the Hessian of the return; its variance grows with the episode    Foerster et al. 2018
==================  ================================================================  ==========================

Where the correct actions are known, the loss `supervised` replaces the objective (Finn et al. 2017, sections 3.1 and
5.1). It is not an estimate, so its gradient and Hessian are exact.

``python -m benchmarks.surrogate_hessians`` measures these Hessians. For the policy that acted, all likelihood ratios
are 1. For any other policy, in the line search and in later epochs of PPO, they are importance weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.maml.rounds import Samples
from metarl.core.distributions import DiagonalGaussian, Distribution
from metarl.core.tree import detach, tree_map
from metarl.fast.twins import twin
from metarl.learning.nets import MLPPolicy

Params = tuple[Tensor, ...]
"""A policy's parameters, each ``(N, …)``: one copy for each of N tasks."""
Meta = tuple[Tensor, ...]
"""The meta-parameters: the policy's initial parameters, each ``(…)``, then the learned step sizes, if any."""
StepSizes = list[Tensor | float]
"""The step sizes of one gradient step: one for each parameter that it changes."""
Metrics = dict[str, Tensor]
Loss = Callable[[list[Distribution]], tuple[Tensor, Metrics]]
"""The outer loss: the policies of all rounds → (loss, metrics)."""


def vpg(log_prob: Tensor, samples: Samples) -> Tensor:
    """Return log π ``(N, M)``: the objective of REINFORCE (Williams 1992), as Finn et al. 2017 differentiate it."""
    return log_prob


def likelihood_ratio(log_prob: Tensor, samples: Samples) -> Tensor:
    """Return π / π_old ``(N, M)``: the low-variance curvature estimator (Rothfuss et al. 2019, section 5)."""
    return torch.exp(log_prob - samples.log_prob)


def dice(log_prob: Tensor, samples: Samples) -> Tensor:
    """Return ☐(a_1 … a_t) - ☐(a_1 … a_t-1) ``(N, M)``, where ☐ is the likelihood ratio of a sequence of actions.

    Weighted by undiscounted returns and summed over the steps, it equals DiCE's Σ_t ☐(a_1 … a_t) r_t up to a constant
    (Foerster et al. 2018). With a discount below 1 the two differ: here, as in every policy gradient of this package,
    returns are discounted from each step on, whereas DiCE discounts rewards from the start of the episode. The
    difference of two ☐ allows a baseline (Mao et al. 2019; Loaded DiCE, Farquhar et al. 2019). DiCE's ☐ divides by the
    likelihood under the current parameters, this one by the likelihood under the policy that acted. For the policy
    that acted both are the same.
    """
    log_ratio = (log_prob - samples.log_prob) * (samples.weight > 0)
    return torch.exp(_sum_before(log_ratio, samples.time)) * torch.expm1(log_ratio)


def _sum_before(x: Tensor, time: Tensor) -> Tensor:
    """Sum over the earlier steps of the same episode; `x` and `time` are ``(N, M)``."""
    before = x.cumsum(1) - x
    start = torch.arange(x.shape[1], device=x.device) - time
    return before - before.gather(1, start)


INNER_OBJECTIVES: dict[str, Callable[[Tensor, Samples], Tensor]] = {
    "vpg": vpg,
    "likelihood_ratio": likelihood_ratio,
    "dice": dice,
}


def supervised(policies: Distribution, samples: Samples) -> Tensor:
    """Return each task's supervised loss ``(N,)``: the mean over its steps, for the correct actions `samples.target`.

    For a categorical policy the loss is the cross-entropy, summed over the components of an action. For a Gaussian
    policy it is the squared error of the mean action, averaged over the action's dimensions, in units of half the
    action range; it does not depend on the standard deviation.
    """
    if isinstance(policies, DiagonalGaussian):
        losses = (policies.mean - samples.target).square().mean(-1)
    else:
        losses = -policies.log_prob(samples.target)
    return (losses * samples.weight).sum(-1)


def rows_of(policies: Distribution) -> Distribution:
    """Flatten the policies ``(N, M)`` of N tasks to ``(N × M,)`` rows, one task after the other."""
    if isinstance(policies, DiagonalGaussian):
        policies = DiagonalGaussian(policies.mean, policies.log_std.expand_as(policies.mean))
    flat: Distribution = tree_map(lambda part: part.flatten(0, 1), policies)
    return flat


class Adapted(NamedTuple):
    """The result of an adaptation."""

    policies: list[Distribution]  # one for each round, on its states: first the initial policies, last the adapted ones
    params: list[Params]  # the parameters after each gradient step


class Adaptation(NamedTuple):
    """The inner loop: one gradient step on each task after each round but the last."""

    policy: MLPPolicy  # the architecture; its own parameters are replaced by those of each task
    names: tuple[str, ...]  # the names of the policy's parameters, in the order of `Meta` and `Params`
    inner_params: tuple[int, ...]  # indices of the parameters that gradient steps change
    inner_objective: Callable[[Tensor, Samples], Tensor] | None  # None: the supervised loss
    fast_lr: float
    rates: str = "fixed"  # where step sizes come from: `MAMLConfig.rates`
    inner_steps: int = 1  # gradient steps in training
    later_rate: float = 0.5  # factor on the size of later steps, in evaluations
    first_order: bool = False
    outer: slice = slice(-1, None)  # the rounds whose return the outer step improves
    likelihoods: bool = True  # False: a loss is supervised, so it does not depend on the standard deviation

    def initial(self, meta: Meta, tasks: int) -> Params:
        """Return the initial parameters repeated for each task, as views."""
        return tuple(p.expand(tasks, *p.shape) for p in meta[: len(self.names)])

    def policies(self, params: Sequence[Tensor], x: Tensor) -> Distribution:
        """Return each task's policy on its own states, for parameters ``(N, …)`` and features ``(N, M, F)``."""
        return self.policy.of_tasks(dict(zip(self.names, params, strict=True)), x)

    def step_sizes(self, meta: Meta, number: int) -> StepSizes:
        """Return the step sizes of gradient step `number`, counted from 0: one for each of `inner_params`."""
        rates = meta[len(self.names) :]
        factor = 1.0 if number < self.inner_steps else self.later_rate
        if self.rates == "fixed":
            return [factor * self.fast_lr] * len(self.inner_params)
        if self.rates == "per_parameter":
            return [factor * rate for rate in rates]
        return [factor * rates[0][min(number, len(rates[0]) - 1)]] * len(self.inner_params)

    def inner_losses(self, policies: Distribution, samples: Samples) -> Tensor:
        """Return each task's inner loss ``(N,)``: minus the objective, or the loss `supervised`."""
        if self.inner_objective is None:
            return supervised(policies, samples)
        objective = self.inner_objective(policies.log_prob(samples.action), samples)
        return -(objective * samples.advantage * samples.weight).sum(-1)

    def inner_step(
        self, params: Sequence[Tensor], sizes: StepSizes, samples: Samples, differentiable: bool = False
    ) -> tuple[Params, Distribution]:
        """Take one gradient step on every task; return the new parameters, and the policies before the step.

        With `differentiable`, both stay connected to `params` and `sizes` in autograd's graph. Tasks share no
        parameters, so the gradient of the sum of all losses contains the gradient of each task's own loss.
        """
        with torch.enable_grad():
            if not differentiable:
                params = [p.detach().requires_grad_() for p in params]
            before = self.policies(params, samples.x)
            loss = self.inner_losses(before, samples).sum()
            # FOMAML and evaluations treat the gradient as a constant; FOMAML still needs the graph of `before`.
            gradients = torch.autograd.grad(
                loss,
                [params[n] for n in self.inner_params],
                create_graph=differentiable and not self.first_order,
                retain_graph=differentiable,
            )
            after = list(params)
            for index, size, gradient in zip(self.inner_params, sizes, gradients, strict=True):
                after[index] = params[index] - size * gradient
        return (tuple(after), before) if differentiable else (detach(tuple(after)), detach(before))

    def adapt(
        self, meta: Meta, rounds: list[Samples], differentiable: bool = False, values: list[Params] | None = None
    ) -> Adapted:
        """Take a gradient step on each round except the last, and return the policies of all rounds.

        `values` are the parameters after each gradient step of another adaptation. They replace the values of this
        adaptation's parameters but not their derivatives, so derivatives can be estimated from fewer trajectories.
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
        """Differentiate `loss` with respect to `meta` through the gradient steps; return the gradient and metrics."""
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
    """Differentiate `loss` with respect to the step sizes and to the parameters before the first gradient step.

    Returns each task's gradients ``(N, …)`` with respect to the parameters, the gradients with respect to the step
    sizes (None for a step size that is a plain number), and the loss's metrics.
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
