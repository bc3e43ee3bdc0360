"""Iterations with numbers that are not finite: they stop the run or are undone (``on_nan: skip``)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core.agent import LearningAgent, OwnLoopAgent
from metarl.core.rollout import Rollout, first_not_finite
from metarl.evaluation.curve import AdaptationCurve
from metarl.learning import ranks
from metarl.learning.samplers.sampler import TaskSampler
from metarl.training.config.run_config import TrainConfig
from metarl.training.divergence import CAUSES, Culprit, Diverged, finite, kept

IN_A_ROW = 10
"""Number of consecutive skipped iterations after which the run stops."""


METHODS = {"task": "draw_tasks", "observation": "observe", "reward": "step"}
"""The methods of a family that may return non-finite numbers."""


class Skipping:
    """With ``on_nan: skip``, undoes iterations with metrics that are not finite; otherwise does nothing."""

    def __init__(self, agent: LearningAgent, config: TrainConfig, sampler: TaskSampler) -> None:
        self.agent, self.sampler, self.skips = agent, sampler, config.on_nan == "skip"
        self.skipped = self.in_a_row = 0
        self._before: dict[str, Tensor] = {}
        self._tasks_before: dict[str, Tensor] = {}

    def keep(self) -> None:
        """Copy the states of the agent and the task sampler before an iteration."""
        if self.skips:
            self._before, self._tasks_before = (
                {name: value.detach().clone() for name, value in part.state_dict().items()}
                for part in (self.agent, self.sampler)
            )

    def judged(self, metrics: dict[str, float], culprit: Culprit | None, warn: Callable[[str], None]) -> None:
        """Restore the state and take out of `metrics` what is not finite, unless that happens again and again."""
        if not self.skips:
            return
        good = finite(metrics)
        self.in_a_row = 0 if good else self.in_a_row + 1
        self.skipped += not good
        metrics["train/skipped"] = float(self.skipped)
        if good or self.in_a_row > IN_A_ROW:
            return
        spoiled = {tag: metrics.pop(tag) for tag, value in list(metrics.items()) if not np.isfinite(value)}
        if isinstance(self.agent, OwnLoopAgent):  # its randomness is addressed by its own count, which goes on
            self._before["updates"] = self.agent.state_dict()["updates"].clone()
        self.agent.load_state_dict(self._before)
        self.sampler.load_state_dict(self._tasks_before)
        tag, value = next(iter(spoiled.items()))
        warn(f"Iteration skipped: {tag} became {value}{'' if culprit is None else f' ({culprit})'}.")


def culprit_of(agent: LearningAgent, trial: list[Rollout], split: str) -> Culprit:
    """Return what was first not finite in an iteration with a non-finite metric."""
    own = isinstance(agent, OwnLoopAgent)
    mine = agent.not_finite if isinstance(agent, OwnLoopAgent) else first_not_finite(trial)
    found = next(filter(None, ranks.all_gather(mine)), None)
    if found is None:
        return Culprit(None if own else "update")
    method = METHODS.get(found.what)
    source = f"{type(agent.family).__name__}.{method}, " if method else ""
    return Culprit(found.what, f"{source}{found.place}; split {split!r}" if found.place else "")


def check_before_saving(agent: LearningAgent, iteration: int, run_dir: Path) -> None:
    """Raise Diverged if a checkpoint would contain NaN, and FileNotFoundError if the run directory was removed."""
    if not run_dir.is_dir():  # another library might make it again, without what it held
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run_dir))
    for name, value in agent.state_dict().items():
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            raise Diverged(
                f"Training stopped in iteration {iteration}, because {name} became nan in its update, so it was not "
                f"saved. {kept(run_dir)} {CAUSES['update']}"
            )


def warn_of_curves(
    curves: Mapping[str, AdaptationCurve], iteration: int, warned: set[str], warn: Callable[[str], None]
) -> None:
    """Warn, once per split, about an evaluation with returns that are not finite."""
    for split, curve in curves.items():
        if split in warned or bool(np.isfinite(curve.returns).all()):
            continue
        warned.add(split)
        warn(f"Iteration {iteration}: {first_spoiled(curve)} Nothing that is computed from them is finite, either.")


def first_spoiled(curve: AdaptationCurve) -> str | None:
    """Return a message with the number of tasks whose returns are not finite, and the first such task."""
    finite_tasks = np.isfinite(curve.returns).all(axis=(0, 2))
    if finite_tasks.all():
        return None
    row = int(np.flatnonzero(~finite_tasks)[0])
    point = int(np.flatnonzero(~np.isfinite(curve.returns[:, row]).all(axis=0))[0])
    return (
        f"the evaluation on {curve.split!r} has returns that are not finite on {np.count_nonzero(~finite_tasks)} of "
        f"{finite_tasks.size} tasks, first in {curve.labels[point]} of task {row}{_values(curve, row)}."
    )


def _values(curve: AdaptationCurve, row: int) -> str:
    shown: list[Any] = []
    for name, values in (curve.task_values or {}).items():
        numbers = [f"{number:.4g}" for number in np.asarray(values)[row].ravel()[:4]]
        shown.append(f"{name}=[{', '.join(numbers)}{', …' if np.asarray(values)[row].size > 4 else ''}]")
    return f" ({', '.join(shown[:4])})" if shown else ""
