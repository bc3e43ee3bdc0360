"""Policy-gradient losses: each returns ``(loss, metrics)`` and checks that nothing broadcasts by accident."""

from __future__ import annotations

import torch
from torch import Tensor

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
