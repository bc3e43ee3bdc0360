"""A ring buffer of whole trials, for off-policy learners: new trials overwrite the oldest.

It stores everything in a `Rollout`: observations, actions, rewards, ends, masks and tasks, in their own types. A sample
is again a `Rollout`, of uniformly drawn trials, so code for new trials also works for replayed ones. An agent sets
``self.ring``, and its `update` calls `add` and then `sample`. The trainer saves the ring next to the run's checkpoints
(`metarl.training.ring_files`).

With several processes, each holds the trials of its own rows. A sample is the one that a single process would draw:
each process gets those of the sampled trials that it holds, which may be none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import Outcome, Step
from metarl.core.checks import pattern_task
from metarl.core.family import AnyFamily, Key
from metarl.core.faults.memory import check_memory, task_numbers
from metarl.core.rollout import Acted, Rollout
from metarl.core.tree import tree_map
from metarl.learning import ranks

PLACE = "place"
"""Key of the four counts in a ring's state."""

NOTE = "note."
"""Prefix of the names of notes, which are stored with trials."""

OF_A_TRIAL = ("task", NOTE)
"""Prefixes of the names of columns with one entry per trial, not per step."""


class TrialRing:
    """The last `capacity` trials that were added. The first `add` allocates the memory, on the rollout's device.

    `capacity` counts the trials of all processes. Tensors are stored as ``(trials, T, …)``, those of the tasks as
    ``(trials, …)``, where T is the largest number of steps of a trial.
    """

    def __init__(
        self, capacity: int, family: AnyFamily, episodes: int | None = None, option: str = "buffer_size"
    ) -> None:
        """Make an empty ring for trials of `episodes` episodes, by default the family's.

        Raises ValueError, which names the agent's `option`, if this machine does not have enough memory.
        """
        self.capacity = capacity
        self.steps = family.horizon * (family.episodes_per_trial if episodes is None else episodes)
        each = self.steps * _step_numbers(family) + task_numbers(family)
        check_memory("The ring of trials", float(capacity) * each, option)
        self.names = _named(Rollout._make([*_PARTS, pattern_task(family), ()]), "")
        self.stored: dict[str, Tensor] = {}
        self.added = 0  # trials of this process so far, which is also the number of the next one
        self.saved = 0  # trials that are already in the run's files
        self.shard, self.own = ranks.Shard(0, 1), 1  # the place of this rank's `own` rows of an addition among all rows

    def __len__(self) -> int:
        """Return the number of trials that can be drawn, over all processes."""
        return min(self._total(), self.capacity)

    @property
    def first(self) -> int:
        """The number of the oldest trial that can be drawn, counted over all processes."""
        return self._total() - len(self)

    @property
    def slots(self) -> int:
        """The number of trials for which this process has memory."""
        several = self.own < self.shard.every
        return math.ceil(self.capacity / self.shard.every) * self.own if several else self.capacity

    @property
    def nbytes(self) -> int:
        """The allocated memory, in bytes."""
        return sum(column.nbytes for column in self.stored.values())

    @torch.no_grad()
    def add(self, rollout: Rollout, notes: Mapping[str, Tensor] | None = None) -> None:
        """Add the B trials of a rollout ``(T, B, …)``; if they exceed the capacity, only the last ones are kept.

        `notes`, tensors ``(B, …)`` by name, are stored with their trials (see `noted`). Raises ValueError for trials
        that are longer than the ring allows and, with several processes, for another B than before. A trial with a
        number that is not finite is stored as padding.
        """
        length, own = rollout.mask.shape
        if length > self.steps:
            raise ValueError(f"The ring is for trials of at most {self.steps} steps, got {length}.")
        shard = ranks.shard(own)
        if ranks.is_distributed() and self.added and (shard, own) != (self.shard, self.own):
            raise ValueError(f"With several processes, each must add {self.own} trials, as before, got {own}.")
        # A single process numbers its trials individually, so B may change.
        self.shard, self.own = (shard, own) if ranks.is_distributed() else (ranks.Shard(0, 1), 1)
        columns = _trials_first(self.names, rollout)
        columns |= {NOTE + name: note for name, note in (notes or {}).items()}
        if not self.stored:
            self._allocate(columns)
        finite = _finite(columns)
        slots = torch.arange(self.added, self.added + own, device=rollout.mask.device)[-self.slots :] % self.slots
        for name, column in columns.items():
            broken = ~finite.reshape(-1, *[1] * (column.ndim - 1))
            column = column.masked_fill(broken, 0)[-self.slots :]
            whole = self.stored[name]
            if name.startswith(OF_A_TRIAL):
                whole[slots] = column
            else:
                whole[slots, :length] = column
                whole[slots, length:] = 0
        self.added += own

    def sample(self, key: Key, n: int) -> Rollout:
        """Draw n trials uniformly with replacement: ``(T, n, …)``.

        `key` is a scalar, the same in every process; each of several processes gets only its own trials among the n.
        Raises ValueError for an empty ring.
        """
        _, slots = self._draw(key, n)

        def taken(name: str) -> Any:
            if name not in self.stored:  # these trials have no target
                return ()
            rows = self.stored[name].index_select(0, slots)
            return rows if name.startswith(OF_A_TRIAL) else rows.transpose(0, 1).contiguous()

        sampled: Rollout = tree_map(taken, self.names)
        return sampled

    def own_draws(self, key: Key, n: int) -> Tensor:
        """Return the indices of this process's trials among the n of `sample`, int64; all for a single process."""
        return self._draw(key, n)[0]

    def _draw(self, key: Key, n: int) -> tuple[Tensor, Tensor]:
        """Draw n trials; return the indices among them and the slots of those in this process."""
        if not len(self):
            raise ValueError("The ring has no trials yet: add some before the first sample.")
        return self.find(self.first + rng.integers(key, n, len(self)))

    def find(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Find the trials with these `numbers` ``(n,)``, counted over all processes, that this process holds.

        Returns their indices among the n, ``(m,)``, and their slots in the columns of `stored`, ``(m,)``.
        """
        addition, row = numbers // self.shard.every, numbers % self.shard.every - self.shard.first
        draws = torch.arange(len(numbers), device=numbers.device)
        if self.own < self.shard.every:
            mine = (row >= 0) & (row < self.own)
            draws, addition, row = draws[mine], addition[mine], row[mine]
        return draws, (addition * self.own + row) % self.slots

    def noted(self, name: str, slots: Tensor) -> Tensor:
        """Return the note `name` of the trials in these slots, ``(m, …)``."""
        return self.stored[NOTE + name].index_select(0, slots)

    def trials(self, first: int, end: int) -> dict[str, Tensor]:
        """Return the columns, by name, of this process's trials `first` … `end` - 1, which must still be stored."""
        if not self.stored:
            return {}
        slots = torch.arange(first, end, device=self.stored["mask"].device) % self.slots
        return {name: column.index_select(0, slots) for name, column in self.stored.items()}

    def oldest(self) -> int:
        """Return the number of this process's oldest trial."""
        return max(0, self.added - self.slots)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the trials, oldest first, and the counts that locate them."""
        return {PLACE: self.place(), **self.trials(self.oldest(), self.added)}

    def place(self) -> Tensor:
        """Return the counts that locate trials, int64 ``(4,)``: the trials so far, and the rows of an addition."""
        return torch.tensor([self.added, self.own, *self.shard])

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError if the trials or the capacity do not match."""
        self.empty(state[PLACE])
        columns = {name: column for name, column in state.items() if name != PLACE}
        found = len(columns["mask"]) if columns else 0
        if found != self.added - self.oldest():
            raise ValueError(f"The saved ring must have {self.added - self.oldest()} trials, got {found}.")
        self.put(self.oldest(), columns)

    def empty(self, place: Tensor) -> None:
        """Remove all trials, and set the number of the next one from `place`."""
        self.added, self.own, *shard = place.tolist()
        self.shard, self.stored = ranks.Shard(*shard), {}

    def put(self, first: int, trials: dict[str, Tensor]) -> None:
        """Restore the result of `trials`; the first trial has the number `first`.

        Raises ValueError if the trials have another number of steps.
        """
        if not trials:
            return
        count, steps = trials["mask"].shape
        if steps != self.steps:
            raise ValueError(f"The ring is for trials of {self.steps} steps, got {steps}.")
        if not self.stored:
            self._allocate(trials)
        slots = torch.arange(first, first + count, device=trials["mask"].device) % self.slots
        for name, column in trials.items():
            self.stored[name][slots] = column

    def _total(self) -> int:
        """Return the number of trials of all processes so far."""
        return self.added // self.own * self.shard.every

    def _allocate(self, columns: dict[str, Tensor]) -> None:
        """Allocate memory for trials with these types and shapes, ``(B, T, …)`` or ``(B, …)``."""
        for name, column in columns.items():
            shape = column.shape[1:] if name.startswith(OF_A_TRIAL) else (self.steps, *column.shape[2:])
            self.stored[name] = column.new_zeros(self.slots, *shape)


_PARTS = [*(kind._make(kind._fields) for kind in (Step, Acted, Outcome)), "mask"]
"""The parts of a rollout before its task, with a leaf in place of every tensor."""


def _step_numbers(family: AnyFamily) -> int:
    """Return how many numbers a step takes in the ring: two observations, two actions, and the scalars."""
    sizes = [math.prod(space.shape or ()) for space in (family.observation_space, family.action_space)]
    return 2 * sum(sizes) + 7


def _named(tree: Any, name: str) -> Any:
    """Return a tree of NamedTuples with each leaf replaced by its name, such as ``step.obs``."""
    if not isinstance(tree, tuple) or not tree:
        return name
    parts = zip(type(tree)._fields, tree, strict=True)  # type: ignore[attr-defined]
    return type(tree)(*(_named(part, f"{name}.{field}" if name else field) for field, part in parts))


def _trials_first(names: Any, rollout: Rollout) -> dict[str, Tensor]:
    """Return the tensors of a rollout by name, ``(B, T, …)``, and those of its tasks, ``(B, …)``."""
    columns: dict[str, Tensor] = {}

    def keep(name: str, leaf: Any) -> None:
        if isinstance(leaf, Tensor):  # a target is often ()
            columns[name] = leaf if name.startswith(OF_A_TRIAL) else leaf.transpose(0, 1)

    tree_map(keep, names, rollout)
    return columns


def _finite(columns: dict[str, Tensor]) -> Tensor:
    """Return which trials have only finite numbers, bool ``(B,)``."""
    return torch.stack([column.reshape(len(column), -1).isfinite().all(1) for column in columns.values()]).all(0)
