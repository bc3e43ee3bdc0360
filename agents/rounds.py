"""What a round of trajectories teaches a policy gradient, task by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.estimators import discounted_returns, gae, linear_baseline, normalise_rows, row_std
from metarl.rollout import Rollout
from metarl.tree import join_columns as join

Baseline = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(features (N, M, F), time, returns, mask, each (N, M)) → what is subtracted from the returns (N, M)."""


class Round(NamedTuple):
    """The samples of N tasks, M = trajectories × steps each, one trajectory after the other."""

    x: Tensor  # (N, M, F) scaled observations
    action: Tensor  # (N, M) or (N, M, A)
    log_prob: Tensor  # (N, M) of the policy that acted
    advantage: Tensor  # (N, M)
    weight: Tensor  # (N, M) 1 / (the task's steps); 0 for padding
    time: Tensor  # (N, M) int64: steps since the start of the episode
    score: Tensor  # (N, M) the task's mean return of an episode, discounted: one number for all its samples
    unit: Tensor  # (N, M) one number, too: the gradient of the weighted log-probabilities is that of `score` times it
    credit: Tensor  # (N, M) what `credited` makes of the scores of later rounds; 0 before


def make_round(
    rollout: Rollout,
    x: Tensor,
    tasks: int,
    *,
    gamma: float,
    gae_lambda: float = 1.0,
    norm_adv: bool = True,
    baseline: Baseline = linear_baseline,
) -> Round:
    """A rollout of `tasks` tasks, with features `x` (T, B, F) of its observations, as a Round.

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
    return Round(
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


def credited(rounds: list[Round], judged: int) -> list[Round]:
    """The rounds of a trial, with what the last `judged` of them owe to the samples of the ones before.

    The return J of a later round has Σ ∇log π (J - b) as its gradient by the policies that sampled what was adapted to,
    a sum over all steps of a task (Stadie et al. 2018, E-MAML). The baseline b is the mean score of the other tasks of
    the batch, which know nothing of the task's samples; 0 for a task alone.
    """
    gains = []
    for round in rounds:
        score = round.score
        others = (score.sum(0) - score) / max(len(score) - 1, 1)
        gains.append((score - others) * round.unit)
    found = []
    for number, round in enumerate(rounds):
        later = gains[max(number + 1, len(rounds) - judged) :]
        steps = (round.weight > 0).sum(-1, keepdim=True)  # `weight` divides by them
        gain = torch.stack([gain[:, :1] for gain in later]).sum(0) / judged if later else torch.zeros_like(score[:, :1])
        found.append(round._replace(credit=(gain * steps).expand_as(round.credit).clone()))
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


def mean_of_rounds(rounds: list[Round]) -> Round:
    """Rounds of the same tasks as one in which each weighs the same."""
    joined: Round = join(rounds)
    return joined._replace(weight=joined.weight / len(rounds))


def first_trajectories(round: Round, few: int, trajectories: int) -> Round:
    """The first `few` of each task's trajectories, weighted as if they were all."""
    if few == trajectories:
        return round
    part = Round(*(field[:, : field.shape[1] // trajectories * few] for field in round))
    return part._replace(weight=part.weight / part.weight.sum(-1, keepdim=True).clamp_min(1e-8))
