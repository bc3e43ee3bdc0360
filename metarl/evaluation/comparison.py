"""Several agents on the same tasks: one table, one figure, files. `metarl compare` is the program that makes one."""

from __future__ import annotations

import copy
import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.evaluation import stats
from metarl.evaluation.colours import OPTIMUM, RANDOM, colours
from metarl.evaluation.curve import AdaptationCurve, short
from metarl.evaluation.finite import to_json

HEADINGS = {
    "agent": "\nagent",
    "seeds": "\nseeds",
    "tasks": "\ntasks",
    "first": "first\npoint",
    "last": "last point,\n95 % interval",
    "normalised": "normal-\nised",
    "env_steps": "steps\nbefore it",
    "to_90": "episodes\nto 90 %",
    "steps_to_90": "steps\nto 90 %",
    "difference": "difference\nto the first",
    "beats": "beats\nthe first",
}
"""Columns of the tables, by the keys of `Comparison.rows`."""


@dataclass(frozen=True)
class Comparison:
    """Adaptation curves of several agents, by name and then by split, all on the same tasks.

    The agents share tasks, starting states and the noise of the environment; of the noise of their own sampling they
    share the random numbers, which mean something else to each. An agent that takes long may have played the first of
    the tasks alone; pairs are then made of those. `budgets` says what each agent was trained with, in words.
    Raises ValueError if there is no agent, or two of them are not known to have played the same tasks with the same
    evaluation seed.
    """

    entries: Mapping[str, Mapping[str, AdaptationCurve]]
    budgets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.entries or not all(self.entries.values()):
            raise ValueError("A comparison needs at least one agent, and each needs at least one split.")
        for split in self.splits:
            curves = self.of(split)
            first = next(iter(curves.values()))
            for name, curve in curves.items():
                if why := _other_tasks(curve, first):
                    raise ValueError(f"{name!r} was not evaluated on the same tasks of {split!r} as the others: {why}.")

    @property
    def splits(self) -> list[str]:
        """Every split that some agent was evaluated on, in the order of the first one's."""
        return list(dict.fromkeys(split for curves in self.entries.values() for split in curves))

    def of(self, split: str) -> dict[str, AdaptationCurve]:
        """The curves of a split, by agent."""
        return {name: curves[split] for name, curves in self.entries.items() if split in curves}

    def rows(self, split: str) -> list[dict[str, Any]]:
        """One dictionary of numbers per agent, the best last point first; None for what is unknown or never reached."""
        curves = self.of(split)
        rows = [_row(name, curve, curves[next(iter(curves))]) for name, curve in curves.items()]
        return sorted(rows, key=lambda row: -row["last"])

    def gaps(self) -> dict[str, dict[str, tuple[float, float, float]]]:
        """Last point on `train` minus that on every other split, with its 95 % interval, by agent and split."""
        found: dict[str, dict[str, tuple[float, float, float]]] = {}
        for name, curves in self.entries.items():
            if "train" in curves:
                train = curves["train"].returns[:, :, -1]
                found[name] = {
                    split: stats.generalisation_gap(train, curve.returns[:, :, -1])
                    for split, curve in curves.items()
                    if split != "train"
                }
        return found

    def tables(self, split: str, width: int = 80) -> list[Table]:
        """The rows of a split for the terminal, with random and the known-task optimum below.

        Columns that do not fit into `width` characters stand in a further table below, beside the agents' names; no
        number is cut.
        """
        cells = [dict(zip(HEADINGS, _cells(row), strict=True)) for row in self.rows(split)]
        for name, value in self._bounds(split).items():
            cells.append(dict.fromkeys(HEADINGS, "") | {"agent": name, "last": short(value)})
        shown = [key for key in HEADINGS if key == "agent" or any(row[key] for row in cells)]
        parts: list[list[str]] = [[]]
        for key in shown[1:]:
            if parts[-1] and width_of(_columns(cells, ["agent", *parts[-1], key])) > width:
                parts.append([])
            parts[-1].append(key)
        tables = [_columns(cells, ["agent", *part]) for part in parts]
        tables[0].title = Text(f"{self._family()}, {split}: return of an episode", style="bold not italic")
        return tables

    def markdown(self) -> str:
        """All tables, the gaps and the budgets."""
        parts = [f"# {self._family()}"]
        for split in self.splits:
            parts.append(
                f"## {split}\n| "
                + " | ".join(map(_one_line, HEADINGS.values()))
                + " |\n|---"
                + "|---:" * (len(HEADINGS) - 1)
                + "|"
            )
            parts[-1] += "".join("\n| " + " | ".join(_cells(row)) + " |" for row in self.rows(split))
            parts[-1] += "".join(f"\n\n{name}: {short(value)}" for name, value in self._bounds(split).items())
        if gaps := self.gaps():
            lines = [f"- {name}: " + ", ".join(_gap(s, g) for s, g in of.items()) for name, of in gaps.items()]
            parts.append("## Generalisation gap (last point, train minus …)\n" + "\n".join(lines))
        if self.budgets:
            parts.append("## Training\n" + "\n".join(f"- {name}: {text}" for name, text in self.budgets.items()))
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Curves of each split over the experience on a task; below, performance profiles and the last points."""
        splits = self.splits
        scored = any(
            last_normalised(curve) is not None for curves in self.entries.values() for curve in curves.values()
        )
        stepped = any(curve.steps is not None for curves in self.entries.values() for curve in curves.values())
        heights = [1.25, *[1.0] * (stepped + scored)]  # where no optimum is known there is nothing to normalise by
        figure = Figure(figsize=(5.2 * max(len(splits), 2), 3.75 * sum(heights)), layout="constrained")
        grid = figure.add_gridspec(len(heights), 2 * len(splits), height_ratios=heights)
        shades = self._colours()
        for number, split in enumerate(splits):
            place = slice(2 * number, 2 * number + 2)
            self.draw_curves(figure.add_subplot(grid[0, place]), split)
            if stepped:
                self.draw_steps(figure.add_subplot(grid[1, place]), split)
        if scored:
            held_out = next((split for split in splits if split == "test"), splits[-1])
            half = len(splits)
            _draw_profiles(figure.add_subplot(grid[-1, :half]), held_out, self.of(held_out), shades)
            _draw_bars(figure.add_subplot(grid[-1, half:]), self, shades)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        figure.suptitle(self._family())
        return figure

    def draw_curves(self, ax: Axes, split: str) -> None:
        """The agents' curves on a split, with their intervals, over the environment steps spent on the task."""
        curves, shades = self.of(split), self._colours()
        spans = [curve.env_steps[-1] for curve in curves.values() if curve.env_steps[-1] > 0]
        for name, whole in curves.items():
            curve = whole.blocks()  # single pulls of a bandit are noise: means over ten
            low, high = curve.interval()
            # Between two rounds nothing is learned but by the step of adaptation at their border.
            style = "steps-post" if curve.rounds else "default"
            ax.plot(curve.env_steps, curve.mean(), "o-", markersize=3, color=shades[name], label=name, drawstyle=style)
            band: dict[str, Any] = {"step": "post"} if curve.rounds else {}
            ax.fill_between(curve.env_steps, low, high, color=shades[name], alpha=0.2, linewidth=0, **band)
        for name, value in self._bounds(split).items():
            colour = OPTIMUM if name == "(oracle)" else RANDOM
            label = "known-task optimum" if name == "(oracle)" else "random policy, mean"
            ax.axhline(value, linestyle="--", linewidth=1.2, color=colour, label=label)
        if spans and max(spans) > 8 * min(spans):
            ax.set_xscale("symlog", linthresh=max(1.0, min(spans) / 2))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if spans:
            ax.set_xlim(-0.02 * min(spans), 1.3 * max(spans))
        ax.set_title(split)
        ax.set_xlabel("environment steps of experience on the task")
        ax.set_ylabel("return of an episode")
        ax.grid(alpha=0.3)

    def draw_steps(self, ax: Axes, split: str) -> None:
        """The mean reward of every step of the trial, beside random and told play: adaptation inside an episode too."""
        shades = self._colours()
        known = {name: curve.steps for name, curve in self.of(split).items() if curve.steps is not None}
        for name, steps in known.items():
            ax.stairs(steps.mean(), steps.edges, baseline=None, color=shades[name], linewidth=1.6)
        if known:
            ordered = sorted(known.values(), key=lambda steps: float(steps.edges[-1]))
            shortest, longest = ordered[0], ordered[-1]
            for name, values in shortest.bounds.items():
                shade = OPTIMUM if name == "oracle" else RANDOM
                ax.stairs(values, shortest.edges, baseline=None, color=shade, linestyle="--", linewidth=1.2)
            if longest.edges[-1] > 8 * shortest.edges[-1]:
                ax.set_xscale("symlog", linthresh=float(shortest.edges[-1]))
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.set_xlabel("environment steps on the task")
        ax.set_ylabel("mean reward of a step")
        ax.grid(alpha=0.3)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``comparison.json``, ``.csv`` (every return), ``.md`` and ``.png`` to `folder`; returns their paths."""
        stem = Path(folder) / "comparison"
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(suffix) for suffix in (".json", ".csv", ".md", ".png")]
        document = {
            "family": self._family(),
            "budgets": dict(self.budgets),
            "splits": {split: {"agents": self.rows(split), "bounds": self._bounds(split)} for split in self.splits},
            "generalisation_gap": self.gaps(),
        }
        paths[0].write_text(to_json(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with paths[1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["agent", "split", "seed", "task", "point", "episodes", "env_steps", "return"])
            for name, curves in self.entries.items():
                for split, curve in curves.items():
                    for (seed, task, point), value in np.ndenumerate(curve.returns):
                        before = [f"{at[point]:.6g}" for at in (curve.episodes, curve.env_steps)]
                        writer.writerow([name, split, seed, task, curve.labels[point], *before, f"{value:.9g}"])
        paths[2].write_text(self.markdown(), encoding="utf-8")
        self.figure().savefig(paths[3], dpi=110)
        return paths

    def _colours(self) -> dict[str, str]:
        return colours(self.entries)

    def _family(self) -> str:
        return next(iter(next(iter(self.entries.values())).values())).family

    def _bounds(self, split: str) -> dict[str, float]:
        """Known-task optimum and random, of the agents' common tasks."""
        found: dict[str, float] = {}
        for curve in sorted(self.of(split).values(), key=lambda curve: -curve.returns.shape[1]):
            found |= {name: value for name, value in curve.bounds.items() if name not in found}
        return {f"({name})": found[name] for name in ("oracle", "random") if name in found}


