"""Priorities for prioritised replay (Schaul et al. 2016).

Drawing takes a cumulative sum and an update an assignment, both vectorised on any device. On a CPU a sum over a hundred
thousand priorities takes a tenth of a millisecond, which is little compared with a gradient step, so no sum tree is
used.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key


class Drawn(NamedTuple):
    """Drawn entries."""

    entry: Tensor  # (n,) int64
    weight: Tensor  # (n,) float64 in (0, 1]: importance weights


class Priorities:
    """The priorities of `size` entries, initially 0; entries with priority 0 are not drawn.

    Entry i is drawn with probability P(i) = p_i^exponent / Σ_j p_j^exponent (Schaul et al. 2016, eq. 1). With several
    processes, each holds the priorities of all entries.
    """

    def __init__(self, size: int, exponent: float, device: torch.device | str = "cpu") -> None:
        self.exponent = exponent
        self.powers = torch.zeros(size, dtype=torch.float64, device=device)  # p_i^exponent

    def put(self, entry: Tensor, priority: Tensor) -> None:
        """Set the priorities ``(n,)``, at least 0, of the entries ``(n,)``; a repeated entry gets any of its values."""
        self.powers[entry] = torch.where(priority > 0.0, priority.to(torch.float64) ** self.exponent, 0.0)

    def draw(self, key: Key, n: int, importance: float, among: int | None = None) -> Drawn:
        """Draw n of the first `among` entries (None: all) with replacement; `key` is a scalar.

        If all priorities are 0, the last entry is drawn.

        The weights are (N P(i))^-importance for N entries that can be drawn, divided by the largest of the n weights
        (Schaul et al. 2016, §3.4). With `importance` 1 they fully correct the bias of a mean over the draws.
        """
        sums = self.powers[:among].cumsum(0)
        place = rng.uniform(key, n).to(torch.float64) * sums[-1]
        # The entry of the first sum beyond the place has a priority above 0.
        entry = torch.searchsorted(sums, place, right=True).clamp_max(len(sums) - 1)
        # The number of entries and the sum of the powers cancel out in the division.
        weight = self.powers[entry].clamp_min(torch.finfo(torch.float64).tiny) ** -importance
        return Drawn(entry, weight / weight.max())
