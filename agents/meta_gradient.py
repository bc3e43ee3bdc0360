"""The gradient of a loss after adaptation, written by hand for perceptrons of tanh units.

With θ' = θ - α ∇ℓ(θ) the gradient of J(θ') by θ is v - H(α v), where v = ∇J(θ') and H is the Hessian of ℓ at θ: one
Hessian product per gradient step, by the tangents of the forward and of the backward pass (Pearlmutter 1994). Autograd
comes to the same products, but makes and keeps a new tensor for every operation. Here it sees the policy's outputs
alone. Tensors of samples are ``(N, F, M)``: N tasks, F features, M samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from metarl.agents.rounds import Round
from metarl.distributions import Distribution

if TYPE_CHECKING:
    from metarl.agents.maml import MAML

Layers = list[tuple[Tensor, Tensor]]
"""Weights ``(N, G, F)`` and biases ``(N, G)`` of each layer, or what corresponds to them in a gradient or a tangent."""
Loss = Callable[[list[Distribution]], tuple[Tensor, dict[str, Tensor]]]
"""Of the policies that each round's samples are judged by: loss and metrics."""


class Played(NamedTuple):
    """The policies of one round, and how they were left by a gradient step."""

    layers: Layers
    log_std: Tensor | None  # (N, A), a leaf of autograd
    units: list[Tensor]  # what each layer is given, and last the output, a leaf of autograd
    distribution: Distribution


class Step(NamedTuple):
    """A gradient step of every task's policy."""

    by_output: tuple[Tensor, ...]  # gradient of the step's loss by output and log_std, in autograd's graph
    deltas: list[Tensor]  # gradient by each layer's sums
    errors: list[Tensor]  # gradient by each layer's input
    layers: Layers  # gradient by the parameters
    rates: list[Tensor | float]  # step sizes by the policy's parameters


def possible(agent: MAML) -> bool:
    """Whether the agent's policies are perceptrons that this module knows; on a GPU nothing is gained."""
    return agent.config.activation == "tanh" and agent.device.type == "cpu"


def meta_gradient(agent: MAML, data: list[Round], loss: Loss) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The gradient of `loss` by ``agent.meta`` through the adaptation to all rounds but the last, and its metrics."""
    with torch.no_grad():
        params = agent.copies(agent.meta, len(data[0].x))
        played, steps = [_play(agent, params, data[0])], []
        for number, round in enumerate(data[:-1]):
            step, params = _inner_step(agent, params, played[-1], round, number)
            steps.append(step)
            played.append(_play(agent, params, data[number + 1]))
        with torch.enable_grad():
            total, metrics = loss([one.distribution for one in played])
        inner, last = played[:-1], played[-1]
        leaves = [leaf for one in inner for leaf in _leaves(one)]
        by_last = torch.autograd.grad(total, _leaves(last), retain_graph=True)
        found = iter(torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True) if leaves else ())
        v = _named(agent, _backward(last.layers, last.units, [by_last[0]], []), by_last[1:])
        by_rate = [torch.zeros_like(rate) for rate in agent.net.rates]
        adjoints = [[next(found) for _ in _leaves(one)] for one in inner]
        for number in reversed(range(len(steps))):
            v = _through(agent, v, played[number], steps[number], adjoints[number], number, by_rate)
    return [*(value.sum(0) for value in v), *by_rate], metrics


def _play(agent: MAML, params: Sequence[Tensor], round: Round) -> Played:
    """The policies on a round's states."""
    policy, named = agent.net.policy, dict(zip(agent.policy_names, params, strict=True))
    layers = [(named[f"{name}.weight"], named[f"{name}.bias"]) for name in _layer_names(agent)]
    units = [round.x.mT]
    for n, (weight, bias) in enumerate(layers):
        sums = torch.baddbmm(bias[..., None], weight, units[-1])
        units.append(sums if n + 1 == len(layers) else sums.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0))  # tanh
    log_std = named.get("head.log_std")
    log_std = None if log_std is None else log_std.clone().requires_grad_()
    units[-1].requires_grad_()
    with torch.enable_grad():
        out = policy.head.distribution(units[-1].mT, None if log_std is None else log_std[:, None])
    return Played(layers, log_std, units, out)


def _inner_step(
    agent: MAML, params: Sequence[Tensor], played: Played, round: Round, number: int
) -> tuple[Step, tuple[Tensor, ...]]:
    """A gradient step and where it leads."""
    with torch.enable_grad():
        losses = agent.inner_losses(played.distribution, round)
        by_output = torch.autograd.grad(losses.sum(), _leaves(played), create_graph=True)
    deltas, errors = [by_output[0].detach()], list[Tensor]()
    layers = _backward(played.layers, played.units, deltas, errors)
    gradients = _named(agent, layers, [g.detach() for g in by_output[1:]])
    rates: list[Tensor | float] = [0.0] * len(params)
    after = list(params)
    for n, index in enumerate(agent.net.adapted):
        rates[index] = agent.rate(agent.meta, number, n)
        after[index] = params[index] - rates[index] * gradients[index]
    return Step(by_output, deltas, errors, layers, rates), tuple(after)


