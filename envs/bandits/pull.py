"""The state of every bandit: its last pull."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Pull(NamedTuple):
    """The last pull. The agent sees it only as its previous action and reward; pictures need it here."""

    arm: Tensor  # (B,) int64; -1 before the pull
    reward: Tensor  # (B,) float32
