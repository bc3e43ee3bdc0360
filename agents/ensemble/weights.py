"""Who of an ensemble is trusted how much: weights per task, from what the trial has shown."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.core.batch_env import Step

WEIGHTS = ("uniform", "likelihood", "hedge")
"""uniform: all the same, always. likelihood: Bayes' rule, by how likely each member found the rewards. hedge:
exponential weights on estimates of what each member would have earned."""
MOST_RATIO = 10.0
"""Likelihood ratio at most in Hedge's estimates, whose variance it bounds."""


@runtime_checkable
class PredictsReward(Protocol):
    """An agent that says how likely a reward is, such as `VariBAD`."""

    def reward_log_prob(self, memory: Any, obs: Tensor, step: Step) -> Tensor:
        """Return log p of the reward that `step` shows, ``(B,)``, for its action in `obs`, by the memory before it.

        After the last action of an episode, `step` shows the first observation of the next one. An agent that cannot
        judge such a reward returns 0.
        """


def by_likelihood(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """Return log weights ``(B, M)`` after a reward of log-likelihood ``(B, M)`` under each member: Bayes' rule."""
    return (log_weights + log_probs).log_softmax(-1)


def by_hedge(log_weights: Tensor, gain: Tensor, log_ratio: Tensor, rate: float) -> Tensor:
    """Return log weights ``(B, M)`` after an episode with a `gain` ``(B,)``, in units of an episode's range.

    The member's own gain is estimated by importance weighting: `log_ratio` ``(B, M)`` is the log-probability of the
    episode's actions under a member, less that under the mixture which played (Freund and Schapire 1997; Auer et al.
    2002).
    """
    ratio = log_ratio.clamp_max(math.log(MOST_RATIO)).exp()
    return (log_weights + rate * gain[:, None] * ratio).log_softmax(-1)


def normal_log_prob(error: Tensor, size: float) -> Tensor:
    """Return the log-density of errors under a normal distribution with mean 0 and a standard deviation `size`."""
    return -0.5 * (error / size) ** 2 - math.log(size) - 0.5 * math.log(2.0 * math.pi)


def hedge_rate(members: int, episodes: int) -> float:
    """Return the learning rate of Hedge for so many members and episodes: ``sqrt(8 ln M / K)``."""
    return math.sqrt(8.0 * math.log(max(members, 2)) / max(episodes, 1))


def disagreement(log_probs: Tensor, log_weights: Tensor) -> Tensor:
    """Return the members' mean divergence from their mixture, ``(B,)``: the Jensen–Shannon divergence, in nats.

    `log_probs` are ``(B, M, A)``, `log_weights` ``(B, M)``. 0: all act alike; at most the entropy of the weights.
    """
    mixture = torch.logsumexp(log_weights[..., None] + log_probs, dim=1, keepdim=True)
    divergence = (log_probs.exp() * (log_probs - mixture)).nan_to_num(0.0).sum(-1)
    return (log_weights.exp() * divergence).sum(-1)


def sampled_disagreement(log_probs: Tensor, log_weights: Tensor) -> Tensor:
    """Return an estimate of `disagreement`, ``(B,)``, from S actions of each member, for distributions of any kind.

    ``log_probs[s, b, i, j]`` is the log-probability, under member j, of the action s that member i drew:
    ``(S, B, M, M)``. The estimate is unbiased, so it may be a little below 0 where the members agree.
    """
    mixture = torch.logsumexp(log_weights[:, None] + log_probs, dim=-1)  # (S, B, M)
    own = torch.diagonal(log_probs, dim1=-2, dim2=-1)
    return (log_weights.exp() * (own - mixture).mean(0)).sum(-1)
