"""Is DPT Thompson sampling? Its agents next to the exact limits, on the same tasks with the same noise.

``python -m benchmarks.in_context [--runs DIR] [--seeds 1 2 3] [--tasks 2000] [--docs]`` plays the runs
``DIR/<preset>_<seed>`` of the presets dpt_* and dagger_* on Bernoulli bandits: DPT as it samples, whose exact limit is
Thompson sampling, and greedily; and next to them the Gittins index, which DAgger's teacher is. It prints a table with
paired differences and writes ``in_context.json``; with ``--docs`` also the table of docs/algorithms/imitation.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import metarl
from benchmarks.hyper_heads import difference
from docs.make_results import between, table
from metarl.agents.reference.catalogue import baseline
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "algorithms" / "imitation.md"
PULLS = (10, 100)
NAMES = {10: "bernoulli_bandit_n10", 100: "bernoulli_bandit"}


def study(pulls: int, seeds: Sequence[int], runs: Path, tasks: int) -> list[dict[str, Any]]:
    """A row for each player: its return of a trial, and what it has above the exact limit it is compared with."""
    family = metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=pulls)
    exact = {name: _played(baseline(name, family), family, tasks) for name in ("thompson", "gittins")}
    rows = [_row(pulls, name, exact[name], None, None) for name in exact]
    learned = {("DPT, sampling", "dpt", False): "thompson", ("DPT, greedy", "dpt", True): "gittins"}
    learned |= {("DAgger of the Gittins index", "dagger", False): "gittins"}
    for (title, kind, greedy), limit in learned.items():
        folders = [runs / f"{kind}_{NAMES[pulls]}_{seed}" for seed in seeds]
        there = [folder for folder in folders if (folder / "evaluation" / "table.txt").exists()]
        if there:
            curve = combine([_played(metarl.load(folder), family, tasks, greedy) for folder in there])
            rows.append(_row(pulls, title, curve, limit, difference(curve, exact[limit])))
    return rows


def _played(agent: Any, family: Any, tasks: int, greedy: bool = False) -> AdaptationCurve:
    return metarl.evaluate(agent, family, "test", tasks, repeats=20, greedy=greedy, step_curve=False)


def _row(pulls: int, name: str, curve: AdaptationCurve, limit: str | None, above: list[float] | None) -> dict[str, Any]:
    numbers = curve.summary()
    score = [numbers[each] for each in ("score", "score_low", "score_high")]
    seeds = curve.scores.mean(axis=1, dtype=float).tolist()
    return {"pulls": pulls, "player": name, "score": score, "by_seed": seeds, "limit": limit, "above_limit": above}


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = []
    for row in rows:
        mean, low, high = row["score"]
        above = "" if row["above_limit"] is None else "{} [{}, {}] than {}".format(
            *map(short, row["above_limit"]), row["limit"]
        )  # fmt: skip
        seeds = ", ".join(map(short, row["by_seed"])) if row["limit"] else ""
        lines.append(
            [str(row["pulls"]), row["player"], f"**{short(mean)}** [{short(low)}, {short(high)}]", seeds, above]
        )
    return table(("pulls", "player", "return of a trial", "per seed", "more, on the same tasks"), lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(arguments)
    tune()
    rows = [row for pulls in PULLS for row in study(pulls, options.seeds, options.runs, options.tasks)]
    (RESULTS / "in_context.json").write_text(to_json({"tasks": options.tasks, "rows": rows}, indent=1) + "\n")
    print(as_table(rows))
    if options.docs:
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "limits", f"\n{as_table(rows)}\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