def _columns(cells: list[dict[str, str]], keys: list[str]) -> Table:
    """A table of some of the columns."""
    table = Table(box=box.SIMPLE, show_edge=False, title_justify="left", padding=(0, 1, 0, 0))
    for key in keys:
        table.add_column(HEADINGS[key], justify="left" if key == "agent" else "right", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(row[key]) for key in keys), style="dim" if row["agent"].startswith("(") else "")
    return table


def _other_tasks(a: AdaptationCurve, b: AdaptationCurve) -> str | None:
    """Why two curves are not known to be on the same tasks and noise; None if they are."""
    if a.eval_seed != b.eval_seed:
        return f"their evaluation seeds are {a.eval_seed} and {b.eval_seed}"
    if _differ(a.oracle, b.oracle):
        return "what is known to be best on them differs"
    common = min(a.returns.shape[1], b.returns.shape[1])
    shared = a.task_values.keys() & b.task_values.keys()
    if any(not np.allclose(a.task_values[key][:common], b.task_values[key][:common], rtol=1e-4) for key in shared):
        return "the tasks differ"
    known = shared or a.eval_seed is not None or (a.oracle is not None and b.oracle is not None)
    return None if known else "nothing is known of their tasks; evaluate them again"


def _differ(a: np.ndarray[Any, Any] | None, b: np.ndarray[Any, Any] | None) -> bool:
    """Whether both are known and not the same numbers on the tasks that both have, up to another order of sums."""
    if a is None or b is None:
        return False
    common = min(len(a), len(b))
    return not np.allclose(a[:common], b[:common], rtol=1e-4, atol=1e-5)


