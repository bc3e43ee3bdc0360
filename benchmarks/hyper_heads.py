"""Is it worth making the weights of the heads from the memory? RL² with plain heads and with a hypernetwork.

``python -m benchmarks.hyper_heads [--seeds 1 2 3 4 5] [--runs DIR] [--only FAMILY] [--out DIR]`` trains the presets
rl2_* and hyper_*, which differ in nothing but ``heads``, for each seed (a run that is finished under DIR is kept, one
that was stopped goes on). It compares their scores over the steps of training, on the tasks of the evaluations in
between, and after it, paired on the tasks of the last evaluation; and the processor time of an iteration. It prints a
table and writes ``hyper_heads.json`` and ``hyper_heads.png``. Intervals are those of `metarl.evaluation.stats`. On the
bandit the presets differ in the fields of `EARLIER`, too, until hyper_bernoulli_bandit is trained with its pair's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.presets import evaluated, joined
from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colour
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune
from metarl.training.config import parsing as config
from metarl.training.config.run_config import reported_split

STUDIES = {
    "gridnavi": "GridNavi",
    "bernoulli_bandit": "Bernoulli bandit, 100 pulls",
    "tabular_mdp": "Tabular MDP",
    "sparse_point_robot": "SparsePointRobot",
    "half_cheetah_vel": "HalfCheetahVel",
}
"""Second part of the presets' names → title."""
HEADS = {"plain": "rl2", "hyper": "hyper"}
"""Heads → first part of the presets' names."""
EARLIER = {"bernoulli_bandit": {"critic": "task", "gamma": [(0.0, 0.9), (0.08, 0.9), (0.4, 0.98), (1.0, 0.99)]}}
"""What the plain preset had when the hyper one was trained (docs/findings.md, 44)."""
ITERATIONS = 7
"""Iterations of which the processor time is measured, after one that is not."""


def over_training(runs: Sequence[Path], split: str) -> dict[str, list[Any]]:
    """The score in the evaluations during training: environment steps, mean and interval over seeds, and each seed.

    Only evaluations that every seed has count, and only seeds that were trained here: an agent that comes with the
    package has no history.
    """
    by_seed = []
    for run in runs:
        if not (run / "metrics.jsonl").exists():
            continue
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        by_seed.append({row["env_steps"]: row[f"eval/{split}/score"] for row in rows if f"eval/{split}/score" in row})
    steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    if not steps:
        return {"env_steps": [], "mean": [], "low": [], "high": [], "by_seed": []}
    scores = np.array([[found[step] for step in steps] for found in by_seed])
    # Every seed played the same tasks, so the interval is about seeds.
    low, high = stats.interval(scores[:, None], every_task=True)
    points = {"mean": scores.mean(axis=0), "low": low, "high": high, "by_seed": scores}
    return {"env_steps": steps, **{name: values.tolist() for name, values in points.items()}}


def study(name: str, seeds: Sequence[int], runs: Path) -> dict[str, Any]:
    """Both kinds of heads on a family: over training, at its end, and the difference there."""
    found: dict[str, Any] = {"title": STUDIES[name], "seeds": list(seeds)}
    curves = {}
    for heads, first in HEADS.items():
        preset = f"{first}_{name}"
        folders = [evaluated(preset, seed, runs) for seed in seeds]
        trained = config.read(preset)
        curves[heads] = joined(reported_split(trained), folders)
        numbers = curves[heads].summary()
        found["split"] = curves[heads].split
        found[heads] = {
            "training": over_training(folders, trained.eval_splits[0]),
            "score": [numbers["score"], numbers["score_low"], numbers["score_high"]],
            "by_seed": curves[heads].scores.mean(axis=1, dtype=np.float64).tolist(),
        }
    found["difference"] = difference(curves["hyper"], curves["plain"])
    return found


def difference(one: AdaptationCurve, other: AdaptationCurve) -> list[float]:
    """What `one` scores above `other` on the same tasks: mean, low, high."""
    noise = [None if each.noise is None else each.noise[:, [-2]] for each in (one, other)]
    first, second = (each.scores[:, :, None] for each in (one, other))
    found = stats.paired_difference(first, second, every_task=one.every_task, noise=(noise[0], noise[1]))
    return [float(each[0]) for each in found]


def processor_time(name: str, tasks: int | None = None, iterations: int = ITERATIONS) -> dict[str, float]:
    """Median seconds of processor time of an iteration with each kind of heads, in turn, and hyper's over plain's."""
    agents = {}
    for heads, first in HEADS.items():
        trained = config.read(f"{first}_{name}")
        agents[heads] = trained.agent.build(trained.family, 0, torch.device("cpu"))
    size = tasks or agents["plain"].config.meta_batch_size
    seconds: dict[str, list[float]] = {heads: [] for heads in agents}
    for iteration in range(iterations + 1):
        for heads, agent in agents.items():
            task = agent.family.sample_tasks(rng.key(iteration), size)
            start = time.process_time()
            agent.update(run_trial(agent, agent.family, task, rng.key(iteration)), 0.0)
            seconds[heads].append(time.process_time() - start)
    found = {heads: statistics.median(each[1:]) for heads, each in seconds.items()}
    return found | {"ratio": found["hyper"] / found["plain"]}


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """A panel for each family: the score over the steps of training, with the interval over seeds."""
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, one in zip(panels, results.values(), strict=False):
        draw_panel(ax, one)
    for ax in panels[len(results) :]:
        ax.set_axis_off()
    figure.savefig(path, dpi=110)


def draw_panel(ax: Axes, one: dict[str, Any]) -> None:
    """The two lines of a family."""
    for heads, preset in HEADS.items():
        training = one[heads]["training"]
        steps, shade = np.array(training["env_steps"]) / 1e6, colour(preset)
        ax.plot(steps, training["mean"], "o-", markersize=3, color=shade, label=f"{heads} heads")
        ax.fill_between(steps, training["low"], training["high"], color=shade, alpha=0.2, linewidth=0)
    # The interval of few seeds that differ early on would flatten everything else.
    seeds = [value for heads in HEADS for row in one[heads]["training"]["by_seed"] for value in row]
    if seeds and max(seeds) > min(seeds):
        room = 0.15 * (max(seeds) - min(seeds))
        ax.set_ylim(min(seeds) - room, max(seeds) + room)
    ax.set_title(one["title"], fontsize="medium")
    ax.set_xlabel("million environment steps of training")
    ax.set_ylabel("return of a trial")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("--only", choices=list(STUDIES), help="only one family")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args(arguments)
    tune()
    print("| family | plain | hyper | hyper less plain | processor time |\n|---|---|---|---|---|", flush=True)
    results = {}
    for name in [args.only] if args.only else STUDIES:
        results[name] = study(name, args.seeds, args.runs) | {"processor_time": processor_time(name)}
        print(line(results[name]), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "hyper_heads.json").write_text(to_json(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(results, args.out / "hyper_heads.png")


def line(one: dict[str, Any]) -> str:
    """A family's row of the table."""
    numbers = one["plain"]["score"], one["hyper"]["score"], one["difference"]
    cells = ["{} [{}, {}]".format(*map(short, each)) for each in numbers]
    return f"| {one['title']} | {' | '.join(cells)} | × {one['processor_time']['ratio']:.2f} |"


if __name__ == "__main__":
    main()
