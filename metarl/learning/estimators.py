"""Advantages, returns and normalisation, over ``(T, B)`` with a mask for padding."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.units import ALIKE
from metarl.learning import ranks


def gae(reward: Tensor, value: Tensor, ends: Tensor, last_value: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, eq. 16): float32 ``(T, B)``.

    `reward` and `value` are ``(T, B)``: the reward of each step and the value of the state before it. `ends` (T, B) is
    1 for terminal steps, after which the value of the next state is taken as 0. For RL² only the last step of a trial
    is terminal; for an objective per episode every terminated step is. `last_value` (B,) is the value of the state
    after the last step. Raises ValueError if the shapes differ.
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
    """Return the discounted sum of rewards from each step to the next terminal step in `ends`: float32 ``(T, B)``."""
    zeros = torch.zeros_like(reward)
    return gae(reward, zeros, ends, zeros[0], gamma, 1.0)


def linear_baseline(obs: Tensor, time: Tensor, target: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """Return the linear feature baseline (Duan et al. 2016, "Benchmarking", §5) of N tasks: float32 ``(N, M)``.

    `obs` (N, M, O) holds M samples of each task, and `time` (N, M) their steps in the episode, in hundreds. For each
    task, least squares fits a linear function of obs, obs², time, time², time³ and 1 to `target` (N, M), over the
    samples where `mask` is 1. `ridge`, the regularisation relative to the mean square of a feature, keeps the system
    solvable if features are linearly dependent. Raises ValueError if the shapes differ.
    """
    if not time.shape == target.shape == mask.shape == obs.shape[:2]:
        raise ValueError(
            f"Shapes differ: obs {obs.shape}, time {time.shape}, target {target.shape}, mask {mask.shape}."
        )
    obs = obs.clamp(-10.0, 10.0)
    times = torch.stack([torch.ones_like(time), time, time**2, time**3], dim=-1)
    x = torch.cat([obs, obs**2, times], dim=-1)  # (N, M, 2 O + 4)
    weighted = (x * mask[..., None]).transpose(1, 2)
    # Normal equations in double precision: their condition number is the square of that of the features.
    gram = (weighted @ x).to(torch.float64)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += ridge * diagonal.mean(-1, keepdim=True) + 1e-12
    moment = (weighted @ target[..., None]).to(torch.float64)
    # The ridge makes the system solvable. `solve` would check this, which synchronises on a GPU.
    weight: Tensor = torch.linalg.solve_ex(gram, moment).result.to(x.dtype)
    return (x @ weight).squeeze(-1)


def time_in_trial(prev_done: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of finished episodes and the step in the episode, both int64 ``(T, B)``, before each step.

    `prev_done` ``(T, B)`` is above 0.5 at the first step of a new episode.
    """
    ended = prev_done > 0.5
    time = torch.arange(len(ended), device=ended.device)[:, None]
    began = torch.where(ended, time, 0).cummax(0).values
    return ended.cumsum(0), time - began


def share_of_trial(episodes: Tensor, since: Tensor, horizon: int, episodes_per_trial: int) -> Tensor:
    """Return the fraction of a trial that is over, given the finished `episodes` and the steps `since` then.

    Every episode counts as `horizon` steps, so the fraction jumps when an episode ends early.
    """
    return (episodes + since / horizon) / episodes_per_trial


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the entries where `mask` is 1, a scalar. Raises ValueError if the shapes differ."""
    if x.shape != mask.shape:
        raise ValueError(f"Shapes differ: {x.shape} and mask {mask.shape}.")
    return (x * mask).sum() / mask.sum().clamp_min(1.0)


def meta_batch_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the entries where `mask` is 1 in the whole meta-batch (the rows of all ranks), a scalar."""
    return ranks.mean(masked_mean(x, mask), mask.sum())


