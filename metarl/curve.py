"""Adaptation curves: what an evaluation found, with its statistics, its files and its picture."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from metarl import stats

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AdaptationCurve:
    """Returns of an agent on a split, as far as it got to know each task.

    A *point* is an episode of the trial (an agent that learns in its memory) or a round of adaptation (one that
    learns by gradient steps between rounds; then `rounds` is True and a point is the mean over a round's episodes).
    """

    returns: Array  # (seeds, tasks, points) undiscounted return of an episode
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

    def __post_init__(self) -> None:
        if self.returns.ndim != 3:
            raise ValueError(f"returns must be (seeds, tasks, points), got shape {self.returns.shape}.")
        _, tasks, points = self.returns.shape
        if not len(self.labels) == len(self.episodes) == len(self.env_steps) == points:
            raise ValueError(f"labels, episodes and env_steps must have one entry for each of {points} points.")
        for name, bound in (("random", self.random), ("oracle", self.oracle)):
            if bound is not None and bound.shape != (tasks,):
                raise ValueError(f"{name} must have one return for each of {tasks} tasks, got shape {bound.shape}.")

    @property
    def totals(self) -> Array:
        """Return of the whole trial, ``(seeds, tasks)``: the sum over its points."""
        return self.returns.sum(axis=2)

    @property
    def scores(self) -> Array:
        """The one number of a task, ``(seeds, tasks)``: the trial's total, or after the last round if `rounds`."""
        return self.returns[:, :, -1] if self.rounds else self.totals

    @property
    def bounds(self) -> dict[str, float]:
        """Mean over tasks of what is known of "random" and "oracle", per episode."""
        known = {"random": self.random, "oracle": self.oracle}
        return {name: float(np.mean(bound, dtype=np.float64)) for name, bound in known.items() if bound is not None}

    def mean(self) -> NDArray[np.float64]:
        """Mean over seeds and tasks: ``(points,)``."""
        return stats.mean(self.returns)

    def iqm(self) -> NDArray[np.float64]:
        """Interquartile mean over seeds and tasks: ``(points,)``; see `stats.iqm`."""
        return stats.iqm(self.returns)

    def interval(self, level: float = 0.95, statistic: str = "mean") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bootstrap interval of the mean (or "iqm") at each point, (low, high); see `stats.interval`."""
        if (level, statistic) not in self._intervals:
            self._intervals[level, statistic] = stats.interval(self.returns, statistic, level)
        low, high = self._intervals[level, statistic]
        return low.copy(), high.copy()

    @cached_property
    def _intervals(self) -> dict[tuple[float, str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Those asked for so far: files, pictures, table and log want the same one, a second for 10,000 tasks."""
        return {}

    def summary(self) -> dict[str, float]:
        """The curve as plain numbers; what is unknown or makes no sense is left out.

        - each point's mean under its label; beyond ten points those of `chosen_points`
        - ``score``, ``score_low``, ``score_high`` (95 %), ``score_iqm``: of the trial's total, or the last round
        - ``random``, ``oracle``: per episode; ``normalised`` score (0 random, 1 oracle); ``normalised_regret``
        - ``area_under_curve``; ``adaptation_delta`` with ``_low`` and ``_high``; ``episodes_to_threshold`` and
          ``env_steps_to_threshold`` (0.9 of the way from random to oracle; left out if never reached)
        - ``cumulative_regret`` against the oracle up to the last point, and ``regret_slope`` per point at the end
        - ``tasks``, ``seeds``, ``greedy``
        """
        return dict(self._summary)

    @cached_property
    def _summary(self) -> dict[str, float]:
        mean = self.mean()
        numbers = {self.labels[point]: mean[point] for point in chosen_points(len(mean), 10)}
        numbers |= _with_interval("score", self.scores)
        numbers["score_iqm"] = stats.iqm(self.scores[:, :, None])[0]
        numbers["area_under_curve"] = float(stats.area_under_curve(mean, self.episodes))
        if len(mean) > 1:
            numbers |= _with_interval("adaptation_delta", stats.adaptation_delta(self.returns))
        numbers |= self.bounds
        bounds = self.bounds
        if len(bounds) == 2 and bounds["random"] != bounds["oracle"]:
            scale = (bounds["random"], bounds["oracle"])
            numbers["normalised"] = float(stats.normalise(mean[-1] if self.rounds else mean.mean(), *scale))
            numbers["normalised_regret"] = stats.normalised_regret(self.returns, *scale)
            for name in ("episodes", "env_steps"):
                reached = stats.episodes_to_threshold(self.returns, *scale, episodes=getattr(self, name))
                if reached is not None:
                    numbers[f"{name}_to_threshold"] = reached
        if "oracle" in bounds:
            numbers["cumulative_regret"] = stats.cumulative_regret(self.returns, bounds["oracle"])[-1]
            if len(mean) > 1:
                numbers["regret_slope"] = stats.regret_slope(self.returns, bounds["oracle"])
        numbers |= {"tasks": self.returns.shape[1], "seeds": self.returns.shape[0], "greedy": self.greedy}
        return {name: float(number) for name, number in numbers.items()}

    def plot(self, ax: Axes | None = None, x: str = "points", bounds: bool = True) -> Figure:
        """The mean with its 95 % band, and random and oracle as dashed lines, on `ax` or a new figure.

        `x` is what stands on the horizontal axis: "points" (the episode of the trial, or the number of gradient steps),
        or the experience on the task before each point, in "episodes" or "env_steps", on which agents that learn in
        their memory and agents that learn by gradients compare; both are on a logarithmic scale that has a zero.
        A curve that stays within the last tenth of the way from random to oracle is shown without the random line,
        beside which it would look flat; the legend has its value. Without `bounds` neither line is drawn, for a second
        curve on the same axes.
        """
        if x not in ("points", "episodes", "env_steps"):
            raise ValueError(f"x must be 'points', 'episodes' or 'env_steps', got {x!r}.")
        if ax is None:
            ax = Figure(figsize=(6.4, 4.4), layout="constrained").add_subplot()
        at = {
            "points": np.arange(len(self.labels)) + (0.0 if self.rounds else 1.0),
            "episodes": self.episodes,
            "env_steps": self.env_steps,
        }[x]
        low, high = self.interval()
        (line,) = ax.plot(at, self.mean(), marker="o" if len(at) <= 20 else "", label=self.agent)
        ax.fill_between(at, low, high, color=line.get_color(), alpha=0.25, linewidth=0, label="95 % interval")
        lines = self.bounds if bounds else {}
        near = len(lines) == 2 and float(low.min()) > lines["random"] + 0.9 * abs(lines["oracle"] - lines["random"])
        for (name, value), colour in zip(lines.items(), ("0.5", "tab:green"), strict=False):
            label = f"{'known-task optimum' if name == 'oracle' else name} {short(value)}"
            if name == "random" and near:
                ax.plot([], [], linestyle="--", linewidth=1.2, color=colour, label=f"{label} (below)")
            else:
                ax.axhline(value, linestyle="--", linewidth=1.2, color=colour, label=label)
        ax.autoscale_view()  # leaves a margin beside the dashed lines too
        seeds, tasks, _ = self.returns.shape
        named = {"episodes": "episodes of experience on the task", "env_steps": "environment steps of experience"}
        ax.set_xlabel(named.get(x, "gradient steps" if self.rounds else "episode of the trial"))
        ax.set_ylabel("return of an episode")
        ax.set_title(textwrap.fill(f"{self.family}, {self.split}", 68), fontsize="medium")
        if x == "points":
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        else:
            ax.set_xscale("symlog", linthresh=1.0)
            ax.set_xlim(0.0, 1.5 * max(ax.dataLim.x1, 1.0))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        how = "greedy" if self.greedy else "sampling"
        note = f"{tasks} tasks, {seeds} seed{'s'[: seeds != 1]}, {how}"
        # Below the axes, where it hides nothing.
        ax.legend(
            title=note,
            fontsize="small",
            title_fontsize="small",
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            ncols=2,
            frameon=False,
        )
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        return figure

    def save(self, path: str | Path) -> list[Path]:
        """Write ``<path>.json`` (summary, all points with intervals), ``.csv`` (every task) and ``.png`` (the plot).

        `path` is a stem such as ``runs/x/evaluation/test``; folders are made. Returns the three paths. `load` reads
        the first two back without loss.
        """
        json_path, csv_path, png_path = (_with_suffix(path, suffix) for suffix in (".json", ".csv", ".png"))
        json_path.parent.mkdir(parents=True, exist_ok=True)
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("returns", "random", "oracle")}
        plain |= {"labels": list(self.labels), "episodes": list(self.episodes), "env_steps": list(self.env_steps)}
        low, high = self.interval()
        columns = {"mean": self.mean(), "low": low, "high": high, "iqm": self.iqm()}
        points = {name: [round(float(value), 6) for value in values] for name, values in columns.items()}
        document = plain | {"summary": self.summary(), "points": points}
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
        json_path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        self._write_csv(csv_path)
        self.plot().savefig(png_path, dpi=150)
        return [json_path, csv_path, png_path]

    def to_frame(self) -> Any:
        """A pandas DataFrame, a row for every seed, task and point.

        Columns: seed, task, point (its label), episodes and env_steps (of experience before it), return, random, oracle
        (NaN where unknown). Raises ImportError with a sentence where pandas, which metarl does not need, is not there.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install pandas; save(path) writes a CSV without it."
            ) from error
        tasks = self.returns.shape[1]
        seed, task, point = (index.ravel() for index in np.indices(self.returns.shape))
        bounds = [np.full(tasks, np.nan) if bound is None else bound for bound in (self.random, self.oracle)]
        columns = {"seed": seed, "task": task, "point": np.array(self.labels)[point]}
        columns |= {"episodes": self.episodes[point], "env_steps": self.env_steps[point]}
        columns |= {"return": self.returns.ravel(), "random": bounds[0][task], "oracle": bounds[1][task]}
        return pandas.DataFrame(columns)

    def _write_csv(self, path: Path) -> None:
        """One row for each seed and task: seed, task, random, oracle (empty if unknown), and every point's return."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["seed", "task", "random", "oracle", *self.labels])
            for seed, tasks in enumerate(self.returns):
                for task, row in enumerate(tasks):
                    bounds = ["" if b is None else f"{b[task]:.9g}" for b in (self.random, self.oracle)]
                    writer.writerow([seed, task, *bounds, *(f"{value:.9g}" for value in row)])

    @classmethod
    def load(cls, path: str | Path) -> AdaptationCurve:
        """The curve that `save(path)` wrote; `path` is the stem or the JSON file."""
        plain = json.loads(_with_suffix(path, ".json").read_text(encoding="utf-8"))
        with _with_suffix(path, ".csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        seeds = int(rows[-1][0]) + 1
        tasks = len(rows) // seeds
        values = np.array([row[4:] for row in rows], dtype=np.float32)
        bounds = [
            np.array([row[column] for row in rows[:tasks]], dtype=np.float32) if rows[0][column] else None
            for column in (2, 3)
        ]
        return cls(
            returns=values.reshape(seeds, tasks, -1),
            episodes=np.array(plain["episodes"], dtype=np.float64),
            env_steps=np.array(plain["env_steps"], dtype=np.float64),
            labels=tuple(plain["labels"]),
            random=bounds[0],
            oracle=bounds[1],
            **{name: plain[name] for name in ("agent", "family", "split", "greedy", "rounds")},
        )


def combine(curves: Sequence[AdaptationCurve]) -> AdaptationCurve:
    """One curve with the seeds of all: evaluations of several training runs on the same tasks.

    Raises ValueError if they differ in anything but the returns and the steps they took.
    """
    if not curves:
        raise ValueError("There must be at least one curve to combine.")
    first = curves[0]
    for other in curves[1:]:
        for name in ("agent", "family", "split", "greedy", "rounds", "labels"):
            if getattr(first, name) != getattr(other, name):
                raise ValueError(
                    f"Only curves of one protocol combine, but {name} differs: "
                    f"{getattr(first, name)!r} and {getattr(other, name)!r}."
                )
        for name in ("random", "oracle", "episodes"):
            if not _equal(getattr(first, name), getattr(other, name)):
                raise ValueError(f"Only evaluations on the same tasks combine, but {name} differs.")
    steps = np.average([c.env_steps for c in curves], axis=0, weights=[len(c.returns) for c in curves])
    return replace(first, returns=np.concatenate([curve.returns for curve in curves]), env_steps=steps)


def generalisation_gaps(curves: Mapping[str, AdaptationCurve]) -> dict[str, tuple[float, float, float]]:
    """Score on `train` minus that on each other split, with its 95 % interval (gap, low, high); empty without `train`.

    A split whose curve has other seeds than `train`'s is left out.
    """
    if "train" not in curves:
        return {}
    train = curves["train"].scores
    others = {name: curve.scores for name, curve in curves.items() if name != "train"}
    return {name: stats.generalisation_gap(train, got) for name, got in others.items() if len(got) == len(train)}


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
    """A return in three or four digits."""
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}"


def _with_interval(name: str, values: NDArray[Any]) -> dict[str, Any]:
    """Mean and 95 % interval of ``(seeds, tasks)`` values."""
    low, high = stats.interval(values[:, :, None])
    return {name: stats.mean(values[:, :, None])[0], f"{name}_low": low[0], f"{name}_high": high[0]}


def _with_suffix(path: str | Path, suffix: str) -> Path:
    """`path` with `suffix` in place of one of the three that `save` writes, or added."""
    path = Path(path)
    stem = path.name.removesuffix(".json").removesuffix(".csv").removesuffix(".png")
    return path.with_name(stem + suffix)


def _equal(a: Any, b: Any) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
