"""The tables of finite Markov decision processes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Tables(NamedTuple):
    """A finite MDP."""

    transition: Tensor  # (B, S, A, S) float32: P(next | state, action)
    reward_mean: Tensor  # (B, S, A) float32
