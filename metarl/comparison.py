"""Several agents on the same tasks: one table, one figure, files. `metarl.compare` is the program that makes one."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich import box
from rich.table import Table
from rich.text import Text

from metarl import stats
from metarl.curve import AdaptationCurve, short

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
    "beats": "beats\nthe first",
}
"""Columns of the tables, by the keys of `Comparison.rows`."""


@dataclass(frozen=True)
class Comparison:
    """Adaptation curves of several agents, by name and then by split, all on the same tasks.

    An agent that takes long may have played the first of the tasks alone; pairs are then made of those. `budgets` says
    what each agent was trained with, in words. Raises ValueError if there is no agent, or two of them were not
    evaluated on the same tasks.
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
                if _differ(curve.oracle, first.oracle):
                    raise ValueError(f"{name!r} was not evaluated on the same tasks of {split!r} as the others.")

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

    def table(self, split: str) -> Table:
        """The rows of a split for the terminal, with random and the known-task optimum below."""
        table = Table(box=box.SIMPLE, show_edge=False, title_justify="left", padding=(0, 1, 0, 0))
        table.title = Text(f"{self._family()}, {split}: return of an episode", style="bold not italic")
        for key, heading in HEADINGS.items():
            justify: Any = "left" if key == "agent" else "right"
            table.add_column(heading, justify=justify, no_wrap=True)
        for row in self.rows(split):
            table.add_row(*(Text(cell) for cell in _cells(row)))
        for name, value in self._bounds(split).items():
            table.add_row(Text(name), "", "", "", short(value), *[""] * (len(HEADINGS) - 5), style="dim")
        return table

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
        figure = Figure(figsize=(5.2 * max(len(splits), 2), 8.4), layout="constrained")
        grid = figure.add_gridspec(2, 2 * len(splits), height_ratios=(1.25, 1.0))
        colours = self._colours()
        for number, split in enumerate(splits):
            self.draw_curves(figure.add_subplot(grid[0, 2 * number : 2 * number + 2]), split)
        held_out = next((split for split in splits if split != "train"), splits[0])
        half = len(splits)
        _draw_profiles(figure.add_subplot(grid[1, :half]), held_out, self.of(held_out), colours)
        _draw_bars(figure.add_subplot(grid[1, half:]), self, colours)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        figure.suptitle(self._family())
        return figure

    def draw_curves(self, ax: Axes, split: str) -> None:
        """The agents' curves on a split, with their intervals, over the environment steps spent on the task."""
        curves, colours = self.of(split), self._colours()
        spans = [curve.env_steps[-1] for curve in curves.values() if curve.env_steps[-1] > 0]
        for name, curve in curves.items():
            low, high = curve.interval()
            ax.plot(curve.env_steps, curve.mean(), "o-", markersize=3, color=colours[name], label=name)
            ax.fill_between(curve.env_steps, low, high, color=colours[name], alpha=0.2, linewidth=0)
        for name, value in self._bounds(split).items():
            colour = "tab:green" if name == "(oracle)" else "0.5"
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
        paths[0].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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
        return {name: f"C{number % 10}" for number, name in enumerate(self.entries)}

    def _family(self) -> str:
        return next(iter(next(iter(self.entries.values())).values())).family

    def _bounds(self, split: str) -> dict[str, float]:
        """Known-task optimum and random, of the agents' common tasks."""
        found: dict[str, float] = {}
        for curve in sorted(self.of(split).values(), key=lambda curve: -curve.returns.shape[1]):
            found |= {name: value for name, value in curve.bounds.items() if name not in found}
        return {f"({name})": found[name] for name in ("oracle", "random") if name in found}


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
        "first": float(mean[0]),
        "last": float(mean[-1]),
        "interval": (float(low[-1]), float(high[-1])),
        "normalised": None if last is None else float(last.mean()),
        "area_under_curve": float(stats.area_under_curve(mean, curve.episodes)),
        "env_steps": float(curve.env_steps[-1]),
        "to_90": None,
        "steps_to_90": None,
        "cumulative_regret": None,
        "regret_slope": None,
        "points": {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()},
        "experience": {"episodes": curve.episodes.tolist(), "env_steps": curve.env_steps.tolist()},
    }
    if last is not None:
        scale = (curve.bounds["random"], curve.bounds["oracle"])
        row["to_90"] = stats.episodes_to_threshold(curve.returns, *scale, episodes=curve.episodes)
        row["steps_to_90"] = stats.episodes_to_threshold(curve.returns, *scale, episodes=curve.env_steps)
    if "oracle" in curve.bounds:
        row["cumulative_regret"] = float(stats.cumulative_regret(curve.returns, curve.bounds["oracle"])[-1])
        if len(mean) > 1:
            row["regret_slope"] = stats.regret_slope(curve.returns, curve.bounds["oracle"])
    common = min(curve.returns.shape[1], first.returns.shape[1])
    mine, others = curve.returns[:, :common, -1], first.returns[:, :common, -1]
    row["beats"] = None
    if curve is not first:
        wins = stats.probability_of_improvement(mine, others)
        row["beats"] = (wins, *stats.probability_of_improvement_interval(mine, others))
    return row


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["interval"]
    text = {
        "agent": row["agent"],
        "seeds": str(row["seeds"]),
        "tasks": f"{row['tasks']:,}",
        "first": short(row["first"]),
        "last": f"{short(row['last'])} [{short(low)}, {short(high)}]",
        "normalised": "" if row["normalised"] is None else f"{row['normalised']:.3f}",
        "env_steps": f"{row['env_steps']:,.0f}",
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
            low, high = stats.interval(scores[:, :, None])
            middle = float(scores.mean())
            error = [[max(0.0, middle - low[0])], [max(0.0, high[0] - middle)]]
            ax.bar(place + (number + 0.5) * width - 0.4, middle, width, yerr=error, color=colours[name], capsize=2)
    ax.set_xticks(range(len(comparison.splits)), comparison.splits)
    ax.axhline(1.0, linestyle="--", linewidth=1.0, color="tab:green")
    ax.axhline(0.0, linestyle="--", linewidth=1.0, color="0.5")
    ax.set_title("last point on each split")
    ax.set_ylabel("normalised (0 random, 1 optimum)")
