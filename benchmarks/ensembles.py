"""Do several seeds together do better than one, and does their disagreement tell where they fail?

``python -m benchmarks.ensembles [--only PRESET …] [--runs DIR] [--seeds 1 2 3] [--tasks 500] [--docs]`` combines the
finished runs ``DIR/<preset>_<seed>`` (seed 1 may be the agent of the package) into ensembles, and plays members and
ensembles on the same held-out tasks with the same noise. It prints the returns, what each ensemble has above the mean
of its members (paired), the members' disagreement on held-out tasks and on `ood`, and how well it tells which trials
fail: the area under the ROC curve (AUROC), where a trial fails if it earns less than nine tenths of the trials of the
held-out split do, in shares of what is known to be possible on its task. Writes ``ensembles.json``, in which presets
that ``--only`` leaves out keep their results; with ``--docs`` also the tables and the figure of
docs/algorithms/ensemble.md. ``--only --docs``, without a preset, makes these from the record and plays nothing.
Intervals are 95 %; those of the AUROC are from a bootstrap over tasks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

import metarl
from benchmarks.hyper_heads import difference
from docs.es_figure import write
from docs.make_results import between, table
from metarl.agents.ensemble import Ensemble
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key
from metarl.core.rollout import Acted, Memory, run_trial
from metarl.evaluation.curve import combine
from metarl.evaluation.files import to_json
from metarl.evaluation.results import short
from metarl.fast.runtime import tune
from metarl.training import checkpoint

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURE = DOCS / "algorithms" / "ensemble.md", DOCS / "images" / "ensembles.png"
PRESETS = {
    "rl2_gridnavi": "all",
    "rl2_bernoulli_bandit_n10": "test",
    "rl2_tabular_mdp": "test",
    "varibad_gridnavi": "all",
    "rl2_bernoulli_bandit_n10_hundred": "test",
    "rl2_bernoulli_bandit_n10_bagged": "test",
}
"""Presets, and the split of the tasks that they are about.

The last two are of rl2_bernoulli_bandit_n10 with ``--train_tasks 100``, and with ``--bootstrap true`` besides.
"""
LABELS = {
    "rl2_bernoulli_bandit_n10_hundred": "`rl2_bernoulli_bandit_n10`, 100 tasks",
    "rl2_bernoulli_bandit_n10_bagged": "`rl2_bernoulli_bandit_n10`, 100 tasks, bagged",
}
MIXES = {"step": ("#4e79a7", "o", -0.1), "episode": ("#f28e2b", "s", 0.1)}
"""What is mixed, with the colour, the mark and the shift to one side in the figure."""
COLUMNS = 3
DRAWS = 1000
FAILS = 0.1
"""Share of the held-out trials that count as failed."""


class Watched(Ensemble):
    """An ensemble that notes its members' disagreement in every step."""

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        acted, memory = super().act(memory, step, key, greedy)
        self.noted.append(memory.disagreement)
        return acted, memory

    noted: list[Tensor]


def members_of(preset: str, seeds: Sequence[int], runs: Path) -> list[Any]:
    """Load the agents of a preset's seeds."""
    found = []
    for seed in seeds:
        folder = runs / f"{preset}_{seed}"
        there = (folder / checkpoint.CHECKPOINT).exists()
        found.append(metarl.load(folder if there or seed > 1 else f"pretrained:{preset}"))
    return found


def returns(members: Sequence[Any], split: str, tasks: int) -> list[dict[str, Any]]:
    """The members' returns, and those of every kind of ensemble of them, less the members' mean on the same tasks."""
    family = members[0].family
    alone = combine([metarl.evaluate(each, family, split, tasks, step_curve=False) for each in members])
    numbers = alone.summary()
    rows = [{"player": "members", "score": [numbers[f"score{end}"] for end in ("", "_low", "_high")], "more": None}]
    kinds = ["uniform", "hedge", *(["likelihood"] if hasattr(members[0], "reward_log_prob") else [])]
    for mix in ("step", "episode"):
        for weights in kinds:
            curve = metarl.evaluate(Ensemble(members, weights, mix), family, split, tasks, step_curve=False)
            numbers = curve.summary()
            score = [numbers[f"score{end}"] for end in ("", "_low", "_high")]
            rows.append({"player": f"{weights}, each {mix}", "score": score, "more": difference(curve, alone)})
    return rows


def uncertainty(members: Sequence[Any], split: str, tasks: int) -> dict[str, Any]:
    """The disagreement on the split and on `ood`, and the AUROC with which it tells the trials that fail."""
    family, scores, noted = members[0].family, [], []
    for place in (split, "ood"):
        ensemble = Watched(members)
        ensemble.noted = []
        task = family.sample_tasks(rng.key(0), tasks, place)
        (rollout,) = run_trial(ensemble, family, task, rng.key(1))
        total = (rollout.outcome.reward * rollout.mask).sum(0)
        low, high = (bound * family.episodes_per_trial for bound in (family.random_return(task), family.oracle(task)))
        scores.append(((total - low) / (high - low).clamp_min(1e-6)).numpy())
        noted.append((torch.stack(ensemble.noted) * rollout.mask).sum(0).div(rollout.mask.sum(0)).numpy())
    threshold = np.quantile(scores[0], FAILS)
    fails, each = np.concatenate(scores) < threshold, np.concatenate(noted)
    draws = np.random.default_rng(0).integers(0, len(each), (DRAWS, len(each)))
    drawn = [auroc(each[rows], fails[rows]) for rows in draws]
    return {
        "disagreement": [float(part.mean()) for part in noted],
        "failed": [float((part < threshold).mean()) for part in scores],
        "auroc": [auroc(each, fails), *np.nanpercentile(drawn, [2.5, 97.5]).tolist()],
    }


