"""Is it worth choosing the tasks to train on? Task samplers against uniform draws, on all tasks and on the worst.

``python -m benchmarks.curricula [--family WallMaze CartPole] [--runs DIR] [--seeds 1 2 3 4 5] [--tasks 1000]
[--repeats 4] [--train]`` plays tasks of `test` and `ood` with RL², trained with each sampler for about the same number
of environment steps, from runs under DIR named ``<preset>_<seed>``. With ``--train`` a run that is not finished is
trained first. It prints a table for each split and writes ``curricula.json`` and ``curricula.png``: the mean score,
that on the worst tenth of the tasks (CVaR 10 %) and on the worst task, chosen by one half of the trials and measured on
the other, and what each sampler has above uniform draws on the same tasks. In ``curricula.json`` other families stay as
they are, and so do the samplers that ``--only`` leaves out: each row has its number of seeds, and its gain is over
uniform draws with the same seeds. Intervals are over seeds and tasks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.few_shot import trained
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.tails import tail
from metarl.fast.runtime import tune
from metarl.training import checkpoint

RESULTS = Path(__file__).parent / "results"

SAMPLERS = {
    "uniform": "rl2",
    "PLR": "plr",
    "robust PLR": "robust_plr",
    "PLR, exact regret": "regret",
    "SFL": "sfl",
    "RoML": "roml",
    "ACCEL": "accel",
    "PAIRED": "paired",
}
"""The samplers by their titles, with the beginning of their presets' names. All others are compared with the first."""

FAMILIES = {
    "WallMaze": ("wall_maze", ("uniform", "PLR", "robust PLR", "PLR, exact regret", "SFL", "ACCEL", "PAIRED")),
    "CartPole": ("cartpole_wide", ("uniform", "PLR", "RoML", "ACCEL", "PAIRED")),
    "SparsePointRobot": ("sparse_point_robot", ("uniform", "PLR, exact regret", "RoML")),
    "Rulesets": ("rulesets_trivial", ("uniform", "PLR", "PLR, exact regret", "SFL")),
}
"""The end of the presets' names and the samplers of each family."""

SPLITS = ("test", "ood")
MEASURES = ("mean", "cvar_10", "worst_task")

Rows = dict[str, dict[str, Any]]


def presets_of(family: str) -> dict[str, str]:
    """The presets of a family by the titles of their samplers."""
    ending, samplers = FAMILIES[family]
    return {title: f"{SAMPLERS[title]}_{ending}" for title in samplers}


def curves(
    presets: dict[str, str], seeds: list[int], tasks: int, repeats: int, runs: Path, train: bool
) -> dict[str, dict[str, AdaptationCurve]]:
    """The evaluations of every sampler's seeds, as one curve for each split: split → sampler → curve."""
    found: dict[str, dict[str, AdaptationCurve]] = {split: {} for split in SPLITS}
    for title, preset in presets.items():
        agents = [checkpoint.load(trained(preset, seed, runs, train)) for seed in seeds]
        for split in SPLITS:
            each = [evaluate(agent, None, split, tasks, repeats, step_curve=False) for agent in agents]
            found[split][title] = combine(each)
    return found


def parts(curve: AdaptationCurve) -> dict[str, NDArray[np.float64]]:
    """What the measures are means of: ``(seeds, tasks)``, or ``(seeds, 1)`` for the worst task."""
    assert curve.halves is not None, "played several times"
    return {
        "mean": curve.scores.astype(np.float64),
        "cvar_10": tail.contributions(curve.halves),
        "worst_task": tail.worst(curve.halves)[:, None],
    }


def compared(found: dict[str, AdaptationCurve]) -> Rows:
    """For each sampler and measure: mean, low and high, and the same of its difference to the first sampler."""
    first, rows = parts(next(iter(found.values()))), {}
    for title, curve in found.items():
        steps = [each["env_steps"] for each in curve.training]
        row: dict[str, Any] = {"seeds": len(curve.returns), "env_steps": float(np.mean(steps))}
        for name, values in parts(curve).items():
            low, high = stats.interval(values[:, :, None])
            row[name] = [float(values.mean()), float(low[0]), float(high[0])]
            if curve is not next(iter(found.values())):
                gain = stats.paired_difference(values[:, :, None], first[name][:, :, None])
                row[f"{name}_gain"] = [float(each[0]) for each in gain]
        rows[title] = row
    return rows


