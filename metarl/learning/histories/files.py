"""Learning histories in files: a folder with a JSON index, and shards, each a safetensors file with some histories.

Only numbers are read, so folders from untrusted sources are safe to open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import pattern_task
from metarl.core.family import AnyFamily, Key
from metarl.core.faults.regular import read_regular
from metarl.core.registry import make
from metarl.core.tree import named_leaves, tree_map
from metarl.learning.histories.history import History
from metarl.learning.histories.index import Index, Shard, damaged, read_index

TASK = "task."
"""Prefix of the names of a shard's tensors that belong to the task."""


def pack(history: History) -> bytes:
    """Return the content of a shard: the history's tensors, with those of its tasks as ``task.<field>``."""
    return safetensors.torch.save({name: leaf.cpu().contiguous() for name, leaf in columns(history).items()})


def columns(history: History) -> dict[str, Tensor]:
    """Return the tensors of a history by their names in a shard."""
    found = {TASK + name: leaf for name, leaf in named_leaves(history.task).items()}
    return found | {
        name: leaf for name, leaf in history._asdict().items() if name != "task" and isinstance(leaf, Tensor)
    }


def fields_of(history: History) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and the trailing shape of each tensor of a shard, as in the index."""
    return {name: (_dtype(leaf), _trailing(name, leaf)) for name, leaf in columns(history).items()}


class Histories:
    """Learning histories in a folder, with one shard at a time in memory; made by `load_histories`."""

    def __init__(self, folder: str | Path, family: AnyFamily | None = None) -> None:
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        self.family = family or _family_of(self.folder, self.index)
        self._names = _named(pattern_task(self.family))
        self._check_family()
        self._last: tuple[int, History] | None = None

    def __len__(self) -> int:
        """Return the number of histories."""
        return self.index.histories

    def __repr__(self) -> str:
        index = self.index
        return (
            f"<{len(self)} histories of {index.agent} on {index.tasks} tasks of {index.split}, {self.family!r}, "
            f"{index.env_steps:,} steps>"
        )

    def shard(self, number: int) -> History:
        """Return the histories of a shard; the last shard stays in memory. Raises ValueError for a damaged file."""
        if self._last is None or self._last[0] != number:
            self._last = None  # free the memory before reading the next shard
            self._last = number, self._read(self.index.shards[number])
        return self._last[1]

    def batches(self, size: int, key: Key | None = None) -> Iterator[History]:
        """Yield all histories once, in batches of at most `size`, none of which spans two shards.

        They come in the order in which they were played; with a scalar `key`, the shards, and the histories in a shard,
        are in random order. Raises ValueError for a damaged file and for a size below 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}.")
        shards = len(self.index.shards)
        for number in range(shards) if key is None else rng.permutation(rng.fold(key, 0), shards).tolist():
            whole = self.shard(number)
            rows = whole.mask.shape[1]
            order = torch.arange(rows) if key is None else rng.permutation(rng.fold(rng.fold(key, 1), number), rows)
            for part in torch.split(order, size):
                yield whole.rows(part)

    def _check_family(self) -> None:
        """Raise ValueError unless the histories belong to a family of this class and with these spaces."""
        index, wanted = self.index, {*named_leaves(self._names).values(), *History._fields} - {"task", "optimal"}
        same = index.played.partition("(")[0] == type(self.family).__name__
        spaces = (index.observation_shape, index.action_space) == spaces_of(self.family)
        if not same or not spaces or {*index.fields} - {"optimal"} != wanted:
            raise ValueError(
                f"The histories in {str(self.folder)!r} are of {index.played} with {index.action_space}, not of "
                f"{self.family!r}: give those of the same family."
            )

    def _read(self, shard: Shard) -> History:
        path = self.folder / shard.file
        try:
            data = read_regular(path, shard.bytes)
        except OSError as error:
            raise damaged(path, f"it cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise damaged(path, "its content does not match its checksum in the index")
        try:
            found = safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise damaged(path, "it is not a safetensors file") from error
        self._check(path, shard, found)
        task = tree_map(found.__getitem__, self._names)
        return History(task, **{name: leaf for name, leaf in found.items() if not name.startswith(TASK)})

    def _check(self, path: Path, shard: Shard, found: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless the tensors match the index."""
        if {name: (_dtype(leaf), _trailing(name, leaf)) for name, leaf in found.items()} != dict(self.index.fields):
            raise damaged(path, "its tensors do not match the index")
        for name, leaf in found.items():
            leading = (shard.histories,) if name.startswith(TASK) else (shard.steps, shard.histories)
            if leaf.shape[: len(leading)] != leading or not bool(leaf.isfinite().all()):
                raise damaged(path, f"{name} does not have the shape in the index, or has a number that is not finite")


def load_histories(directory: str | Path, family: AnyFamily | None = None) -> Histories:
    """Open the learning histories that ``metarl dataset`` wrote into a folder.

    ``histories.batches(32)`` yields `History` objects of tensors ``(T, B, …)``, time first: ``obs (T, B, *O)``,
    ``action``, ``reward (T, B)``, ``terminated``, ``truncated``, ``episode``, ``step``, ``mask``, and ``task (B, …)``.
    ``histories.index`` describes the agent and the tasks. At most one shard is in memory.

    `family` is the family of the tasks; by default it is made from the index, for which the package that registers
    another project's family must be imported. Raises ValueError if the folder has no histories or the index is damaged;
    a damaged shard is detected when it is read.
    """
    return Histories(directory, family)


def spaces_of(family: AnyFamily) -> tuple[tuple[int, ...], str]:
    """Return the observation shape and the action space as in the index."""
    return tuple(family.observation_space.shape), " ".join(str(family.action_space).split())


def _family_of(folder: Path, index: Index) -> AnyFamily:
    options = {name: value for name, value in index.family.items() if name != "name"}
    try:
        family: AnyFamily = make(index.family["name"], **options)
        if index.train_tasks is not None:
            family.train_on(index.train_tasks)
        if index.fold is not None:
            family.hold_out(*index.fold)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"The family of the histories in {str(folder)!r} cannot be made: {' '.join(str(error).split())} Import the "
            "package that registers it first, or give the family: load_histories(DIR, family)."
        ) from error
    return family


def _named(task: Any, name: str = TASK) -> Any:
    """Return a task with each leaf replaced by its name in a shard."""
    parts = zip(type(task)._fields, task, strict=True)
    return type(task)(
        *(_named(part, f"{name}{field}.") if isinstance(part, tuple) else name + field for field, part in parts)
    )


def _dtype(leaf: Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")


def _trailing(name: str, leaf: Tensor) -> tuple[int, ...]:
    return tuple(leaf.shape[1 if name.startswith(TASK) else 2 :])
