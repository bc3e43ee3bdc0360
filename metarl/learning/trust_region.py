"""Natural-gradient steps inside a trust region (Schulman et al. 2015, "TRPO", appendix C), on flat vectors.

What the policy is, and how the surrogate, the KL divergence and the Fisher products are computed, is the caller's:
for MAML they go through the adaptation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.distributions import Distribution
from metarl.core.tree import detach, tree_map


class TrustRegionStep(NamedTuple):
    """What a step did."""

    theta: Tensor  # (P,) the new parameters; the old ones if the line search failed
    accepted: bool
    loss: float  # surrogate loss and mean KL at the new parameters; of the last trial if none was accepted
    kl: float
    backtracks: int  # how often the step was shortened


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iters: int, tolerance: float = 1e-10) -> Tensor:
    """An approximate solution x of A x = b for a positive definite A, given as ``product(v) = A v``.

    Once the squared residual is below `tolerance` x stays. Nothing waits for the device.
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
    """The step (P,) against which the line search goes: down the natural gradient, as far as `max_kl` lets it.

    The direction solves (Fisher + cg_damping) x = gradient by `cg_iters` conjugate-gradient steps; its length makes the
    quadratic model of the KL equal to max_kl. Zero where there is no direction: a zero or broken gradient.
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
    """From `theta` (P,) along minus `step`, which is shortened until the loss is below `loss` and the KL in its bound.

    ``evaluate(theta)`` is the pair (loss, mean KL from the old policy). The step is multiplied by `ls_backtrack_ratio`
    up to `ls_max_steps` - 1 times; if both conditions still do not hold, theta stays.
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
    """The function v ↦ F v for the weighted sum F of the Fisher matrices of `distribution`, a graph over `theta`.

    Gauss and Newton's form Jᵀ H J: J is the derivative of the distribution's fields by theta, H the Fisher matrix in
    the fields' coordinates. It is the Hessian of the KL divergence at its minimum, where the fields' own second
    derivatives count for nothing (Martens 2020, §9.2). J v is the derivative of Jᵀ w by w, so that all products use
    one graph. `weight` has the shape of the distribution's batch.
    """
    fields = tuple(distribution)
    at: Any = detach(distribution)
    dummies = tuple(torch.zeros_like(field, requires_grad=True) for field in at)
    pulled = torch.autograd.grad(fields, theta, dummies, create_graph=True, allow_unused=True)
    used = [n for n, part in enumerate(pulled) if part is not None]

    def product(v: Tensor) -> Tensor:
        parts = unflatten(v, theta)
        # A field that no parameter moves has no tangent.
        tangents = torch.autograd.grad(
            [pulled[n] for n in used], dummies, [parts[n] for n in used], retain_graph=True, allow_unused=True
        )
        tangent = tree_map(lambda field, t: torch.zeros_like(field) if t is None else t, at, tangents)
        image = [part * weight[..., None] for part in at.fisher(tangent)]
        results = torch.autograd.grad(fields, theta, image, retain_graph=True, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(p) if r is None else r).reshape(-1) for r, p in zip(results, theta, strict=True)]
        )

    return product


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The parts of a flat vector in the shapes of `like`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return tuple(part.reshape(tensor.shape) for part, tensor in zip(parts, like, strict=True))
