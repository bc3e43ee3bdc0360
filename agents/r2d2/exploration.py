"""The actors' exploration: ε-greedy, with one ε per row (Horgan et al. 2018, "Ape-X", §4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.core.distributions import Categorical


def ladder(place: Tensor, epsilon: float, alpha: float) -> Tensor:
    """Return ε^(1 + α place) for places in [0, 1]: a few actors explore a lot, most explore little.

    In the paper, the N actors have the places 0, 1 / (N - 1), … 1.
    """
    return torch.pow(epsilon, 1.0 + alpha * place)


def mean_apex_epsilon(epsilon: float, alpha: float) -> float:
    """Return the mean of `ladder` over uniformly distributed places."""
    if epsilon in (0.0, 1.0) or alpha == 0.0:
        return epsilon
    return epsilon * (epsilon**alpha - 1.0) / (alpha * math.log(epsilon))


def epsilon_greedy(q: Tensor, epsilon: Tensor) -> Categorical:
    """Return the ε-greedy policy: a uniform action with probability `epsilon` ``(B,)``, otherwise the best one.

    `q` ``(B, A)`` holds the action values.
    """
    actions = q.shape[-1]
    uniform = (epsilon / actions)[..., None].to(q.dtype)
    best = F.one_hot(q.argmax(-1), actions)
    probs = uniform + (1.0 - epsilon)[..., None] * best
    return Categorical(probs.clamp_min(torch.finfo(probs.dtype).tiny).log())
