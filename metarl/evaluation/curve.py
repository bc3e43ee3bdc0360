"""Adaptation curves: what an evaluation found, with its statistics, its files and its picture."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from metarl.evaluation import stats
from metarl.evaluation.colours import OPTIMUM, RANDOM, colour
from metarl.evaluation.finite import to_json
from metarl.evaluation.step_curve import PULLS, StepCurve, combine_steps

Array = NDArray[np.float32]


GIVEN = "given tasks"
"""In place of a split's name, where somebody said which tasks."""


FEW_TASKS = 10
"""Below so many distinct tasks an interval over tasks says little, and tables say so."""


@dataclass(frozen=True, eq=False)
class AdaptationCurve:
    """Returns of an agent on a split, as far as it got to know each task.

    A *point* is an episode of the trial (an agent that learns in its memory) or a round of adaptation (one that
    learns by gradient steps between rounds; then `rounds` is True and a point is the mean over a round's episodes).
    A *task* is one of different tasks; its result is a mean over `repeats` trials. A *seed* is a training run.
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

    def __post_init__(self) -> None:
        if self.returns.ndim != 3:
            raise ValueError(f"returns must be (seeds, tasks, points), got shape {self.returns.shape}.")
        _, tasks, points = self.returns.shape
        if not len(self.labels) == len(self.episodes) == len(self.env_steps) == points:
            raise ValueError(f"labels, episodes and env_steps must have one entry for each of {points} points.")
        for name, bound in (("random", self.random), ("oracle", self.oracle)):
            if bound is not None and bound.shape != (tasks,):
                raise ValueError(f"{name} must have one return for each of {tasks} tasks, got shape {bound.shape}.")
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
        """Whether there are no other tasks that the result could speak of: all of `all`, or tasks that were given."""
        return self.split == GIVEN or (self.split == "all" and self.distinct == self.returns.shape[1])

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
        """Interval of the mean (or "iqm") at each point, (low, high): over what, says `interval_of`."""
        if (level, statistic) not in self._intervals:
            noise = None if self.noise is None else self.noise[:, :-2]
            self._intervals[level, statistic] = stats.interval(
                self.returns, statistic, level, every_task=self.every_task, noise=noise
            )
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
          ``env_steps_to_threshold`` (0.9 of the way from random to oracle; left out if never reached; the latter by
          the steps of the trial where `steps` has random and oracle, else by the points)
        - ``cumulative_regret`` against the oracle over all episodes of the experience, ``regret_per_episode`` and
          ``regret_per_step`` at its end: what an episode, or an environment step, still loses
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
        numbers |= self.bounds
        bounds = self.bounds
        if len(bounds) == 2 and bounds["random"] != bounds["oracle"]:
            scale = (bounds["random"], bounds["oracle"])
            numbers["normalised"] = float(stats.normalise(mean[-1] if self.rounds else mean.mean(), *scale))
            numbers["normalised_regret"] = stats.normalised_regret(self.returns, *scale)
            reached = stats.episodes_to_threshold(self.returns, *scale, episodes=self.episodes)
            numbers |= {} if reached is None else {"episodes_to_threshold": reached}
        if (steps := self.steps_to_threshold()) is not None:
            numbers["env_steps_to_threshold"] = steps
        numbers |= self.regret()
        numbers |= {"tasks": self.returns.shape[1], "repeats": self.repeats}
        numbers |= {"seeds": self.returns.shape[0], "greedy": self.greedy}
        return {name: float(number) for name, number in numbers.items()}

    def _with_interval(self, name: str, values: NDArray[Any], column: int) -> dict[str, Any]:
        """Mean and 95 % interval of ``(seeds, tasks)`` values, whose noise is the given column of `noise`."""
        noise = None if self.noise is None else self.noise[:, [column]]
        low, high = stats.interval(values[:, :, None], every_task=self.every_task, noise=noise)
        return {name: stats.mean(values[:, :, None])[0], f"{name}_low": low[0], f"{name}_high": high[0]}

    def steps_to_threshold(self, threshold: float = 0.9) -> float | None:
        """Environment steps on a task until `threshold` of the way from random to oracle; None if never, or unknown.

        By the reward of each step where `steps` knows both (see `StepCurve.steps_to_threshold`), so that what is
        learned inside the first episode counts; else by the points, of which the first has 0 steps.
        """
        if self.steps is not None and len(self.steps.bounds) == 2:
            return self.steps.steps_to_threshold(threshold)
        bounds = self.bounds
        if len(bounds) < 2 or bounds["random"] == bounds["oracle"]:
            return None
        scale = (bounds["random"], bounds["oracle"])
        return stats.episodes_to_threshold(self.returns, *scale, threshold, episodes=self.env_steps)

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

    def blocks(self) -> AdaptationCurve:
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
        return replace(
            self,
            returns=means.astype(np.float32),
            noise=noise,
            episodes=self.episodes[first],
            env_steps=self.env_steps[first],
            labels=tuple(f"episodes {at + 1} to {at + size}" for at, size in zip(first, sizes, strict=True)),
        )

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
        curve = self.blocks()
        grouped = curve is not self
        at = {
            # A mean over ten pulls stands in the middle of them.
            "points": curve.episodes + (0.5 * (PULLS + 1) if grouped else 1.0),
            "episodes": curve.episodes,
            "env_steps": curve.env_steps,
        }[x]
        if x == "points" and self.rounds:
            at = np.arange(len(self.labels), dtype=np.float64)
        low, high = curve.interval()
        # Between two rounds nothing is learned but by the step of adaptation at their border.
        (line,) = ax.plot(
            at, curve.mean(), marker="o" if len(at) <= 20 else "", label=self.agent, color=colour(self.agent),
            drawstyle="steps-post" if self.rounds else "default",
        )  # fmt: skip
        band: dict[str, Any] = {"step": "post"} if self.rounds else {}
        label = f"95 % interval {self.interval_of()}"
        ax.fill_between(at, low, high, color=line.get_color(), alpha=0.25, linewidth=0, label=label, **band)
        lines = self.bounds if bounds else {}
        near = len(lines) == 2 and float(low.min()) > lines["random"] + 0.9 * abs(lines["oracle"] - lines["random"])
        for (name, value), shade in zip(lines.items(), (RANDOM, OPTIMUM), strict=False):
            label = f"{'known-task optimum' if name == 'oracle' else name} {short(value)}"
            if name == "random" and near:
                ax.plot([], [], linestyle="--", linewidth=1.2, color=shade, label=f"{label} (below)")
            else:
                ax.axhline(value, linestyle="--", linewidth=1.2, color=shade, label=label)
        ax.autoscale_view()  # leaves a margin beside the dashed lines too
        seeds, tasks, _ = self.returns.shape
        named = {"episodes": "episodes of experience on the task", "env_steps": "environment steps of experience"}
        ax.set_xlabel(named.get(x, "gradient steps" if self.rounds else "episode of the trial"))
        ax.set_ylabel(f"return of an episode{', means over ten' if grouped else ''}")
        ax.set_title(textwrap.fill(f"{self.family}, {self.split}", 68), fontsize="medium")
        if x == "points":
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        else:
            ax.set_xscale("symlog", linthresh=1.0)
            ax.set_xlim(0.0, 1.5 * max(ax.dataLim.x1, 1.0))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        how = "greedy" if self.greedy else "sampling"
        often = f" × {self.repeats} repeats" if self.repeats > 1 else ""
        note = f"{tasks} tasks{often}, {seeds} seed{'s'[: seeds != 1]}, {how}"
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

    def plot_steps(self) -> Figure | None:
        """The reward of every step of the trial, beside random and told play; None without `steps`."""
        if self.steps is None:
            return None
        return self.steps.plot(label=self.agent, colour=colour(self.agent), title=f"{self.family}, {self.split}")

    def interval_of(self) -> str:
        """What the intervals are about, in words: ``over tasks, of this agent``, or ``over seeds and tasks``.

        Where the tasks are all there are: ``over trials, of this agent on all tasks``, ``over seeds, on all tasks``.
        """
        one = len(self.returns) == 1
        if self.every_task and (not one or self.noise is not None):
            tasks = "these tasks" if self.split == GIVEN else "all tasks"
            return f"over trials, of this agent on {tasks}" if one else f"over seeds, on {tasks}"
        return "over tasks, of this agent" if one else "over seeds and tasks"

    def _repr_png_(self) -> bytes:
        """The plot, for notebooks."""
        file = io.BytesIO()
        self.plot().savefig(file, format="png", dpi=100)
        return file.getvalue()

    def _repr_html_(self) -> str:
        """The points in a table and the plot, for notebooks."""
        low, high = self.interval()
        shown = chosen_points(len(self.labels), 8)
        cells = {
            "": [html.escape(self.labels[point]) for point in shown],
            "mean": [short(self.mean()[point]) for point in shown],
            "95 %": [f"[{short(low[point])}, {short(high[point])}]" for point in shown],
        }
        rows = "".join(
            f"<tr><th>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
            for name, row in cells.items()
        )
        title = html.escape(f"{self.agent} on {self.family}, {self.split}: return of an episode")
        image = base64.b64encode(self._repr_png_()).decode()
        return f'<p>{title}</p><table>{rows}</table><img alt="{title}" src="data:image/png;base64,{image}">'

    def save(self, path: str | Path) -> list[Path]:
        """Write ``<path>.json`` (summary, all points with intervals), ``.csv`` (every task) and ``.png`` (the plot).

        With `steps`, also ``<path>_steps.csv`` (every task in every bin) and ``<path>_steps.png``. `path` is a stem
        such as ``runs/x/evaluation/test``; folders are made. Returns the paths, the JSON file first. `load` reads the
        curve back without loss.
        """
        json_path, csv_path, png_path = (_with_suffix(path, suffix) for suffix in (".json", ".csv", ".png"))
        json_path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f" {json.dumps(name)}: {to_json(value)}" for name, value in self.document().items())
        json_path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        self._write_csv(csv_path)
        self.plot().savefig(png_path, dpi=150)
        if self.steps is None:
            return [json_path, csv_path, png_path]
        step_paths = [_steps_path(path), _steps_path(path).with_suffix(".png")]
        self.steps.write(step_paths[0])
        figure = self.plot_steps()
        assert figure is not None
        figure.savefig(step_paths[1], dpi=150)
        return [json_path, csv_path, png_path, *step_paths]

    def document(self) -> dict[str, Any]:
        """What ``<path>.json`` holds: all but the tasks' own results, as plain values."""
        low, high = self.interval()
        columns = {"mean": self.mean(), "low": low, "high": high, "iqm": self.iqm()}
        found = {name: getattr(self, name) for name in ("agent", "family", "split", "greedy", "rounds", *_PROTOCOL)}
        found |= {"labels": list(self.labels), "episodes": list(self.episodes), "env_steps": list(self.env_steps)}
        found |= {"training": [dict(each) for each in self.training], "versions": dict(self.versions)}
        found |= {"interval": self.interval_of(), "summary": self.summary()}
        found |= {} if self.noise is None else {"noise": self.noise.tolist()}
        found["points"] = {name: [round(float(value), 6) for value in values] for name, values in columns.items()}
        return found | ({} if self.steps is None else {"steps": self.steps.summary()})

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
        """A row for each seed and task: seed, task, the task's own numbers (``task.<field>``), random, oracle, points.

        Random and oracle are empty where they are not known; a number of several is ``task.<field>[0]``.
        """
        numbers = {
            f"task.{name}" + (f"[{index}]" if values.shape[1] > 1 else ""): values[:, index]
            for name, values in self.task_values.items()
            for index in range(values.shape[1])
        }
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["seed", "task", *numbers, "random", "oracle", *self.labels])
            for seed, tasks in enumerate(self.returns):
                for task, row in enumerate(tasks):
                    own = (f"{values[task]:.9g}" for values in numbers.values())
                    bounds = ["" if b is None else f"{b[task]:.9g}" for b in (self.random, self.oracle)]
                    writer.writerow([seed, task, *own, *bounds, *(f"{value:.9g}" for value in row)])

    @classmethod
    def load(cls, path: str | Path) -> AdaptationCurve:
        """The curve that `save(path)` wrote, also in an earlier version; `path` is the stem or the JSON file."""
        plain = json.loads(_with_suffix(path, ".json").read_text(encoding="utf-8"))
        with _with_suffix(path, ".csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        at = header.index("random")
        seeds = int(rows[-1][0]) + 1
        tasks = len(rows) // seeds
        values = np.array([row[at + 2 :] for row in rows], dtype=np.float32)
        bounds = [
            np.array([row[column] for row in rows[:tasks]], dtype=np.float32) if rows[0][column] else None
            for column in (at, at + 1)
        ]
        steps = _steps_path(path)
        return cls(
            returns=values.reshape(seeds, tasks, -1),
            episodes=np.array(plain["episodes"], dtype=np.float64),
            env_steps=np.array(plain["env_steps"], dtype=np.float64),
            labels=tuple(plain["labels"]),
            random=bounds[0],
            oracle=bounds[1],
            task_values=_task_values(header[2:at], [row[2:at] for row in rows[:tasks]]),
            training=tuple(plain.get("training", ())),
            versions=plain.get("versions", {}),
            steps=StepCurve.read(steps) if "steps" in plain and steps.exists() else None,
            noise=np.array(plain["noise"], dtype=np.float64) if "noise" in plain else None,
            **{name: plain[name] for name in ("agent", "family", "split", "greedy", "rounds")},
            **{name: plain[name] for name in _PROTOCOL if name in plain},
        )


_PROTOCOL = ("repeats", "eval_seed", "distinct", "episodes_of_a_point", "total_steps")
"""Fields that files of earlier versions do not have."""


def _task_values(names: list[str], rows: list[list[str]]) -> dict[str, Array]:
    """From the columns ``task.<field>`` or ``task.<field>[n]`` of a CSV file."""
    numbers = np.array(rows, dtype=np.float32).reshape(len(rows), len(names))
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        columns.setdefault(name.removeprefix("task.").partition("[")[0], []).append(column)
    return {name: numbers[:, of] for name, of in columns.items()}


def _steps_path(path: str | Path) -> Path:
    """``test_steps.csv`` of the stem ``test``."""
    stem = _with_suffix(path, "")
    return stem.with_name(f"{stem.name}_steps.csv")


def combine(curves: Sequence[AdaptationCurve]) -> AdaptationCurve:
    """One curve with the seeds of all: evaluations of several training runs on the same tasks.

    Raises ValueError if they differ in anything but the returns, the steps they took and their training.
    """
    if not curves:
        raise ValueError("There must be at least one curve to combine.")
    first = curves[0]
    for other in curves[1:]:
        for name in ("agent", "family", "split", "greedy", "rounds", "labels", "repeats", "eval_seed"):
            if getattr(first, name) != getattr(other, name):
                raise ValueError(
                    f"Only curves of one protocol combine, but {name} differs: "
                    f"{getattr(first, name)!r} and {getattr(other, name)!r}."
                )
        for name in ("random", "oracle", "episodes"):
            if not _equal(getattr(first, name), getattr(other, name)):
                raise ValueError(f"Only evaluations on the same tasks combine, but {name} differs.")
        if not _same_tasks(first.task_values, other.task_values):
            raise ValueError("Only evaluations on the same tasks combine, but the tasks differ.")
    weights = [len(curve.returns) for curve in curves]
    totals, noise = [curve.total_steps for curve in curves], [curve.noise for curve in curves]
    return replace(
        first,
        returns=np.concatenate([curve.returns for curve in curves]),
        env_steps=np.average([curve.env_steps for curve in curves], axis=0, weights=weights),
        total_steps=None if None in totals else float(np.average(totals, weights=weights)),  # type: ignore[arg-type]
        training=tuple(each for curve in curves for each in curve.training),
        steps=combine_steps([curve.steps for curve in curves]),
        noise=None if any(each is None for each in noise) else np.concatenate(noise),  # type: ignore[arg-type]
    )


def _same_tasks(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Whether the tasks' numbers agree where both are known (files of earlier versions have none)."""
    return not a or not b or (a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a))


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


def _with_suffix(path: str | Path, suffix: str) -> Path:
    """`path` with `suffix` in place of one of the three that `save` writes, or added."""
    path = Path(path)
    stem = path.name.removesuffix(".json").removesuffix(".csv").removesuffix(".png")
    return path.with_name(stem + suffix)


def _equal(a: Any, b: Any) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
