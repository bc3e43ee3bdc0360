"""What a round of trajectories teaches a policy gradient, task by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.rollout import Rollout
from metarl.learning.estimators import discounted_returns, gae, linear_baseline, normalise_rows, row_std

Baseline = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(features (N, M, F), time, returns, mask, each (N, M)) → what is subtracted from the returns (N, M)."""


class Samples(NamedTuple):
    """The samples of N tasks in one round, M = trajectories × steps each, one trajectory after the other."""

    x: Tensor  # (N, M, F) scaled observations
    action: Tensor  # (N, M) or (N, M, A)
    log_prob: Tensor  # (N, M) of the policy that acted
    advantage: Tensor  # (N, M)
    weight: Tensor  # (N, M) 1 / (the task's steps); 0 for padding
    time: Tensor  # (N, M) int64: steps since the start of the episode
    score: Tensor  # (N, M) the task's mean return of an episode, discounted: one number for all its samples
    unit: Tensor  # (N, M) one number, too: the gradient of the weighted log-probabilities is that of `score` times it
    credit: Tensor  # (N, M) what `credited` makes of the scores of later rounds; 0 before


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
    """Turn a rollout of `tasks` tasks, with features `x` (T, B, F) of its observations, into samples.

    Every end of an episode is one, the horizon too: what comes after it counts for nothing.
    """
    mask = rollout.mask
    reward = rollout.outcome.reward * mask
    ends = (rollout.outcome.terminated | rollout.outcome.truncated).to(mask.dtype)
    features, valid = by_task(x, tasks), by_task(mask, tasks)
    time = by_task(steps_since_start(rollout), tasks)
    returns = by_task(discounted_returns(reward, ends, gamma), tasks)
    expected = baseline(features, time / 100.0, returns, valid)
    if gae_lambda == 1.0:
        advantage = returns - expected  # what the estimator is then
    else:
        value = expected.unflatten(1, (-1, len(mask))).permute(2, 0, 1).flatten(1) * mask  # (T, B)
        advantage = by_task(gae(reward, value, ends, torch.zeros_like(value[0]), gamma, gae_lambda), tasks)
    steps = valid.sum(-1, keepdim=True).clamp_min(1.0)
    starts = valid * (time == 0)
    episodes = starts.sum(-1, keepdim=True).clamp_min(1.0)
    score = (returns * starts).sum(-1, keepdim=True) / episodes
    unit = episodes / steps
    if norm_adv:
        std = row_std(advantage, valid)[:, None]
        advantage, unit = normalise_rows(advantage, valid), torch.where(std > 0.0, unit / std, 0.0)
    return Samples(
        x=features,
        action=by_task(rollout.acted.action, tasks),
        log_prob=by_task(rollout.acted.log_prob, tasks),
        advantage=advantage * valid,
        weight=valid / steps,
        time=time,
        score=score.repeat(1, valid.shape[1]),
        unit=unit.repeat(1, valid.shape[1]),
        credit=torch.zeros_like(valid),
    )


def credited(rounds: list[Samples], outer: slice) -> list[Samples]:
    """Credit the samples before each gradient step for the returns of the rounds `outer` after it.

    The return J of a later round has Σ ∇log π (J - b) as its gradient by the policies that sampled what was adapted to,
    a sum over all steps of a task (Stadie et al. 2018, E-MAML). The baseline b is the mean score of the other tasks of
    the batch, which know nothing of the task's samples; 0 for a task of its own.
    """
    gains = []
    for samples in rounds:
        others = (samples.score.sum(0) - samples.score) / max(len(samples.score) - 1, 1)
        gains.append((samples.score - others) * samples.unit)
    improved = range(len(rounds))[outer]
    found = []
    for number, samples in enumerate(rounds):
        later = [gains[after][:, :1] for after in improved if after > number]
        steps = (samples.weight > 0).sum(-1, keepdim=True)  # `weight` divides by them
        gain = torch.stack(later).sum(0) / len(improved) if later else torch.zeros_like(samples.score[:, :1])
        found.append(samples._replace(credit=(gain * steps).expand_as(samples.credit).clone()))
    return found


def by_task(x: Tensor, tasks: int) -> Tensor:
    """``(T, tasks × trajectories, …)`` as ``(tasks, trajectories × T, …)``."""
    x = x.unflatten(1, (tasks, -1))  # (T, N, trajectories, …)
    return x.permute(1, 2, 0, *range(3, x.ndim)).flatten(1, 2)


def steps_since_start(rollout: Rollout) -> Tensor:
    """Steps since the episode's start: int64 ``(T, B)``."""
    t = torch.arange(len(rollout.mask), device=rollout.mask.device)[:, None]
    return t - torch.cummax(t * (rollout.step.prev_done > 0), dim=0).values


def episode_time(rollout: Rollout) -> Tensor:
    """The same in hundreds, as networks and baselines are given it: float32 ``(T, B)``."""
    return steps_since_start(rollout) / 100.0


def first_trajectories(samples: Samples, few: int, trajectories: int) -> Samples:
    """The first `few` of each task's trajectories, weighted as if they were all."""
    if few == trajectories:
        return samples
    part = Samples(*(field[:, : field.shape[1] // trajectories * few] for field in samples))
    return part._replace(weight=part.weight / part.weight.sum(-1, keepdim=True).clamp_min(1e-8))
