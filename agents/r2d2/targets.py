"""The targets of R2D2: n-step double Q-learning on rescaled values (Kapturowski et al. 2019, §2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-3
"""Slope of the linear part of `rescale`, which keeps the slope away from 0 so that the inverse is stable."""


def rescale(x: Tensor) -> Tensor:
    """Return ``h(x) = sign(x) (√(|x| + 1) - 1) + EPSILON x`` (Pohlen et al. 2018), which compresses large values."""
    # Computed as a quotient, because for small x the difference √(|x| + 1) - 1 loses precision to cancellation.
    return x / (torch.sqrt(x.abs() + 1.0) + 1.0) + EPSILON * x


def unscale(x: Tensor) -> Tensor:
    """Return the inverse of `rescale`."""
    # With u = √(|h⁻¹(x)| + 1) - 1: ε u² + (1 + 2 ε) u = |x|, and |h⁻¹(x)| = u (u + 2).
    root = torch.sqrt(1.0 + 4.0 * EPSILON * (1.0 + EPSILON + x.abs()))
    u = 2.0 * x / (root + 1.0 + 2.0 * EPSILON)  # with the sign of x
    return u * (u.abs() + 2.0)


def n_step_double_targets(
    reward: Tensor, mask: Tensor, online: Tensor, target: Tensor, gamma: Tensor | float, n: int, rescaled: bool = True
) -> Tensor:
    """Return the targets ``(T, B)`` of the action values at every step of trials.

    y_t = h(Σ_{k<n} γ^k r_{t+k} + γ^n h⁻¹(Q⁻(s_{t+n}, argmax_a Q(s_{t+n}, a)))): the online network Q chooses the
    action and the target network Q⁻ evaluates it (van Hasselt et al. 2016). `reward` and `mask` are ``(T, B)``;
    `online` and `target`, the values of both networks, are ``(T, B, A)``. `mask` is 0 after a row's last step of the
    trial, and rewards and values count as 0 from there on. They also count as 0 after step T; if the trial goes on
    there, the caller must discard the last n targets. If `rescaled` is false, h is the identity. Raises ValueError if
    the shapes differ.
    """
    if not reward.shape == mask.shape == online.shape[:-1] or online.shape != target.shape:
        shapes = f"reward {reward.shape}, mask {mask.shape}, online {online.shape}, target {target.shape}"
        raise ValueError(f"Shapes differ: {shapes}.")
    value = target.gather(-1, online.argmax(-1, keepdim=True)).squeeze(-1)
    value = (unscale(value) if rescaled else value) * mask
    later = torch.cat([reward * mask, torch.zeros_like(reward[:1]).expand(n, -1)])
    total = _later(value, n)
    for k in range(n - 1, -1, -1):
        total = later[k : k + len(reward)] + gamma * total
    return rescale(total) if rescaled else total


def _later(x: Tensor, n: int) -> Tensor:
    """Shift `x` ``(T, B)`` by n steps: the values n steps later, 0 beyond the end."""
    n = min(n, len(x))
    return torch.cat([x[n:], torch.zeros_like(x[:n])])
