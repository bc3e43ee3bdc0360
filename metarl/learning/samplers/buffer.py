"""The buffer of scored tasks for prioritised replay."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Task
from metarl.core.tree import concatenate, leaves, named_leaves, num_rows, put, take, tree_map


class Scored(NamedTuple):
    """Tasks that were just played, with their scores."""

    tasks: Task  # (N, …)
    score: Tensor  # (N,) float32
    best: Tensor  # (N,) float32: the largest return of an episode


class TaskBuffer:
    """At most `capacity` different tasks, each with its score, its best return, and when it was last played.

    Tasks are recognised by their values when they are played again. When the buffer is full, new tasks compete with
    those that are least likely to be replayed, and replace them if their scores are higher (Jiang et al. 2021b,
    algorithm 2).
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.clock = 0  # batches played so far
        self.idle = 0  # batches since a new task was last found
        self.tasks: Task = None  # the tasks (count, …); None while there are none
        self.score = torch.zeros(0, device=device)
        self.best = torch.zeros(0, device=device)
        self.seen = torch.zeros(0, dtype=torch.int64, device=device)  # the clock at which a task was last played
        self.mark = torch.zeros(0, dtype=torch.int64, device=device)  # a task's fingerprint

    def __len__(self) -> int:
        return len(self.score)

    def age(self) -> Tensor:
        """Return the number of batches since each task was last played, int64 ``(count,)``."""
        return self.clock - self.seen

    def best_of(self, tasks: Task) -> Tensor:
        """Return the largest return of an episode so far on each of these tasks; -inf for unknown tasks."""
        row = self._find(fingerprint(tasks))
        if not len(self):
            return torch.full(row.shape, -torch.inf, device=self.device)
        return torch.where(row >= 0, self.best[row.clamp_min(0)], -torch.inf)

    def add(self, played: Scored, weight: Tensor) -> None:
        """Add a batch of tasks that were just played; `weight` (count,) is the replay probability of each task.

        Known tasks get their new scores. New tasks fill empty places first, and then compete.
        """
        self.clock += 1
        played, marks = distinct(played)
        row = self._find(marks)
        self.idle = 0 if bool((row < 0).any()) else self.idle + 1
        known, new = (row >= 0).nonzero()[:, 0], (row < 0).nonzero()[:, 0]
        self._write(row[known], take(played, known), marks[known])
        room = min(self.capacity - len(self), len(new))
        order = played.score[new].argsort(descending=True, stable=True)
        new = new[order]
        self._append(take(played, new[:room]), marks[new[:room]])
        if room < len(new):
            self._compete(take(played, new[room:]), marks[new[room:]], weight)

    def _compete(self, new: Scored, marks: Tensor, weight: Tensor) -> None:
        """Replace the tasks with the lowest weights by new ones with higher scores, best new ones first."""
        weight = torch.cat([weight, weight.new_full((len(self) - len(weight),), torch.inf)])  # keep those just appended
        count = min(len(new.score), len(self))
        places = weight.argsort(stable=True)[:count]
        better = new.score[:count] > self.score[places]
        better &= weight[places] < torch.inf
        self._write(places[better], take(take(new, slice(0, count)), better), marks[:count][better])

    def _append(self, new: Scored, marks: Tensor) -> None:
        if not len(marks):
            return
        self.tasks = new.tasks if self.tasks is None else concatenate([self.tasks, new.tasks])
        self.score, self.best = torch.cat([self.score, new.score]), torch.cat([self.best, new.best])
        self.mark = torch.cat([self.mark, marks])
        self.seen = torch.cat([self.seen, torch.full_like(marks, self.clock)])

    def _write(self, rows: Tensor, new: Scored, marks: Tensor) -> None:
        if not len(rows):
            return
        self.tasks = put(self.tasks, rows, new.tasks)
        self.score, self.best = put(self.score, rows, new.score), put(self.best, rows, new.best)
        self.mark = put(self.mark, rows, marks)
        self.seen = put(self.seen, rows, torch.full_like(rows, self.clock))

    def _find(self, marks: Tensor) -> Tensor:
        """Return the rows ``(N,)`` with these fingerprints; -1 if there is none."""
        if not len(self):
            return torch.full_like(marks, -1)
        same = marks[:, None] == self.mark
        return torch.where(same.any(1), same.to(torch.int64).argmax(1), -1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return tasks, scores and times as tensors."""
        state = {"score": self.score, "best": self.best, "seen": self.seen, "clock": torch.tensor(self.clock)}
        state["idle"] = torch.tensor(self.idle)
        return state | ({} if self.tasks is None else {f"task.{k}": v for k, v in named_leaves(self.tasks).items()})

    def load_state_dict(self, state: dict[str, Tensor], pattern: Task) -> None:
        """Continue from a `state_dict`; `pattern` is a task of the family. Raises KeyError or ValueError if invalid."""
        sizes = {len(state[name]) for name in ("score", "best", "seen")}
        if len(sizes) > 1 or max(sizes) > self.capacity:
            raise ValueError(f"it holds {max(sizes)} tasks in a buffer of {self.capacity}")
        self.score, self.best = (state[name].to(self.device).clone() for name in ("score", "best"))
        self.seen, self.clock = state["seen"].to(self.device).clone(), int(state["clock"])
        self.idle = int(state["idle"])
        self.tasks, self.mark = None, torch.zeros(0, dtype=torch.int64, device=self.device)
        if len(self.score):
            self.tasks = tasks_from(state, "task.", pattern, self.device)
            self.mark = fingerprint(self.tasks)
            if len(self.mark) != len(self.score):
                raise ValueError(f"it holds {len(self.mark)} tasks with {len(self.score)} scores")


def fingerprint(tasks: Task) -> Tensor:
    """Return an int64 hash ``(N,)`` of each task's values."""
    bits = torch.cat([_bits(leaf).reshape(len(leaf), -1) for leaf in leaves(tasks)], dim=1)
    places = rng.fold(rng.key(0, bits.device), torch.arange(bits.shape[1], device=bits.device))
    return rng.fold(places, bits).sum(1)


def _bits(leaf: Tensor) -> Tensor:
    return (leaf + 0.0).view(torch.int32).to(torch.int64) if leaf.dtype is torch.float32 else leaf.to(torch.int64)


def distinct(played: Scored) -> tuple[Scored, Tensor]:
    """Merge repeated tasks, with the mean of their scores and the best of their returns; also return fingerprints."""
    every = fingerprint(played.tasks)
    marks, group = torch.unique(every, return_inverse=True)
    if len(marks) == len(group):
        return played, every
    count = torch.zeros_like(marks).index_add_(0, group, torch.ones_like(group))
    score = torch.zeros(len(marks), device=marks.device).index_add_(0, group, played.score) / count
    best = torch.full_like(score, -torch.inf).scatter_reduce_(0, group, played.best, "amax")
    row = torch.zeros_like(marks).index_copy_(0, group.flip(0), torch.arange(len(group), device=marks.device).flip(0))
    return Scored(take(played.tasks, row), score, best), marks


def tasks_from(state: dict[str, Tensor], prefix: str, pattern: Task, device: torch.device) -> Task:
    """Return the tasks in a state, as a NamedTuple like `pattern`. Raises KeyError or ValueError for other tasks."""
    names = iter(named_leaves(pattern))

    def own(leaf: Tensor) -> Tensor:
        found = state[f"{prefix}{next(names)}"]
        if found.dtype != leaf.dtype or found.shape[1:] != leaf.shape[1:]:
            raise ValueError("its tasks are those of another family")
        return found.to(device).clone()

    tasks = tree_map(own, pattern)
    if len({len(leaf) for leaf in leaves(tasks)}) > 1:
        raise ValueError(f"its tasks have unequal numbers of rows, such as {num_rows(tasks)}")
    return tasks