def _through(
    agent: MAML,
    v: list[Tensor],
    played: Played,
    step: Step,
    adjoints: Sequence[Tensor | None],
    number: int,
    by_rate: list[Tensor],
) -> list[Tensor]:
    """From the gradient by the parameters after a step to that by those before it; adds to the gradient by the rates.

    `adjoints` is the loss's own gradient by the outputs of the policies before the step.
    """
    _add_rates(agent, v, step, number, by_rate)
    first_order = agent.config.first_order
    if first_order and all(adjoint is None for adjoint in adjoints):
        return v
    tangent = [rate * value for rate, value in zip(step.rates, v, strict=True)]
    if first_order:
        tangent = [torch.zeros_like(value) for value in v]
    named = dict(zip(agent.policy_names, tangent, strict=True))
    changes = [(named[f"{name}.weight"], named[f"{name}.bias"]) for name in _layer_names(agent)]
    moved = _tangent(played.layers, played.units, changes)
    along = [moved[-1], *([named["head.log_std"]] if played.log_std is not None else [])]
    bent = torch.autograd.grad(step.by_output, _leaves(played), along)
    second = [s if a is None else s - a for s, a in zip(bent, adjoints, strict=True)]
    product = _tangent_backward(played.layers, changes, played.units, moved, step, second[0])
    return [a - b for a, b in zip(v, _named(agent, product, second[1:]), strict=True)]


def _add_rates(agent: MAML, v: list[Tensor], step: Step, number: int, by_rate: list[Tensor]) -> None:
    """Add what step `number` gives to the gradient by the learned step sizes, if there are any."""
    config = agent.config
    if not by_rate:
        return
    gradients = _named(agent, step.layers, [g.detach() for g in step.by_output[1:]])
    factor = 1.0 if number < config.inner_steps else config.later_rate
    for n, index in enumerate(agent.net.adapted):
        change = -factor * gradients[index] * v[index]
        if config.rates == "per_parameter":
            by_rate[n] += change.sum(0)
        else:
            by_rate[0][min(number, len(by_rate[0]) - 1)] += change.sum()


def _backward(layers: Layers, units: list[Tensor], deltas: list[Tensor], errors: list[Tensor]) -> Layers:
    """Gradient by the parameters. `deltas` begins with the one by the output; those by what is below are added."""
    gradients = []
    for n in reversed(range(len(layers))):
        gradients.append((torch.bmm(deltas[-1], units[n].mT), deltas[-1].sum(-1)))
        if n:
            errors.append(torch.bmm(layers[n][0].mT, deltas[-1]))
            deltas.append(torch.ops.aten.tanh_backward(errors[-1], units[n]))
    return gradients[::-1]


def _tangent(layers: Layers, units: list[Tensor], changes: Layers) -> list[Tensor]:
    """How each layer's input (but the first, which does not) and the output move when the parameters do."""
    moved: list[Tensor] = []
    for n, ((weight, _), (by_weight, by_bias)) in enumerate(zip(layers, changes, strict=True)):
        sums = torch.baddbmm(by_bias[..., None], by_weight, units[n])
        if n:
            sums.baddbmm_(weight, moved[-1])
        moved.append(sums if n + 1 == len(layers) else torch.ops.aten.tanh_backward(sums, units[n + 1]))
    return moved


def _tangent_backward(
    layers: Layers, changes: Layers, units: list[Tensor], moved: list[Tensor], step: Step, delta: Tensor
) -> Layers:
    """How the gradient by the parameters moves; `delta` is how the one by the output does."""
    gradients = []
    for n in reversed(range(len(layers))):
        below = len(layers) - 1 - n  # the place in what the backward pass noted from the top
        by_weight = torch.bmm(delta, units[n].mT)
        gradients.append((by_weight, delta.sum(-1)))
        if n:
            by_weight.baddbmm_(step.deltas[below], moved[n - 1].mT)
            error = torch.bmm(layers[n][0].mT, delta).baddbmm_(changes[n][0].mT, step.deltas[below])
            bend = (units[n] * moved[n - 1]).mul_(step.errors[below])
            delta = torch.ops.aten.tanh_backward(error, units[n]).sub_(bend, alpha=2.0)
    return gradients[::-1]


def _leaves(played: Played) -> list[Tensor]:
    return [played.units[-1], *([] if played.log_std is None else [played.log_std])]


def _layer_names(agent: MAML) -> list[str]:
    body = [name for name, part in agent.net.policy.body.named_modules(prefix="body") if isinstance(part, nn.Linear)]
    return [*body, "head.linear"]


def _named(agent: MAML, layers: Layers, log_std: Sequence[Tensor]) -> list[Tensor]:
    """A gradient in the order of the policy's parameters."""
    found = dict(zip(["head.log_std"] * len(log_std), log_std, strict=True))
    for name, (weight, bias) in zip(_layer_names(agent), layers, strict=True):
        found |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return [found[name] for name in agent.policy_names]
