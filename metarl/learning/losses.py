"""Policy-gradient losses, to be minimised. They check the shapes of their arguments, so that nothing broadcasts."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.distributions import Distribution
from metarl.fast.twins import twin
from metarl.learning.estimators import masked_mean


def surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    """Return TRPO's surrogate loss (Schulman et al. 2015, eq. 14): minus likelihood ratio times advantage.

    All arguments are ``(N, M)``: M samples of each of N tasks. The loss, a scalar, is the sum over a task's samples,
    weighted by `weight`, averaged over tasks. Raises ValueError if the shapes differ.
    """
    if not log_prob.shape == old_log_prob.shape == advantage.shape == weight.shape:
        shapes = f"{log_prob.shape}, {old_log_prob.shape}, {advantage.shape}, {weight.shape}"
        raise ValueError(f"log_prob, old_log_prob, advantage and weight must have one shape, got {shapes}.")
    ratio = torch.exp(log_prob - old_log_prob)
    return -(ratio * advantage * weight).sum(-1).mean()


@twin("clipped_surrogate")
def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor, clip_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return PPO's clipped surrogate loss (Schulman et al. 2017, eq. 7), a scalar, and metrics.

    All tensors have the same shape; the loss is a mean weighted by `mask`. The metrics are scalars: `approx_kl`,
    Schulman's k3 estimate of KL(old ‖ new), and `clip_fraction`, the fraction of clipped ratios. Raises ValueError if
    the shapes differ.
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


PPO_METRICS = "policy", "value", "entropy", "approx_kl", "clip_fraction"
"""The names of `ppo_loss`'s metrics: its three terms, then the metrics of `clipped_surrogate`."""


@twin("ppo_loss")
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
    """Return PPO's loss (Schulman et al. 2017, eq. 9): clipped surrogate + vf_coef · value error - ent_coef · entropy.

    `value` (…) holds the critic's predictions and `policy` the action distributions at the same steps. `action` is the
    action taken, with log-probability `old_log_prob` (…) under the policy that acted; `advantage` (…) is its advantage,
    and `target` (…) the critic's target. Every term is a sum over steps, weighted by `weight` (…), which is 0 for
    padding; the value error is ½ (value - target)². Returns the loss, a scalar, and the metrics, a tensor ``(5,)`` in
    the order of `PPO_METRICS`. Raises ValueError if the shapes differ.
    """
    if not value.shape == old_log_prob.shape == advantage.shape == target.shape == weight.shape:
        shapes = f"{value.shape}, {old_log_prob.shape}, {advantage.shape}, {target.shape}, {weight.shape}"
        raise ValueError(f"value, old_log_prob, advantage, target and weight must have one shape, got {shapes}.")
    log_ratio = policy.log_prob(action) - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    policy_loss = -(torch.minimum(ratio * advantage, clipped * advantage) * weight).sum()
    value_loss = (0.5 * (value - target) ** 2 * weight).sum()
    entropy = (policy.entropy() * weight).sum()
    loss = policy_loss + vf_coef * value_loss - ent_coef * entropy
    approx_kl = ((ratio - 1.0 - log_ratio) * weight).sum()
    clip_fraction = ((ratio != clipped) * weight).sum()
    return loss, torch.stack([policy_loss, value_loss, entropy, approx_kl, clip_fraction]).detach()
