"""The ladder from random play to being told the task: who reaches which rung, on five families.

``python -m benchmarks.ladder [--runs DIR] [--seeds 1 2 3] [--only FAMILY] [--out DIR] [--train] [--docs]`` gathers
finished runs DIR/<preset>_<seed>, as `benchmarks.presets` makes them, and plays each agent on the same held-out tasks
with the same noise; next to them stand random play, a classical player and the return of who is told the task. Rungs
whose runs are missing are those of the record, ``ladder.json`` in the folder ``--out``, or are left out and named; with
``--train`` they are trained first. What was played is kept in DIR/ladder, until a run is newer. Writes the record,
``ladder.md`` and ``ladder.png``; with ``--docs`` also the tables of docs/ladder.md and their figure, from a ladder
without missing rungs, or with ``--incomplete`` from what there is. Intervals are those of `metarl.evaluation.stats`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import metarl
from benchmarks.hyper_heads import difference
from benchmarks.ladder_figure import draw
from benchmarks.presets import evaluated, finished
from docs.make_results import between, table
from metarl.agents.reference.catalogue import baseline
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune
from metarl.training import checkpoint
from metarl.training.config import parsing as config
from metarl.training.config.run_config import reported_split

DOCS = Path(__file__).parent.parent / "docs"
RANDOM, TOLD, RL2, BELIEF = "random", "told the task", "RL²", "exact belief"
LEARNERS = {
    "no memory": "memoryless", RL2: "rl2", "hyper-RL²": "hyper", "VariBAD": "varibad", BELIEF: "belief",
}  # fmt: skip
"""Rung → beginning of its presets' names, from the lowest to the highest."""


class Subject(NamedTuple):
    """A family, and the classical player of its ladder."""

    title: str
    player: str | None = None  # a name of `metarl.agents.reference.catalogue`; None: there is none
    called: str = ""
    optimal: bool = False  # whether no agent that is not told the task can do better, or only by a hair


SUBJECTS = {
    "gridnavi": Subject("GridNavi", "bayes_optimal", "Bayes-optimal", optimal=True),
    "bernoulli_bandit": Subject("Bernoulli bandit, 100 pulls", "gittins", "Gittins index", optimal=True),
    "tabular_mdp": Subject("Tabular MDP", "opsrl", "OPSRL"),
    "sparse_point_robot": Subject("SparsePointRobot", "search", "search along the arc"),
    "half_cheetah_vel": Subject("HalfCheetahVel"),
}


class Found(NamedTuple):
    """What was found of a family: a curve for each rung, from the lowest to the highest, and what is missing, why."""

    curves: dict[str, AdaptationCurve]
    missing: dict[str, str]


def preset_of(rung: str, name: str) -> str:
    """The preset of a rung that learned."""
    return f"{LEARNERS[rung]}_{name}"


def computable(rung: str, family: TaskFamily, split: str) -> bool:
    """Whether a family can have the rung: the exact belief only where the family knows it."""
    return rung != BELIEF or family.belief(split) is not None


def run_of(preset: str, seed: int, runs: Path, train: bool) -> Path | str | None:
    """The finished run of a preset and seed, or (seed 1) the agent of the package; None if there is none."""
    run = runs / f"{preset}_{seed}"
    if train or finished(run):
        return evaluated(preset, seed, runs)
    shipped = f"pretrained:{preset}"
    return shipped if seed == 1 and shipped in checkpoint.pretrained() else None


def played(agent: Agent | Path | str, name: str, stem: str, runs: Path, tasks: int) -> AdaptationCurve:
    """The curve of an agent, or of the one in a run, on the family's held-out tasks; read if it was played before."""
    trained = config.read(f"rl2_{name}")
    split = reported_split(trained)
    path = runs / "ladder" / f"{stem}_{split}_{tasks}"
    newest = (agent / checkpoint.CHECKPOINT).stat().st_mtime if isinstance(agent, Path) else 0.0
    kept = path.with_name(f"{path.name}.json")
    if not kept.exists() or kept.stat().st_mtime < newest:
        player = checkpoint.load(agent) if isinstance(agent, (Path, str)) else agent
        metarl.evaluate(player, trained.family, split, tasks, step_curve=False).save(path)
    return AdaptationCurve.load(path)


def gather(name: str, seeds: Sequence[int], runs: Path, tasks: int, train: bool = False) -> Found:
    """The curves of a family's rungs, and the rungs (or seeds of them) that are missing, with the reason."""
    trained, subject = config.read(f"rl2_{name}"), SUBJECTS[name]
    family = trained.family
    curves = {RANDOM: played(baseline("random", family), name, f"random_{name}", runs, tasks)}
    missing = {}
    for rung in LEARNERS:
        preset = preset_of(rung, name)
        if not computable(rung, family, trained.train_split):
            continue
        if preset not in config.presets():
            missing[rung] = f"there is no preset {preset}"
            continue
        found = {seed: run_of(preset, seed, runs, train) for seed in seeds}
        if absent := [seed for seed, run in found.items() if run is None]:
            missing[rung] = f"no finished run of {preset} with seed {', '.join(map(str, absent))}"
        there = [played(run, name, f"{preset}_{seed}", runs, tasks) for seed, run in found.items() if run is not None]
        if there:
            curves[rung] = combine(there)
    if subject.player is not None:
        player = baseline(subject.player, family)
        curves[subject.called] = played(player, name, f"{subject.player}_{name}", runs, tasks)
    return Found(curves, missing)


