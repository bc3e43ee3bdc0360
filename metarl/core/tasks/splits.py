"""Splits: the tasks on which a family trains, tests and chooses checkpoints, and how they are drawn."""

from __future__ import annotations

import zlib
from abc import ABC
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import WrongResult, add_place, short, unknown
from metarl.core.tree import named_leaves, num_rows, take, to_device

TaskT = TypeVar("TaskT")
"""The type of a family's tasks: a NamedTuple of tensors whose leading dimension is the row."""


Key = Tensor


ADDRESSES = ("train", "test", "ood", "all", "valid")
"""Split names; the index of a name is the address of the split's tasks. Append new names, so no address changes."""


LISTS = 20190524
"""The address of all fixed lists of tasks, which are the same for every seed and machine."""


BOOTSTRAP = 0x626F6F74  # "boot" in ASCII
"""The address of all resampled tasks: ``fold(key(seed), BOOTSTRAP)``."""


class Splits(ABC, Generic[TaskT]):
    """The part of a `TaskFamily` that defines its tasks, by split.

    Subclasses implement `draw_tasks` for a distribution of tasks, or `enumerate_tasks` for a finite set.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood")
    train_tasks: int | None = None
    """Size of a fixed, seeded list of training tasks; None: all of a finite `train`, otherwise always new tasks."""
    test_tasks: int | None = None
    """Size of a fixed, seeded list of test tasks; None: as for `train_tasks`."""
    resampled: tuple[str, int] | None = None
    """A finite split from whose bootstrap sample `sample_tasks` draws, and the sample's seed; None: no resampling."""
    fold: tuple[int, int] | None = None
    """The part of the tasks that `hold_out` keeps for `test`, and the number of parts; None: the family's splits."""
    valid_apart: ClassVar[bool] = False
    """True if `draw_tasks` and `enumerate_tasks` define the split `valid`, with other tasks than `train`."""

    def sample_tasks(self, key: Key, n: int, split: str = "train", first: int = 0) -> TaskT:
        """Draw `n` tasks of a split: numbers `first` to ``first + n - 1`` of the sequence of the scalar `key`.

        Task i depends only on (key, split, i): every split has its own sequence, and a shard of a meta-batch has the
        same tasks as the whole. Tasks of a finite split are drawn uniformly with replacement. Every family has the
        split `valid`; if it is not declared, its tasks follow the training distribution.

        Raises ValueError for a split that the family does not have, and for an invalid `key` or `n`.
        """
        rng.check_is_key(key)
        if not hasattr(n, "__index__") or n < 0:
            raise ValueError(f"n must be a whole number of at least 0, got {short(n)}.")
        return self.numbered_tasks(key, torch.arange(first, first + n, device=key.device), split)

    def numbered_tasks(self, key: Key, numbers: Tensor, split: str = "train") -> TaskT:
        """Draw the tasks that have these numbers, int64 ``(N,)``, in the sequence of `sample_tasks`.

        Raises ValueError for a split that the family does not have.
        """
        keys = rng.fold(rng.fold(key, self._address(split)), numbers)
        every = self._finite(split)
        if every is not None:
            return take(to_device(every, key.device), self._number(keys, num_rows(every), split))
        count = self._listed(split)
        if count is not None:
            keys = _list_keys(split, self._number(keys, count, split))
        return self._drawn(keys, "train" if split == "valid" and not self.valid_apart else split)

    def _number(self, keys: Key, count: int, split: str) -> Tensor:
        """Draw the index of one of a split's `count` tasks per key, or of its bootstrap sample: int64 (N,)."""
        number = rng.integers(keys, 1, count).squeeze(-1)
        if self.resampled is None or self.resampled[0] != split:
            return number
        each = rng.fold(
            rng.fold(rng.key(self.resampled[1], keys.device), BOOTSTRAP), torch.arange(count, device=keys.device)
        )
        return rng.integers(each, 1, count).squeeze(-1)[number]

    def _drawn(self, keys: Key, split: str) -> TaskT:
        """Draw tasks. Raises WrongResult unless there is one task per key, without float64 fields."""
        name = f"{type(self).__name__}.draw_tasks"
        try:
            drawn = self.draw_tasks(keys, split)
        except Exception as error:  # a family's code may raise anything
            add_place(error, f"{name} of the split {split!r}")
            raise
        if not isinstance(drawn, tuple) or not hasattr(drawn, "_fields"):
            raise WrongResult(f"{name} must return a NamedTuple of tensors, got {type(drawn).__name__}.")
        rows, on = len(keys), keys.device
        for field, leaf in named_leaves(drawn).items():
            right = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == rows and leaf.device == on
            if not right or leaf.dtype is torch.float64:
                got = f"{leaf.dtype} {tuple(leaf.shape)}, {leaf.device}" if isinstance(leaf, Tensor) else type(leaf)
                raise WrongResult(
                    f"{name} must return one row for each of {len(keys)} keys, as tensors on {keys.device} that are "
                    f"not float64, got for {field}: {got}."
                )
        return drawn

    def tasks_of(self, split: str) -> TaskT | None:
        """Return every task of a finite split, each once, on the CPU; None for an infinite split.

        Raises ValueError for a split that the family does not have.
        """
        self._address(split)
        every = self._finite(split)
        if every is None and (count := self._listed(split)) is not None:
            every = self.draw_tasks(_list_keys(split, torch.arange(count)), split)
        return every

    def num_tasks(self, split: str) -> int | None:
        """Return the number of tasks of a split; None for an infinite split. Raises the errors of `tasks_of`."""
        self._address(split)
        every = self._finite(split)
        return self._listed(split) if every is None else num_rows(every)

    def train_on(self, count: int) -> None:
        """Make `train` a fixed, seeded list of `count` tasks, the same in every run; longer lists extend shorter ones.

        Raises ValueError if `count` is not an int of at least 1, or if a finite `train` has fewer tasks.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"train_tasks must be a whole number of at least 1, got {short(count)}.")
        self.train_tasks = count
        self.num_tasks("train")

    def resample(self, split: str, seed: int) -> None:
        """Let `sample_tasks` draw from a bootstrap sample of a finite split: as many tasks, drawn with replacement.

        For large splits about 63 % of the tasks are then used in training, some of them repeatedly. Members of an
        ensemble thus see different tasks (bagging, Breiman 1996). `tasks_of`, and hence every evaluation, still has
        each task once. Raises ValueError for an infinite split, or one that the family does not have.
        """
        if self.num_tasks(split) is None:
            raise ValueError(
                f"Only a finite split can be resampled, and {split} of {type(self).__name__} is infinite: set "
                "train_tasks."
            )
        self.resampled = split, seed

    def hold_out(self, part: int, parts: int) -> None:
        """Make `test` one of `parts` equal parts of a finite family's tasks, 1 to `parts`, and `train` all others.

        The tasks are those of `all`, or of `train` for a family without `all`; parts are the same in every run. `valid`
        is a part of the new `train`. Raises ValueError for a family with infinitely many tasks or fewer than `parts`,
        and for a part that does not exist.
        """
        name, every = type(self).__name__, self.enumerate_tasks(self._whole)
        if every is None:
            raise ValueError(f"{name} has infinitely many tasks, so none need to be held out: its `test` has others.")
        if self.train_tasks is not None:
            raise ValueError("A fold needs all training tasks: leave out train_tasks.")
        if not 2 <= parts <= num_rows(every) or not 1 <= part <= parts:
            raise ValueError(
                f"A fold must be one of 2 to {num_rows(every)} parts of {name}'s tasks, such as 1/2, "
                f"got {part}/{parts}."
            )
        self.fold = part, parts
        if "test" not in self.splits:
            self.splits = (*self.splits, "test")  # type: ignore[misc]

    @property
    def _whole(self) -> str:
        """The split whose tasks `hold_out` divides."""
        return "all" if "all" in self.splits else "train"

    def _enumerated(self, split: str) -> TaskT | None:
        """Return every task of a split as declared, or as divided by `hold_out`; None for an infinite split."""
        if self.fold is None or split not in ("train", "test"):
            return self.enumerate_tasks(split)
        every, (part, parts) = self.enumerate_tasks(self._whole), self.fold
        assert every is not None, "hold_out has seen to it"
        order = rng.permutation(rng.fold(rng.key(LISTS), len(ADDRESSES)), num_rows(every))
        held_out = torch.zeros(num_rows(every), dtype=torch.bool)
        held_out[order.tensor_split(parts)[part - 1]] = True
        return take(every, torch.nonzero(held_out if split == "test" else ~held_out).squeeze(-1))

    def draw_tasks(self, keys: Key, split: str) -> TaskT:
        """Draw one task per key ``(N,)``. `sample_tasks` calls it, for `valid` with `train` unless `valid_apart`."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} must implement draw_tasks(keys, split) or enumerate_tasks(split).")

    def enumerate_tasks(self, split: str) -> TaskT | None:
        """Return every task of a finite split, once each and equally likely, on the CPU; None for a distribution.

        It is not called for `valid`, which is a part of `train`, unless `valid_apart`.
        """
        return None

    def _address(self, split: str) -> int:
        """Return the address of a split's tasks. Raises ValueError if there is no such split."""
        if split not in self.splits and not (split == "valid" and "train" in self.splits):
            raise ValueError(unknown("split", split, self.splits, where=f" of {type(self).__name__}"))
        return ADDRESSES.index(split) if split in ADDRESSES else 2**16 + zlib.crc32(split.encode())

    def _listed(self, split: str) -> int | None:
        """Return the length of a split's fixed list of tasks; None if it has none."""
        return {"train": self.train_tasks, "test": self.test_tasks}.get(split)

    def _finite(self, split: str) -> TaskT | None:
        """Return all tasks of a finite split, or the part in its fixed list or in `valid`; None if infinite."""
        part = split == "valid" and not self.valid_apart
        every = self._enumerated("train" if part else split)
        if every is None:
            return None
        count = num_rows(every)
        # With fewer than six tasks, a part would be too small for choosing a checkpoint: `valid` is then all of them.
        size = (count // 3 if count >= 6 else count) if part else self._listed(split)
        if size is None or size == count:
            return every
        if size > count:
            raise ValueError(f"{split}_tasks of {type(self).__name__} must be at most {count}, got {size}.")
        address = rng.fold(rng.key(LISTS), ADDRESSES.index(split))
        return take(every, rng.permutation(address, count)[:size].sort().values)


def _list_keys(split: str, numbers: Tensor) -> Key:
    """Return the keys of these tasks in a split's fixed list, which are the same for every seed and machine."""
    return rng.fold(rng.fold(rng.key(LISTS, numbers.device), ADDRESSES.index(split)), numbers)
