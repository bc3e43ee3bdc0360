"""Policy-gradient losses. Each checks that nothing broadcasts by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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


PPO_METRICS = "policy", "value", "entropy", "approx_kl", "clip_fraction"
"""The numbers of `ppo_gradient`: its three terms, and the metrics of `clipped_surrogate`."""


@torch.no_grad()
def ppo_gradient(
    make: Callable[..., Distribution],
    parameters: tuple[Tensor, ...],
    value: Tensor,
    sample: Sample,
    weight: Tensor,
    clip_coef: float,
    vf_coef: float,
    ent_coef: Tensor | float,
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of PPO's loss: clipped surrogate + vf_coef · ½ (value - target)² - ent_coef · entropy.

    Each term is a sum over the steps, weighted by `weight`, of the policy ``make(*parameters)`` and its critic. Returns
    the numbers of `PPO_METRICS` as one tensor, and the gradient by ``(value, *parameters)``. It is written by hand: the
    same terms, recorded operation by operation for autograd, take several times as long on a small minibatch.
    """
    shapes = {value.shape, weight.shape, *(field.shape for field in sample[1:])}
    if len(shapes) != 1:
        raise ValueError(f"value, weight, log_prob, advantage, target and mask must have one shape, got {shapes}.")
    policy = make(*parameters)
    log_ratio = policy.log_prob(sample.action) - sample.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    gain, at_most = ratio * sample.advantage, clipped * sample.advantage
    error = value - sample.target
    terms = (
        torch.minimum(gain, at_most).neg_(),
        0.5 * error * error,
        policy.entropy(),
        ratio - 1.0 - log_ratio,
        ratio != clipped,
    )
    metrics = (torch.stack(terms) * weight).flatten(1).sum(1)
    # Where the clipped gain is the smaller one, the ratio no longer counts.
    by_log_prob = (gain <= at_most) * gain * -weight
    by_policy = policy.gradient(sample.action, by_log_prob, weight * -ent_coef)
    return metrics, [error * weight * vf_coef, *by_policy]
