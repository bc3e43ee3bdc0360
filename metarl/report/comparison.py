"""Several agents on the same tasks: one table, one figure, files. `metarl compare` is the program that makes one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colours
from metarl.evaluation.files import replace_file, replacing, to_json
from metarl.evaluation.results import short
from metarl.report import comparison_figure
from metarl.report.comparison_table import gap_text, markdown_table, terminal_tables


@dataclass(frozen=True)
class Comparison:
    """Adaptation curves of several agents, by name and then by split, all on the same tasks.

    The agents share tasks, starting states, the noise of the environment, and the random numbers of their own sampling
    (with different meanings). A slow agent may have played only the first tasks; paired differences then use those.
    `budgets` describes each agent's training effort.
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
        """All splits on which some agent was evaluated, in the first agent's order."""
        return list(dict.fromkeys(split for curves in self.entries.values() for split in curves))

    def of(self, split: str) -> dict[str, AdaptationCurve]:
        """Return the curves of a split, by agent."""
        return {name: curves[split] for name, curves in self.entries.items() if split in curves}

    @property
    def family(self) -> str:
        """The family of the tasks, as named in the curves."""
        return next(iter(next(iter(self.entries.values())).values())).family

    def bounds(self, split: str) -> dict[str, float]:
        """Return known episode returns of "oracle" and "random" on the tasks shared by all agents."""
        found: dict[str, float] = {}
        for curve in sorted(self.of(split).values(), key=lambda curve: -curve.returns.shape[1]):
            found |= {name: value for name, value in curve.bounds.items() if name not in found}
        return {name: found[name] for name in ("oracle", "random") if name in found}

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Return one dictionary of numbers per agent, best last point first; None for unknown or unreached values."""
        curves = self.of(split)
        first = next(iter(curves.values()))
        rows = [_row(name, curve) | _against(first, curve) for name, curve in curves.items()]
        return sorted(rows, key=lambda row: -row["last"])

    def gaps(self) -> dict[str, dict[str, tuple[float, float, float]]]:
        """Return the last point on `train` minus that on each other split, with 95 % interval, by agent and split."""
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

        Columns that do not fit into `width` characters continue in another table below, with the agents' names;
        numbers are never cut.
        """
        title = f"{self.family}, {split}: return of an episode"
        return terminal_tables(self.rows(split), self.bounds(split), title, width)

    def markdown(self) -> str:
        """Return all tables, the gaps and the budgets."""
        parts = [f"# {self.family}"]
        for split in self.splits:
            parts.append(f"## {split}\n{markdown_table(self.rows(split))}")
            parts += [f"({name}): {short(value)}" for name, value in self.bounds(split).items()]
        if gaps := self.gaps():
            lines = [f"- {name}: " + ", ".join(gap_text(s, g) for s, g in of.items()) for name, of in gaps.items()]
            parts.append("## Generalisation gap (last point, train minus …)\n" + "\n".join(lines))
        if self.budgets:
            parts.append("## Training\n" + "\n".join(f"- {name}: {text}" for name, text in self.budgets.items()))
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Draw the curves of each split over the experience on a task; below, performance profiles and last points."""
        by_split = {split: self.of(split) for split in self.splits}
        bounds = {split: self.bounds(split) for split in by_split}
        return comparison_figure.figure(by_split, bounds, colours(self.entries), self.family)

    def draw_curves(self, ax: Axes, split: str) -> None:
        """Draw the agents' curves on a split, with their intervals, over the environment steps spent on the task."""
        comparison_figure.draw_curves(ax, split, self.of(split), self.bounds(split), colours(self.entries))

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``comparison.json``, ``.csv`` (every return), ``.md`` and ``.png`` to `folder`; returns their paths."""
        stem = Path(folder) / "comparison"
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(suffix) for suffix in (".json", ".csv", ".md", ".png")]
        replace_file(paths[0], to_json(self._document(), indent=1, ensure_ascii=False) + "\n")
        replace_file(paths[1], self._csv())
        replace_file(paths[2], self.markdown())
        with replacing(paths[3]) as file:
            self.figure().savefig(file, format="png", dpi=110)
        return paths

    def _document(self) -> dict[str, Any]:
        """Return the content of ``comparison.json``."""
        splits = {}
        for split in self.splits:
            bounds = {f"({name})": value for name, value in self.bounds(split).items()}
            splits[split] = {"agents": self.rows(split), "bounds": bounds}
        found = {"family": self.family, "budgets": dict(self.budgets), "splits": splits}
        return found | {"generalisation_gap": self.gaps()}

    def _csv(self) -> str:
        """Return the content of ``comparison.csv``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["agent", "split", "seed", "task", "point", "episodes", "env_steps", "return"])
        for name, curves in self.entries.items():
            for split, curve in curves.items():
                for (seed, task, point), value in np.ndenumerate(curve.returns):
                    before = [f"{at[point]:.6g}" for at in (curve.episodes, curve.env_steps)]
                    writer.writerow([name, split, seed, task, curve.labels[point], *before, f"{value:.9g}"])
        return text.getvalue()