def last_normalised(curve: AdaptationCurve) -> np.ndarray[Any, Any] | None:
    """The last point of every seed and task on the scale of the means of random (0) and oracle (1); None without it."""
    bounds = curve.bounds
    if len(bounds) < 2 or bounds["random"] == bounds["oracle"]:
        return None
    return np.asarray(stats.normalise(curve.returns[:, :, -1], bounds["random"], bounds["oracle"]))


def _row(name: str, curve: AdaptationCurve, first: AdaptationCurve) -> dict[str, Any]:
    mean, (low, high) = curve.mean(), curve.interval()
    last = last_normalised(curve)
    row: dict[str, Any] = {
        "agent": name,
        "seeds": curve.returns.shape[0],
        "tasks": curve.returns.shape[1],
        "repeats": curve.repeats,
        "first": float(mean[0]),
        "last": float(mean[-1]),
        "interval": (float(low[-1]), float(high[-1])),
        "normalised": None if last is None else float(last.mean()),
        "area_under_curve": float(stats.area_under_curve(mean, curve.episodes)),
        "env_steps": float(curve.env_steps[-1]),
        "to_90": None,
        "steps_to_90": None,
        "cumulative_regret": None,
        "regret_per_episode": None,
        "regret_per_step": None,
        "points": {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()},
        "experience": {"episodes": curve.episodes.tolist(), "env_steps": curve.env_steps.tolist()},
    }
    if last is not None:
        scale = (curve.bounds["random"], curve.bounds["oracle"])
        row["to_90"] = stats.episodes_to_threshold(curve.returns, *scale, episodes=curve.episodes)
    row["steps_to_90"] = curve.steps_to_threshold()
    row |= curve.regret()
    common = min(curve.returns.shape[1], first.returns.shape[1])
    mine, others = curve.returns[:, :common, -1], first.returns[:, :common, -1]
    row["beats"] = row["difference"] = None
    if curve is not first:
        whole = curve.every_task and first.every_task
        of_mine, of_others = (None if each.noise is None else each.noise[:, [-3]] for each in (curve, first))
        difference = stats.paired_difference(
            mine[:, :, None], others[:, :, None], every_task=whole, noise=(of_mine, of_others)
        )
        row["difference"] = tuple(float(part[0]) for part in difference)
    # Who wins more often says something only where both results are means over as many trials.
    if curve is not first and curve.repeats == first.repeats:
        wins = stats.probability_of_improvement(mine, others)
        row["beats"] = (wins, *stats.probability_of_improvement_interval(mine, others))
    return row


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["interval"]
    text = {
        "agent": row["agent"],
        "seeds": str(row["seeds"]),
        "tasks": f"{row['tasks']:,}" + (f" × {row['repeats']}" if row["repeats"] > 1 else ""),
        "first": short(row["first"]),
        "last": f"{short(row['last'])} [{short(low)}, {short(high)}]",
        "normalised": "" if row["normalised"] is None else f"{row['normalised']:.3f}",
        "env_steps": f"{row['env_steps']:,.0f}",
        "difference": "" if row["difference"] is None else _gap("", row["difference"]).strip(),
        "beats": "" if row["beats"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row["beats"]),
    }
    for key in ("to_90", "steps_to_90"):
        text[key] = "-" if row[key] is None else f"{row[key]:,.0f}"
    return [text[key] for key in HEADINGS]


