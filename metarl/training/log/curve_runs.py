"""Adaptation curves as TensorBoard runs of their own, which can be laid over each other.

The x-axis is the experience on the task: environment steps, not steps of training. TensorBoard smooths by the number of
points, and a curve has few, close together at its beginning. So it is written on a dense grid that is even on a
logarithmic axis, where smoothing does little harm. The ends of the interval are a group of tags of their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from metarl.evaluation.curve import AdaptationCurve
from metarl.training.log.event_files import PREFIX

GRID = 120
"""Points of the grid at most."""
RETURN, INTERVAL = "adaptation/return", "adaptation_interval"
"""The tag of the mean, and the group of ``low`` and ``high``."""


def write_curve(folder: Path, curve: AdaptationCurve) -> None:
    """Write a curve as the only run in a folder: the return of an episode by environment steps of experience before it.

    A curve of a single point is none, and nothing is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{PREFIX}*"):  # of an evaluation before this one
        old.unlink()
    if len(curve.labels) < 2:
        return
    series = {RETURN: curve.mean()}
    series |= dict(zip((f"{INTERVAL}/low", f"{INTERVAL}/high"), curve.interval(), strict=True))
    steps = grid(curve.env_steps)
    with SummaryWriter(str(folder)) as writer:
        for tag, values in series.items():
            for step, value in zip(steps, between(curve.env_steps, values, steps), strict=True):
                if np.isfinite(value):
                    writer.add_scalar(tag, float(value), int(step))


def grid(steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers of steps from the first point to the last, even on a logarithmic axis, each once."""
    first, last = steps[0], steps[-1]
    even = np.geomspace(1.0, last - first + 1.0, GRID) - 1.0 + first
    return np.unique(np.concatenate([np.round(even), np.round(steps)]).astype(np.int64))


def between(steps: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values at other steps: on straight lines between the points, on the logarithmic axis of the grid."""
    scale = [np.log1p(np.asarray(each, np.float64) - steps[0]) for each in (at, steps)]
    return np.interp(scale[0], scale[1], values)
