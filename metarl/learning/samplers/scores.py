"""Scores of tasks: how much an agent could still learn on a task, estimated from a trial on it.

All scores are means over the rows that play a task in parallel, in the last round of the trial: the whole trial for an
agent that adapts in its memory, and the adapted policy for one that adapts by gradient steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.agent import LearningAgent
from metarl.core.checks import pattern_task
from metarl.core.rollout import Rollout, episode_index, episode_returns
from metarl.learning.estimators import gae

SCORES = ("max_mc", "positive_value_loss", "regret")
"""The names of the scores."""

BY_VALUES = ("max_mc", "positive_value_loss")
"""The scores that need a critic."""


class Outcome(NamedTuple):
    """The outcome of a trial on N tasks."""

    mean: Tensor  # (N,) mean return of an episode
    best: Tensor  # (N,) the largest return of an episode


def outcome(agent: LearningAgent, rollout: Rollout, tasks: int) -> Outcome:
    """Return the outcome of a trial's last round on `tasks` tasks."""
    returns = episode_returns(rollout, episodes_of(agent)).reshape(tasks, -1)
    return Outcome(returns.mean(1), returns.amax(1))


def episodes_of(agent: LearningAgent) -> int:
    """Return the number of episodes per round."""
    return agent.protocol.episodes or agent.family.episodes_per_trial


def regret(agent: LearningAgent, rollout: Rollout, mean: Tensor) -> Tensor:
    """Return the exact regret ``(N,)``: the known optimum of an episode minus the `mean` return of an episode.

    The optimum is that of an oracle, which knows the task (`TaskFamily.oracle`). A task that cannot be solved therefore
    has no regret, and neither has one that is solved optimally.
    """
    each = rollout.mask.shape[1] // len(mean)
    optimum = agent.family.oracle(rollout.task)
    assert optimum is not None, "checked when the sampler was made"
    return optimum[::each] - mean


def max_mc(agent: LearningAgent, rollout: Rollout, best: Tensor) -> Tensor:
    """Return the maximum Monte-Carlo score ``(N,)`` (Jiang et al. 2021b, section 5).

    It is the mean over steps of R_max - V(s): how far the critic's value is below the best return so far on the task,
    `best` ``(N,)``. A value covers the rest of the trial, so R_max is multiplied by the number of remaining episodes.
    With one episode per round this is the paper's formula: R_max is not discounted, even if values are, and includes
    rewards from before the step.
    """
    tasks, mask = len(best), rollout.mask
    left = episodes_of(agent) - episode_index(rollout)
    target = best.repeat_interleave(mask.shape[1] // tasks) * left
    return _mean_of_steps(target - _values(agent, rollout), mask, tasks)


def positive_value_loss(agent: LearningAgent, rollout: Rollout, tasks: int, gamma: float, gae_lambda: float) -> Tensor:
    """Return the mean over steps of max(0, advantage), ``(N,)`` (Jiang et al. 2021b, section 5).

    Advantages are generalised advantage estimates over the round, whose end is the only terminal.
    """
    mask = rollout.mask
    last = 1.0 - torch.cat([mask[1:], torch.zeros_like(mask[:1])])
    reward = rollout.outcome.reward * mask
    advantage = gae(reward, _values(agent, rollout), last, torch.zeros_like(mask[0]), gamma, gae_lambda)
    return _mean_of_steps(advantage.clamp_min(0.0), mask, tasks)


def check(agent: LearningAgent, score: str) -> None:
    """Raise ValueError for a score that the agent or its family does not support."""
    if score in BY_VALUES and agent.values is None:
        raise ValueError(
            f"The score {score} needs a critic, which {agent.title} lacks: choose regret as the score of the task "
            "sampler, or an agent with a critic, such as RL2, or MAML with baseline=network."
        )
    if score == "regret" and agent.family.oracle(pattern_task(agent.family)) is None:
        name = type(agent.family).__name__
        raise ValueError(
            f"The score regret needs the known optimum of a task, and {name} has none: choose max_mc or "
            f"positive_value_loss as the score of the task sampler, or implement oracle(task)."
        )


def _values(agent: LearningAgent, rollout: Rollout) -> Tensor:
    values = agent.values
    assert values is not None, "checked when the sampler was made"
    return values(rollout)


def _mean_of_steps(x: Tensor, mask: Tensor, tasks: int) -> Tensor:
    return ((x * mask).sum(0) / mask.sum(0)).reshape(tasks, -1).mean(1)