def _one_line(heading: str) -> str:
    return heading.replace("-\n", "").replace("\n", " ").strip()


def _gap(split: str, gap: tuple[float, float, float]) -> str:
    return f"{split} {short(gap[0])} [{short(gap[1])}, {short(gap[2])}]"


def _draw_profiles(ax: Axes, split: str, curves: Mapping[str, AdaptationCurve], colours: Mapping[str, str]) -> None:
    """Share of tasks on which the last point lies above a threshold (Agarwal et al. 2021)."""
    known = {name: scores for name, curve in curves.items() if (scores := last_normalised(curve)) is not None}
    if known:
        every = np.concatenate([scores.ravel() for scores in known.values()])
        low, high = np.percentile(every, [1, 99])
        thresholds = np.linspace(float(low), float(high), 60)
        for name, scores in known.items():
            band = stats.performance_profile_interval(scores, thresholds)
            ax.plot(thresholds, stats.performance_profile(scores, thresholds), color=colours[name])
            ax.fill_between(thresholds, *band, color=colours[name], alpha=0.2, linewidth=0)
    ax.set_ylim(0.0, 1.02)
    ax.set_title(f"on how many tasks of {split} is it that good?")
    ax.set_xlabel("normalised last point (0 random, 1 optimum)")
    ax.set_ylabel("share of tasks above it")
    ax.grid(alpha=0.3)


def _draw_bars(ax: Axes, comparison: Comparison, colours: Mapping[str, str]) -> None:
    """The last point of every agent, normalised where that is known, on each split."""
    width = 0.8 / len(comparison.entries)
    for number, (name, curves) in enumerate(comparison.entries.items()):
        for place, split in enumerate(comparison.splits):
            if split not in curves or (scores := last_normalised(curves[split])) is None:
                continue
            low, high = (stats.normalise(end[-1], *curves[split].bounds.values()) for end in curves[split].interval())
            middle = float(scores.mean())
            error = [[max(0.0, middle - float(low))], [max(0.0, float(high) - middle)]]
            ax.bar(place + (number + 0.5) * width - 0.4, middle, width, yerr=error, color=colours[name], capsize=2)
    ax.set_xticks(range(len(comparison.splits)), comparison.splits)
    ax.axhline(1.0, linestyle="--", linewidth=1.0, color=OPTIMUM)
    ax.axhline(0.0, linestyle="--", linewidth=1.0, color=RANDOM)
    ax.set_title("last point on each split")
    ax.set_ylabel("normalised (0 random, 1 optimum)")


def width_of(table: Table) -> int:
    """The characters that a table needs to show every cell whole; its title and caption wrap."""
    console = Console(width=10_000)
    bare = copy.copy(table)
    bare.title = bare.caption = None
    return console.measure(bare).maximum
