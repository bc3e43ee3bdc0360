"""Tasks of bandits whose arms do not change: what each arm pays."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BernoulliArms(NamedTuple):
    """The machines of a Bernoulli bandit."""

    probs: Tensor  # (B, k) float32: probability that an arm pays


class GaussianArms(NamedTuple):
    """The machines of a Gaussian bandit."""

    means: Tensor  # (B, k) float32: what an arm pays on average
