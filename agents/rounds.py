"""What a round of trajectories teaches a policy gradient, task by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.estimators import discounted_returns, gae, linear_baseline, normalise_rows
from metarl.rollout import Rollout

Baseline = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(features (N, M, F), time, returns, mask, each (N, M)) → what is subtracted from the returns (N, M)."""


class Round(NamedTuple):
    """The samples of N tasks, M = trajectories × steps each, one trajectory after the other."""

    x: Tensor  # (N, M, F) scaled observations
    action: Tensor  # (N, M) or (N, M, A)
    log_prob: Tensor  # (N, M) of the policy that acted
    advantage: Tensor  # (N, M)
    weight: Tensor  # (N, M) 1 / (the task's steps); 0 for padding


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
    features, weight = by_task(x, tasks), by_task(mask, tasks)
    returns = by_task(discounted_returns(reward, ends, gamma), tasks)
    expected = baseline(features, by_task(episode_time(rollout), tasks), returns, weight)
    if gae_lambda == 1.0:
        advantage = returns - expected  # what the estimator is then
    else:
        value = expected.unflatten(1, (-1, len(mask))).permute(2, 0, 1).flatten(1) * mask  # (T, B)
        advantage = by_task(gae(reward, value, ends, torch.zeros_like(value[0]), gamma, gae_lambda), tasks)
    advantage = normalise_rows(advantage, weight) if norm_adv else advantage * weight
    weight = weight / weight.sum(-1, keepdim=True).clamp_min(1.0)
    acted = rollout.acted
    return Round(features, by_task(acted.action, tasks), by_task(acted.log_prob, tasks), advantage, weight)


def by_task(x: Tensor, tasks: int) -> Tensor:
    """``(T, tasks × trajectories, …)`` as ``(tasks, trajectories × T, …)``."""
    x = x.unflatten(1, (tasks, -1))  # (T, N, trajectories, …)
    return x.permute(1, 2, 0, *range(3, x.ndim)).flatten(1, 2)


def episode_time(rollout: Rollout) -> Tensor:
    """Steps since the episode's start, in hundreds: float32 ``(T, B)``."""
    t = torch.arange(len(rollout.mask), device=rollout.mask.device, dtype=torch.float32)[:, None]
    start = torch.cummax(t * rollout.step.prev_done, dim=0).values
    return (t - start) / 100.0


def rows(tree: Any, index: Tensor | slice) -> Any:
    """Some tasks of a Round, or of a distribution of actions."""
    return type(tree)(*(field[index] for field in tree))


def detached(distribution: Any) -> Any:
    """The same distribution of actions outside autograd's graph."""
    return type(distribution)(*(field.detach() for field in distribution))


def join(parts: list[Any]) -> Any:
    """Rounds, or distributions of actions, of the same tasks as one with all their samples."""
    return parts[0] if len(parts) == 1 else type(parts[0])(*(torch.cat(fields, dim=1) for fields in zip(*parts)))


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
