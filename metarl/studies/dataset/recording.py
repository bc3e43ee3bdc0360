"""Recording of trials as learning histories: written in shards, into a folder that is created atomically."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from metarl.core import rng
from metarl.core.errors import check_counts
from metarl.core.family import Key, Task, TaskFamily, made_with
from metarl.core.faults.memory import check_memory, row_numbers
from metarl.core.rollout import Agent, check_endings, first_not_finite, play_rounds
from metarl.core.tree import num_rows, take, to_device
from metarl.evaluation.arguments import check_rounds
from metarl.evaluation.evaluator import choose_tasks
from metarl.evaluation.files import partial_name, replace_file, sync_folder
from metarl.evaluation.provenance import versions
from metarl.learning.histories.files import fields_of, pack, spaces_of
from metarl.learning.histories.history import History, history_of
from metarl.learning.histories.index import INDEX, Index, Shard
from metarl.studies.dataset.sources import Source

HISTORIES = 0x68697374  # "hist" in ASCII
"""RNG address of all histories, ``fold(key(seed), HISTORIES)``, distinct from training and evaluations."""


class Wanted(NamedTuple):
    """The requested histories."""

    split: str = "train"
    tasks: int = 100
    trials: int = 1  # histories of each task
    episodes: int | None = None  # of a history, or of a round; None: as given by the agent's protocol or the family
    rounds: int | None = None  # of a history, for agents that adapt in rounds; None: as given by the agent's protocol
    shard_size: int = 64  # most histories per shard; they are played in parallel
    seed: int = 0


def write_histories(
    source: Source, wanted: Wanted, folder: str | Path, say: Callable[[str], None] = lambda line: None
) -> Index:
    """Record an agent's learning on tasks of a split into a new folder: shards, and an index.

    The folder is created atomically, once everything is written. `say` gets a line before each shard. Raises
    ValueError if the histories cannot be played, and FileExistsError if `folder` already exists.
    """
    folder = Path(folder)
    check_wanted(source, wanted)
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(folder)
    partial.mkdir()
    try:
        index = _write(source, wanted, partial, say)
        sync_folder(partial)
        check_new(folder)  # a rename would replace an empty folder
        os.rename(partial, folder)
        sync_folder(folder.parent)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial)
    return index


def check_new(folder: Path) -> None:
    """Raise FileExistsError if `folder` exists: histories are never overwritten."""
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(None, "This path already exists, and histories are never overwritten", str(folder))


def check_wanted(source: Source, wanted: Wanted) -> None:
    """Raise ValueError if the agent or the family cannot play these histories, or if they do not fit in memory."""
    check_counts(**{name: getattr(wanted, name) for name in ("tasks", "trials", "episodes", "rounds", "shard_size")})
    check_rounds(source.agent, wanted.rounds)
    family, (rounds, episodes, each) = source.played.family, _protocol(source.agent, source.played.family, wanted)
    family.num_tasks(wanted.split)  # raises for an unknown split
    rng.key(wanted.seed)
    rows = float(min(wanted.shard_size, wanted.tasks * wanted.trials)) * each
    numbers = rows * rounds * episodes * family.horizon * row_numbers(family)
    check_memory("A shard", numbers, "--shard_size or --episodes")


def _protocol(agent: Agent, family: TaskFamily, wanted: Wanted) -> tuple[int, int, int]:
    """Return the rounds of a history, the episodes of a round, and the rows that play a task in parallel."""
    protocol = agent.protocol.test()
    episodes = wanted.episodes or protocol.episodes or family.episodes_per_trial
    return wanted.rounds or protocol.rounds, episodes, protocol.envs_per_task


def _write(source: Source, wanted: Wanted, folder: Path, say: Callable[[str], None]) -> Index:
    """Write the shards, then the index."""
    family, shards, steps = source.played.family, list[Shard](), 0
    rounds, episodes, each = _protocol(source.agent, family, wanted)
    root = rng.fold(rng.key(wanted.seed, getattr(source.agent, "device", "cpu")), HISTORIES)
    task, _ = choose_tasks(family, root, wanted.split, wanted.tasks)
    for history in _histories(source, wanted, task, rng.fold(root, 1), say):
        data, name = pack(history), f"histories_{len(shards):05d}.safetensors"
        replace_file(folder / name, data)
        longest, number = history.mask.shape
        shards.append(Shard(name, number, longest, len(data), hashlib.sha256(data).hexdigest()))
        steps, fields = steps + int(history.mask.sum()), fields_of(history)
    (shape, actions), played = spaces_of(family), source.played
    index = Index(
        family=played.values, played=made_with(family), train_tasks=played.train_tasks, fold=played.fold,
        agent=source.name, split=wanted.split, seed=wanted.seed, tasks=num_rows(task), trials=wanted.trials,
        rounds=rounds, episodes=rounds * each * episodes, env_steps=steps, observation_shape=shape,
        action_space=actions, fields=fields, shards=tuple(shards), versions=versions(),
    )  # fmt: skip
    replace_file(folder / INDEX, index.text())
    return index


def _histories(source: Source, wanted: Wanted, task: Task, key: Key, say: Callable[[str], None]) -> Iterator[History]:
    """Play the histories, one shard in parallel: history i is on task ``i % tasks``, so shards mix tasks."""
    every = num_rows(task) * wanted.trials
    for first in range(0, every, wanted.shard_size):
        numbers = torch.arange(first, min(first + wanted.shard_size, every))
        say(f"histories {first + 1} to {first + len(numbers)} of {every}")
        rows = to_device(take(task, numbers % num_rows(task)), key.device)
        yield play_history(source.agent, source.played.family, rows, key, wanted, first)


def play_history(agent: Agent, family: TaskFamily, task: Task, key: Key, wanted: Wanted, first: int = 0) -> History:
    """Play the learning of `agent` on each of N tasks: N histories of `key`, numbered from `first`.

    Raises ValueError for numbers that are not finite, or for episodes that end early although the family rules
    that out.
    """
    rounds, episodes, each = _protocol(agent, family, wanted)
    trial = []
    for played, _, _ in play_rounds(
        agent, family, task, key, rounds=rounds, episodes=episodes, envs_per_task=each, first_task=first
    ):
        trial.append(played)
    check_endings(family, trial)
    if (spoiled := first_not_finite(trial)) is not None:
        raise ValueError(f"A number of the {spoiled.what} is not finite ({spoiled.place}), so nothing is written.")
    return history_of(trial, family, task)
