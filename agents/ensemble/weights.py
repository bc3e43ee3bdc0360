"""The weights of an ensemble's members: one set per task, from the evidence of the trial."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.core.batch_env import Step

WEIGHTS = ("uniform", "likelihood", "hedge")
"""uniform: always equal. likelihood: Bayes' rule, by the likelihood of the rewards under each member. hedge:
exponential weights on estimates of what each member would have earned."""
MOST_RATIO = 10.0
"""Largest likelihood ratio in Hedge's estimates, which bounds their variance."""


@runtime_checkable
class PredictsReward(Protocol):
    """An agent, such as `VariBAD`, that gives the likelihood of a reward."""

    def reward_log_prob(self, memory: Any, obs: Tensor, step: Step) -> Tensor:
        """Return the log-likelihood ``(B,)`` of the reward in `step`, given its action at `obs` and the memory before.

        After the last action of an episode, `step` holds the first observation of the next one. An agent that cannot
        judge such a reward returns 0.
        """


def by_likelihood(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """Update log weights ``(B, M)`` by Bayes' rule, given the log-likelihoods ``(B, M)`` of a reward."""
    return (log_weights + log_probs).log_softmax(-1)


def by_hedge(log_weights: Tensor, gain: Tensor, log_ratio: Tensor, rate: float) -> Tensor:
    """Update log weights ``(B, M)`` by Hedge, after an episode with `gain` ``(B,)`` in units of an episode's range.

    Importance weighting estimates what each member would have gained: `log_ratio` ``(B, M)`` is the log-probability of
    the episode's actions under a member minus that under the mixture that played (Freund and Schapire 1997; Auer et al.
    2002).
    """
    ratio = log_ratio.clamp_max(math.log(MOST_RATIO)).exp()
    return (log_weights + rate * gain[:, None] * ratio).log_softmax(-1)


def normal_log_prob(error: Tensor, size: float) -> Tensor:
    """Return the log-density of errors under a normal distribution with mean 0 and standard deviation `size`."""
    return -0.5 * (error / size) ** 2 - math.log(size) - 0.5 * math.log(2.0 * math.pi)


def hedge_rate(members: int, episodes: int) -> float:
    """Return Hedge's learning rate for M members and K episodes, ``sqrt(8 ln M / K)``."""
    return math.sqrt(8.0 * math.log(max(members, 2)) / max(episodes, 1))


def disagreement(log_probs: Tensor, log_weights: Tensor) -> Tensor:
    """Return the Jensen–Shannon divergence ``(B,)``, in nats: the members' mean divergence from their mixture.

    It is 0 if all members act alike, and at most the entropy of the weights. `log_probs` is ``(B, M, A)`` and
    `log_weights` ``(B, M)``.
    """
    mixture = torch.logsumexp(log_weights[..., None] + log_probs, dim=1, keepdim=True)
    divergence = (log_probs.exp() * (log_probs - mixture)).nan_to_num(0.0).sum(-1)
    return (log_weights.exp() * divergence).sum(-1)


def sampled_disagreement(log_probs: Tensor, log_weights: Tensor) -> Tensor:
    """Estimate `disagreement` ``(B,)`` from S actions of each member, for distributions of any kind.

    ``log_probs[s, b, i, j]``, of shape ``(S, B, M, M)``, is the log-probability under member j of the s-th action drawn
    from member i. The estimate is unbiased, so it may be slightly below 0 where the members agree.
    """
    mixture = torch.logsumexp(log_weights[:, None] + log_probs, dim=-1)  # (S, B, M)
    own = torch.diagonal(log_probs, dim1=-2, dim2=-1)
    return (log_weights.exp() * (own - mixture).mean(0)).sum(-1)
