"""The tail of an evaluation: the mean over the worst tasks (CVaR), and the worst task, without selection bias.

The task with the lowest measured return is partly hard and partly unlucky, so its measured return is biased downwards.
Here the trials on each task are split into two halves: the worst tasks are *chosen* by one half and *measured* on the
other, and vice versa. The noise of the first half then does not affect the measurement, whose expectation is the true
mean of the chosen tasks (Stone 1974, cross-validation).

Scores are ``(seeds, tasks, 2)``: the mean score of the odd and of the even trials on each task.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SHARE = 0.1
"""Fraction of tasks that count as the worst."""

FEWEST = 10
"""Smallest number of tasks for which the worst tenth is reported."""


def halves_of(scores: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the mean scores ``(tasks, 2)`` of two halves of the trials ``(tasks, repeats)``; None for one trial."""
    if scores.shape[1] < 2:
        return None
    parts = [scores[:, start::2].mean(axis=1, dtype=np.float64) for start in (0, 1)]
    return np.stack(parts, axis=1).astype(np.float32)


def cvar(halves: ArrayLike, share: float = SHARE) -> float:
    """Return the mean score over the worst `share` of the tasks (rounded up), a mean over seeds."""
    return float(contributions(halves, share).mean())


def worst(halves: ArrayLike) -> Floats:
    """Return each seed's score on its worst task: ``(seeds,)``."""
    array = _checked(halves)
    return _measured(array, 1).mean(axis=1)


def contributions(halves: ArrayLike, share: float = SHARE) -> Floats:
    """Return each task's contribution to `cvar`, ``(seeds, tasks)``; the mean over tasks is each seed's CVaR.

    It is c + selected · (score - c) / share, where c is the score at the border of the selection: the influence
    function of the CVaR (Trindade et al. 2007). Its mean and variance are those of the CVaR, so
    `metarl.evaluation.stats` can compute intervals and paired differences from it as from any score.
    """
    array = _checked(halves)
    tasks = array.shape[1]
    count = math.ceil(share * tasks - 1e-9)
    found = np.zeros(array.shape[:2])
    for chosen_by, measured_on in ((0, 1), (1, 0)):
        order = array[:, :, chosen_by].argsort(axis=1, kind="stable")
        score = np.take_along_axis(array[:, :, measured_on], order, axis=1)
        near = max(1, count // 4)
        border = score[:, max(0, count - near) : count + near].mean(axis=1, keepdims=True)
        selected = np.arange(tasks) < count
        value = border + np.where(selected, (score - border) * tasks / count, 0.0)
        part = np.empty_like(value)
        np.put_along_axis(part, order, value, axis=1)
        found += part / 2.0
    return found


def _measured(array: Floats, count: int) -> Floats:
    """Return the mean score of the `count` worst tasks, ``(seeds, 2)``: chosen by one half, measured on the other."""
    parts = []
    for chosen_by, measured_on in ((0, 1), (1, 0)):
        order = array[:, :, chosen_by].argsort(axis=1, kind="stable")[:, :count]
        parts.append(np.take_along_axis(array[:, :, measured_on], order, axis=1).mean(axis=1))
    return np.stack(parts, axis=1)


def _checked(halves: ArrayLike) -> Floats:
    array = np.asarray(halves, dtype=np.float64)
    if array.ndim != 3 or array.shape[2] != 2 or 0 in array.shape:
        raise ValueError(f"halves must be (seeds, tasks, 2) with at least one of each, got shape {array.shape}.")
    return array
