"""RL², MAML and players that are written down on the same few-shot streams: who knows how much after k examples?

``python -m benchmarks.few_shot [--runs DIR] [--seeds 1 2 3] [--tasks 300] [--train]`` plays the `test` tasks of
FewShotDigits and Sinusoid with the trained agents under DIR, named ``<preset>_<seed>``, and with the nearest neighbour,
a least-squares fit and random answers. With ``--train`` a run that is not finished is trained first. It prints two
tables and writes ``few_shot.json`` and a figure. Intervals are over seeds and tasks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks.presets import finished
from metarl.agents.random import RandomAgent
from metarl.agents.reference.supervised.digits import NearestNeighbour
from metarl.agents.reference.supervised.waves import LeastSquares
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid
from metarl.evaluation import stats
from metarl.evaluation.drawing.colours import colour
from metarl.fast.runtime import tune
from metarl.report.few_shot.grading import Answers, answers
from metarl.training import checkpoint

RESULTS = Path(__file__).parent / "results"
SMALLEST = 0.02
"""The smallest squared error that the figure shows; that of a fit to exact points is 0 but for rounding."""


class Study(NamedTuple):
    """A family with its presets and its written-down players."""

    presets: dict[str, str]  # title → preset
    players: Callable[[], dict[str, tuple[Agent, TaskFamily]]]
    measure: Callable[[Answers], NDArray[np.float64]]  # of a round: (tasks, examples)
    what: str
    example: str


def digit_players() -> dict[str, tuple[Agent, TaskFamily]]:
    family = FewShotDigits()
    return {
        "nearest neighbour": (NearestNeighbour(family.num_classes), family),
        "random": (RandomAgent(family), family),
    }


def wave_players() -> dict[str, tuple[Agent, TaskFamily]]:
    family = Sinusoid()
    return {"least squares": (LeastSquares(family), family)}


STUDIES = {
    "FewShotDigits": Study(
        {"RL²": "rl2_few_shot_digits", "MAML": "maml_supervised_few_shot_digits"},
        digit_players, Answers.by_instance, "share of right answers", "instance of the class",
    ),
    "Sinusoid": Study(
        {"RL²": "rl2_sinusoid", "MAML": "maml_supervised_sinusoid"},
        wave_players, lambda played: played.squared_error.mean(axis=1), "squared error", "point of the wave",
    ),
}  # fmt: skip


def trained(preset: str, seed: int, runs: Path, train: bool) -> Path:
    """The run directory, trained first where that is asked for. Raises FileNotFoundError for one that is missing."""
    run = runs / f"{preset}_{seed}"
    if not finished(run):
        if not train:
            raise FileNotFoundError(f"{run} has no finished run: train it with --train.")
        new = ["--config", preset, "--seed", str(seed), "--run_dir", str(run)]
        arguments = ["--resume", str(run)] if (run / "config.yaml").exists() else new
        subprocess.run([sys.executable, "-m", "metarl.train", "--num_threads=1", "--quiet", *arguments], check=True)
    return run


def curves(study: Study, seeds: list[int], tasks: int, runs: Path, train: bool) -> dict[str, NDArray[np.float64]]:
    """The measure of every player and round by name, ``(seeds, tasks, examples)``, on the same tasks.

    An agent that adapts between rounds has a curve for each: before, and after so many gradient steps.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for title, preset in study.presets.items():
        agents = [checkpoint.load(trained(preset, seed, runs, train)) for seed in seeds]
        played = [answers(agent, agent.family, "test", tasks, greedy=True) for agent in agents]
        for number, rounds in enumerate(zip(*played, strict=True)):
            steps = f"{number} gradient step{'s' * (number != 1)}"
            name = title if len(played[0]) == 1 else f"{title}, {steps}"
            found[name] = np.stack([study.measure(each) for each in rounds])
    for name, (player, family) in study.players().items():
        (one,) = answers(player, family, "test", tasks)
        found[name] = study.measure(one)[None]
    return found


def summary(found: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Mean, low and high of each curve at each example, and of all examples together."""
    rows = {}
    for name, values in found.items():
        low, high = stats.interval(values)
        whole = values.mean(axis=-1, keepdims=True)
        rows[name] = {
            "seeds": len(values),
            "mean": values.mean(axis=(0, 1)).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
            "all": [float(whole.mean()), *(float(each[0]) for each in stats.interval(whole))],
        }
    return rows


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """A panel for each family: the measure over the number of examples."""
    figure = Figure(figsize=(5.6 * len(results), 4.2), layout="constrained")
    for number, (family, rows) in enumerate(results.items(), start=1):
        ax = figure.add_subplot(1, len(results), number)
        for name, row in rows.items():
            at, shade = np.arange(len(row["mean"])) + 1, colour(name)
            ax.plot(at, row["mean"], ".--" if ", 0 " in name else ".-", color=shade, label=name)  # dashed: not adapted
            ax.fill_between(at, row["low"], row["high"], color=shade, alpha=0.2, linewidth=0)
        ax.set_title(family)
        ax.set_xlabel(STUDIES[family].example)
        ax.set_ylabel(STUDIES[family].what)
        if family == "Sinusoid":
            ax.set_yscale("log")
            ax.set_ylim(bottom=SMALLEST)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def table(family: str, rows: dict[str, Any]) -> str:
    """The measure at some examples, as a table in Markdown."""
    most = min(len(row["mean"]) for row in rows.values())
    shown = [at for at in (1, 2, 3, 5, 10) if at <= most]
    head = ["", *(f"{STUDIES[family].example} {at}" for at in shown), "all", "seeds"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, row in rows.items():
        cells = [f"{row['mean'][at - 1]:.3f}" for at in shown]
        middle, low, high = row["all"]
        lines.append(f"| {name} | {' | '.join(cells)} | {middle:.3f} [{low:.3f}, {high:.3f}] | {row['seeds']} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("--only", choices=list(STUDIES), help="one family only")
    parser.add_argument("--train", action="store_true", help="train what is missing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=RESULTS.parents[1] / "docs" / "images" / "few_shot.png")
    given = parser.parse_args(arguments)
    tune()
    results: dict[str, Any] = {}
    for family, study in STUDIES.items():
        if given.only in (None, family):
            results[family] = summary(curves(study, given.seeds, given.tasks, given.runs, given.train))
            print(f"{family}: {study.what}\n\n{table(family, results[family])}\n")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "few_shot.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, given.figure)


if __name__ == "__main__":
    main()
