"""What every preset reaches on tasks it was not trained on: the record that the README's tables are made from.

``python -m benchmarks.presets [PRESET …] [--seeds 1 2 3] [--runs DIR]`` trains each preset once per seed, joins the
final evaluations of the seeds and writes them into benchmarks/results/presets.json. A run that is finished under DIR is
kept, one that was stopped goes on, and seed 1 is the agent that comes with the package where DIR has no run of it.
``python -m docs.make_results`` then makes tables, headers and the figure from the record. Means are over seeds and
tasks, intervals are `metarl.evaluation.stats.interval`'s.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.files import curve_files, to_json
from metarl.evaluation.results import chosen_points
from metarl.training import checkpoint
from metarl.training.config import parsing as config
from metarl.training.config.run_config import reported_split

RECORD = Path(__file__).parent / "results" / "presets.json"
POINTS = 5  # of a curve in the record
CONTROLS = {
    "memoryless_cartpole": "rl2_cartpole",
    "memoryless_pendulum": "rl2_pendulum",
    "memoryless_lunar_lander": "rl2_lunar_lander",
}
"""Presets that are others without a memory; the record has what the memory is worth, on the same tasks."""
NOT_MEASURED = {
    "rl2_minigrid_multiroom": "only the first iterations were tried",
    "rl2_treasure_hunt": "only the first iterations were tried",
    "belief_darkroom": "only the first iterations were tried",
    "rl2_tabular_mdp_25": "it was never run",
    "pearl_focal_sparse_point_robot": "only a short training was tried",
    "pearl_ant_dir": "it was never run",
    "pearl_walker2d_rand_params": "it was never run",
    "td3_sparse_point_robot": "it was never run",
    "sac_gridnavi": "only a short training was tried",
    "sac_windy_point": "it was never run",
    "varibad_half_cheetah_dir": "it was never run",
    "plr_cartpole_wide": "it was never run",
    "ad_darkroom_large": "it needs a GPU",
    "accel_cartpole_wide": "it was never run",
    "paired_cartpole_wide": "it was never run",
    "r2d2_bernoulli_bandit_n10": "only a short training was tried",
}
"""Presets without a record and a trained agent yet, and why. Their header says "Reached: not measured yet"."""
NOT_SHIPPED = {
    "plr_wall_maze": "it is no better than rl2_wall_maze, and the package may have 15 MB",
    "robust_plr_wall_maze": "it is worse than rl2_wall_maze, and the package may have 15 MB",
    "sfl_wall_maze": "it is worse than rl2_wall_maze, and the package may have 15 MB",
    "accel_wall_maze": "the package may have 15 MB",
    "paired_wall_maze": "the package may have 15 MB",
    "plr_rulesets_trivial": "it would show nothing that rl2_rulesets_trivial does not",
    "regret_rulesets_trivial": "it would show nothing that rl2_rulesets_trivial does not",
    "sfl_rulesets_trivial": "it would show nothing that rl2_rulesets_trivial does not",
    "regret_sparse_point_robot": "it would show nothing that rl2_sparse_point_robot does not",
    "roml_sparse_point_robot": "it would show nothing that rl2_sparse_point_robot does not",
    "dpt_darkroom": "its network would take 0.4 MB of the 15 that the package may have",
    "pearl_half_cheetah_vel": "it is far from what is published, and would take half a megabyte",
    "hyper_half_cheetah_vel": "its generated heads would take 1 MB of the 15 that the package may have",
    "sac_half_cheetah_vel": "its networks would take 1.6 MB of the 15 that the package may have",
}
"""Measured presets whose trained agent does not come with the package, and why."""


def finished(run: Path) -> bool:
    """Whether the run's final evaluation is complete: its table is what is written last."""
    return (run / "evaluation" / "table.txt").exists()


def evaluated(preset: str, seed: int, runs: Path) -> Path:
    """The run directory of a preset and seed with its final evaluation, trained first if it is not finished."""
    run = runs / f"{preset}_{seed}"
    if finished(run):
        return run
    started, shipped = (run / "config.yaml").exists(), checkpoint.PRETRAINED / preset
    if seed == 1 and not started and shipped.exists():
        return _evaluate_shipped(preset, run)
    arguments = ["--resume", str(run)] if started else ["--config", preset, "--seed", str(seed), "--run_dir", str(run)]
    subprocess.run([sys.executable, "-m", "metarl.train", *arguments], check=True)
    return run


