"""The task that an oracle is told."""

from __future__ import annotations

from metarl.core.family import Task


def told(task: Task | None) -> Task:
    """`task`. Raises ValueError if there is none: the agent only plays where it is told the task."""
    if task is None:
        raise ValueError("An oracle must be told the task.")
    return task
