"""One pull of a bandit: the state before and after it, and the empty observation."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.family import Key


class Pull(NamedTuple):
    """The last pull, for pictures. The agent sees it only as its previous action and reward."""

    arm: Tensor  # (B,) int64; -1 before the pull
    reward: Tensor  # (B,) float32


def no_pull(key: Key) -> Pull:
    """Return the state before the pull, one row per key."""
    return Pull(torch.full_like(key, -1), torch.zeros(len(key), device=key.device))


def blank_space() -> gymnasium.spaces.Box:
    """Return the space of `blank` observations."""
    return gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)


def blank(reward: Tensor) -> Tensor:
    """Return the empty observation: 0, float32 ``(B, 1)``, for rows with these last rewards ``(B,)``."""
    return reward.new_zeros(len(reward), 1)