def _evaluate_shipped(preset: str, run: Path) -> Path:
    tasks = str(config.read(preset).final_eval_tasks)
    arguments = [f"pretrained:{preset}", "--tasks", tasks, "--out", str(run / "evaluation")]
    subprocess.run([sys.executable, "-m", "metarl", "evaluate", *arguments], check=True)
    shutil.copy(checkpoint.PRETRAINED / preset / "config.yaml", run / "config.yaml")
    return run


def joined(split: str, runs: Sequence[Path]) -> AdaptationCurve:
    """The seeds' final evaluations on a split as one curve."""
    return combine([AdaptationCurve.load(run / "evaluation" / f"{split}.json") for run in runs])


def summary(curve: AdaptationCurve) -> dict[str, Any]:
    """What the record keeps of a curve: returns of an episode, but for ``score``, which is that of a trial.

    ``score`` is the trial's total, or the return of an episode after the last round; ``random`` and ``oracle`` are in
    its unit. ``points`` are ``[label, mean, low, high]``.
    """
    scores, numbers = curve.scores, curve.summary()
    mean, (lows, highs) = curve.mean(), curve.interval()
    episodes = 1 if curve.rounds else len(mean)
    shown = chosen_points(len(mean), POINTS)
    return {
        "agent": curve.agent,
        "family": curve.family,
        "rounds": curve.rounds,
        "episodes": episodes,
        "score": numbers["score"],
        "low": numbers["score_low"],
        "high": numbers["score_high"],
        "over": curve.interval_of(),
        "by_seed": [float(score) for score in scores.mean(axis=1, dtype=np.float64)],
        "points": [[curve.labels[n], *(float(values[n]) for values in (mean, lows, highs))] for n in shown],
        "points_by_seed": curve.returns.mean(axis=1, dtype=np.float64)[:, shown].tolist(),
        "random": curve.bounds["random"] * episodes if "random" in curve.bounds else None,
        "oracle": curve.bounds["oracle"] * episodes if "oracle" in curve.bounds else None,
        "steps_to_90": curve.steps_to_threshold(),
        "tasks": curve.returns.shape[1],
        "distinct": curve.distinct,
        "repeats": curve.repeats,
    }


def worth(controls: Sequence[Path], runs: Sequence[Path]) -> dict[str, list[float]]:
    """What the runs score above their controls on each split: the paired difference with its interval."""
    found = {}
    for path in curve_files(runs[0] / "evaluation"):
        with_memory, without = (joined(path.stem, each).scores[:, :, None] for each in (runs, controls))
        found[path.stem] = [float(part[0]) for part in stats.paired_difference(with_memory, without)]
    return found


def entry(preset: str, seeds: Sequence[int], runs: Sequence[Path]) -> dict[str, Any]:
    """What the record keeps of a preset: every split that was evaluated."""
    curves = {path.stem: joined(path.stem, runs) for path in curve_files(runs[0] / "evaluation")}
    trained = config.read(runs[0] / "config.yaml")
    target = curves[reported_split(trained)]
    return {
        "target": target.split,
        "seeds": list(seeds),
        "env_steps": round(float(np.mean([run["env_steps"] for run in target.training]))) if target.training else None,
        "iterations": trained.total_iterations,
        "versions": {name: target.versions[name] for name in ("torch", "commit") if name in target.versions},
        "splits": {name: summary(curve) for name, curve in curves.items()},
    }


def main() -> None:
    names = config.presets()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    args = parser.parse_args()
    if wrong := sorted(set(args.presets) - set(names)):
        parser.error(f"unknown preset {wrong[0]!r}; known: {', '.join(names)}")
    for preset in args.presets or names:
        runs = [evaluated(preset, seed, args.runs) for seed in args.seeds]
        found = entry(preset, args.seeds, runs)
        if preset in CONTROLS:
            others = [evaluated(CONTROLS[preset], seed, args.runs) for seed in args.seeds]
            found["memory_is_worth"] = worth(runs, others)
        record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        record[preset] = found
        RECORD.write_text(to_json(dict(sorted(record.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        score = found["splits"][found["target"]]
        print(
            f"{preset}, {found['target']}: {score['score']:.2f} [{score['low']:.2f}, {score['high']:.2f}]", flush=True
        )


if __name__ == "__main__":
    main()
