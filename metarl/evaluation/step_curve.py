"""Adaptation within an episode: the reward at every step of a trial, with random and oracle."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarl.evaluation import stats
from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM
from metarl.evaluation.files import damaged, numbers, read_csv, singles

Array = NDArray[np.float32]


MAX_BINS = 50
"""Largest number of bins of a trial, unless it has more episodes or rounds."""


PULLS = 10
"""Pulls per bin for bandits, whose episodes are single steps, in trials of at least four times as many pulls."""


MIN_SCALE = 0.05
"""Fraction of the largest difference of oracle and random below which a bin is not used to measure progress."""


HEADINGS = ("who", "seed", "task")
"""The first columns of a CSV file of steps; the others are bins."""


@dataclass(frozen=True, eq=False)
class StepCurve:
    """Mean reward per step in each bin of a trial.

    A bin is a range of steps of one episode (or of several, if an episode is a single step). Steps are counted as if
    every episode took its whole horizon, with reward 0 after its end, so that a step means the same for every agent and
    the rewards of an episode sum to its return.
    """

    edges: NDArray[np.float64]  # (bins + 1,) environment steps on a task at the bins' borders, side-by-side rows added
    rewards: Array  # (seeds, tasks, bins) mean reward of a step, over the bin's steps and all repeats
    random: Array | None  # (tasks, bins) of the uniformly random policy; None: it does not exist
    oracle: Array | None  # (tasks, bins) of the best known policy given the task; None: unknown
    every_task: bool = False  # these are all tasks that exist: intervals of several seeds are only over seeds

    def __post_init__(self) -> None:
        if self.rewards.ndim != 3 or self.rewards.shape[2] != len(self.edges) - 1:
            raise ValueError(f"rewards must be (seeds, tasks, {len(self.edges) - 1}), got {self.rewards.shape}.")

    def mean(self) -> NDArray[np.float64]:
        """Mean over seeds and tasks: ``(bins,)``."""
        return stats.mean(self.rewards)

    def interval(self, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The interval of the mean in each bin, (low, high); see `stats.interval`."""
        return (
            self._interval if level == 0.95 else stats.interval(self.rewards, "mean", level, every_task=self.every_task)
        )

    @cached_property
    def _interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return stats.interval(self.rewards, every_task=self.every_task)

    @property
    def bounds(self) -> dict[str, NDArray[np.float64]]:
        """Mean over tasks of "random" and "oracle", where they are known, ``(bins,)`` each."""
        known = {"random": self.random, "oracle": self.oracle}
        return {name: bound.mean(axis=0, dtype=np.float64) for name, bound in known.items() if bound is not None}

    def steps_to_threshold(self, threshold: float = 0.9) -> float | None:
        """Return the environment steps before the first bin that reaches `threshold` of the way from random to oracle.

        Bins in which random and oracle are nearly equal (`MIN_SCALE`), such as the first move of a search, carry no
        information and are skipped. None if no bin reaches the threshold, or if random or oracle is unknown.
        """
        bounds = self.bounds
        if len(bounds) < 2:
            return None
        scale = bounds["oracle"] - bounds["random"]
        telling = scale > MIN_SCALE * np.abs(scale).max()
        reached = np.flatnonzero(telling & (self.mean() >= bounds["random"] + threshold * scale))
        return float(self.edges[reached[0]]) if len(reached) else None

    def plot(self, ax: Axes | None = None, label: str = "agent", colour: str = "C0", title: str = "") -> Figure:
        """Draw the mean with its 95 % band as stairs over the steps, and random and oracle as dashed lines."""
        if ax is None:
            ax = Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()
        low, high = self.interval()
        ax.stairs(self.mean(), self.edges, baseline=None, color=colour, linewidth=1.8, label=label)
        low, high = np.append(low, low[-1]), np.append(high, high[-1])
        band: dict[str, Any] = {"step": "post", "alpha": 0.25, "linewidth": 0, "label": "95 % interval"}
        ax.fill_between(self.edges, low, high, color=colour, **band)
        for name, values in self.bounds.items():
            who, shade = ("told the task", OPTIMUM) if name == "oracle" else ("random", RANDOM)
            ax.stairs(values, self.edges, baseline=None, color=shade, linestyle="--", linewidth=1.2, label=who)
        ax.set_xlabel("environment steps on the task")
        ax.set_ylabel("mean reward of a step")
        ax.set_title(textwrap.fill(title, 68), fontsize="medium")
        ax.set_xlim(self.edges[0], self.edges[-1])
        ax.legend(fontsize="small", frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        return figure

    def summary(self) -> dict[str, list[float] | list[None]]:
        """``(bins,)`` lists: from_step, to_step, mean, low, high; random and oracle where known."""
        low, high = self.interval()
        columns = {"from_step": self.edges[:-1], "to_step": self.edges[1:], "mean": self.mean(), "low": low}
        columns |= {"high": high, **self.bounds}
        return {name: [round(float(value), 6) for value in values] for name, values in columns.items()}

    def as_csv(self) -> str:
        """Return a CSV with rows for random and oracle (if known) and for each seed and task, and a column per bin.

        The heading of a bin's column is the step at which it begins; the last heading is the end of the trial.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*HEADINGS, *(f"{edge:.12g}" for edge in self.edges)])
        for name, bound in (("random", self.random), ("oracle", self.oracle)):
            for task, row in enumerate([] if bound is None else bound):
                writer.writerow([name, "", task, *_digits(row)])
        for seed, tasks in enumerate(self.rewards):
            for task, row in enumerate(tasks):
                writer.writerow(["agent", seed, task, *_digits(row)])
        return text.getvalue()

    @classmethod
    def read(cls, path: Path, seeds: int, tasks: int) -> StepCurve:
        """Read a curve with these numbers of seeds and tasks that `as_csv` wrote.

        Raises ValueError if the file is damaged.
        """
        header, rows = read_csv(path, less=1)  # the last heading is the end of the trial
        if tuple(header[:3]) != HEADINGS or len(header) < 5:
            raise damaged(path, "its header is not that of a step curve")
        edges = numbers(path, [header[3:]])[0]
        if not np.isfinite(edges).all() or (np.diff(edges) <= 0.0).any():
            raise damaged(path, "its steps do not increase")
        found = [row[:3] for row in rows]
        known = [who for who in ("random", "oracle") if any(row[0] == who for row in found)]
        expected = [[who, "", str(task)] for who in known for task in range(tasks)]
        expected += [["agent", str(seed), str(task)] for seed in range(seeds) for task in range(tasks)]
        if found != expected:
            raise damaged(path, f"its rows do not match {tasks} tasks and {seeds} seeds")
        values = singles(path, [row[3:] for row in rows])
        bounds = {who: values[at * tasks : (at + 1) * tasks] for at, who in enumerate(known)}
        rewards = values[len(known) * tasks :].reshape(seeds, tasks, -1)
        return cls(edges, rewards, bounds.get("random"), bounds.get("oracle"))


def combine_steps(curves: Sequence[StepCurve | None]) -> StepCurve | None:
    """Combine curves into one with all seeds; None if any is missing or has other bins."""
    first = curves[0]
    if first is None or any(curve is None or not np.array_equal(curve.edges, first.edges) for curve in curves):
        return None
    return replace(first, rewards=np.concatenate([curve.rewards for curve in curves if curve is not None]))


def borders(rounds: int, episodes: int, horizon: int) -> NDArray[np.int64]:
    """Return the borders of a trial's bins, in steps of one row: ``(bins + 1,)`` from 0 to rounds × episodes × horizon.

    No bin crosses the end of an episode, or of a round if an episode is a single step.
    """
    total = rounds * episodes * horizon
    width = -(-total // MAX_BINS)
    unit = horizon
    if horizon == 1:
        unit = episodes
        width = max(width, PULLS if episodes >= 4 * PULLS else 1)
    inside = np.arange(0, unit, min(width, unit))
    starts = np.arange(0, total, unit)
    return np.append((starts[:, None] + inside).ravel(), total)


def binned(rewards: NDArray[Any], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return means of ``(…, steps)`` between the edges, which run from 0 to `steps`: float32 ``(…, bins)``."""
    sums = np.add.reduceat(rewards.astype(np.float64), edges[:-1], axis=-1)
    return (sums / np.diff(edges)).astype(np.float32)


def _digits(row: NDArray[Any]) -> list[str]:
    return [f"{value:.9g}" for value in row]
