"""The leaderboard of a benchmark's rows, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.results import short
from metarl.report.suite import Suite
from metarl.studies.bench.protocol import PROBLEMS, VERSION
from metarl.studies.bench.rows import Row, read


class Board:
    """Rows by problem and agent, and their aggregate statistics.

    Raises ValueError if two rows are about the same agent, problem and seed.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.by_problem: dict[str, dict[str, list[Row]]] = {}
        for row in sorted(rows, key=lambda row: (list(PROBLEMS).index(row.problem), row.seed)):
            of_agent = self.by_problem.setdefault(row.problem, {}).setdefault(row.agent, [])
            if any(other.seed == row.seed for other in of_agent):
                raise ValueError(
                    f"There are two results of {row.agent!r} on {row.problem!r} with seed {row.seed}: rename one agent."
                )
            of_agent.append(row)

    @cached_property
    def curves(self) -> dict[str, dict[str, AdaptationCurve]]:
        """The last point of every agent on every problem, seeds joined."""
        return {
            problem: {agent: combine([row.curve for row in rows]) for agent, rows in of.items()}
            for problem, of in self.by_problem.items()
        }

    def suite(self) -> Suite | None:
        """Return the suite of agents evaluated on all problems with a known optimum; None if there are none."""
        scaled = {name: of for name, of in self.curves.items() if all(each.scale is not None for each in of.values())}
        everywhere = [agent for agent in self.agents if all(agent in of for of in scaled.values())]
        if not scaled or not everywhere:
            return None
        return Suite({name: {agent: of[agent] for agent in everywhere} for name, of in scaled.items()})

    @property
    def agents(self) -> list[str]:
        """All agents, in order of appearance."""
        return list(dict.fromkeys(agent for of in self.by_problem.values() for agent in of))

    def markdown(self) -> str:
        """Return the leaderboard: agents over all problems, then a table for each problem."""
        suite = self.suite()
        parts = [f"# metarl-bench, version {VERSION}\n"]
        if suite is not None:
            parts += [
                f"## All {len(suite.curves)} problems with a known optimum\n",
                "The last point of adaptation: 0 is random play, 1 the best known return if the task is known. "
                "95 % intervals over seeds and tasks.\n",
                suite.markdown(),
            ]
        for problem, of in self.by_problem.items():
            parts += [f"## {problem}\n", _description(problem, of), _table(of, self.curves[problem])]
        return "\n".join(parts)


def _description(problem: str, of: Mapping[str, Sequence[Row]]) -> str:
    protocol = PROBLEMS[problem]
    first = next(iter(of.values()))[0]
    return (
        f"`{protocol.id}`, {len(first.last)} tasks of `{protocol.split}` × {first.repeats} repeats; random play "
        f"{short(first.random)}, "
        + (f"told the task {short(first.oracle)}.\n" if first.oracle is not None else "no known optimum.\n")
    )


def _table(of: Mapping[str, Sequence[Row]], curves: Mapping[str, AdaptationCurve]) -> str:
    """Return a table of a problem, the best agent first."""
    columns = (
        "agent", "last point", "95 % interval", "normalised", "first point", "seeds", "steps on the task",
        "training steps", "training seconds",
    )  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for agent, curve in sorted(curves.items(), key=lambda item: -float(item[1].mean()[-1])):
        rows = of[agent]
        low, high = (float(end[-1]) for end in curve.interval())
        normalised = rows[0].normalised([float(curve.mean()[-1])])
        seconds = [row.train_seconds for row in rows if row.train_seconds is not None]
        cells = [
            agent, f"{float(curve.mean()[-1]):.4g}", f"[{short(low)}, {short(high)}]",
            "" if normalised is None else f"{normalised[0]:.3f}",
            short(float(np.mean([row.mean[0] for row in rows]))), str(len(rows)),
            f"{np.mean([row.env_steps[-1] for row in rows]):,.0f}",
            f"{np.mean([row.train_steps for row in rows]):,.0f}",
            f"{np.mean(seconds):,.0f}" if seconds else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def joined(rows: Sequence[Row], others: Sequence[Path]) -> list[Row]:
    """Return rows with those of other files added. Raises ValueError for an invalid file or duplicate rows."""
    every = [*rows]
    for path in others:
        every += read(path)
    Board(every)
    return every
