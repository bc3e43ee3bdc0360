"""Is DPT posterior sampling? Its agents next to the exact limits, on the same tasks with the same noise.

``python -m benchmarks.in_context [--runs DIR] [--seeds 1 2 3] [--tasks 2000] [--only PROBLEM …] [--docs]`` plays the
runs ``DIR/<preset>_<seed>`` of the presets dpt_* and dagger_*: DPT as it samples, whose exact limit is posterior
sampling (Thompson sampling on bandits), and greedily; and DAgger next to its teacher. It prints a table with paired
differences and writes ``in_context.json``, where a problem keeps its rows until it is played again; with ``--docs``
also the table and the figure of docs/algorithms/imitation.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import metarl
from benchmarks.hyper_heads import difference
from docs.make_results import between, table
from metarl.agents.reference.catalogue import baseline
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.drawing.colours import colour
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune
from metarl.training.config import parsing as config
from metarl.training.config.run_config import reported_split

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "algorithms" / "imitation.md"
FIGURE = DOCS / "images" / "in_context.png"


class Problem(NamedTuple):
    """A preset's second name with the players that are exact limits on it."""

    title: str
    sampling: str  # the limit of DPT that samples
    best: str  # what DAgger's teacher is, and where given the limit of a greedy DPT
    repeats: int  # trials on each task: many on few tasks, since which goals are found is left to chance
    greedy: bool = True  # whether the best is one


PROBLEMS = {
    "bernoulli_bandit_n10": Problem("Bernoulli bandit, 10 pulls", "thompson", "gittins", 20),
    "bernoulli_bandit": Problem("Bernoulli bandit, 100 pulls", "thompson", "gittins", 20),
    "gridnavi": Problem("GridNavi", "posterior_sampling", "bayes_optimal", 400, greedy=False),
    "darkroom": Problem("DarkRoom, 30 episodes", "posterior_sampling_by_episode", "search", 40, greedy=False),
}


def study(name: str, seeds: Sequence[int], runs: Path, tasks: int) -> list[dict[str, Any]]:
    """A row for each player: its return of a trial, and what it has above the exact limit it is compared with."""
    problem, trained = PROBLEMS[name], config.read(f"dpt_{name}")
    family, split = trained.family, reported_split(trained)
    exact = {
        player: _played(baseline(player, family), family, split, tasks, problem.repeats)
        for player in (problem.sampling, problem.best)
    }
    rows = [_row(problem, player, exact[player], None, None) for player in exact]
    learned = {("DPT, sampling", "dpt", False): problem.sampling}
    learned |= {("DPT, greedy", "dpt", True): problem.best} if problem.greedy else {}
    learned |= {(f"DAgger of {problem.best}", "dagger", False): problem.best}
    for (title, kind, greedy), limit in learned.items():
        folders = [runs / f"{kind}_{name}_{seed}" for seed in seeds]
        there = [folder for folder in folders if (folder / "evaluation" / "table.txt").exists()]
        if there:
            curve = combine(
                [_played(metarl.load(folder), family, split, tasks, problem.repeats, greedy) for folder in there]
            )
            rows.append(_row(problem, title, curve, limit, difference(curve, exact[limit])))
    return rows


def _played(agent: Any, family: Any, split: str, tasks: int, repeats: int, greedy: bool = False) -> AdaptationCurve:
    return metarl.evaluate(agent, family, split, tasks, repeats=repeats, greedy=greedy, step_curve=False)


def _row(
    problem: Problem, name: str, curve: AdaptationCurve, limit: str | None, above: list[float] | None
) -> dict[str, Any]:
    numbers = curve.summary()
    score = [numbers[each] for each in ("score", "score_low", "score_high")]
    seeds = curve.scores.mean(axis=1, dtype=float).tolist()
    return {
        "problem": problem.title,
        "player": name,
        "score": score,
        "by_seed": seeds,
        "limit": limit,
        "above_limit": above,
        "episodes": [[round(float(each), 4) for each in part] for part in (curve.mean(), *curve.interval())],
    }


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = []
    for row in rows:
        mean, low, high = row["score"]
        above = "" if row["above_limit"] is None else "{} [{}, {}] than {}".format(
            *map(short, row["above_limit"]), row["limit"]
        )  # fmt: skip
        seeds = ", ".join(map(short, row["by_seed"])) if row["limit"] else ""
        lines.append([row["problem"], row["player"], f"**{short(mean)}** [{short(low)}, {short(high)}]", seeds, above])
    return table(("problem", "player", "return of a trial", "per seed", "more, on the same tasks"), lines)


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel for each problem: the return along the trial. Exact limits are dashed, greedy play is dotted."""
    figure = Figure(figsize=(10.4, 7.2), layout="constrained")
    for ax, (name, rows) in zip(figure.subplots(2, 2).flat, results.items(), strict=True):
        for row in rows:
            mean, low, high = (np.array(part) for part in row["episodes"])
            at, exact = np.arange(len(mean)) + 1, row["limit"] is None
            shade = colour(row["player"])
            ax.plot(
                at, mean, "--" if exact else ":" if "greedy" in row["player"] else "-", color=shade, label=row["player"]
            )
            if not exact:
                ax.fill_between(at, low, high, color=shade, alpha=0.2, linewidth=0)
        ax.set_title(PROBLEMS[name].title)
        bandit = "bandit" in name
        ax.set_xlabel("pull" if bandit else "episode")
        ax.set_ylabel("mean reward of the pull" if bandit else "return of the episode")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=90)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(arguments)
    tune()
    record = RESULTS / "in_context.json"
    kept = json.loads(record.read_text(encoding="utf-8"))
    without = [name for name in PROBLEMS if name not in options.only and not kept.get(name)]
    if options.docs and without:
        parser.error(f"--docs draws all problems, and {', '.join(without)} has no record: play it, too.")
    found = {name: study(name, options.seeds, options.runs, options.tasks) for name in options.only}
    kept = {name: found.get(name, kept.get(name, [])) for name in PROBLEMS}
    record.write_text(to_json(kept, indent=1) + "\n", encoding="utf-8")
    shown = as_table([row for rows in kept.values() for row in rows])
    print(shown)
    if options.docs:
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "limits", f"\n{shown}\n"), encoding="utf-8")
        draw(kept, FIGURE)


if __name__ == "__main__":
    main()
