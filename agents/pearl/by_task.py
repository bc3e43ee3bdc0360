"""A ring's trajectories by the task that they were played on, from which single transitions are drawn."""

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
    """The trajectories of a ring, grouped by task: tasks with the same numbers are one.

    A task of a fixed list is met again and again, and its group holds all of its trajectories that are still in the
    ring; of tasks that are always new each group is one trial. `recent` limits what `recently` draws from to the last
    trajectories of a task. Padding is never drawn, such as a trial with a number that
    was not finite.
    """

    def __init__(self, ring: TrialRing, recent: int) -> None:
        """Sort the trajectories of a `ring` that has some, as they are now."""
        self.ring = ring
        numbers = torch.arange(ring.oldest(), ring.added, device=ring.stored["mask"].device)
        slots = numbers % ring.slots
        group = _groups(ring, slots)
        order = group.argsort(stable=True)  # within a group from the oldest to the newest
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
        """Return the number of tasks that have a step."""
        return len(self.end)

    def tasks(self, key: Key, n: int) -> Tensor:
        """Draw n tasks, each with the same probability, again and again: int64 ``(n,)``."""
        return rng.integers(key, n, len(self))

    def ever(self, tasks: Tensor, keys: Key, size: int) -> Transitions:
        """Draw `size` transitions of each of the tasks ``(N,)`` by the keys ``(N,)``, uniformly, again and again."""
        return self._draw(self.first[tasks], self.end[tasks], keys, size)

    def recently(self, tasks: Tensor, keys: Key, size: int) -> Transitions:
        """Draw as `ever`, but only from the last trajectories of each task."""
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
    """Return the rounds of B trials as rows of one rollout ``(T, B × rounds, …)``, those of a trial in succession.

    So the newest episodes of a task in a ring are those of its last trial, from the first round to the last. Rounds
    that are shorter than the longest one are padded.
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
    """Return the number of each slot's group, int64, by the numbers of its task."""
    parts = [column[slots].reshape(len(slots), -1) for name, column in ring.stored.items() if name.startswith("task")]
    numbers = torch.cat([part.to(torch.float64) for part in parts], dim=1)
    group: Tensor = numbers.unique(dim=0, return_inverse=True)[1]
    return group
