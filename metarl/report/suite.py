"""Agents on several families at once: normalised scores, their interquartile mean, performance profile and mean rank.

A *suite* holds curves of the same agents on a split of several families. Scores are normalised in each family (0
random, 1 the known-task optimum), so that they can be averaged over families; a family without a known optimum is
rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colours
from metarl.evaluation.files import replace_file, replacing, to_json

Floats = NDArray[np.float64]


DRAWS = 2000
"""Number of draws of every family's mean, for the intervals."""


@dataclass(frozen=True)
class Suite:
    """Curves by family, then by agent. Every agent needs a curve on every family.

    Intervals are stratified: the families are fixed; within each, an agent's mean is drawn from its own distribution
    (the t distribution of `stats.interval`, over seeds and tasks) `DRAWS` times, and the interval of a statistic is the
    middle 95 % of its values.
    Raises ValueError if there are no curves, an agent lacks a family, or a family has no scale.
    """

    curves: Mapping[str, Mapping[str, AdaptationCurve]]

    def __post_init__(self) -> None:
        if not self.curves:
            raise ValueError("A suite needs at least one family.")
        agents = list(next(iter(self.curves.values())))
        for family, of in self.curves.items():
            if set(of) != set(agents) or not agents:
                raise ValueError(f"Every family of a suite needs the same agents, but {family!r} has {', '.join(of)}.")
            for name, curve in of.items():
                if curve.scale is None:
                    raise ValueError(
                        f"{name!r} on {family!r} cannot be normalised: the random return or the optimum is missing."
                    )

    @property
    def agents(self) -> list[str]:
        """The agents' names, in the order of the first family's."""
        return list(next(iter(self.curves.values())))

    def scores(self, family: str, agent: str) -> Floats:
        """Return the normalised last point of every seed and task: ``(seeds, tasks)``."""
        scores = self.curves[family][agent].last_normalised()
        assert scores is not None  # checked when the suite was made
        return scores

    @cached_property
    def means(self) -> Floats:
        """The mean score of each agent on each family: ``(agents, families)``."""
        return np.array([[self.scores(family, agent).mean() for family in self.curves] for agent in self.agents])

    @cached_property
    def drawn(self) -> Floats:
        """Draws of `means` over hypothetical seeds and tasks: ``(DRAWS, agents, families)``."""
        generator = np.random.default_rng(0)
        drawn = np.empty((DRAWS, *self.means.shape))
        for a, agent in enumerate(self.agents):
            for f, family in enumerate(self.curves):
                curve = self.curves[family][agent]
                low, high = (stats.normalise(end[-1], *curve.bounds.values()) for end in curve.interval())
                seeds, tasks, _ = curve.returns.shape
                over_trials = curve.every_task and curve.noise is not None
                freedom = seeds - 1 if seeds > 1 else stats.MANY if over_trials else max(1, tasks - 1)
                error = float(high - low) / 2.0 / stats.quantile(0.95, freedom)
                drawn[:, a, f] = self.means[a, f] + error * generator.standard_t(freedom, DRAWS)
        return drawn

    def summary(self) -> list[dict[str, Any]]:
        """Return a row per agent: mean and IQM over families, mean rank, and the score on each family; best mean first.

        A number is (value, low, high). Rank 1 is the best on a family; ties share the mean of their ranks.
        """
        from scipy.stats import rankdata  # which takes a while

        measures: dict[str, Callable[[Floats], Floats]] = {
            "mean": lambda means: means.mean(axis=-1),
            "iqm": lambda means: stats.trimmed_mean(means, axis=-1),
            "rank": lambda means: rankdata(-means, axis=-2).mean(axis=-1),
        }
        rows: list[dict[str, Any]] = [{"agent": agent} for agent in self.agents]
        for name, measure in measures.items():
            value, (low, high) = measure(self.means), np.percentile(measure(self.drawn), [2.5, 97.5], axis=0)
            for row, *three in zip(rows, value, low, high, strict=True):
                row[name] = tuple(float(each) for each in three)
        for row, of in zip(rows, self.means, strict=True):
            row["families"] = dict(zip(self.curves, of.tolist(), strict=True))
        return sorted(rows, key=lambda row: -row["mean"][0])

    def profile(self, thresholds: Floats) -> dict[str, tuple[Floats, Floats, Floats]]:
        """Return the fraction of tasks above each threshold, families weighted equally: (share, low, high) per agent.

        Agarwal et al. 2021, section 4.2.
        """
        found = {}
        for agent in self.agents:
            shares, variances = [], []
            for family in self.curves:
                scores = self.scores(family, agent)
                low, high = stats.performance_profile_interval(scores, thresholds)
                shares.append(stats.performance_profile(scores, thresholds))
                variances.append(((high - low) / 2.0) ** 2)
            share, width = np.mean(shares, axis=0), np.sqrt(np.sum(variances, axis=0)) / len(shares)
            found[agent] = (share, np.clip(share - width, 0.0, 1.0), np.clip(share + width, 0.0, 1.0))
        return found

    def table(self) -> Table:
        """Return the summary for the terminal."""
        table = Table(box=box.SIMPLE, show_edge=False, title_justify="left", padding=(0, 1, 0, 0))
        table.title = Text(f"{len(self.curves)} families, normalised last point", style="bold not italic")
        for heading in ("agent", "mean", "interquartile mean", "mean rank"):
            table.add_column(heading, justify="left" if heading == "agent" else "right", no_wrap=True)
        for row in self.summary():
            table.add_row(row["agent"], *(_three(row[name]) for name in ("mean", "iqm", "rank")))
        return table

    def markdown(self) -> str:
        """Return the summary and every family's scores."""
        families = list(self.curves)
        lines = ["| agent | mean | interquartile mean | mean rank | " + " | ".join(families) + " |"]
        lines.append("|---" + "|---:" * (3 + len(families)) + "|")
        for row in self.summary():
            cells = [row["agent"], *(_three(row[name]) for name in ("mean", "iqm", "rank"))]
            cells += [f"{row['families'][family]:.3f}" for family in families]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def figure(self) -> Figure:
        """Draw performance profiles, and the mean of each agent with its interval."""
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        shades = colours(self.agents)
        every = np.concatenate([self.scores(f, a).ravel() for f in self.curves for a in self.agents])
        first, last = np.percentile(every, [1, 99])
        thresholds = np.linspace(float(first), float(last), 60)
        for agent, (share, low, high) in self.profile(thresholds).items():
            left.plot(thresholds, share, color=shades[agent], label=agent)
            left.fill_between(thresholds, low, high, color=shades[agent], alpha=0.2, linewidth=0)
        left.set_xlabel("normalised last point (0 random, 1 optimum)")
        left.set_ylabel("share of tasks above it")
        left.legend(frameon=False)
        for place, row in enumerate(reversed(self.summary())):
            value, low, high = row["mean"]
            error = [[max(0.0, value - low)], [max(0.0, high - value)]]
            right.errorbar(value, place, xerr=error, fmt="o", color=shades[row["agent"]], capsize=3)
        right.set_yticks(range(len(self.agents)), [row["agent"] for row in reversed(self.summary())])
        right.set_xlabel(f"mean over {len(self.curves)} families, 95 % interval")
        return figure

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``suite.json``, ``suite.md`` and ``suite.png`` to `folder`; returns their paths."""
        stem = Path(folder) / "suite"
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(suffix) for suffix in (".json", ".md", ".png")]
        replace_file(paths[0], to_json({"agents": self.summary()}, indent=1, ensure_ascii=False) + "\n")
        replace_file(paths[1], self.markdown())
        with replacing(paths[2]) as file:
            self.figure().savefig(file, format="png", dpi=110)
        return paths


def _three(value: tuple[float, float, float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*value)
