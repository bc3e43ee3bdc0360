"""Training curves: an agent's performance in the course of training, averaged over its training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.report.efficiency.history import Floats, History

AXES = {"train_steps": "environment steps of meta-training", "time": "seconds of training, evaluations not counted"}
"""Possible x-axes of a training curve, and their labels."""


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """Return after adaptation by training, over the seeds of one configuration.

    Seeds are averaged at every point at which one of them was evaluated: the others are interpolated linearly between
    their evaluations, and a finished seed keeps its final value. The curve begins where all seeds have been evaluated,
    and ends where the last one has ended, or at the current position of a seed that is still being trained.
    Raises ValueError (one sentence) where the seeds have no place in common, seconds are asked for and were not
    recorded, or the evaluations at the end are of different tasks.
    """

    name: str
    histories: tuple[History, ...]
    x: str = "train_steps"

    def __post_init__(self) -> None:
        if not np.isfinite(np.concatenate(self.places)).all():
            raise ValueError(f"{self.name!r} has no record of the seconds of its training.")
        if not len(self.at):
            raise ValueError(
                f"The seeds of {self.name!r} cannot be averaged: one was first evaluated after another had ended."
            )

    @property
    def places(self) -> list[Floats]:
        """Positions of each seed's evaluations on the axis `x`: ``(points,)`` each."""
        return [each.train_steps if self.x == "train_steps" else each.seconds for each in self.histories]

    @cached_property
    def at(self) -> Floats:
        """Positions on the axis at which all seeds have a value: ``(points,)``."""
        every = np.unique(np.concatenate(self.places))
        ended = [each.final is not None for each in self.histories]
        limit = _limit([at[-1] for at in self.places], ended)
        return every[(every >= max(at[0] for at in self.places)) & (every <= limit)]

    @cached_property
    def values(self) -> Floats:
        """The return of every seed at `at`: ``(seeds, points)``."""
        seeds = zip(self.places, self.histories, strict=True)
        return np.stack([np.interp(self.at, at, each.returns) for at, each in seeds])

    def mean(self) -> Floats:
        """Mean over seeds: ``(points,)``."""
        return self.values.mean(axis=0)

    def interval(self) -> tuple[Floats, Floats]:
        """95 % interval of the mean, (low, high), ``(points,)`` each; `interval_of` says what it is over."""
        if len(self.histories) == 1:  # as recorded
            only = self.histories[0]
            return np.interp(self.at, self.places[0], only.low), np.interp(self.at, self.places[0], only.high)
        return stats.interval(self.values[:, None, :])

    def interval_of(self) -> str:
        """Describe what the intervals during training are over."""
        return "over tasks, of this agent" if len(self.histories) == 1 else "over seeds, on the tasks of the evaluation"

    @cached_property
    def final(self) -> AdaptationCurve | None:
        """The final evaluations of all seeds combined; None if a seed has none."""
        finals = [each.final for each in self.histories]
        if any(final is None for final in finals):
            return None
        try:
            return combine([final for final in finals if final is not None])
        except ValueError as error:
            raise ValueError(f"The final evaluations of the seeds of {self.name!r} differ: {error}") from error

    def last(self) -> tuple[float, float, float]:
        """The final return with its 95 % interval: (mean, low, high).

        From the evaluations at the end, over seeds and tasks, or the last ones during training where a seed has none.
        """
        if self.final is not None:
            mean, (low, high) = self.final.mean(), self.final.interval()
        else:
            mean, (low, high) = self.mean(), self.interval()
        return float(mean[-1]), float(low[-1]), float(high[-1])

    def to_reach(self, threshold: float) -> tuple[float, bool] | None:
        """Return where the mean first reaches a return, interpolated linearly between points; None if never.

        The second value is True if the first point already reaches it: then it was reached there or before.
        """
        mean = self.mean()
        above = np.flatnonzero(mean >= threshold)
        if not len(above):
            return None
        first = int(above[0])
        if first == 0:
            return float(self.at[0]), True
        share = (threshold - mean[first - 1]) / (mean[first] - mean[first - 1])
        return float(self.at[first - 1] + share * (self.at[first] - self.at[first - 1])), False

    def area(self, start: float, end: float) -> float:
        """Return the mean height of the mean curve between two positions: the area under it over their distance.

        Beyond its end the curve is constant, consistent with `common_range` for agents whose training has ended.
        """
        inside = self.at[(self.at > start) & (self.at < end)]
        at = np.array([start, *inside, end])
        return float(stats.area_under_curve(np.interp(at, self.at, self.mean()), at))


def common_range(curves: Sequence[TrainingCurve]) -> tuple[float, float] | None:
    """Return the part of the axis for which all curves have a value, (start, end); None if there is none.

    It begins where all have been evaluated. An agent whose training has ended keeps its value.
    """
    start = max(curve.at[0] for curve in curves)
    end = _limit([curve.at[-1] for curve in curves], [curve.final is not None for curve in curves])
    return (float(start), float(end)) if end > start else None


def _limit(ends: Sequence[float], ended: Sequence[bool]) -> float:
    """Return the end of the last finished seed, or the current position of the first unfinished one."""
    return min([end for end, done in zip(ends, ended, strict=True) if not done], default=max(ends))