def kept(before: Rows, found: Rows) -> Rows:
    """The rows that were found, and between them those of samplers that were not played this time."""
    both = before | found
    return {title: both[title] for title in SAMPLERS if title in both}


def table(rows: Rows) -> str:
    """The rows of a split as a table in Markdown."""
    titles = {"mean": "mean", "cvar_10": "worst 10 %", "worst_task": "worst task"}
    head = ["", *titles.values(), *(f"{title}: gain" for title in titles.values()), "steps", "seeds"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for title, row in rows.items():
        cells = [_cell(row[name]) for name in MEASURES]
        cells += [_cell(row[f"{name}_gain"]) if f"{name}_gain" in row else "" for name in MEASURES]
        lines.append(f"| {title} | {' | '.join(cells)} | {row['env_steps'] / 1e6:.2f} M | {row['seeds']} |")
    return "\n".join(lines)


def _cell(numbers: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)


def draw(results: dict[str, dict[str, Rows]], path: Path) -> None:
    """A row of panels for each family, one for each split: every sampler's gain over uniform draws, by measure.

    The interval of the worst task is so wide that no other could be read next to it.
    """
    shown = {"mean": "mean", "cvar_10": "worst 10 %"}
    figure = Figure(figsize=(5.2 * len(SPLITS), 3.8 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), len(SPLITS), squeeze=False)
    colors = {title: f"C{number}" for number, title in enumerate(SAMPLERS)}
    for line, (family, splits) in zip(panels, results.items(), strict=True):
        for ax, (split, rows) in zip(line, splits.items(), strict=True):
            samplers = [title for title, row in rows.items() if "mean_gain" in row]
            for place, title in enumerate(samplers):
                at = np.arange(len(shown)) + 0.11 * (place - (len(samplers) - 1) / 2)
                middle, low, high = np.array([rows[title][f"{name}_gain"] for name in shown]).T
                error = [middle - low, high - middle]
                ax.errorbar(at, middle, error, fmt="o", capsize=3, label=title, color=colors[title])
            ax.axhline(0.0, color="0.5", linewidth=1)
            ax.set_xticks(range(len(shown)), list(shown.values()))
            ax.set_xlim(-0.5, len(shown) - 0.5)
            ax.set_title(f"{family}, {split}")
            ax.set_ylabel("return of a trial above uniform draws")
            ax.grid(axis="y", alpha=0.3)
            ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(FAMILIES), nargs="+", default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=4, help="trials on each task, at least 2")
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("--only", choices=list(SAMPLERS)[1:], nargs="+", help="only these samplers, next to uniform")
    parser.add_argument("--train", action="store_true", help="train what is missing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    tune()
    if given.repeats < 2:
        parser.error(f"--repeats must be at least 2, since half of them choose the worst tasks, got {given.repeats}.")
    for family in given.family:
        if absent := set(given.only or ()) - set(presets_of(family)):
            parser.error(
                f"--only {', '.join(sorted(absent))}: {family} has no such preset; choose families with --family."
            )
    record = given.out / "curricula.json"
    results: dict[str, dict[str, Rows]] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for family in given.family:
        wanted = ("uniform", *(given.only or SAMPLERS))
        chosen = {title: preset for title, preset in presets_of(family).items() if title in wanted}
        found = curves(chosen, given.seeds, given.tasks, given.repeats, given.runs, given.train)
        before = results.get(family, {})
        results[family] = {split: kept(before.get(split, {}), compared(each)) for split, each in found.items()}
        for split, rows in results[family].items():
            print(f"{family}, {split}\n\n{table(rows)}\n")
    given.out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, given.out / "curricula.png")


if __name__ == "__main__":
    main()
