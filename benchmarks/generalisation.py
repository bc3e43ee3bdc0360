"""How many training tasks does it take to generalise? Return on the training tasks and on `test` against their number.

``python -m benchmarks.generalisation [--seeds 1 2 3] [--runs DIR] [--out DIR]`` trains RL² on a fixed list of N tasks
(``train_tasks``), as long as its preset, for each N and seed (a run that is already finished under DIR is kept): on
GridNavi, whose `train` has 15 goals, and on Navigation2D, a distribution. It prints a table and writes
``generalisation.json`` and a figure. Intervals are over seeds and tasks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.drawing.colours import colour
from metarl.fast.runtime import tune

STUDIES: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
    "GridNavi": ("rl2_gridnavi", (5, 10, 15), ("--train_split=train", "--eval_splits=[valid]")),
    "Navigation2D": ("rl2_navigation2d", (5, 10, 30, 100, 1000, 10000), ()),
}
"""Name → preset, numbers of training tasks, options."""


def trained(preset: str, count: int, seed: int, options: tuple[str, ...], runs: Path) -> Path:
    """The run directory, trained first if it is not finished."""
    run = runs / f"{preset}_{count}_{seed}"
    if not (run / "evaluation" / "test.json").exists():
        new = ["--config", preset, "--seed", str(seed), "--run_dir", str(run), "--train_tasks", str(count), *options]
        arguments = ["--resume", str(run)] if (run / "config.yaml").exists() else new
        subprocess.run([sys.executable, "-m", "metarl.train", "--num_threads=1", "--quiet", *arguments], check=True)
    return run


def measure(preset: str, count: int, seeds: list[int], options: tuple[str, ...], runs: Path) -> dict[str, Any]:
    """Mean score on `train` and `test`, (mean, low, high) each, and the gap between them with its interval."""
    folders = [trained(preset, count, seed, options, runs) / "evaluation" for seed in seeds]
    curves = {split: combine([AdaptationCurve.load(each / split) for each in folders]) for split in ("train", "test")}
    found: dict[str, Any] = {"train_tasks": count, "seeds": len(seeds)}
    for split, curve in curves.items():
        summary = curve.summary()
        found[split] = [summary["score"], summary["score_low"], summary["score_high"]]
        found[f"{split}_evaluated"] = curve.returns.shape[1]
    found["gap"] = stats.generalisation_gap(curves["train"].scores, curves["test"].scores)
    return found


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel for each family: the two lines with their intervals over the number of training tasks."""
    figure = Figure(figsize=(5.4 * len(results), 3.9), layout="constrained")
    for number, (name, rows) in enumerate(results.items(), start=1):
        ax = figure.add_subplot(1, len(results), number)
        counts = [row["train_tasks"] for row in rows]
        for split, style, shade in (("train", "s--", "0.45"), ("test", "o-", colour("RL2"))):
            middle, low, high = zip(*(row[split] for row in rows), strict=True)
            label = "on the tasks it trained on" if split == "train" else "on test tasks"
            ax.plot(counts, middle, style, color=shade, label=label)
            ax.fill_between(counts, low, high, color=shade, alpha=0.2, linewidth=0)
        ax.set_xscale("log")
        ax.set_xticks(counts, [f"{count:,}" for count in counts])
        ax.minorticks_off()
        ax.set_title(f"RL² on {name}")
        ax.set_xlabel("training tasks")
        ax.set_ylabel("return of a trial")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", choices=list(STUDIES), help="one family alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/generalisation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/generalisation.png"))
    args = parser.parse_args()
    tune()
    print("| family | training tasks | on them | on test | gap |\n|---|---|---|---|---|", flush=True)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, (preset, counts, options) in STUDIES.items():
        if args.only not in (None, name):
            continue
        for count in counts:
            row = measure(preset, count, args.seeds, options, args.runs)
            results.setdefault(name, []).append(row)
            cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*row[key]) for key in ("train", "test", "gap")]
            print(f"| {name} | {count:,} | " + " | ".join(cells) + " |", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "generalisation.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, args.figure)


if __name__ == "__main__":
    main()
