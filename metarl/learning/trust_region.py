"""Natural-gradient steps within a trust region (Schulman et al. 2015, "TRPO", appendix C), on flat vectors.

The caller computes the surrogate, the KL divergence and the Fisher products; MAML computes them through the adaptation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.distributions import Distribution
from metarl.core.tree import detach, tree_map


class TrustRegionStep(NamedTuple):
    """The result of a line search."""

    theta: Tensor  # (P,) the new parameters; the old ones if the line search failed
    accepted: bool
    loss: float  # surrogate loss at the new parameters, or at the last ones tried if none were accepted
    kl: float  # mean KL divergence at the same parameters
    backtracks: int  # number of times the step was shortened


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iters: int, tolerance: float = 1e-10) -> Tensor:
    """Return an approximate solution x of A x = b for a positive definite A, given as ``product(v) = A v``.

    `b` and x are ``(P,)``. Once the squared residual is below `tolerance`, x no longer changes. There is no early exit,
    since testing the residual would synchronise on a GPU.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    squared = residual @ residual
    for _ in range(iters):
        going = squared >= tolerance
        image = product(direction)
        step = torch.where(going, squared / (direction @ image), 0.0)
        x = x + step * direction
        residual = residual - step * image
        new = residual @ residual
        direction = residual + torch.where(going, new / squared, 0.0) * direction
        squared = new
    return x


def full_step(
    gradient: Tensor, fisher: Callable[[Tensor], Tensor], *, max_kl: float, cg_iters: int = 10, cg_damping: float = 1e-5
) -> Tensor:
    """Return the full natural-gradient step (P,), which the line search subtracts from the parameters.

    `cg_iters` conjugate-gradient steps solve (Fisher + cg_damping) x = gradient for the direction. The length makes the
    quadratic model of the KL divergence equal to `max_kl`. The step is 0 if the gradient is 0 or not finite.
    """
    direction = conjugate_gradient(lambda v: fisher(v) + cg_damping * v, gradient, cg_iters)
    curvature = direction @ (fisher(direction) + cg_damping * direction)
    good = torch.isfinite(curvature) & (curvature > 0.0)
    return torch.where(good, torch.sqrt(2.0 * max_kl / curvature) * direction, 0.0)


def line_search(
    theta: Tensor,
    step: Tensor,
    evaluate: Callable[[Tensor], tuple[float, float]],
    loss: float,
    *,
    max_kl: float,
    ls_max_steps: int = 15,
    ls_backtrack_ratio: float = 0.8,
) -> TrustRegionStep:
    """Search from `theta` (P,) along -`step` (P,): shorten the step until loss < `loss` and KL ≤ `max_kl`.

    ``evaluate(theta)`` returns (loss, mean KL from the old policy). The step is multiplied by `ls_backtrack_ratio` up
    to `ls_max_steps` - 1 times; if no length satisfies both conditions, theta does not change.
    """
    if not bool(step.any()):
        return TrustRegionStep(theta, False, loss, 0.0, 0)
    new_loss, kl = loss, 0.0
    for backtracks in range(ls_max_steps):
        candidate = theta - step * ls_backtrack_ratio**backtracks
        new_loss, kl = evaluate(candidate)
        if new_loss < loss and kl <= max_kl:  # false for NaN, too
            return TrustRegionStep(candidate, True, new_loss, kl, backtracks)
    return TrustRegionStep(theta, False, new_loss, kl, ls_max_steps)


def fisher_products(distribution: Distribution, theta: Sequence[Tensor], weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function v ↦ F v, where F is the weighted sum of the Fisher matrices of `distribution`.

    `distribution` is differentiable with respect to `theta`, and `weight` has its batch shape; v and F v are ``(P,)``.
    F has the Gauss-Newton form Jᵀ H J, where J is the Jacobian of the distribution's fields with respect to theta and H
    the Fisher matrix in the coordinates of the fields. F is the Hessian of the KL divergence at its minimum, where the
    second derivatives of the fields do not contribute (Martens 2020, §9.2). J v is the derivative of Jᵀ w with respect
    to w, so that all products use one graph.
    """
    fields = tuple(distribution)
    at: Any = detach(distribution)
    dummies = tuple(torch.zeros_like(field, requires_grad=True) for field in at)
    pulled = torch.autograd.grad(fields, theta, dummies, create_graph=True, allow_unused=True)
    used = [n for n, part in enumerate(pulled) if part is not None]

    def product(v: Tensor) -> Tensor:
        parts = unflatten(v, theta)
        # A field that does not depend on theta has no tangent.
        tangents = torch.autograd.grad(
            [pulled[n] for n in used], dummies, [parts[n] for n in used], retain_graph=True, allow_unused=True
        )
        tangent = tree_map(lambda field, t: torch.zeros_like(field) if t is None else t, at, tangents)
        image = [part * weight.reshape(*weight.shape, *[1] * (part.ndim - weight.ndim)) for part in at.fisher(tangent)]
        results = torch.autograd.grad(fields, theta, image, retain_graph=True, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(p) if r is None else r).reshape(-1) for r, p in zip(results, theta, strict=True)]
        )

    return product


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Split a flat vector into tensors with the shapes of `like`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return tuple(part.reshape(tensor.shape) for part, tensor in zip(parts, like, strict=True))
