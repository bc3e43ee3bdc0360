"""Advantages, returns and normalisation, over ``(T, B)`` with a mask for padding."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.units import ALIKE


def gae(reward: Tensor, value: Tensor, ends: Tensor, last_value: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16): float32 ``(T, B)``.

    `ends` (T, B) is 1 where nothing that comes after the step counts for it: what is beyond has value 0. For RL² that
    is only the trial's last step; for a per-episode objective it is every terminated step. `last_value` (B,) is the
    value of the state after the last step.
    """
    if not reward.shape == value.shape == ends.shape:
        raise ValueError(f"Shapes differ: reward {reward.shape}, value {value.shape}, ends {ends.shape}.")
    carry_on = 1.0 - ends
    next_value = torch.cat([value[1:], last_value[None]])
    delta = reward + gamma * carry_on * next_value - value
    decay = gamma * gae_lambda * carry_on
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(last_value)
    for t in range(delta.shape[0] - 1, -1, -1):
        running = torch.addcmul(delta[t], decay[t], running)
        advantage[t] = running
    return advantage


def discounted_returns(reward: Tensor, ends: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each step to its end: float32 ``(T, B)``."""
    zeros = torch.zeros_like(reward)
    return gae(reward, zeros, ends, zeros[0], gamma, 1.0)


def linear_baseline(obs: Tensor, time: Tensor, target: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """The linear feature baseline (Duan et al. 2016, "Benchmarking", §4), fitted for all tasks at once: ``(N, M)``.

    `obs` (N, M, O) are the M samples of each of N tasks, `time` (N, M) their steps within the episode in hundreds.
    Features are obs, obs², time, time², time³ and 1; least squares to `target` (N, M) over the samples where `mask` is
    1. `ridge` is relative to the mean square of a feature, so that features that depend on each other do no harm.
    """
    if not time.shape == target.shape == mask.shape == obs.shape[:2]:
        raise ValueError(
            f"Shapes differ: obs {obs.shape}, time {time.shape}, target {target.shape}, mask {mask.shape}."
        )
    obs = obs.clamp(-10.0, 10.0)
    times = torch.stack([torch.ones_like(time), time, time**2, time**3], dim=-1)
    x = torch.cat([obs, obs**2, times], dim=-1)  # (N, M, 2 O + 4)
    weighted = (x * mask[..., None]).transpose(1, 2)
    # The few numbers of the normal equations in double precision: their condition is the square of the features'.
    gram = (weighted @ x).to(torch.float64)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += ridge * diagonal.mean(-1, keepdim=True) + 1e-12
    moment = (weighted @ target[..., None]).to(torch.float64)
    # The ridge makes the system solvable. `solve` would check that, and on a GPU the check synchronises.
    weight: Tensor = torch.linalg.solve_ex(gram, moment).result.to(x.dtype)
    return (x @ weight).squeeze(-1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries where `mask` is 1. Raises ValueError if the shapes differ (nothing may broadcast here)."""
    if x.shape != mask.shape:
        raise ValueError(f"Shapes differ: {x.shape} and mask {mask.shape}.")
    return (x * mask).sum() / mask.sum().clamp_min(1.0)


def row_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row ``(N,)`` of an ``(N, M)`` tensor over the entries where `mask` is 1."""
    if x.shape != mask.shape:
        raise ValueError(f"Shapes differ: {x.shape} and mask {mask.shape}.")
    return (x * mask).sum(-1) / mask.sum(-1).clamp_min(1.0)


def row_std(x: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of each row ``(N,)`` of an ``(N, M)`` tensor; 0 where the entries are all alike."""
    std = row_mean((x - row_mean(x, mask)[:, None]) ** 2, mask).sqrt()
    return torch.where(std > ALIKE * row_mean(x**2, mask).sqrt(), std, 0.0)


def normalise_rows(x: Tensor, mask: Tensor) -> Tensor:
    """Each row of ``(N, M)`` with mean 0 and standard deviation 1 over the entries where `mask` is 1; 0 elsewhere.

    A row whose entries are all alike becomes 0.
    """
    centred = (x - row_mean(x, mask)[:, None]) * mask
    std = row_std(x, mask)[:, None]
    return torch.where(std > 0.0, centred / std, 0.0)


def normalise(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with mean 0 and standard deviation 1 over the entries where `mask` is 1; 0 if they are all alike."""
    mean, std = spread(x, mask)
    return torch.where(std > 0.0, (x - mean) / std, 0.0)


def spread(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the entries where `mask` is 1; the latter is 0 if they are all alike."""
    mean = masked_mean(x, mask)
    std, size = (masked_mean(y**2, mask).sqrt() for y in (x - mean, x))
    return mean, torch.where(std > ALIKE * size, std, 0.0)


def follow(mean: Tensor, std: Tensor, x: Tensor, mask: Tensor, weight: float) -> None:
    """Move a running `mean` and `std`, in place, towards those of `x` by `weight` in (0, 1].

    The first spread that there is counts whole: where nothing is paid for long, such as in a maze, it must not begin at
    a small part of what it is. (In place, since a recorded rollout reads them where they are.)
    """
    new_mean, new_std = spread(x, mask)
    mean.lerp_(new_mean, weight)
    std.lerp_(new_std, torch.where(std > 0.0, weight, 1.0))


def explained_variance(value: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(target - value) / Var(target): 1 is a perfect critic, 0 one that knows only the mean.

    Also 0 where the targets are all alike, so that there is nothing to explain.
    """
    error = target - value
    residual = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    variance = spread(target, mask)[1] ** 2
    return torch.where(variance > 0.0, 1.0 - residual / variance, 0.0)
