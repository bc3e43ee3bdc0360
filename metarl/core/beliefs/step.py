"""The inputs of an agent at each step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Step(NamedTuple):
    """The inputs of an agent before it acts (RL²'s inputs, Duan et al. 2016)."""

    obs: Tensor  # (B, *O) float32
    prev_action: Tensor  # (B,) or (B, A) int64, or (B, A) float32; no action (see `no_action`) at the trial's start
    prev_reward: Tensor  # (B,) float32; 0 at the trial's start
    prev_done: Tensor  # (B,) float32; 1 right after an episode ended
