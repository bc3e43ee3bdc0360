"""The rules of the two-step task: its probabilities, and the rounds that a task determines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

COMMON = 0.8  # probability of an action's common transition


SWITCH = 0.025  # probability before each round that the better state changes


PAYS = (0.1, 0.9)  # probability of a reward in the poorer and in the better second state


class Rounds(NamedTuple):
    """A task: the fixed random outcomes of each round of a trial."""

    luck: Tensor  # (B, n) float32 in [0, 1): decides before each round whether the better second state changes
    common: Tensor  # (B, 2) int64: the second state, 1 or 2, to which each action commonly leads


def better_states(task: Rounds) -> Tensor:
    """Return the better second state, 1 or 2, of each round: int64 ``(B, n)``."""
    switches = torch.cat([task.luck[:, :1] < 0.5, task.luck[:, 1:] < SWITCH], dim=1)
    return 1 + switches.cumsum(1) % 2
