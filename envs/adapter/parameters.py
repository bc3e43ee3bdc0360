"""The parameters of a task: where each one goes in an environment, and its distribution in each split."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import within
from metarl.core.errors import short
from metarl.core.family import Key
from metarl.envs.adapter.distributions import MOST_VALUES, Distribution, distribution, overlap
from metarl.envs.adapter.places import Place, place

KEYS = ("where", "factor")
"""Keys of a parameter that are not splits."""


@dataclass(frozen=True)
class Parameter:
    """One number of a task."""

    name: str
    place: Place
    """Where the number goes."""
    splits: Mapping[str, Distribution]
    """Distribution per split; splits without an entry use that of `train`."""

    def of(self, split: str) -> Distribution:
        """Return the distribution of a split: that of `train` unless the split has its own."""
        return self.splits.get(split, self.splits["train"])


def parameter(name: str, data: Any) -> Parameter:
    """Return the parameter that `data` describes. Raises ValueError if the data is invalid.

    ``{"where": "attribute:unwrapped.gravity", "train": {"uniform": [8, 12]}, "ood": {"uniform": [12, 16]}}``;
    with ``"factor": True`` the number multiplies the environment's own.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"The name of a parameter must be a Python name without a leading _, got {short(name)}.")
    if not isinstance(data, Mapping) or not {"where", "train"} <= data.keys():
        raise ValueError(
            f"The parameter {name} needs `where`, such as 'constructor' or 'attribute:unwrapped.{name}', and `train`, "
            f"such as {{uniform: [0.5, 2.0]}}, got {short(data)}."
        )
    splits = {split: distribution(f"{name}.{split}", d) for split, d in data.items() if split not in KEYS}
    if any(d.dtype != splits["train"].dtype for d in splits.values()):
        raise ValueError(f"The parameter {name} must be whole numbers in every split, or in none.")
    factor = data.get("factor", False)
    if not isinstance(factor, bool):
        raise ValueError(f"{name}.factor must be true or false, got {short(factor)}.")
    where = place(name, data["where"], factor)
    if where.kind == "seed" and splits["train"].dtype.is_floating_point:
        raise ValueError(f"The parameter {name} is a seed, which is a whole number: use integers, such as [0, 999].")
    return Parameter(name, where, splits)


class Parameters:
    """The parameters of a family: its type of task, and the tasks of its splits.

    `valid` and `test` are fresh draws from the distribution of `train`, unless a parameter has a distribution of its
    own for them. Raises ValueError if `test` could hold training tasks although it is finite, or `ood` could.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        if not isinstance(parameters, Mapping) or not parameters:
            raise ValueError(f"parameters must name at least one number of a task, got {short(parameters)}.")
        self.all = [parameter(str(name), data) for name, data in parameters.items()]
        named = dict.fromkeys(split for each in self.all for split in each.splits)
        self.valid_apart = "valid" in named
        self.splits = ("train", "valid", "test", *(split for split in named if split not in ("train", "valid", "test")))
        for split in self.splits:
            self._check(split)

    @property
    def kind(self) -> Any:
        """The type of a task."""
        return task_type(tuple(each.name for each in self.all))

    def draw(self, keys: Key, split: str) -> Any:
        """Draw one task per key ``(N,)``."""
        return self.kind(*(each.of(split).draw(rng.fold(keys, number)) for number, each in enumerate(self.all)))

    def enumerate(self, split: str) -> Any | None:
        """Return all tasks of a finite split; None if a parameter is continuous or there are too many tasks."""
        values = [each.of(split).values() for each in self.all]
        if any(column is None for column in values):
            return None
        columns = [column for column in values if column is not None]
        count = 1
        for column in columns:
            count *= len(column)
        if count > MOST_VALUES:
            return None
        grid = torch.meshgrid(*columns, indexing="ij")
        return self.kind(*(column.flatten() for column in grid))

    def check_task(self, task: Any) -> None:
        """Raise ValueError for an invalid seed. The environment itself checks the other parameters."""
        for each, values in zip(self.all, task, strict=True):
            if each.place.kind == "seed":
                within(each.name, values, 0, 2**31 - 1)

    def _check(self, split: str) -> None:
        """Raise ValueError if a split may hold tasks that it must not share with `train` (or `valid` with `test`)."""
        if split == "train" or (split == "valid" and not self.valid_apart):
            return
        other = "test" if split == "valid" else "train"
        apart = any(not overlap(each.of(other), each.of(split)) for each in self.all)
        if split == "valid" and not apart and self.enumerate("test") is not None:
            raise ValueError("The `valid` tasks must not be among the finitely many of `test`.")
        if split == "test" and not apart and self.enumerate("train") is not None:
            raise ValueError(
                "The training tasks are finitely many, and `test` would repeat them: give a parameter a `test` "
                "distribution with other values."
            )
        if split == "ood" and not apart:
            raise ValueError(
                "The split 'ood' must lie outside the training distribution: give a parameter `ood` values apart from "
                "its `train` values."
            )


@cache
def task_type(names: tuple[str, ...]) -> Any:
    """Return the NamedTuple type of a task with these parameters: one type per tuple of names."""
    kind = NamedTuple("GymTask", [(name, Tensor) for name in names])  # type: ignore[misc]
    kind.__reduce__ = lambda task: (_task, (names, tuple(task)))  # type: ignore
    return kind


def _task(names: tuple[str, ...], values: tuple[Tensor, ...]) -> Any:
    """Rebuild a pickled task, whose type is not an attribute of a module."""
    return task_type(names)(*values)
