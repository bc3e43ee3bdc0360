"""Do agents that adapt by gradient steps do better together?

``python -m benchmarks.ensemble_rounds [--tasks 100] [--docs]`` evaluates three agents of the package on Navigation2D,
each alone and as an ensemble, in both mixes, on the same held-out tasks with the same noise. It prints the returns
after each gradient step, and what each ensemble has above the mean of its members after the last one (paired by task).
Writes ``ensemble_rounds.json``; with ``--docs`` also the table of docs/algorithms/ensemble.md. Intervals are 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import metarl
from benchmarks.ensembles import PAGE, RESULTS
from benchmarks.hyper_heads import difference
from docs.make_results import between, table
from metarl.agents.ensemble import Ensemble
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune

MEMBERS = ("maml_navigation2d", "fomaml_navigation2d", "metasgd_navigation2d")
"""Agents of the package, one training seed each."""


def measured(names: Sequence[str], tasks: int) -> list[dict[str, Any]]:
    """The returns after each gradient step of every member and both ensembles, and what the latter gain."""
    members = [metarl.load(f"pretrained:{name}") for name in names]
    family = members[0].family

    def curve_of(agent: Any) -> AdaptationCurve:
        return metarl.evaluate(agent, family, tasks=tasks, step_curve=False)

    alone = [curve_of(agent) for agent in members]
    mean = combine([replace(curve, agent="members") for curve in alone])
    rows = [row(name, curve) for name, curve in zip(names, alone, strict=True)]
    for mix in ("step", "episode"):
        curve = curve_of(Ensemble(members, mix=mix))
        rows.append(row(f"together, each {mix}", curve) | {"more": difference(curve, mean)})
    return rows


def row(player: str, curve: AdaptationCurve) -> dict[str, Any]:
    numbers = curve.summary()
    score = [numbers[f"score{end}"] for end in ("", "_low", "_high")]
    return {"player": player, "points": curve.mean().tolist(), "score": score, "more": None}


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured, in Markdown."""
    lines = []
    for each in rows:
        *before, _ = map(short, each["points"])
        last, more = ("" if x is None else "{} [{}, {}]".format(*map(short, x)) for x in (each["score"], each["more"]))
        lines.append([each["player"], *before, last, more])
    steps = [f"after {number} step{'s'[: number != 1]}" for number in range(len(rows[0]["points"]) - 1)]
    return table(("player", *steps, "after the last step", "more than its members, on the same tasks"), lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(arguments)
    tune()
    rows = measured(MEMBERS, options.tasks)
    print(as_table(rows))
    text = to_json({"tasks": options.tasks, "members": MEMBERS, "rows": rows}, indent=1)
    (RESULTS / "ensemble_rounds.json").write_text(text + "\n", encoding="utf-8")
    if options.docs:
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "rounds", f"\n{as_table(rows)}\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