def auroc(values: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive has a larger value than a negative; ties count one half."""
    if positive.all() or not positive.any():
        return float("nan")
    order = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(order[2])
    ranks = (ends - 0.5 * (order[2] - 1))[order[1]]
    count = int(positive.sum())
    return float((ranks[positive].sum() - 0.5 * count * (count + 1)) / (count * (len(values) - count)))


def as_tables(found: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    lines, doubts = [], []
    for preset, of in found.items():
        label = LABELS.get(preset, f"`{preset}`")
        for row in of["returns"]:
            mean, low, high = map(short, row["score"])
            more = "" if row["more"] is None else "{} [{}, {}]".format(*map(short, row["more"]))
            lines.append([label, row["player"], f"{mean} [{low}, {high}]", more])
        of = of["uncertainty"]
        doubts.append(
            [
                label, *(f"{value:.3f}" for value in of["disagreement"]),
                *(f"{100 * value:.0f} %" for value in of["failed"]), "{:.2f} [{:.2f}, {:.2f}]".format(*of["auroc"]),
            ]
        )  # fmt: skip
    first = table(("preset", "player", "return of a trial", "more than its members, on the same tasks"), lines)
    columns = ("preset", "disagreement, held out", "on `ood`", "trials that fail, held out", "on `ood`", "AUROC")
    return f"{first}\n\n{table(columns, doubts)}"


def draw(found: dict[str, Any], path: Path) -> None:
    """A panel for each preset: what its ensembles have above their members; below, the AUROC of all presets."""
    rows, last = -(-len(found) // COLUMNS), 0.3 * len(found) + 0.7
    figure = Figure(figsize=(9.5, 2.5 * rows + 0.4 + last), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[2.5 * rows + 0.4, last])
    for number, (preset, of) in enumerate(found.items(), start=1):
        ax = upper.add_subplot(rows, COLUMNS, number)
        draw_gains(ax, of["returns"])
        ax.set_title(title(preset).replace(", ", "\n", 1), fontsize="medium")
    upper.supylabel("return of a trial above the members", fontsize="medium")
    marks = [
        Line2D([], [], color=shade, marker=mark, label=f"mixed at each {mix}")
        for mix, (shade, mark, _) in MIXES.items()
    ]
    upper.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
    draw_auroc(lower.add_subplot(), {title(preset): of["uncertainty"] for preset, of in found.items()})
    write(figure, path)


def title(preset: str) -> str:
    """The preset as the tables call it, without marks of Markdown."""
    return LABELS.get(preset, preset).replace("`", "")


def draw_gains(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the paired differences of a preset's ensembles from their members, on a scale of its own."""
    weights: list[str] = []
    for mix, (shade, mark, shift) in MIXES.items():
        gains = {row["player"].partition(",")[0]: row["more"] for row in rows if row["player"].endswith(f"each {mix}")}
        if gains:
            weights, at = list(gains), np.arange(len(gains)) + shift
            middle, low, high = np.array(list(gains.values())).T
            ax.errorbar(at, middle, [middle - low, high - middle], fmt=mark, color=shade, capsize=3)
    ax.axhline(0.0, color="0.5", linewidth=1)
    ax.set_xticks(range(len(weights)), weights)
    ax.set_xlim(-0.5, len(weights) - 0.5)
    ax.grid(axis="y", alpha=0.3)


def draw_auroc(ax: Axes, found: dict[str, dict[str, Any]]) -> None:
    """Draw how well disagreement tells the trials that fail, a line for each preset, the first on top."""
    middle, low, high = np.array([of["auroc"] for of in found.values()], dtype=float).T
    ax.errorbar(middle, range(len(found)), xerr=[middle - low, high - middle], fmt="D", color="0.2", capsize=3)
    ax.axvline(0.5, color="0.5", linestyle="--", linewidth=1)
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlabel("AUROC of disagreement for trials that fail (½, dashed: uninformative; 1: perfect)")
    ax.grid(axis="x", alpha=0.3)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PRESETS), default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(arguments)
    record = RESULTS / "ensembles.json"
    if not options.only and not record.exists():
        parser.error(f"--only needs a preset, as there is no {record.name} with former results.")
    tune()
    found = json.loads(record.read_text(encoding="utf-8"))["presets"] if record.exists() else {}
    for preset in options.only:
        members, split = members_of(preset, options.seeds, options.runs), PRESETS[preset]
        found[preset] = {
            "split": split,
            "seeds": options.seeds,
            "tasks": options.tasks,
            "returns": returns(members, split, options.tasks),
            "uncertainty": uncertainty(members, split, options.tasks),
        }
        print(as_tables({preset: found[preset]}), "\n")
    found = {preset: found[preset] for preset in PRESETS if preset in found}
    record.write_text(to_json({"presets": found}, indent=1) + "\n", encoding="utf-8")
    if options.docs:
        page = between(PAGE.read_text(encoding="utf-8"), "ensembles", f"\n{as_tables(found)}\n")
        PAGE.write_text(page, encoding="utf-8")
        draw(found, FIGURE)


if __name__ == "__main__":
    main()
