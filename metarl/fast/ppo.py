"""PPO's losses with hand-written gradients: the fast twins of those in `metarl.learning.losses`.

On a small minibatch autograd takes several times as long, since it records every operation. Here a loss is one node of
the graph, which computes its gradient together with the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.core.distributions import Distribution


def ppo_loss(
    value: Tensor,
    policy: Distribution,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    clip_coef: float,
    vf_coef: float,
    ent_coef: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Return loss and metrics as `metarl.learning.losses.ppo_loss` does; gradients can be taken once."""
    if not value.shape == old_log_prob.shape == advantage.shape == target.shape == weight.shape:
        shapes = f"{value.shape}, {old_log_prob.shape}, {advantage.shape}, {target.shape}, {weight.shape}"
        raise ValueError(f"value, old_log_prob, advantage, target and weight must have one shape, got {shapes}.")
    steps = action, old_log_prob, advantage, target, weight
    loss, metrics = _PPOLoss.apply(type(policy), steps, (clip_coef, vf_coef, ent_coef), value, *policy)
    return loss, metrics


class _PPOLoss(torch.autograd.Function):
    """The loss as a function of the critic's values and the fields of the policy's distributions."""

    @staticmethod
    def forward(
        ctx: Any, kind: Any, steps: tuple[Tensor, ...], coefficients: tuple[Any, ...], value: Tensor, *fields: Tensor
    ) -> tuple[Tensor, Tensor]:
        action, old_log_prob, advantage, target, weight = steps
        clip_coef, vf_coef, ent_coef = coefficients
        policy = kind(*fields)
        log_ratio = policy.log_prob(action) - old_log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
        gain, at_most = ratio * advantage, clipped * advantage
        error = value - target
        terms = (
            torch.minimum(gain, at_most).neg_(),
            0.5 * error * error,
            policy.entropy(),
            ratio - 1.0 - log_ratio,
            ratio != clipped,
        )
        metrics = (torch.stack(terms) * weight).flatten(1).sum(1)
        loss = metrics[0] + vf_coef * metrics[1] - ent_coef * metrics[2]
        # Where the clipped gain is smaller, the gradient with respect to the ratio is 0.
        by_log_prob = (gain <= at_most) * gain * -weight
        ctx.gradients = error * weight * vf_coef, *policy.gradient(action, by_log_prob, weight * -ent_coef)
        ctx.mark_non_differentiable(metrics)
        return loss, metrics

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, None, *(gradient.mul_(grad_outputs[0]) for gradient in gradients)


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor, clip_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and metrics as `metarl.learning.losses.clipped_surrogate` does; it has only first derivatives."""
    if not log_prob.shape == old_log_prob.shape == advantage.shape == mask.shape:
        shapes = f"{log_prob.shape}, {old_log_prob.shape}, {advantage.shape}, {mask.shape}"
        raise ValueError(f"log_prob, old_log_prob, advantage and mask must have one shape, got {shapes}.")
    loss, metrics = _ClippedSurrogate.apply(log_prob, old_log_prob, advantage, mask, clip_coef)
    return loss, dict(zip(("approx_kl", "clip_fraction"), metrics.unbind(), strict=True))


class _ClippedSurrogate(torch.autograd.Function):
    """The loss as a function of the log-probabilities."""

    @staticmethod
    def forward(
        ctx: Any, log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor, clip_coef: float
    ) -> tuple[Tensor, Tensor]:
        log_ratio = log_prob - old_log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
        gain, at_most = ratio * advantage, clipped * advantage
        weight = mask / mask.sum().clamp_min(1.0)
        terms = torch.minimum(gain, at_most).neg_(), ratio - 1.0 - log_ratio, ratio != clipped
        loss, *metrics = (torch.stack(terms) * weight).flatten(1).sum(1).unbind()
        ctx.save_for_backward((gain <= at_most) * gain * -weight)
        found = torch.stack(metrics)
        ctx.mark_non_differentiable(found)
        return loss, found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None, None
