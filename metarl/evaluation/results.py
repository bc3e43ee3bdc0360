"""Results of an evaluation: an agent's returns by task and point, and their statistics.

`AdaptationCurve` adds files and plots.
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
    """Returns of an agent on a split, by training seed, task and point; `AdaptationCurve` defines these terms.

    Raises ValueError if the shapes do not match.
    """

    returns: Array  # (seeds, tasks, points) undiscounted return of an episode, mean over the repeats
    episodes: NDArray[np.float64]  # (points,) episodes of experience on the task before the point
    env_steps: NDArray[np.float64]  # (points,) mean environment steps of experience before the point
    labels: tuple[str, ...]  # (points,) "episode 1", or "0 gradient steps"
    random: Array | None  # (tasks,) return of an episode of the uniformly random policy; None: not measured
    oracle: Array | None  # (tasks,) best known return of an episode given the task; None: unknown
    agent: str
    family: str
    split: str
    greedy: bool  # the agent took its most likely action; otherwise it sampled, as in training
    rounds: bool = False
    repeats: int = 1  # trials on each task
    eval_seed: int | None = None  # seed of tasks and noise; None: unknown (a file of an earlier version)
    distinct: int | None = None  # number of tasks in the split; None: infinite, or unknown
    episodes_of_a_point: int = 1  # episodes of experience in one point
    total_steps: float | None = None  # mean environment steps of experience after the last point
    task_values: Mapping[str, Array] = field(default_factory=dict)  # (tasks, d): the tasks' values by field
    training: tuple[Mapping[str, Any], ...] = ()  # for each seed: its training seed, iteration, environment steps
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that made the evaluation
    steps: StepCurve | None = None  # the reward at every step of the trial
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
        """The return of the whole trial, ``(seeds, tasks)``: the sum over its points."""
        return self.returns.sum(axis=2)

    @property
    def scores(self) -> Array:
        """The score of each task, ``(seeds, tasks)``: the trial's total, or the last round's return if `rounds`."""
        return self.returns[:, :, -1] if self.rounds else self.totals

    @property
    def every_task(self) -> bool:
        """True if the tasks are the whole population: all tasks of the split `all`, or tasks that were given."""
        return self.split == GIVEN or (self.split == "all" and self.distinct == self.returns.shape[1])

    @property
    def bounds(self) -> dict[str, float]:
        """Return the means over tasks of "random" and "oracle", per episode, if known."""
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
        """Return the last point of every seed and task, normalised by `scale`, ``(seeds, tasks)``; None without one."""
        return None if self.scale is None else stats.normalise(self.returns[:, :, -1], *self.scale)

    def mean(self) -> NDArray[np.float64]:
        """Return the mean over seeds and tasks, ``(points,)``."""
        return stats.mean(self.returns)

    def iqm(self) -> NDArray[np.float64]:
        """Return the interquartile mean over seeds and tasks, ``(points,)``; see `stats.iqm`."""
        return stats.iqm(self.returns)

    def interval(self, level: float = 0.95, statistic: str = "mean") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the interval of the mean (or "iqm") at each point, (low, high), ``(points,)`` each.

        `interval_of` describes what it is over. Raises the errors of `stats.interval`.
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
        """Cache of intervals, which files, plots, table and log all need; one takes a second for 10,000 tasks."""
        return {}

    def interval_of(self) -> str:
        """Describe what the intervals are over: ``over tasks, of this agent``, or ``over seeds and tasks``.

        For `every_task`: ``over trials, of this agent on all tasks``, or ``over seeds, on all tasks``.
        """
        one = len(self.returns) == 1
        if self.every_task and (not one or self.noise is not None):
            tasks = "these tasks" if self.split == GIVEN else "all tasks"
            return f"over trials, of this agent on {tasks}" if one else f"over seeds, on {tasks}"
        return "over tasks, of this agent" if one else "over seeds and tasks"

    def summary(self) -> dict[str, float]:
        """Return the curve as plain numbers; unknown and undefined ones are left out.

        - each point's mean under its label; with more than ten points those of `chosen_points`
        - ``score``, ``score_low``, ``score_high`` (95 %), ``score_iqm``: of the trial's total, or of the last round
        - ``random``, ``oracle``: per episode; ``normalised`` score (0 random, 1 oracle); ``normalised_regret``
        - ``area_under_curve``; ``adaptation_delta`` with ``_low`` and ``_high``; ``episodes_to_threshold`` and
          ``env_steps_to_threshold`` (0.9 of the way from random to oracle; left out if never reached; the latter by
          the steps of the trial where `steps` has random and oracle, else by the points)
        - ``cumulative_regret`` against the oracle over all episodes of experience, ``regret_per_episode`` and
          ``regret_per_step`` at its end: the remaining loss per episode, or per environment step
        - ``success_first``, ``success``: fraction of episodes of the first and of the last point in which the task was
          solved at some step
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
        """Return mean and 95 % interval of ``(seeds, tasks)`` values, whose noise is this column of `noise`."""
        noise = None if self.noise is None else self.noise[:, [column]]
        low, high = stats.interval(values[:, :, None], every_task=self.every_task, noise=noise)
        return {name: stats.mean(values[:, :, None])[0], f"{name}_low": low[0], f"{name}_high": high[0]}

    def _normalised(self) -> dict[str, float]:
        """Return the numbers of the summary that need a scale from random to oracle."""
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
        """Return the environment steps until `threshold` of the way from random to oracle; None if never or unknown.

        If `steps` has random and oracle, the reward at each step is used (see `StepCurve.steps_to_threshold`), so that
        learning within the first episode counts. Otherwise the points are used, of which the first has 0 steps.
        """
        if self.steps is not None and len(self.steps.bounds) == 2:
            return self.steps.steps_to_threshold(threshold)
        if self.scale is None:
            return None
        return stats.episodes_to_threshold(self.returns, *self.scale, threshold, episodes=self.env_steps)

    def regret(self) -> dict[str, float]:
        """Return ``cumulative_regret``, ``regret_per_episode``, ``regret_per_step`` by the oracle; empty without one.

        Every episode of experience counts, including parallel ones of a round, so that agents that adapt in rounds can
        be compared with agents that adapt in episodes. The last two are slopes over the second half of the points.
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
        """Return ``cvar_10``, the mean score on the worst tenth of tasks, with its interval, and ``worst_task``.

        Tasks are chosen by one half of their trials and measured on the other (`metarl.evaluation.tails.tail`), so that
        bad luck does not bias the result. Empty with a single trial per task or fewer than ten tasks.
        """
        if self.halves is None or self.halves.shape[1] < tail.FEWEST:
            return {}
        parts = tail.contributions(self.halves)[:, :, None]
        low, high = stats.interval(parts, every_task=self.every_task)
        found = {"cvar_10": float(parts.mean()), "cvar_10_low": float(low[0]), "cvar_10_high": float(high[0])}
        return found | {"worst_task": float(tail.worst(self.halves).mean())}

    def success_by(self, name: str, last: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the success in the last points, grouped by a field of the tasks, such as Meta-World's ``environment``.

        Returns the distinct values of the field `name`, ``(groups,)``, and the fraction of solved episodes in the last
        `last` points, averaged over the tasks of each group, ``(seeds, groups)``. Raises ValueError if success is
        unknown or the tasks have no such scalar field.
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
        """Return means over ten pulls for bandits with at least forty, whose single pulls are noisy; else the curve."""
        points = len(self.labels)
        single = not self.rounds and bool((np.diff(self.env_steps) == 1.0).all())
        if not single or points < 4 * PULLS:
            return self
        first = np.arange(0, points, PULLS)
        sizes = np.diff(np.append(first, points))
        means = np.add.reduceat(self.returns.astype(np.float64), first, axis=2) / sizes
        noise = self.noise
        if noise is not None:  # the noise of a mean is at most the mean noise of its parts
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
    """Return the indices of at most `limit` points to show: all, or numbers 1, 2, 5, 10, 50, 100 … and the last."""
    if points <= limit:
        return list(range(points))
    numbers = [1, 2, 5, *(step * 10**power for power in range(1, 10) for step in (1, 5))]
    numbers = [number for number in numbers if number < points] + [points]
    while len(numbers) > limit:
        numbers.pop(1)
    return [number - 1 for number in numbers]


def short(value: float) -> str:
    """Format a return with three or four digits."""
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}"


def not_finite(split: str, **numbers: ArrayLike | None) -> str | None:
    """Return a message with the number of tasks whose results are not finite; None if there are none.

    `numbers` are results by name, as in an adaptation curve: ``(tasks,)`` or ``(seeds, tasks, points)``; None: unknown.
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
