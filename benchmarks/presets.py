"""What every preset reaches on tasks it was not trained on: the README's table of results.

``python -m benchmarks.presets [PRESET …] [--seeds 1 2 3] [--runs DIR] [--figure PNG]`` trains each preset once per seed
(a run that is already finished under DIR is kept), joins the final evaluations of the seeds, prints Markdown and draws
the adaptation curves. Mean over seeds and tasks; the interval is a 95 % bootstrap over seeds × tasks (see
`metarl.stats.interval`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

from metarl import config, stats
from metarl.curve import AdaptationCurve, chosen_points, combine


def finished(run: Path, split: str) -> bool:
    """Whether the run's final evaluation on the split is there."""
    return (run / "evaluation" / f"{split}.json").exists()


def trained(preset: str, seed: int, runs: Path) -> Path:
    """The run directory of a preset and seed, trained first if it is not finished."""
    run = runs / f"{preset}_{seed}"
    if not finished(run, "test"):
        arguments = ["--resume", str(run)] if (run / "config.yaml").exists() else ["--config", preset]
        new = [] if arguments[0] == "--resume" else ["--seed", str(seed), "--run_dir", str(run)]
        subprocess.run([sys.executable, "-m", "metarl.train", *arguments, *new], check=True)
    return run


def target(run: Path) -> str:
    """The split that a preset is about: tasks that it did not train on, where there are any."""
    return config.reported_split(config.read(run / "config.yaml"))


def joined(split: str, runs: list[Path]) -> AdaptationCurve:
    """The seeds' final evaluations on a split as one curve."""
    return combine([AdaptationCurve.load(run / "evaluation" / f"{split}.json") for run in runs])


def draw(curves: dict[str, AdaptationCurve], path: Path) -> None:
    """One panel per preset."""
    figure = Figure(figsize=(15, 4.2 * ((len(curves) + 2) // 3)), layout="constrained")
    for number, (name, curve) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot((len(curves) + 2) // 3, 3, number)
        curve.plot(axes)
        axes.set_title(f"{name}, {curve.split}")
    figure.savefig(path, dpi=90)


def row(preset: str, split: str, curve: AdaptationCurve) -> str:
    """One row of the table."""
    low, high = stats.interval(curve.scores[:, :, None])
    seeds = ", ".join(f"{score:.2f}" for score in curve.scores.mean(axis=1))
    mean, (lows, highs) = curve.mean(), curve.interval()
    points = "; ".join(
        f"{curve.labels[n].removeprefix('episode ')}: {mean[n]:.2f} [{lows[n]:.2f}, {highs[n]:.2f}]"
        for n in chosen_points(len(mean), 4)
    )
    score = f"**{curve.scores.mean():.2f}** [{low[0]:.2f}, {high[0]:.2f}]"
    bounds = {name: bound * (1 if curve.rounds else len(mean)) for name, bound in curve.bounds.items()}
    return (
        f"| `{preset}` | {split} | {score} | {seeds} | {points} | {bounds.get('random', float('nan')):.2f} "
        f"| {bounds.get('oracle', float('nan')):.2f} | {curve.returns.shape[1]:,} |"
    )


def main() -> None:
    names = config.presets()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("--figure", type=Path, metavar="PNG", help="also draw the adaptation curves")
    args = parser.parse_args()
    if wrong := sorted(set(args.presets) - set(names)):
        parser.error(f"unknown preset {wrong[0]!r}; known: {', '.join(names)}")
    points = "by episode, or gradient steps"
    score = "return of the trial, or after the last step"
    print(f"| preset | split | {score} | per seed | {points} | random | known task | tasks |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    curves = {}
    for preset in args.presets or names:
        runs = [trained(preset, seed, args.runs) for seed in args.seeds]
        for split in ("train", "test", "ood", "all"):
            if finished(runs[0], split):
                curve = joined(split, runs)
                print(row(preset, split, curve), flush=True)
                if split == target(runs[0]):
                    curves[preset] = curve
    if args.figure:
        draw(curves, args.figure)


if __name__ == "__main__":
    main()
