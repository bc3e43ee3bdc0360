"""Samples for the policy gradient of each task, from a round of trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.rollout import Rollout
from metarl.learning import ranks
from metarl.learning.estimators import discounted_returns, gae, linear_baseline, normalise_rows, row_std

Baseline = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A function (features (N, M, F), time, returns, mask, each (N, M)) → the baseline of the returns (N, M)."""


class Samples(NamedTuple):
    """The samples of N tasks in one round: M = trajectories × steps per task, one trajectory after the other."""

    x: Tensor  # (N, M, F) scaled observations
    action: Tensor  # (N, M) or (N, M, A)
    log_prob: Tensor  # (N, M) under the policy that acted
    advantage: Tensor  # (N, M)
    weight: Tensor  # (N, M) 1 / (number of the task's steps); 0 for padding
    time: Tensor  # (N, M) int64: steps since the start of the episode
    mean_return: Tensor  # (N, M) mean discounted return of the task's episodes, the same for all its samples
    return_scale: Tensor  # (N, M) same: Σ weight · advantage · ∇log π is this times the gradient of the return
    credit: Tensor  # (N, M) advantage for the returns of later rounds, set by `credited`; else 0
    target: Tensor  # like action: the correct actions, for a supervised loss; else 0 (N, M)


def make_samples(
    rollout: Rollout,
    x: Tensor,
    tasks: int,
    *,
    gamma: float,
    gae_lambda: float = 1.0,
    norm_adv: bool = True,
    baseline: Baseline = linear_baseline,
) -> Samples:
    """Turn a rollout of `tasks` tasks into samples; `x` ``(T, B, F)`` are the features of its observations.

    The value after the end of an episode is 0, whether the episode was terminated or truncated at the horizon.
    """
    mask = rollout.mask
    reward = rollout.outcome.reward * mask
    ends = (rollout.outcome.terminated | rollout.outcome.truncated).to(mask.dtype)
    features, valid = by_task(x, tasks), by_task(mask, tasks)
    time = by_task(steps_since_start(rollout), tasks)
    returns = by_task(discounted_returns(reward, ends, gamma), tasks)
    expected = baseline(features, time / 100.0, returns, valid)
    if gae_lambda == 1.0:
        advantage = returns - expected  # equal to `gae` with lambda 1
    else:
        value = expected.unflatten(1, (-1, len(mask))).permute(2, 0, 1).flatten(1) * mask  # (T, B)
        advantage = by_task(gae(reward, value, ends, torch.zeros_like(value[0]), gamma, gae_lambda), tasks)
    steps = valid.sum(-1, keepdim=True).clamp_min(1.0)
    starts = valid * (time == 0)
    episodes = starts.sum(-1, keepdim=True).clamp_min(1.0)
    mean_return = (returns * starts).sum(-1, keepdim=True) / episodes
    scale = episodes / steps
    if norm_adv:
        std = row_std(advantage, valid)[:, None]
        advantage, scale = normalise_rows(advantage, valid), torch.where(std > 0.0, scale / std, 0.0)
    return Samples(
        x=features,
        action=by_task(rollout.acted.action, tasks),
        log_prob=by_task(rollout.acted.log_prob, tasks),
        advantage=advantage * valid,
        weight=valid / steps,
        time=time,
        mean_return=mean_return.repeat(1, valid.shape[1]),
        return_scale=scale.repeat(1, valid.shape[1]),
        credit=torch.zeros_like(valid),
        target=torch.zeros_like(valid),
    )


def credited(rounds: list[Samples], outer: slice) -> list[Samples]:
    """Credit the samples before each gradient step for the returns of the later rounds among `outer` (E-MAML).

    The return J of a later round also depends on the samples drawn before it. The gradient of that dependence is
    Σ ∇log π (J - b), a sum over all steps of the task (Stadie et al. 2018). The baseline b is the mean return of the
    other tasks in the meta-batch, which does not depend on this task's samples; for a single task it is 0.
    """
    gains, tasks = [], ranks.shard(len(rounds[0].x)).every
    for samples in rounds:
        returns = samples.mean_return
        others = (ranks.total(returns.sum(0)) - returns) / max(tasks - 1, 1)
        gains.append((returns - others) * samples.return_scale)
    improved = range(len(rounds))[outer]
    found = []
    for number, samples in enumerate(rounds):
        later = [gains[after][:, :1] for after in improved if after > number]
        steps = (samples.weight > 0).sum(-1, keepdim=True)  # cancels the division in `weight`
        gain = torch.stack(later).sum(0) / len(improved) if later else torch.zeros_like(samples.credit[:, :1])
        found.append(samples._replace(credit=(gain * steps).expand_as(samples.credit).clone()))
    return found


def by_task(x: Tensor, tasks: int) -> Tensor:
    """Rearrange ``(T, tasks × trajectories, …)`` to ``(tasks, trajectories × T, …)``."""
    x = x.unflatten(1, (tasks, -1))  # (T, N, trajectories, …)
    return x.permute(1, 2, 0, *range(3, x.ndim)).flatten(1, 2)


def steps_since_start(rollout: Rollout) -> Tensor:
    """Return the steps since the start of the episode, int64 ``(T, B)``."""
    t = torch.arange(len(rollout.mask), device=rollout.mask.device)[:, None]
    return t - torch.cummax(t * (rollout.step.prev_done > 0), dim=0).values


def episode_time(rollout: Rollout) -> Tensor:
    """Return the time in the episode in hundreds of steps, float32 ``(T, B)``: an input of networks and baselines."""
    return steps_since_start(rollout) / 100.0


def first_trajectories(samples: Samples, few: int, trajectories: int) -> Samples:
    """Keep the first `few` of each task's `trajectories`, and rescale the weights of a task to sum to 1."""
    if few == trajectories:
        return samples
    part = Samples(*(field[:, : field.shape[1] // trajectories * few] for field in samples))
    return part._replace(weight=part.weight / part.weight.sum(-1, keepdim=True).clamp_min(1e-8))
