"""The task that an oracle knows."""

from __future__ import annotations

from metarl.core.family import Task


def told(task: Task | None) -> Task:
    """Return `task`. Raises ValueError if it is None, since an oracle cannot act without the task."""
    if task is None:
        raise ValueError("An oracle must be told the task.")
    return task
