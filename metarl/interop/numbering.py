"""The numbering of trials: a seed and a number determine a trial's task and noise."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.tree import concatenate


class Numbering:
    """A counter that assigns trials in the order in which they begin.

    Trial n of a seed has the task ``sample_tasks(fold(key(seed), 0), 1, split, first=n)`` and draws from
    ``fold(fold(key(seed), 1), n)``. Rows share one seed (`share`): each trial that begins takes the next number. A row
    may have its own seed instead (`separate`): it then plays trials 0, 1, 2 … of that seed, independently of the
    other rows.
    """

    def __init__(self, family: TaskFamily) -> None:
        self.family = family
        self._root: Key | None = None
        self._count = 0
        self._own: dict[int, tuple[Key, int]] = {}  # by row: the root of its seed, and how many trials it has begun

    @property
    def seeded(self) -> bool:
        """True if the rows share a seed."""
        return self._root is not None

    def share(self, seed: int) -> None:
        """Restart the numbering of the later trials of all rows under one seed."""
        self._root, self._count, self._own = rng.key(seed), 0, {}

    def separate(self, row: int, seed: int) -> None:
        """Let a row play the trials of its own seed, from number 0."""
        self._own[row] = (rng.key(seed), 0)

    def next(self, rows: Tensor, split: str) -> tuple[Task, Key]:
        """Return tasks (M rows) and keys (M,) of the trials that begin in `rows` (M,), in this order.

        Raises ValueError if there is no seed.
        """
        if self._own.keys().isdisjoint(rows.tolist()):
            return self._next_shared(len(rows), split)
        tasks, keys = [], []
        for row in rows.tolist():
            task, key = self._next_own(row, split) if row in self._own else self._next_shared(1, split)
            tasks.append(task)
            keys.append(key)
        return concatenate(tasks), torch.cat(keys)

    def take(self, row: int) -> tuple[Key, int]:
        """Return the root of the seed and the number of the trial that begins in a row. Raises ValueError as `next`."""
        if row in self._own:
            root, number = self._own[row]
            self._own[row] = (root, number + 1)
            return root, number
        if self._root is None:
            raise ValueError("Give a seed first.")
        self._count += 1
        return self._root, self._count - 1

    def numbered(self, root: Key, numbers: Tensor, split: str) -> tuple[Task, Key]:
        """Return tasks and keys of the trials with these numbers, int64 ``(M,)``, of the seed that has this root.

        `next` returns the same for families that draw their tasks with `TaskFamily.sample_tasks`.
        """
        task = self.family.numbered_tasks(rng.fold(root, 0), numbers, split)
        return task, rng.fold(rng.fold(root, 1), numbers)

    def _next_shared(self, count: int, split: str) -> tuple[Task, Key]:
        if self._root is None:
            raise ValueError("Give a seed first.")
        first, self._count = self._count, self._count + count
        return self._trials(self._root, first, count, split)

    def _next_own(self, row: int, split: str) -> tuple[Task, Key]:
        return self._trials(*self.take(row), 1, split)

    def _trials(self, root: Key, first: int, count: int, split: str) -> tuple[Task, Key]:
        task = self.family.sample_tasks(rng.fold(root, 0), count, split, first=first)
        return task, rng.fold(rng.fold(root, 1), torch.arange(first, first + count))
