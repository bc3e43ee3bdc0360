"""Results of an evaluation: an agent's returns on tasks, point by point, and their statistics.

`AdaptationCurve` adds files and pictures to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl.core.errors import unknown
from metarl.evaluation import stats
from metarl.evaluation.step_curve import PULLS, StepCurve
from metarl.evaluation.tails import tail

Array = NDArray[np.float32]


GIVEN = "given tasks"
"""The split's name for tasks that the caller gave."""


@dataclass(frozen=True, eq=False)
class Results:
    """Returns of an agent on a split, by training seed, task and point; see `AdaptationCurve` for these words.

    Raises ValueError where the shapes do not agree.
    """

    returns: Array  # (seeds, tasks, points) undiscounted return of an episode, mean over the repeats
    episodes: NDArray[np.float64]  # (points,) episodes of experience on the task before the point
    env_steps: NDArray[np.float64]  # (points,) mean environment steps of experience before the point
    labels: tuple[str, ...]  # (points,) "episode 1", or "0 gradient steps"
    random: Array | None  # (tasks,) return of an episode of the uniformly random policy; None: not measured
    oracle: Array | None  # (tasks,) best known return of an episode when the task is told; None: not known
    agent: str
    family: str
    split: str
    greedy: bool  # the agent took its most likely action; otherwise it sampled, as in training
    rounds: bool = False
    repeats: int = 1  # trials on each task
    eval_seed: int | None = None  # of tasks and noise; None: not known (a file of an earlier version)
    distinct: int | None = None  # tasks that the split has; None: no end of them, or not known
    episodes_of_a_point: int = 1  # episodes of experience that a point itself is
    total_steps: float | None = None  # mean environment steps of experience after the last point
    task_values: Mapping[str, Array] = field(default_factory=dict)  # (tasks, d): the tasks' own numbers by field
    training: tuple[Mapping[str, Any], ...] = ()  # of each seed: its training seed, iteration, environment steps
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that made the evaluation
    steps: StepCurve | None = None  # the reward of every step of the trial
    noise: NDArray[np.float64] | None = None  # (seeds, points + 2) standard error of each point's mean, of the score's
    # and of the last less the first point's that playing the same tasks again has; None: one trial each, or not known
    success: Array | None = None  # (seeds, tasks, points) share of a point's episodes in which the task was solved at
    # some step; None: the family does not count it
    halves: Array | None = None  # (seeds, tasks, 2) mean score of the odd and of the even trials; None: one trial each

    def __post_init__(self) -> None:
        if self.returns.ndim != 3:
            raise ValueError(f"returns must be (seeds, tasks, points), got shape {self.returns.shape}.")
        _, tasks, points = self.returns.shape
        if not len(self.labels) == len(self.episodes) == len(self.env_steps) == points:
            raise ValueError(f"labels, episodes and env_steps must have one entry for each of {points} points.")
        for name, bound in (("random", self.random), ("oracle", self.oracle)):
            if bound is not None and bound.shape != (tasks,):
                raise ValueError(f"{name} must have one return for each of {tasks} tasks, got shape {bound.shape}.")
        if self.success is not None and self.success.shape != self.returns.shape:
            raise ValueError(f"success must have the shape {self.returns.shape} of returns, got {self.success.shape}.")
        if self.halves is not None and self.halves.shape != (*self.returns.shape[:2], 2):
            raise ValueError(f"halves must be (seeds, tasks, 2), got shape {self.halves.shape}.")
        if self.steps is not None and self.steps.every_task != self.every_task:
            object.__setattr__(self, "steps", replace(self.steps, every_task=self.every_task))

    @property
    def totals(self) -> Array:
        """Return of the whole trial, ``(seeds, tasks)``: the sum over its points."""
        return self.returns.sum(axis=2)

    @property
    def scores(self) -> Array:
        """The one number of a task, ``(seeds, tasks)``: the trial's total, or after the last round if `rounds`."""
        return self.returns[:, :, -1] if self.rounds else self.totals

    @property
    def every_task(self) -> bool:
        """True where the result speaks of no other tasks: all tasks of the split `all`, or tasks that were given."""
        return self.split == GIVEN or (self.split == "all" and self.distinct == self.returns.shape[1])

    @property
    def bounds(self) -> dict[str, float]:
        """Mean over tasks of "random" and "oracle", per episode, where they are known."""
        known = {"random": self.random, "oracle": self.oracle}
        return {name: float(np.mean(bound, dtype=np.float64)) for name, bound in known.items() if bound is not None}

    @property
    def scale(self) -> tuple[float, float] | None:
        """The returns that normalise to 0 and 1, (random, oracle); None if one is missing or they are equal."""
        bounds = self.bounds
        if len(bounds) < 2 or bounds["random"] == bounds["oracle"]:
            return None
        return bounds["random"], bounds["oracle"]

    def last_normalised(self) -> NDArray[np.float64] | None:
        """The last point of every seed and task on the `scale`, ``(seeds, tasks)``; None without a scale."""
        return None if self.scale is None else stats.normalise(self.returns[:, :, -1], *self.scale)

    def mean(self) -> NDArray[np.float64]:
        """Mean over seeds and tasks: ``(points,)``."""
        return stats.mean(self.returns)

    def iqm(self) -> NDArray[np.float64]:
        """Interquartile mean over seeds and tasks: ``(points,)``; see `stats.iqm`."""
        return stats.iqm(self.returns)

    def interval(self, level: float = 0.95, statistic: str = "mean") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Interval of the mean (or "iqm") at each point: (low, high), ``(points,)`` each.

        `interval_of` says in words what it is over. Raises ValueError as `stats.interval` does.
        """
        if (level, statistic) not in self._intervals:
            noise = None if self.noise is None else self.noise[:, :-2]
            self._intervals[level, statistic] = stats.interval(
                self.returns, statistic, level, every_task=self.every_task, noise=noise
            )
        low, high = self._intervals[level, statistic]
        return low.copy(), high.copy()

    @cached_property
    def _intervals(self) -> dict[tuple[float, str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Intervals computed so far: files, pictures, table and log want the same one, a second for 10,000 tasks."""
        return {}

    def interval_of(self) -> str:
        """Say what the intervals are over: ``over tasks, of this agent``, or ``over seeds and tasks``.

        Where the tasks are all there are: ``over trials, of this agent on all tasks``, ``over seeds, on all tasks``.
        """
        one = len(self.returns) == 1
        if self.every_task and (not one or self.noise is not None):
            tasks = "these tasks" if self.split == GIVEN else "all tasks"
            return f"over trials, of this agent on {tasks}" if one else f"over seeds, on {tasks}"
        return "over tasks, of this agent" if one else "over seeds and tasks"

    def summary(self) -> dict[str, float]:
        """The curve as plain numbers; what is unknown or makes no sense is left out.

        - each point's mean under its label; beyond ten points those of `chosen_points`
        - ``score``, ``score_low``, ``score_high`` (95 %), ``score_iqm``: of the trial's total, or the last round
        - ``random``, ``oracle``: per episode; ``normalised`` score (0 random, 1 oracle); ``normalised_regret``
        - ``area_under_curve``; ``adaptation_delta`` with ``_low`` and ``_high``; ``episodes_to_threshold`` and
          ``env_steps_to_threshold`` (0.9 of the way from random to oracle; left out if never reached; the latter by
          the steps of the trial where `steps` has random and oracle, else by the points)
        - ``cumulative_regret`` against the oracle over all episodes of the experience, ``regret_per_episode`` and
          ``regret_per_step`` at its end: what an episode, or an environment step, still loses
        - ``success_first``, ``success``: share of the episodes of the first and of the last point in which the task
          was solved at some step
        - ``cvar_10`` with ``_low`` and ``_high``, ``worst_task``: see `tail`
        - ``tasks``, ``repeats``, ``seeds``, ``greedy``
        """
        return dict(self._summary)

    @cached_property
    def _summary(self) -> dict[str, float]:
        mean = self.mean()
        numbers = {self.labels[point]: mean[point] for point in chosen_points(len(mean), 10)}
        numbers |= self._with_interval("score", self.scores, -2)
        numbers["score_iqm"] = stats.iqm(self.scores[:, :, None])[0]
        numbers["area_under_curve"] = float(stats.area_under_curve(mean, self.episodes))
        if len(mean) > 1:
            numbers |= self._with_interval("adaptation_delta", stats.adaptation_delta(self.returns), -1)
        numbers |= self.bounds | self._normalised()
        if (steps := self.steps_to_threshold()) is not None:
            numbers["env_steps_to_threshold"] = steps
        numbers |= self.regret()
        if self.success is not None:
            first, last = (stats.mean(self.success[:, :, [point]])[0] for point in (0, -1))
            numbers |= {"success_first": first, "success": last}
        numbers |= self.tail()
        numbers |= {"tasks": self.returns.shape[1], "repeats": self.repeats}
        numbers |= {"seeds": self.returns.shape[0], "greedy": self.greedy}
        return {name: float(number) for name, number in numbers.items()}

    def _with_interval(self, name: str, values: NDArray[Any], column: int) -> dict[str, Any]:
        """Mean and 95 % interval of ``(seeds, tasks)`` values, whose noise is the given column of `noise`."""
        noise = None if self.noise is None else self.noise[:, [column]]
        low, high = stats.interval(values[:, :, None], every_task=self.every_task, noise=noise)
        return {name: stats.mean(values[:, :, None])[0], f"{name}_low": low[0], f"{name}_high": high[0]}

    def _normalised(self) -> dict[str, float]:
        """The numbers of the summary that need a scale from random to oracle."""
        if self.scale is None:
            return {}
        mean = self.mean()
        numbers = {
            "normalised": float(stats.normalise(mean[-1] if self.rounds else mean.mean(), *self.scale)),
            "normalised_regret": stats.normalised_regret(self.returns, *self.scale),
        }
        reached = stats.episodes_to_threshold(self.returns, *self.scale, episodes=self.episodes)
        return numbers | ({} if reached is None else {"episodes_to_threshold": reached})

    def steps_to_threshold(self, threshold: float = 0.9) -> float | None:
        """Environment steps on a task until `threshold` of the way from random to oracle; None if never, or unknown.

        They are counted by the reward of each step where `steps` knows both (see `StepCurve.steps_to_threshold`), so
        that what is learned inside the first episode counts; else by the points, of which the first has 0 steps.
        """
        if self.steps is not None and len(self.steps.bounds) == 2:
            return self.steps.steps_to_threshold(threshold)
        if self.scale is None:
            return None
        return stats.episodes_to_threshold(self.returns, *self.scale, threshold, episodes=self.env_steps)

    def regret(self) -> dict[str, float]:
        """``cumulative_regret``, ``regret_per_episode``, ``regret_per_step`` against the oracle; empty without one.

        Every episode of the experience counts, also those of one round side by side, so that agents that learn in
        rounds and agents that learn in episodes compare. The last two are slopes over the second half of the points.
        """
        if self.oracle is None:
            return {}
        oracle = float(np.mean(self.oracle, dtype=np.float64))
        lost = self.episodes_of_a_point * stats.cumulative_regret(self.returns, oracle)
        found = {"cumulative_regret": float(lost[-1])}
        if len(lost) > 1:
            found["regret_per_episode"] = stats.regret_slope(self.returns, oracle)
        if len(lost) > 1 and self.total_steps is not None:
            last = max(2, math.ceil(len(lost) / 2))
            after = np.append(self.env_steps[1:], self.total_steps)
            found["regret_per_step"] = float(np.polyfit(after[-last:], lost[-last:], 1)[0])
        return found

    def tail(self) -> dict[str, float]:
        """``cvar_10``: mean score on the worst tenth of the tasks, with its interval; ``worst_task``: on the worst one.

        Tasks are chosen by one half of their trials and measured on the other one (`metarl.evaluation.tails.tail`), so
        that bad luck does not count as being bad. Empty with a single trial on each task, or fewer than ten tasks.
        """
        if self.halves is None or self.halves.shape[1] < tail.FEWEST:
            return {}
        parts = tail.contributions(self.halves)[:, :, None]
        low, high = stats.interval(parts, every_task=self.every_task)
        found = {"cvar_10": float(parts.mean()), "cvar_10_low": float(low[0]), "cvar_10_high": float(high[0])}
        return found | {"worst_task": float(tail.worst(self.halves).mean())}

    def success_by(self, name: str, last: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Success over the last points by a number of the tasks, such as Meta-World's ``environment``.

        Returns the values that the field `name` of the tasks has, ``(groups,)``, and the share of solved episodes in
        the last `last` points, a mean over the tasks of each: ``(seeds, groups)``. Raises ValueError if success is not
        known or the tasks have no such field of one number.
        """
        if self.success is None:
            raise ValueError(f"{self.family} does not count success.")
        values = self.task_values.get(name)
        if values is None or values.shape[1] != 1:
            known = [each for each, field in self.task_values.items() if field.shape[1] == 1]
            raise ValueError(unknown("number of the tasks", name, known))
        found, group = np.unique(values[:, 0], return_inverse=True)
        share = self.success[:, :, -last:].mean(axis=2, dtype=np.float64)
        return found.astype(np.float64), np.stack([share[:, group == each].mean(1) for each in range(len(found))], 1)

    def blocks(self) -> Self:
        """Means over ten pulls for a bandit of at least forty, whose single pulls are noise; else the curve itself."""
        points = len(self.labels)
        single = not self.rounds and bool((np.diff(self.env_steps) == 1.0).all())
        if not single or points < 4 * PULLS:
            return self
        first = np.arange(0, points, PULLS)
        sizes = np.diff(np.append(first, points))
        means = np.add.reduceat(self.returns.astype(np.float64), first, axis=2) / sizes
        noise = self.noise
        if noise is not None:  # a mean scatters at most as its parts do in the mean
            noise = np.concatenate([np.add.reduceat(noise[:, :-2], first, axis=1) / sizes, noise[:, -2:]], axis=1)
        success = self.success
        if success is not None:
            success = (np.add.reduceat(success.astype(np.float64), first, axis=2) / sizes).astype(np.float32)
        return replace(
            self,
            returns=means.astype(np.float32),
            noise=noise,
            success=success,
            episodes=self.episodes[first],
            env_steps=self.env_steps[first],
            labels=tuple(f"episodes {at + 1} to {at + size}" for at, size in zip(first, sizes, strict=True)),
        )


def chosen_points(points: int, limit: int) -> list[int]:
    """Indices of at most `limit` points to show: all, or number 1, 2, 5, 10, 50, 100, 500 … and the last."""
    if points <= limit:
        return list(range(points))
    numbers = [1, 2, 5, *(step * 10**power for power in range(1, 10) for step in (1, 5))]
    numbers = [number for number in numbers if number < points] + [points]
    while len(numbers) > limit:
        numbers.pop(1)
    return [number - 1 for number in numbers]


def short(value: float) -> str:
    """Format a return in three or four digits."""
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}"


def not_finite(split: str, **numbers: ArrayLike | None) -> str | None:
    """Say in a sentence how many tasks of an evaluation have numbers that are not finite; None if there are none.

    `numbers` are by name, as an adaptation curve has them: ``(tasks,)`` or ``(seeds, tasks, points)``; None: unknown.
    """
    found = []
    for name, values in numbers.items():
        if values is None:
            continue
        finite = np.isfinite(np.asarray(values, dtype=np.float64))
        by_task = finite.all(axis=(0, 2)) if finite.ndim == 3 else finite
        if not by_task.all():
            found.append(f"{name} of {np.count_nonzero(~by_task)} of {by_task.size} tasks")
    if not found:
        return None
    return f"On {split!r} these are not finite numbers: {', '.join(found)}; nor is what is computed from them."