def row_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row of an ``(N, M)`` tensor, ``(N,)``, over the entries where `mask` is 1.

    Raises ValueError if the shapes differ.
    """
    if x.shape != mask.shape:
        raise ValueError(f"Shapes differ: {x.shape} and mask {mask.shape}.")
    return (x * mask).sum(-1) / mask.sum(-1).clamp_min(1.0)


def row_std(x: Tensor, mask: Tensor) -> Tensor:
    """Return the standard deviation of each row of an ``(N, M)`` tensor, ``(N,)``; 0 if its entries are all equal."""
    std = row_mean((x - row_mean(x, mask)[:, None]) ** 2, mask).sqrt()
    return torch.where(std > ALIKE * row_mean(x**2, mask).sqrt(), std, 0.0)


def normalise_rows(x: Tensor, mask: Tensor) -> Tensor:
    """Scale each row of ``(N, M)`` to mean 0 and standard deviation 1 over the entries where `mask` is 1.

    All other entries become 0, and so does a row whose entries are all equal.
    """
    centred = (x - row_mean(x, mask)[:, None]) * mask
    std = row_std(x, mask)[:, None]
    return torch.where(std > 0.0, centred / std, 0.0)


def normalise(x: Tensor, mask: Tensor) -> Tensor:
    """Scale `x` to mean 0 and standard deviation 1 over the entries of the whole meta-batch where `mask` is 1.

    If these entries are all equal, they become 0.
    """
    mean, std = spread(x, mask)
    return torch.where(std > 0.0, (x - mean) / std, 0.0)


def spread(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the entries of the whole meta-batch where `mask` is 1.

    The standard deviation is 0 if the entries are all equal.
    """
    mean = meta_batch_mean(x, mask)
    std, size = (meta_batch_mean(y**2, mask).sqrt() for y in (x - mean, x))
    return mean, torch.where(std > ALIKE * size, std, 0.0)


def follow(mean: Tensor, std: Tensor, x: Tensor, mask: Tensor, weight: float) -> None:
    """Move a running `mean` and `std` towards those of `x` by `weight` in (0, 1], in place.

    While `std` is 0, that of `x` replaces it; otherwise, in a maze where the first rewards come late, the running value
    would start far too small. The update is in place because a CUDA graph reads these tensors.
    """
    new_mean, new_std = spread(x, mask)
    mean.lerp_(new_mean, weight)
    std.lerp_(new_std, torch.where(std > 0.0, weight, 1.0))


def explained_variance(value: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(target - value) / Var(target): 1 for a perfect critic, 0 for one that predicts only the mean.

    It is also 0 if the targets are all equal.
    """
    error = target - value
    residual = meta_batch_mean((error - meta_batch_mean(error, mask)) ** 2, mask)
    variance = spread(target, mask)[1] ** 2
    return torch.where(variance > 0.0, 1.0 - residual / variance, 0.0)


def pooled(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], weight: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of two pooled samples, where `weight` is the fraction of the new one.

    Unlike the average of the two standard deviations, the result accounts for the distance of the means (Chan et al.
    1979).
    """
    (mean, std), (new_mean, new_std) = old, new
    between = weight * (1.0 - weight) * (new_mean - mean) ** 2
    variance = (1.0 - weight) * std**2 + weight * new_std**2 + between
    return torch.lerp(mean, new_mean, weight), variance.sqrt()


def mean_square(x: Tensor) -> Tensor:
    """Return the mean square of the nonzero entries of ``(…, M)``, ``(…)``; 0 if there are none.

    As a measure of the size of rewards, it does not depend on how rare rewards are.
    """
    square = x**2
    return square.sum(-1) / (square > 0.0).sum(-1).clamp_min(1)


def running_size(size: Tensor, batches: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Update `size`, the root mean square of the nonzero entries over `batches` batches, by the batch `x`.

    Returns the new size and the new number of batches. All batches with a nonzero entry have the same weight. The batch
    comprises the entries of all ranks.
    """
    new = ranks.mean(mean_square(x.flatten()), (x != 0.0).sum())
    batches = batches + (new > 0.0)
    weight = torch.where(new > 0.0, 1.0 / batches, 0.0)
    return torch.lerp(size**2, new, weight).sqrt(), batches