def scores(curve: AdaptationCurve, rung: str) -> dict[str, Any]:
    """The return of a trial with its interval, and its mean by seed."""
    numbers = curve.summary()
    return {
        "rung": rung,
        "score": numbers["score"],
        "low": numbers["score_low"],
        "high": numbers["score_high"],
        "by_seed": [float(each) for each in curve.scores.mean(axis=1, dtype=np.float64)],
        "over": curve.interval_of(),
    }


def bound(curve: AdaptationCurve, rung: str) -> dict[str, Any] | None:
    """The return of a trial of random play, or of who is told the task; None if the family has no such number."""
    by_task = curve.random if rung == RANDOM else curve.oracle
    if by_task is None:
        return None
    totals = by_task[None, :, None] * float(len(curve.labels))
    mean = float(stats.mean(totals)[0])
    # On all tasks there is nothing that could have been otherwise.
    low, high = (mean, mean) if curve.every_task else (float(end[0]) for end in stats.interval(totals))
    return {"rung": rung, "score": mean, "low": low, "high": high, "by_seed": [mean], "over": "over tasks"}


def ladder(name: str, found: Found) -> dict[str, Any]:
    """A family's ladder as plain numbers: its rungs, the scale on which random play is 0, and what is missing.

    1 is the classical player where it is optimal, elsewhere the best rung that is not told the task.
    """
    subject, lowest = SUBJECTS[name], found.curves[RANDOM]
    rungs = [
        (bound(curve, RANDOM) if rung == RANDOM else None) or scores(curve, rung)
        for rung, curve in found.curves.items()
    ]
    for row in rungs:
        learned, rl2 = found.curves[row["rung"]], found.curves.get(RL2)
        compared = rl2 is not None and row["rung"] in LEARNERS and row["rung"] != RL2
        # With fewer seeds of RL² than of the rung, its spread would be told too small.
        enough = rl2 is not None and len(rl2.returns) >= len(learned.returns)
        row["less_rl2"] = difference(learned, rl2) if compared and enough else None
    if (top := bound(lowest, TOLD)) is not None:
        rungs.append(top | {"less_rl2": None})
    return scaled({
        "title": subject.title,
        "split": lowest.split,
        "tasks": lowest.returns.shape[1],
        "repeats": lowest.repeats,
        "rungs": rungs,
        "missing": found.missing,
    }, subject)  # fmt: skip


