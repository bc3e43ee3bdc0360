"""Returns and lengths of the episodes inside of trials, counted step by step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.core.batch_env import Outcome


class Inner(NamedTuple):
    """Episodes inside trials that ended with a step."""

    ended: Tensor  # (B,) bool: whether an episode ended
    returns: Tensor  # (B,) float64: its return
    lengths: Tensor  # (B,) int64: its steps


class Counts:
    """The return and the length of each row's episode so far, and the steps of its trial."""

    def __init__(self, rows: int) -> None:
        self.returns = np.zeros(rows)
        self.lengths, self.elapsed = np.zeros((2, rows), np.int64)

    def forget(self, rows: Tensor) -> None:
        """Begin anew in these rows."""
        for counts in (self.returns, self.lengths, self.elapsed):
            counts[rows.numpy()] = 0

    def elapse(self) -> Tensor:
        """Count a step of every trial; return how many each has had: int64 ``(B,)``."""
        self.elapsed = self.elapsed + 1
        return torch.from_numpy(self.elapsed)

    def add(self, outcome: Outcome) -> Inner | None:
        """Add a step to the episodes; return those that ended, if any did."""
        returns, lengths = self.returns + outcome.reward.numpy(), self.lengths + 1
        ended = (outcome.terminated | outcome.truncated).numpy()
        self.returns, self.lengths = np.where(ended, 0.0, returns), np.where(ended, 0, lengths)
        return Inner(*map(torch.from_numpy, (ended, returns, lengths))) if ended.any() else None

    def add_one(self, reward: np.float32, ended: bool) -> tuple[float, int] | None:
        """Add a step to the episode of the only row; return its return and its length if it has ended."""
        self.returns[0] += reward
        self.lengths[0] += 1
        if not ended:
            return None
        found = float(self.returns[0]), int(self.lengths[0])
        self.returns[0], self.lengths[0] = 0.0, 0
        return found
