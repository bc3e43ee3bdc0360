"""Checks and conversions of users' arguments; a ValueError says what is wrong."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from torch import Tensor

from metarl.core.checks import checked_task
from metarl.core.errors import short, truth
from metarl.core.family import Task, TaskFamily
from metarl.core.faults.memory import check_memory, machine_memory, row_numbers, task_numbers
from metarl.core.rollout import Agent
from metarl.core.tree import concatenate


def as_int(name: str, value: Any, least: int | None = 1) -> int:
    """Convert an integer (Python, NumPy, or a tensor with one number) to an int of at least `least`."""
    truth = isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.is_floating_point())
    try:
        number = None if truth else operator.index(value)
    except (TypeError, RuntimeError):  # torch raises the latter for a tensor of several numbers
        number = None
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {short(value)}.")
    if number >= 2**63:
        raise ValueError(f"{name} must be at most 2^63 - 1, got {short(number)}.")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {short(number)}.")
    return number


def as_greedy(agent: Agent, value: bool | None) -> bool:
    """Return whether an evaluation is greedy; None means the default of the agent's protocol."""
    return agent.protocol.test_greedy if value is None else truth("greedy", value)


def as_tasks(family: TaskFamily, value: Any) -> int | Task:
    """Return a number of tasks as an int, or tasks of `family` (a Task with any number of rows, or a list) as a Task.

    `sample_tasks` of the Gymnasium view returns such lists; their rows are concatenated. Tasks are checked as in the
    views (`metarl.core.checks`).
    """
    if isinstance(value, list) or type(value) is tuple:
        if not value:
            raise ValueError("tasks must hold at least one task, got an empty list.")
        return concatenate([checked_task(family, task) for task in value])
    number = isinstance(value, (bool, int, float, np.generic)) or (isinstance(value, Tensor) and value.ndim == 0)
    if number:
        return as_int("tasks", value)
    return checked_task(family, value)


def check_rounds(agent: Agent, rounds: int | None) -> None:
    """Raise ValueError for several `rounds` with an agent that does nothing between them."""
    protocol = agent.protocol
    if rounds is None or rounds == 1 or max(protocol.rounds, protocol.test().rounds) > 1:
        return
    raise ValueError(
        f"{type(agent).__name__} does not adapt in rounds, so rounds must be 1, got {rounds}: what it learns on a task "
        "it learns from episode to episode; ask for more episodes instead."
    )


def check_size(
    family: TaskFamily,
    split: str,
    tasks: int,
    repeats: int | None = None,
    episodes: int | None = None,
    rounds: int | None = None,
    each: int = 1,
) -> None:
    """Raise ValueError, before anything is played, for an evaluation that does not fit into this machine's memory.

    `each` is the number of rows that play a task in parallel.
    """
    points, own = rounds or episodes or family.episodes_per_trial, task_numbers(family)
    trial = float(each) * family.horizon * (episodes or family.episodes_per_trial) * row_numbers(family)

    def needed(tasks: int, trials: int) -> float:
        return float(tasks) * own + float(trials) * (repeats or 1) * points + trial

    numbers = needed(tasks, tasks)
    if 4 * numbers > machine_memory() and (distinct := family.num_tasks(split)) is not None:
        numbers = needed(min(tasks, distinct), tasks if repeats is None else min(tasks, distinct))
    check_memory("This evaluation", numbers, "the tasks, repeats, episodes or rounds")