def scaled(one: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """A ladder with its scale: what 0 and 1 are, and every rung on it."""
    rungs = {row["rung"]: row for row in one["rungs"]}
    untold = [row for name, row in rungs.items() if name != TOLD]
    top = rungs[subject.called] if subject.optimal else max(untold, key=lambda row: float(row["score"]))
    ends = rungs[RANDOM]["score"], top["score"]
    for row in rungs.values():
        row["normalised"] = [_normalised(row[field], ends) for field in ("score", "low", "high")]
        row["normalised_by_seed"] = [_normalised(value, ends) for value in row["by_seed"]]
    return one | {"zero": ends[0], "one": ends[1], "one_is": top["rung"]}


def with_record(one: dict[str, Any], record: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """A ladder with the record's rungs where that has more seeds of them, as it has when runs are no longer there.

    What such a rung has above RL² is kept as long as RL²'s results are the record's.
    """
    rungs, stored = ({row["rung"]: row for row in each["rungs"]} for each in (one, record))
    for name, row in stored.items():
        if len(row["by_seed"]) > len(rungs.get(name, {"by_seed": []})["by_seed"]):
            rungs[name] = row
    order = [RANDOM, *LEARNERS, subject.called, TOLD]
    missing = {rung: why for rung, why in one["missing"].items() if rung not in rungs or rungs[rung] in one["rungs"]}
    missing |= {rung: why for rung, why in record["missing"].items() if rungs.get(rung) in record["rungs"]}
    if RL2 in stored and rungs[RL2]["by_seed"] != stored[RL2]["by_seed"]:
        rungs |= {name: row | {"less_rl2": None} for name, row in rungs.items() if row is stored.get(name)}
    kept = sorted(rungs.values(), key=lambda row: order.index(row["rung"]))
    return scaled(one | {"rungs": kept, "missing": missing}, subject)


def with_unpaired(one: dict[str, Any]) -> dict[str, Any]:
    """A ladder in which rungs without a paired difference from RL² have that of the seeds' means.

    Its interval is over seeds, on these tasks: what single tasks add to it can only be told from their results, which
    the record does not have.
    """
    rungs = {row["rung"]: row for row in one["rungs"]}
    rl2 = rungs.get(RL2, {"by_seed": []})["by_seed"]

    def unpaired(row: dict[str, Any]) -> list[float] | None:
        if (
            row["rung"] not in LEARNERS
            or row["rung"] == RL2
            or row["less_rl2"]
            or min(map(len, (row["by_seed"], rl2))) < 2
        ):
            return None
        first, second = (np.asarray(means)[:, None, None] for means in (row["by_seed"], rl2))
        return [float(each[0]) for each in stats.paired_difference(first, second, every_task=True)]

    return one | {"rungs": [row | {"less_rl2_unpaired": unpaired(row)} for row in one["rungs"]]}


def _normalised(value: float, ends: tuple[float, float]) -> float | None:
    """None where there is nothing above random play."""
    return None if ends[0] == ends[1] else float(stats.normalise(value, *ends))


def markdown(ladders: dict[str, dict[str, Any]]) -> str:
    """The tables: what each rung reaches, and what it is above RL²."""
    others = [rung for rung in LEARNERS if rung != RL2]
    returns, differences = [], []
    for one in ladders.values():
        for row in one["rungs"]:
            share = "" if row["normalised"][0] is None else f"{row['normalised'][0]:.2f}"
            seeds = ", ".join(map(short, row["by_seed"])) if len(row["by_seed"]) > 1 else ""
            reached = _interval([row["score"], row["low"], row["high"]])
            returns.append([one["title"], row["rung"], reached, share, seeds])
        above = {row["rung"]: _interval(row["less_rl2"]) for row in one["rungs"] if row["less_rl2"]}
        unpaired = ((row["rung"], row.get("less_rl2_unpaired")) for row in one["rungs"])
        above |= {rung: f"{_interval(numbers)} ¹" for rung, numbers in unpaired if numbers}
        differences.append([one["title"], *(above.get(rung, "") for rung in others)])
    marked = any(row.get("less_rl2_unpaired") for one in ladders.values() for row in one["rungs"])
    parts = [
        table(("family", "rung", "return of a trial", "0 random, 1 best untold", "per seed"), returns),
        table(("family", *(f"{rung} less {RL2}" for rung in others)), differences),
        *(["¹ Of the means of the seeds, on the same tasks: the interval is over seeds alone."] if marked else []),
        "\n".join(f"- {one['title']}: {about(one)}" for one in ladders.values()),
    ]
    return "\n\n".join(parts)


def _interval(numbers: Sequence[float]) -> str:
    mean, low, high = map(short, numbers)
    return mean if low == high else f"{mean} [{low}, {high}]"


def about(one: dict[str, Any]) -> str:
    """A sentence on what was played, what the scale is, and what is missing."""
    every = "all " if one["split"] == "all" else ""
    repeats = f" × {one['repeats']} repeats" if one["repeats"] > 1 else ""
    said = f"{every}{one['tasks']:,} tasks{repeats} of `{one['split']}`; 1 is {one['one_is']}."
    return said + "".join(f" Missing: {rung} ({why})." for rung, why in one["missing"].items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--only", choices=list(SUBJECTS), help="only one family")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--train", action="store_true", help="train what is missing")
    parser.add_argument("--docs", action="store_true", help="also write the tables and the figure of docs/ladder.md")
    parser.add_argument("--incomplete", action="store_true", help="allow --docs with missing rungs, which it lists")
    args = parser.parse_args(arguments)
    tune()
    record = args.out / "ladder.json"
    ladders = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for name in [args.only] if args.only else SUBJECTS:
        one = ladder(name, gather(name, args.seeds, args.runs, args.tasks, args.train))
        ladders[name] = with_record(one, ladders[name], SUBJECTS[name]) if name in ladders else one
        print(f"{SUBJECTS[name].title}: {about(ladders[name])}", flush=True)
    ladders = {name: with_unpaired(ladders[name]) for name in SUBJECTS if name in ladders}
    args.out.mkdir(parents=True, exist_ok=True)
    record.write_text(to_json(ladders, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (args.out / "ladder.md").write_text(markdown(ladders) + "\n", encoding="utf-8")
    draw(ladders, args.out / "ladder.png")
    if args.docs:
        absent = len(ladders) < len(SUBJECTS) or any(one["missing"] for one in ladders.values())
        if absent and not args.incomplete:
            parser.error("--docs needs a complete ladder: train what is missing, or give --incomplete.")
        write_docs(ladders, DOCS)


def write_docs(ladders: dict[str, dict[str, Any]], docs: Path) -> None:
    """Put the figure and the tables into the page."""
    draw(ladders, docs / "images" / "ladder.png")
    page = docs / "ladder.md"
    shown = f"\n![From random play to being told the task](images/ladder.png)\n\n{markdown(ladders)}\n"
    page.write_text(between(page.read_text(encoding="utf-8"), "ladder", shown), encoding="utf-8")


if __name__ == "__main__":
    main()
