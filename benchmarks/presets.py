"""What every preset reaches on tasks it was not trained on: the README's table of results.

``python -m benchmarks.presets [PRESET …] [--seeds 1 2 3] [--runs DIR] [--figure PNG]`` trains each preset once per seed
(a run that is already finished under DIR is kept), joins the final evaluations of the seeds, prints Markdown and draws
all presets' scores. With ``--shipped`` it draws those of the agents in the package and trains none. Mean over seeds and
tasks; the interval is `metarl.stats.interval`'s.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import metarl
from metarl import config, stats
from metarl.colours import OPTIMUM, RANDOM, colour
from metarl.curve import AdaptationCurve, chosen_points, combine, short

PRETRAINED = Path(metarl.__file__).parent / "pretrained"


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


class Dot(NamedTuple):
    """What the figure shows of a preset: returns of an episode."""

    preset: str
    about: str  # "GridNavi, all"
    first: float  # in the first episode, or before any gradient step
    score: float  # mean over the trial's episodes, or after the last gradient step
    low: float  # of the score's 95 % interval
    high: float
    random: float | None
    optimum: float | None

    def normalised(self, value: float) -> float:
        """On the scale on which random is 0 and the optimum 1."""
        assert self.random is not None and self.optimum is not None
        return float(stats.normalise(value, self.random, self.optimum))

    @property
    def has_scale(self) -> bool:
        return self.random is not None and self.optimum is not None and self.random != self.optimum


def dot(preset: str, summary: Mapping[str, float], labels: Sequence[str], family: str, split: str, rounds: bool) -> Dot:
    """The preset's dot from a curve's summary, as ``curve.json`` beside an agent of the package has it too."""
    episodes = 1 if rounds else len(labels)
    score, low, high = (summary[name] / episodes for name in ("score", "score_low", "score_high"))
    about = f"{family.partition('(')[0]}, {split}"
    return Dot(preset, about, summary[labels[0]], score, low, high, summary.get("random"), summary.get("oracle"))


def shipped(presets: Sequence[str]) -> list[Dot]:
    """The dots of the agents in the package, one seed each."""
    dots = []
    for preset in presets:
        folder = PRETRAINED / preset
        if (folder / "curve.json").exists():
            curve = json.loads((folder / "curve.json").read_text(encoding="utf-8"))[target(folder)]
            given = [curve[name] for name in ("summary", "labels", "family", "split", "rounds")]
            dots.append(dot(preset, *given))
    return dots


def draw(dots: Sequence[Dot], path: Path, note: str) -> None:
    """A line per preset, with its score between random play and the known-task optimum; below, those without one.

    The presets stand in groups by family and split, in each the best on top; `note` says whose numbers these are.
    """
    scaled, others = [d for d in dots if d.has_scale], [d for d in dots if not d.has_scale]
    scaled.sort(key=lambda d: (d.about, -d.normalised(d.score)))
    groups = list(dict.fromkeys(d.about for d in scaled))
    figure = Figure(figsize=(10, 1.2 + 0.27 * (len(scaled) + len(others)) + 0.12 * len(groups)), layout="constrained")
    heights = [max(len(scaled), 1), max(len(others), 1)]
    upper, lower = figure.subplots(2, 1, height_ratios=heights) if others else (figure.add_subplot(), None)
    _draw_dots(upper, scaled, groups)
    upper.set_xlabel("score: 0 is random play, 1 the best that is possible when the task is told")
    if lower is not None:
        _write_table(lower, others)
    figure.suptitle(f"What the presets reach; {note}", fontsize="medium")
    figure.savefig(path, dpi=90)


def _draw_dots(ax: Axes, dots: Sequence[Dot], groups: Sequence[str]) -> None:
    places = [number + 0.5 * groups.index(d.about) for number, d in enumerate(dots)]
    for y, d in zip(places, dots, strict=True):
        shade = colour(d.preset)
        low, score, high, first = (d.normalised(value) for value in (d.low, d.score, d.high, d.first))
        ax.plot([first, score], [y, y], color=shade, linewidth=1, alpha=0.5)
        ax.plot(first, y, "o", markersize=5, markerfacecolor="white", markeredgecolor=shade)
        ax.plot([low, high], [y, y], color=shade, linewidth=3.5, solid_capstyle="butt")
        ax.plot(score, y, "o", markersize=6.5, color=shade)
        ax.annotate(f"{score:.2f}", (1.0, y), (8, 0), ax.get_yaxis_transform(), "offset points", va="center", size=8)
    ax.axvline(0.0, color=RANDOM, linestyle="--", linewidth=1.2)
    ax.axvline(1.0, color=OPTIMUM, linestyle="--", linewidth=1.2)
    ax.set_yticks(places, [f"{d.preset}  ({d.about})" for d in dots], fontsize="small")
    ax.set_ylim(max(places, default=0) + 0.7, -0.7)
    ax.grid(axis="x", alpha=0.3)
    marks = [
        Line2D(
            [],
            [],
            color="0.4",
            marker="o",
            markerfacecolor="white",
            linestyle="",
            label="first episode, or before any gradient step",
        ),
        Line2D(
            [],
            [],
            color="0.4",
            marker="o",
            label="mean of the trial's episodes, or after the last gradient step, with its 95 % interval",
        ),
    ]
    ax.legend(handles=marks, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False, fontsize="small")


def _write_table(ax: Axes, dots: Sequence[Dot]) -> None:
    """Returns of an episode where no optimum is known."""
    ax.set_axis_off()
    columns = (0.0, 0.33, 0.62, 0.85)
    rows = [("no known optimum: return of an episode", "", "score and 95 % interval", "random")]
    for d in dots:
        interval = f"{short(d.score)} [{short(d.low)}, {short(d.high)}]"
        rows.append((d.preset, d.about, interval, "" if d.random is None else short(d.random)))
    for number, row in enumerate(rows):
        for x, text in zip(columns, row, strict=True):
            y = 1.0 - (number + 0.5) / len(rows)
            ax.text(
                x, y, text, transform=ax.transAxes, va="center", size="small", color="0.3" if number == 0 else "black"
            )


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
    parser.add_argument("--figure", type=Path, metavar="PNG", help="also draw all presets' scores")
    parser.add_argument("--shipped", action="store_true", help="draw --figure of the agents in the package; train none")
    args = parser.parse_args()
    if wrong := sorted(set(args.presets) - set(names)):
        parser.error(f"unknown preset {wrong[0]!r}; known: {', '.join(names)}")
    if args.shipped:
        if args.figure is None:
            parser.error("--shipped draws a figure: say where by --figure PNG")
        draw(shipped(args.presets or names), args.figure, "the agents of the package, one seed each")
        return
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
        dots = [
            dot(name, curve.summary(), curve.labels, curve.family, curve.split, curve.rounds)
            for name, curve in curves.items()
        ]
        draw(dots, args.figure, f"{len(args.seeds)} seeds")


if __name__ == "__main__":
    main()
