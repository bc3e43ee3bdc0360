"""Replay by task: group the trajectories of a ring by task, and draw single transitions of a task."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key
from metarl.core.rollout import Rollout
from metarl.core.tree import num_rows, take, tree_map
from metarl.learning.trial_ring import TrialRing


class Transitions(NamedTuple):
    """M transitions of each of N tasks."""

    obs: Tensor  # (N, M, *O)
    action: Tensor  # (N, M) or (N, M, A), in the family's units
    reward: Tensor  # (N, M)
    terminated: Tensor  # (N, M) bool
    next_obs: Tensor  # (N, M, *O)


class ByTask:
    """The trajectories of a ring, grouped by task: tasks with the same values form one group.

    If tasks come from a fixed list, the group of a task holds all of its trajectories that are still in the ring. If
    every trial has a new task, each group is one trial. `recently` draws only from the last `recent` trajectories of a
    task. Padding is never drawn, and neither are trials with numbers that were not finite.
    """

    def __init__(self, ring: TrialRing, recent: int) -> None:
        """Group the trajectories that are now in `ring`, which must not be empty."""
        self.ring = ring
        numbers = torch.arange(ring.oldest(), ring.added, device=ring.stored["mask"].device)
        slots = numbers % ring.slots
        group = _groups(ring, slots)
        order = group.argsort(stable=True)  # oldest to newest within a group
        self.slots = slots[order]
        length = ring.stored["mask"].sum(1).to(torch.int64)[self.slots]
        self.ends = length.cumsum(0)  # the transitions are numbered in this order
        self.starts = self.ends - length
        last = group.bincount().cumsum(0) - 1
        first = torch.cat([last.new_zeros(1), last[:-1] + 1])
        newest = torch.maximum(first, last - recent + 1)
        full = self.ends[last] > self.starts[newest]
        self.end, self.first, self.newest = (
            x[full] for x in (self.ends[last], self.starts[first], self.starts[newest])
        )

    def __len__(self) -> int:
        """Return the number of tasks with at least one step."""
        return len(self.end)

    def tasks(self, key: Key, n: int) -> Tensor:
        """Draw n tasks uniformly with replacement, int64 ``(n,)``."""
        return rng.integers(key, n, len(self))

    def ever(self, tasks: Tensor, keys: Key, size: int) -> Transitions:
        """Draw `size` transitions of each task ``(N,)`` uniformly with replacement, by the keys ``(N,)``."""
        return self._draw(self.first[tasks], self.end[tasks], keys, size)

    def recently(self, tasks: Tensor, keys: Key, size: int) -> Transitions:
        """Draw like `ever`, but only from the last trajectories of each task."""
        return self._draw(self.newest[tasks], self.end[tasks], keys, size)

    def _draw(self, start: Tensor, end: Tensor, keys: Key, size: int) -> Transitions:
        count = (end - start)[:, None]
        chosen = (rng.uniform(keys, size) * count).to(torch.int64)
        number = start[:, None] + torch.minimum(chosen, count - 1)
        place = torch.searchsorted(self.ends, number, right=True)
        slot, time = self.slots[place], number - self.starts[place]
        names = "step.obs", "acted.action", "outcome.reward", "outcome.terminated", "outcome.final_obs"
        return Transitions(*(self.ring.stored[name][slot, time] for name in names))


def episodes_of(trial: list[Rollout]) -> Rollout:
    """Return the rounds of B trials as rows of one rollout ``(T, B × rounds, …)``, with the rounds of a trial adjacent.

    The newest episodes of a task in a ring are then those of its last trial, from the first round to the last. Shorter
    rounds are padded to the length of the longest one.
    """
    longest = max(len(rollout.mask) for rollout in trial)

    def joined(*rounds: Tensor) -> Tensor:
        padded = [torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]) for x in rounds]
        return torch.stack(padded, dim=2).flatten(1, 2)  # (T, B, rounds, …) to (T, B × rounds, …)

    first, *others = [(rollout.step, rollout.acted, rollout.outcome, rollout.mask) for rollout in trial]
    step, acted, outcome, mask = tree_map(joined, first, *others)
    task = trial[0].task
    rows = torch.arange(num_rows(task), device=mask.device).repeat_interleave(len(trial))
    return Rollout(step, acted, outcome, mask, take(task, rows))


def _groups(ring: TrialRing, slots: Tensor) -> Tensor:
    """Return the index of each slot's group, int64; slots with equal tasks share a group."""
    parts = [column[slots].reshape(len(slots), -1) for name, column in ring.stored.items() if name.startswith("task")]
    numbers = torch.cat([part.to(torch.float64) for part in parts], dim=1)
    group: Tensor = numbers.unique(dim=0, return_inverse=True)[1]
    return group