def _other_tasks(a: AdaptationCurve, b: AdaptationCurve) -> str | None:
    """Return why two curves are not known to share tasks and noise; None if they do."""
    if a.eval_seed != b.eval_seed:
        return f"their evaluation seeds are {a.eval_seed} and {b.eval_seed}"
    if _differ(a.oracle, b.oracle):
        return "their best known returns differ"
    common = min(a.returns.shape[1], b.returns.shape[1])
    shared = a.task_values.keys() & b.task_values.keys()
    if any(not np.allclose(a.task_values[key][:common], b.task_values[key][:common], rtol=1e-4) for key in shared):
        return "the tasks differ"
    known = shared or a.eval_seed is not None or (a.oracle is not None and b.oracle is not None)
    return None if known else "their tasks were not recorded; evaluate them again"


def _differ(a: np.ndarray[Any, Any] | None, b: np.ndarray[Any, Any] | None) -> bool:
    """Return whether both are known and differ on shared tasks by more than rounding explains."""
    if a is None or b is None:
        return False
    common = min(len(a), len(b))
    return not np.allclose(a[:common], b[:common], rtol=1e-4, atol=1e-5)


def _row(name: str, curve: AdaptationCurve) -> dict[str, Any]:
    """Return the numbers of one agent on a split."""
    mean, (low, high) = curve.mean(), curve.interval()
    last = curve.last_normalised()
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
        "steps_to_90": curve.steps_to_threshold(),
        "cumulative_regret": None,
        "regret_per_episode": None,
        "regret_per_step": None,
        "points": {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()},
        "experience": {"episodes": curve.episodes.tolist(), "env_steps": curve.env_steps.tolist()},
    }
    if curve.scale is not None:
        row["to_90"] = stats.episodes_to_threshold(curve.returns, *curve.scale, episodes=curve.episodes)
    return row | curve.regret()


def _against(first: AdaptationCurve, curve: AdaptationCurve) -> dict[str, Any]:
    """Compare the last points with those of the first agent: the row's ``beats`` and ``difference``."""
    found: dict[str, Any] = {"beats": None, "difference": None}
    if curve is first:
        return found
    common = min(curve.returns.shape[1], first.returns.shape[1])
    mine, others = (each.returns[:, :common, -1] for each in (curve, first))
    of_mine, of_others = (None if each.noise is None else each.noise[:, [-3]] for each in (curve, first))
    difference = stats.paired_difference(
        mine[:, :, None],
        others[:, :, None],
        every_task=curve.every_task and first.every_task,
        noise=(of_mine, of_others),
    )
    found["difference"] = tuple(float(part[0]) for part in difference)
    # The win rate is meaningful only if both results are means over equally many trials.
    if curve.repeats == first.repeats:
        wins = stats.probability_of_improvement(mine, others)
        found["beats"] = (wins, *stats.probability_of_improvement_interval(mine, others))
    return found
