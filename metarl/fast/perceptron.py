"""A hand-written gradient through an adaptation, for MLPs with tanh units.

The fast twin of `metarl.agents.maml.adaptation.gradient_through_steps`. With θ' = θ - α ∇ℓ(θ), the gradient of J(θ')
with respect to θ is v - H(α v), where v = ∇J(θ') and H is the Hessian of ℓ at θ: one Hessian-vector product per
gradient step, from the tangents of the forward and the backward pass (Pearlmutter 1994). Autograd computes the same
products, but makes and keeps a new tensor for every operation; here it is used only for the policy's outputs. Tensors
of samples are ``(N, F, M)``: N tasks, F features, M samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarl.core.distributions import Distribution
from metarl.fast.tanh import tanh_

Layers = list[tuple[Tensor, Tensor]]
"""Weights ``(N, G, F)`` and biases ``(N, G)`` of each layer, or what corresponds to them in a gradient or a tangent."""
Loss = Callable[[list[Distribution]], tuple[Tensor, dict[str, Tensor]]]
Sizes = Sequence[Tensor | float]


class Forward(NamedTuple):
    """The forward pass of one round's policies; autograd's graph starts at the outputs."""

    layers: Layers
    log_std: Tensor | None  # (N, A), a leaf of autograd
    units: list[Tensor]  # the input of each layer, then the output, a leaf of autograd
    policies: Distribution

    @property
    def leaves(self) -> list[Tensor]:
        return [self.units[-1], *([] if self.log_std is None else [self.log_std])]


class Descent(NamedTuple):
    """A gradient step of every task's policy."""

    by_output: tuple[Tensor, ...]  # gradient of the step's loss with respect to output and log_std, in autograd's graph
    deltas: list[Tensor]  # gradient with respect to each layer's sums
    errors: list[Tensor]  # gradient with respect to each layer's input
    gradients: list[Tensor]  # with respect to the policy's parameters
    sizes: list[Tensor | float]  # step size for each of the policy's parameters; 0 for those that stay


def suits(params: Any, sizes: Any, rounds: Any, adaptation: Any, loss: Any) -> bool:
    """Return whether the policies are MLPs with tanh units, and both losses depend on all of their outputs."""
    return bool(adaptation.policy.activation == "tanh" and adaptation.likelihoods)


@torch.no_grad()
def gradient_through_steps(
    params: tuple[Tensor, ...], sizes: Sequence[Sizes], rounds: Sequence[Any], adaptation: Any, loss: Loss
) -> tuple[list[Tensor], list[list[Tensor | None]], dict[str, Tensor]]:
    """Return gradients and metrics as the plain twin does."""
    forwards, descents = [_forward(adaptation, params, rounds[0].x)], []
    for step, samples, following in zip(sizes, rounds, rounds[1:], strict=False):
        descent, params = _descend(adaptation, params, forwards[-1], samples, step)
        descents.append(descent)
        forwards.append(_forward(adaptation, params, following.x))
    with torch.enable_grad():
        total, metrics = loss([forward.policies for forward in forwards])
    inner, last = forwards[:-1], forwards[-1]
    leaves = [leaf for forward in inner for leaf in forward.leaves]
    by_last = torch.autograd.grad(total, last.leaves, retain_graph=True)
    own = iter(torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True) if leaves else ())
    v = _in_order(adaptation, _backward(last.layers, last.units, [by_last[0]], []), by_last[1:])
    adjoints = [[next(own) for _ in forward.leaves] for forward in inner]
    by_sizes: list[list[Tensor | None]] = []
    for forward, descent, step, adjoint in zip(inner[::-1], descents[::-1], sizes[::-1], adjoints[::-1], strict=True):
        by_sizes.append([_by_size(descent, v, index, size) for index, size in zip(adaptation.inner_params, step)])
        v = _through(adaptation, v, forward, descent, adjoint)
    return v, by_sizes[::-1], metrics


def _forward(adaptation: Any, params: Sequence[Tensor], x: Tensor) -> Forward:
    """Run the policies on a round's states."""
    named = dict(zip(adaptation.names, params, strict=True))
    layers = [(named[f"{name}.weight"], named[f"{name}.bias"]) for name in _layer_names(adaptation)]
    units = [x.mT]
    for n, (weight, bias) in enumerate(layers):
        sums = torch.baddbmm(bias[..., None], weight, units[-1])
        units.append(sums if n + 1 == len(layers) else tanh_(sums))
    log_std = named.get("head.log_std")
    log_std = None if log_std is None else log_std.clone().requires_grad_()
    units[-1].requires_grad_()
    with torch.enable_grad():
        out = adaptation.policy.head.distribution(units[-1].mT, None if log_std is None else log_std[:, None])
    return Forward(layers, log_std, units, out)


