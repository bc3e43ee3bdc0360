"""R2D2's loss and the priorities of sequences (Kapturowski et al. 2019, §2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_PRIORITY = 1e-6
"""Smallest priority, so that sequences without TD error are still drawn now and then (Schaul et al. 2016, §3.3)."""


def td_loss(value: Tensor, target: Tensor, mask: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """Return the weighted mean of half the squared TD errors, a scalar.

    `value` ``(T, B)`` holds the values of the actions taken and `target` ``(T, B)`` their targets. `mask` ``(T, B)`` is
    0 for padding, `weight` ``(B,)`` holds the importance weights of the sequences, and `count` is the number of steps
    over which the mean is taken. Raises ValueError if the shapes differ.
    """
    if not value.shape == target.shape == mask.shape or mask.shape[1:] != weight.shape:
        shapes = f"value {value.shape}, target {target.shape}, mask {mask.shape}, weight {weight.shape}"
        raise ValueError(f"Shapes differ: {shapes}.")
    return (0.5 * (target - value) ** 2 * mask * weight).sum() / count.clamp_min(1.0)


def sequence_priority(error: Tensor, mask: Tensor, eta: float) -> Tensor:
    """Return ``η max_t |δ_t| + (1 - η) mean_t |δ_t|`` for each sequence ``(B,)``, but at least `MIN_PRIORITY`.

    A sequence that is all padding has priority 0. `error` ``(T, B)`` holds the TD errors, and `mask` ``(T, B)`` is 0
    for padding. Raises ValueError if the shapes differ.
    """
    if error.shape != mask.shape:
        raise ValueError(f"Shapes differ: error {error.shape}, mask {mask.shape}.")
    size = error.abs() * mask
    mean = size.sum(0) / mask.sum(0).clamp_min(1.0)
    return torch.lerp(mean, size.amax(0), eta).clamp_min(MIN_PRIORITY) * (mask.sum(0) > 0)
