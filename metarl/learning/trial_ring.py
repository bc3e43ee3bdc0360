"""A ring of whole trials, for learners that look back: the newest trials stay, the oldest make room.

It holds everything of a `Rollout`: observations, actions, rewards, ends, masks and the tasks, in their own types. A
sample is a `Rollout` again, of trials that were drawn with equal probability, so what is written for a new trial serves
for an old one. A learner sets ``self.ring``, calls `add` in its `update` and then `sample`. The trainer saves the ring
next to the run's checkpoints (`metarl.training.ring_files`).

Of several processes each holds the trials of its own rows. A sample is the one that a single process would draw: each
process gets those of its trials that it holds, which may be none.
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
"""The name of the four counts in a ring's state."""

NOTE = "note."
"""The beginning of the names of what is noted next to trials."""

OF_A_TRIAL = ("task", NOTE)
"""The beginnings of the names of columns with an entry for each trial, not for each of its steps."""


class TrialRing:
    """The last `capacity` trials that were added. Its memory is taken at the first `add`, on the rollout's device.

    `capacity` counts the trials of all processes together. Every tensor is stored as ``(trials, T, …)``, those of the
    tasks as ``(trials, …)``, with T the most steps that a trial can have.
    """

    def __init__(
        self, capacity: int, family: AnyFamily, episodes: int | None = None, option: str = "buffer_size"
    ) -> None:
        """Make an empty ring for trials of `episodes` episodes, by default the family's.

        Raises ValueError (one sentence, which names the learner's `option`) if this machine has not the memory.
        """
        self.capacity = capacity
        self.steps = family.horizon * (family.episodes_per_trial if episodes is None else episodes)
        each = self.steps * _step_numbers(family) + task_numbers(family)
        check_memory("The ring of trials", float(capacity) * each, option)
        self.names = _named(Rollout._make([*_PARTS, pattern_task(family), ()]), "")
        self.stored: dict[str, Tensor] = {}
        self.added = 0  # trials of this process so far; also the number of the next one
        self.saved = 0  # those that the run's files hold
        self.shard, self.own = ranks.Shard(0, 1), 1  # the place of an addition's `own` rows among those of all ranks

    def __len__(self) -> int:
        """Return the number of trials that can be drawn, those of all processes together."""
        return min(self._total(), self.capacity)

    @property
    def first(self) -> int:
        """The number of the oldest trial that can be drawn, counted over all processes."""
        return self._total() - len(self)

    @property
    def slots(self) -> int:
        """The trials that this process has memory for."""
        several = self.own < self.shard.every
        return math.ceil(self.capacity / self.shard.every) * self.own if several else self.capacity

    @property
    def nbytes(self) -> int:
        """The memory that is taken, in bytes."""
        return sum(column.nbytes for column in self.stored.values())

    @torch.no_grad()
    def add(self, rollout: Rollout, notes: Mapping[str, Tensor] | None = None) -> None:
        """Add the B trials of a rollout ``(T, B, …)``; more than the capacity leave only the last ones.

        `notes`, tensors ``(B, …)`` by name, are kept and saved with their trials, see `noted`. Raises ValueError for
        trials of more steps than the ring is for, and, with several processes, for another B than before. A trial with
        a number that is not finite is added as one of padding.
        """
        length, own = rollout.mask.shape
        if length > self.steps:
            raise ValueError(f"The ring is for trials of at most {self.steps} steps, got {length}.")
        shard = ranks.shard(own)
        if ranks.several() and self.added and (shard, own) != (self.shard, self.own):
            raise ValueError(f"With several processes each adds as many trials as before, {self.own}, got {own}.")
        # A single process numbers its trials one by one, so that B may change.
        self.shard, self.own = (shard, own) if ranks.several() else (ranks.Shard(0, 1), 1)
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
        """Draw n trials of all that are there, each with the same probability, again and again: ``(T, n, …)``.

        `key` is a scalar, the same in every process; of several processes each gets its own trials of the n. Raises
        ValueError for a ring without trials.
        """
        _, slots = self._draw(key, n)

        def taken(name: str) -> Any:
            if name not in self.stored:  # a target that the trials do not have
                return ()
            rows = self.stored[name].index_select(0, slots)
            return rows if name.startswith(OF_A_TRIAL) else rows.transpose(0, 1).contiguous()

        sampled: Rollout = tree_map(taken, self.names)
        return sampled

    def own_draws(self, key: Key, n: int) -> Tensor:
        """Return which of the n trials of `sample` this process has, int64: all of 0 … n - 1 if it is the only one."""
        return self._draw(key, n)[0]

    def _draw(self, key: Key, n: int) -> tuple[Tensor, Tensor]:
        """Draw n trials; return the numbers among them, and the slots, of those that this process has."""
        if not len(self):
            raise ValueError("The ring has no trials yet: add some before the first sample.")
        return self.find(self.first + rng.integers(key, n, len(self)))

    def find(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Find trials by their `numbers` ``(n,)``, counted over all processes, of those that this process has.

        Returns the indices of these among the n, ``(m,)``, and their slots in the columns of `stored`, ``(m,)``.
        """
        addition, row = numbers // self.shard.every, numbers % self.shard.every - self.shard.first
        draws = torch.arange(len(numbers), device=numbers.device)
        if self.own < self.shard.every:
            mine = (row >= 0) & (row < self.own)
            draws, addition, row = draws[mine], addition[mine], row[mine]
        return draws, (addition * self.own + row) % self.slots

    def noted(self, name: str, slots: Tensor) -> Tensor:
        """Return a note of the trials in these slots, ``(m, …)``."""
        return self.stored[NOTE + name].index_select(0, slots)

    def trials(self, first: int, end: int) -> dict[str, Tensor]:
        """Return this process's trials of the numbers `first` … `end` - 1, which are still there, by their names."""
        if not self.stored:
            return {}
        slots = torch.arange(first, end, device=self.stored["mask"].device) % self.slots
        return {name: column.index_select(0, slots) for name, column in self.stored.items()}

    def oldest(self) -> int:
        """Return the number of this process's oldest trial."""
        return max(0, self.added - self.slots)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that is there: the trials, oldest first, and the counts that say where they belong."""
        return {PLACE: self.place(), **self.trials(self.oldest(), self.added)}

    def place(self) -> Tensor:
        """Return the counts that say where trials belong, int64 ``(4,)``: all so far, and the rows of an addition."""
        return torch.tensor([self.added, self.own, *self.shard])

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state_dict`. Raises ValueError for one of other trials, or of another capacity."""
        self.empty(state[PLACE])
        columns = {name: column for name, column in state.items() if name != PLACE}
        found = len(columns["mask"]) if columns else 0
        if found != self.added - self.oldest():
            raise ValueError(f"The ring goes on with {self.added - self.oldest()} trials, got {found}.")
        self.put(self.oldest(), columns)

    def empty(self, place: Tensor) -> None:
        """Forget all trials; the next one has the number that `place` says."""
        self.added, self.own, *shard = place.tolist()
        self.shard, self.stored = ranks.Shard(*shard), {}

    def put(self, first: int, trials: dict[str, Tensor]) -> None:
        """Put trials back that `trials` returned; the first of them has the number `first`.

        Raises ValueError if they have another number of steps.
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
        """Return the trials of all processes so far."""
        return self.added // self.own * self.shard.every

    def _allocate(self, columns: dict[str, Tensor]) -> None:
        """Take the memory for trials of these types and shapes, ``(B, T, …)`` or ``(B, …)``."""
        for name, column in columns.items():
            shape = column.shape[1:] if name.startswith(OF_A_TRIAL) else (self.steps, *column.shape[2:])
            self.stored[name] = column.new_zeros(self.slots, *shape)


_PARTS = [*(kind._make(kind._fields) for kind in (Step, Acted, Outcome)), "mask"]
"""The parts of a rollout before its task, with a leaf in place of every tensor."""


def _step_numbers(family: AnyFamily) -> int:
    """Return the numbers of a step in the ring: both observations, both actions, and what is a number each."""
    sizes = [math.prod(space.shape or ()) for space in (family.observation_space, family.action_space)]
    return 2 * sum(sizes) + 7


def _named(tree: Any, name: str) -> Any:
    """Return a tree of NamedTuples with each leaf's own name in its place: ``step.obs``; and "target" for a target."""
    if not isinstance(tree, tuple) or not tree:
        return name
    parts = zip(type(tree)._fields, tree, strict=True)  # type: ignore[attr-defined]
    return type(tree)(*(_named(part, f"{name}.{field}" if name else field) for field, part in parts))


def _trials_first(names: Any, rollout: Rollout) -> dict[str, Tensor]:
    """Return the tensors of a rollout by their names, ``(B, T, …)``, and those of its tasks, ``(B, …)``."""
    columns: dict[str, Tensor] = {}

    def keep(name: str, leaf: Any) -> None:
        if isinstance(leaf, Tensor):  # a target is often ()
            columns[name] = leaf if name.startswith(OF_A_TRIAL) else leaf.transpose(0, 1)

    tree_map(keep, names, rollout)
    return columns


def _finite(columns: dict[str, Tensor]) -> Tensor:
    """Return which trials have only finite numbers, bool ``(B,)``."""
    return torch.stack([column.reshape(len(column), -1).isfinite().all(1) for column in columns.values()]).all(0)
