"""Tasks of bandits whose arms follow a random walk."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Walk(NamedTuple):
    """The machines of a restless bandit, for the whole trial."""

    probs: Tensor  # (B, 2, n) float32: probability that an arm pays, at each of the n pulls
    step_size: Tensor  # (B,) float32: standard deviation of the walk's steps