def _descend(
    adaptation: Any, params: Sequence[Tensor], forward: Forward, samples: Any, sizes: Sizes
) -> tuple[Descent, tuple[Tensor, ...]]:
    """Take a gradient step; return it, and the parameters after it."""
    with torch.enable_grad():
        losses = adaptation.inner_losses(forward.policies, samples)
        by_output = torch.autograd.grad(losses.sum(), forward.leaves, create_graph=True)
    deltas, errors = [by_output[0].detach()], list[Tensor]()
    layers = _backward(forward.layers, forward.units, deltas, errors)
    gradients = _in_order(adaptation, layers, [g.detach() for g in by_output[1:]])
    all_sizes: list[Tensor | float] = [0.0] * len(params)
    after = list(params)
    for index, size in zip(adaptation.inner_params, sizes, strict=True):
        all_sizes[index] = size
        after[index] = params[index] - size * gradients[index]
    return Descent(by_output, deltas, errors, gradients, all_sizes), tuple(after)


def _through(
    adaptation: Any, v: list[Tensor], forward: Forward, descent: Descent, adjoints: Sequence[Tensor | None]
) -> list[Tensor]:
    """Turn `v`, the gradient with respect to the parameters after a step, into that with respect to those before it.

    `adjoints` is the loss's direct gradient with respect to the outputs of the policies before the step.
    """
    first_order = adaptation.first_order
    if first_order and all(adjoint is None for adjoint in adjoints):
        return v
    tangent = [size * value for size, value in zip(descent.sizes, v, strict=True)]
    if first_order:
        tangent = [torch.zeros_like(value) for value in v]
    named = dict(zip(adaptation.names, tangent, strict=True))
    changes = [(named[f"{name}.weight"], named[f"{name}.bias"]) for name in _layer_names(adaptation)]
    moved = _tangent(forward.layers, forward.units, changes)
    along = [moved[-1], *([named["head.log_std"]] if forward.log_std is not None else [])]
    bent = torch.autograd.grad(descent.by_output, forward.leaves, along)
    second = [s if a is None else s - a for s, a in zip(bent, adjoints, strict=True)]
    product = _tangent_backward(forward.layers, changes, forward.units, moved, descent, second[0])
    return [a - b for a, b in zip(v, _in_order(adaptation, product, second[1:]), strict=True)]


def _by_size(descent: Descent, v: list[Tensor], index: int, size: Tensor | float) -> Tensor | None:
    """Return the gradient with respect to the step size of parameter `index`; None if that is a plain number."""
    return (-descent.gradients[index] * v[index]).sum_to_size(size.shape) if isinstance(size, Tensor) else None


def _backward(layers: Layers, units: list[Tensor], deltas: list[Tensor], errors: list[Tensor]) -> Layers:
    """Return the gradient with respect to the parameters.

    `deltas` begins with the gradient with respect to the output; those of the layers below are appended to it and to
    `errors`.
    """
    gradients = []
    for n in reversed(range(len(layers))):
        gradients.append((torch.bmm(deltas[-1], units[n].mT), deltas[-1].sum(-1)))
        if n:
            errors.append(torch.bmm(layers[n][0].mT, deltas[-1]))
            deltas.append(torch.ops.aten.tanh_backward(errors[-1], units[n]))
    return gradients[::-1]


def _tangent(layers: Layers, units: list[Tensor], changes: Layers) -> list[Tensor]:
    """Return the tangents of each layer's input, except the first, and of the output, for `changes` of parameters."""
    moved: list[Tensor] = []
    for n, ((weight, _), (by_weight, by_bias)) in enumerate(zip(layers, changes, strict=True)):
        sums = torch.baddbmm(by_bias[..., None], by_weight, units[n])
        if n:
            sums.baddbmm_(weight, moved[-1])
        moved.append(sums if n + 1 == len(layers) else torch.ops.aten.tanh_backward(sums, units[n + 1]))
    return moved


def _tangent_backward(
    layers: Layers, changes: Layers, units: list[Tensor], moved: list[Tensor], descent: Descent, delta: Tensor
) -> Layers:
    """Return the tangent of the gradient with respect to the parameters; `delta` is that of the output's gradient."""
    gradients = []
    for n in reversed(range(len(layers))):
        below = len(layers) - 1 - n  # the index in `deltas` and `errors`, which begin at the top
        by_weight = torch.bmm(delta, units[n].mT)
        gradients.append((by_weight, delta.sum(-1)))
        if n:
            by_weight.baddbmm_(descent.deltas[below], moved[n - 1].mT)
            error = torch.bmm(layers[n][0].mT, delta).baddbmm_(changes[n][0].mT, descent.deltas[below])
            bend = (units[n] * moved[n - 1]).mul_(descent.errors[below])
            delta = torch.ops.aten.tanh_backward(error, units[n]).sub_(bend, alpha=2.0)
    return gradients[::-1]


def _layer_names(adaptation: Any) -> list[str]:
    named = adaptation.policy.body.named_modules(prefix="body")
    return [*(name for name, part in named if isinstance(part, nn.Linear)), "head.linear"]


def _in_order(adaptation: Any, layers: Layers, log_std: Sequence[Tensor]) -> list[Tensor]:
    """Put a gradient into the order of the policy's parameters."""
    found = dict(zip(["head.log_std"] * len(log_std), log_std, strict=True))
    for name, (weight, bias) in zip(_layer_names(adaptation), layers, strict=True):
        found |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return [found[name] for name in adaptation.names]
