"""Policy-gradient losses: each returns ``(loss, metrics)`` and checks that nothing broadcasts by accident."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.distributions import Distribution
from metarl.estimators import masked_mean


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor, clip_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped loss (Schulman et al. 2017, eq. 7), to be minimised; all arguments have one shape.

    Metrics (0-dimensional tensors): `approx_kl` (Schulman's k3 estimate of KL(old ‖ new)) and `clip_fraction`.
    """
    if not log_prob.shape == old_log_prob.shape == advantage.shape == mask.shape:
        shapes = f"{log_prob.shape}, {old_log_prob.shape}, {advantage.shape}, {mask.shape}"
        raise ValueError(f"log_prob, old_log_prob, advantage and mask must have one shape, got {shapes}.")
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    loss = -masked_mean(torch.minimum(ratio * advantage, clipped * advantage), mask)
    with torch.no_grad():
        metrics = {
            "approx_kl": masked_mean(ratio - 1.0 - log_ratio, mask),
            "clip_fraction": masked_mean(((ratio - 1.0).abs() > clip_coef).to(ratio.dtype), mask),
        }
    return loss, metrics


class Sample(NamedTuple):
    """What PPO's loss needs of the steps, beside the policy and the critic; leading dimensions ``(…)``."""

    action: Tensor  # (…) int64 or (…, A) float32
    log_prob: Tensor  # of the policy that acted
    advantage: Tensor
    target: Tensor  # of the critic
    mask: Tensor


def ppo_loss(
    policy: Distribution, value: Tensor, sample: Sample, clip_coef: float, vf_coef: float, ent_coef: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss of a policy and its critic: clipped surrogate + vf_coef · ½ (value - target)² - ent_coef · entropy.

    Each term is a mean over the steps where the mask is 1. The gradient is written by hand: the same terms, recorded
    operation by operation for autograd, take several times as long on a small minibatch. Metrics as in
    `clipped_surrogate`, and `policy`, `value` and `entropy`, the three terms.
    """
    shapes = {value.shape, *(field.shape for field in sample[1:])}
    if len(shapes) != 1:
        raise ValueError(f"value, log_prob, advantage, target and mask must have one shape, got {shapes}.")
    loss, *terms = _PPOLoss.apply(type(policy), sample, clip_coef, vf_coef, ent_coef, value, *policy)
    return loss, dict(zip(("policy", "value", "entropy", "approx_kl", "clip_fraction"), terms, strict=True))


class _PPOLoss(torch.autograd.Function):
    """The loss is a scalar, so its gradient is made with it and only scaled when it is asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: Any,
        sample: Sample,
        clip_coef: float,
        vf_coef: float,
        ent_coef: Tensor | float,
        value: Tensor,
        *fields: Tensor,
    ) -> tuple[Tensor, ...]:
        policy, weight = kind(*fields), sample.mask / sample.mask.sum().clamp_min(1.0)
        log_ratio = policy.log_prob(sample.action) - sample.log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
        weighted = sample.advantage * weight
        gain, at_most = ratio * weighted, clipped * weighted
        error = value - sample.target
        weighted_error = error * weight
        policy_loss = -torch.minimum(gain, at_most).sum()
        value_loss = 0.5 * (error * weighted_error).sum()
        entropy = (policy.entropy() * weight).sum()
        # Where the clipped gain is the smaller one, the ratio no longer counts.
        by_log_prob = policy.log_prob_gradient(sample.action, gain.neg().mul_(gain <= at_most))
        by_entropy = policy.entropy_gradient(weight * -ent_coef)
        by_policy = [a + b for a, b in zip(by_log_prob, by_entropy, strict=True)]
        ctx.save_for_backward(weighted_error.mul_(vf_coef), *by_policy)
        terms = policy_loss, value_loss, entropy
        kl = ((ratio - 1.0 - log_ratio) * weight).sum()
        clip_fraction = ((ratio != clipped) * weight).sum()
        ctx.mark_non_differentiable(*terms, kl, clip_fraction)
        return policy_loss + vf_coef * value_loss - ent_coef * entropy, *terms, kl, clip_fraction

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        by_value, *by_policy = ctx.saved_tensors
        return None, None, None, None, None, by_value * grad_outputs[0], *(part * grad_outputs[0] for part in by_policy)
