"""A control for the task samplers: do they help where most tasks teach nothing?

``python -m benchmarks.curricula_control [--seeds 1 2 3 4 5] [--docs]`` trains a small RL² agent with each sampler on
combination locks, of which one in twenty can be opened, for the same number of environment steps. It prints the
fraction of the locks that are opened, among those of `test` that can be, and each sampler's gain over uniform draws.
Writes ``curricula_control.json``; with ``--docs`` also the table of docs/task_samplers.md. Intervals are 95 %, over
seeds and tasks. It takes about twelve minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metarl
from benchmarks.curricula import RESULTS
from benchmarks.locks import POSSIBLE, Code, Locks
from docs.make_results import between, table
from metarl.core import rng
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune

PAGE = Path(__file__).parent.parent / "docs" / "task_samplers.md"

SAMPLERS: dict[str, dict[str, Any]] = {
    "uniform": {"name": "fresh"},
    "PLR, MaxMC": {"name": "plr", "capacity": 512},
    "PLR, exact regret": {"name": "plr", "score": "regret", "capacity": 512},
    "robust PLR, exact regret": {"name": "plr", "score": "regret", "robust": True, "capacity": 512},
    "ACCEL": {"name": "accel", "capacity": 512},
    "SFL": {"name": "sfl", "candidates": 1024, "keep": 50, "every": 50},
    "RoML": {"name": "roml"},
    "PAIRED": {"name": "paired"},
}
"""The samplers by their titles, with their options. Buffers are smaller than by default, as the training is short."""

STEPS = 400_000
"""Environment steps of a training, including those that are only scored."""


def trained(sampler: Mapping[str, Any], seed: int, steps: int, folder: str) -> Any:
    """Train an agent with the sampler."""
    agent = {"meta_batch_size": 64, "hidden_size": 16, "head_size": 16, "lr": 3e-3, "gamma": 0.95, "ent_coef": 0.01}
    options: dict[str, Any] = {f"agent.{name}": value for name, value in agent.items()}
    return metarl.run(
        family="control/Locks-v0", agent="RL2", task_sampler=dict(sampler), **options, seed=seed,
        total_iterations=10_000, max_env_steps=steps, eval_every=0, final_eval_tasks=0, checkpoint_every=10_000,
        num_threads=1, device="cpu", run_dir=f"{folder}/run",
    ).agent  # fmt: skip


def measured(
    samplers: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], steps: int, tasks: int, split: str = "test"
) -> list[dict[str, Any]]:
    """For each sampler, the fraction of the possible locks that are opened, and the difference to the first sampler."""
    locks, opened, rows = possible_locks(tasks, split), list[NDArray[np.float64]](), list[dict[str, Any]]()
    for title, sampler in samplers.items():
        curves = list[AdaptationCurve]()
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                agent = trained(sampler, seed, steps, folder)
            curves.append(metarl.evaluate(agent, agent.family, tasks=locks, step_curve=False))
        curve = combine(curves)
        opened.append(curve.returns.mean(-1, keepdims=True).astype(np.float64))
        low, high = stats.interval(opened[-1])
        gain = None if len(opened) == 1 else [float(x[0]) for x in stats.paired_difference(opened[-1], opened[0])]
        rows.append({
            "sampler": title,
            "opened": [float(opened[-1].mean()), float(low[0]), float(high[0])],
            "seeds": opened[-1].mean((1, 2)).tolist(),
            "gain": gain,
            "env_steps": float(np.mean([each["env_steps"] for each in curve.training])),
        })  # fmt: skip
        print(f"{title}: {short(rows[-1]['opened'][0])}", flush=True)
    return rows


def possible_locks(tasks: int, split: str) -> Code:
    """The first `tasks` locks of the split that can be opened."""
    family = Locks()
    drawn = family.sample_tasks(rng.key(0), round(2 * tasks / POSSIBLE), split)
    possible = (drawn.length <= family.horizon).nonzero()[:tasks, 0]
    return Code(drawn.length[possible], drawn.key[possible])


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was measured, in Markdown."""
    lines = []
    for row in rows:
        opened, gain = ("" if x is None else "{} [{}, {}]".format(*map(short, x)) for x in (row["opened"], row["gain"]))
        steps = f"{row['env_steps'] / 1e3:.0f} k"
        lines.append([row["sampler"], opened, ", ".join(map(short, row["seeds"])), gain, steps])
    return table(("sampler", "locks opened", "by seed", "above uniform draws", "steps"), lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="choose settings on valid")
    parser.add_argument("--only", choices=list(SAMPLERS)[1:], nargs="+", help="only these samplers, next to uniform")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    tune()
    wanted = {"uniform", *(given.only or SAMPLERS)}
    chosen = {title: options for title, options in SAMPLERS.items() if title in wanted}
    rows = measured(chosen, given.seeds, given.steps, given.tasks, given.split)
    print(f"\n{as_table(rows)}")
    found = {"steps": given.steps, "tasks": given.tasks, "split": given.split, "seeds": given.seeds, "rows": rows}
    (given.out / "curricula_control.json").write_text(to_json(found, indent=1) + "\n", encoding="utf-8")
    if given.docs:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(between(page, "control", f"\n{as_table(rows)}\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
