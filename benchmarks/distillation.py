"""Does Algorithm Distillation learn faster than the algorithm that it was distilled from?

``python -m benchmarks.distillation [--runs DIR] [--seeds 1 2 3] [--trials 8] [--docs]`` plays the runs
``DIR/ad_darkroom_<seed>`` (seed 1 may be the agent of the package) on the goals of DarkRoom's `test` split, which no
training history has. Each player plays `EPISODES` episodes: AD 50, five times as many as in training. Next to them are
their source, tabular Q-learning, and two players with an exact posterior, which samples a goal at every step or (PSRL)
for an episode. It prints a table and writes ``distillation.json``; with ``--docs`` also the table and the figure of
docs/algorithms/distillation.md. Intervals are 95 %, over seeds and tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import metarl
from docs.make_results import between
from metarl.agents.reference.catalogue import baseline
from metarl.envs.grids.dark_room import DarkRoom
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.drawing.colours import colours
from metarl.evaluation.files import to_json
from metarl.fast.runtime import tune

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "algorithms" / "distillation.md"
FIGURE = DOCS / "images" / "distillation.png"
EPISODES = {"AD": 50, "q_learning": 200, "posterior_sampling": 50, "psrl": 50}
"""The episodes that each player plays; the source learns so slowly that it needs more."""
TITLES = {
    "AD": "AD, trained on trials of 10 episodes",
    "q_learning": "its source, tabular Q-learning",
    "posterior_sampling": "posterior sampling at every step",
    "psrl": "PSRL: a goal kept for an episode",
}
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)


def agents(seeds: Sequence[int], runs: Path) -> list[Any]:
    """Load the trained agents of the seeds."""
    folders = [runs / f"ad_darkroom_{seed}" for seed in seeds]
    return [
        metarl.load("pretrained:ad_darkroom" if seed == 1 and not folder.exists() else folder)
        for seed, folder in zip(seeds, folders, strict=True)
    ]


def study(seeds: Sequence[int], runs: Path, trials: int) -> dict[str, dict[str, Any]]:
    """Return a row for each player: the mean return of every episode, with its interval, and the seeds' returns."""
    rows = {}
    for player, episodes in EPISODES.items():
        family = DarkRoom(episodes_per_trial=episodes)
        players = agents(seeds, runs) if player == "AD" else [baseline(player, family)]
        curves = [
            metarl.evaluate(agent, family, "test", family.num_tasks("test"), repeats=trials, step_curve=False)
            for agent in players
        ]
        rows[player] = row(combine(curves))
    return rows


def row(curve: AdaptationCurve) -> dict[str, Any]:
    """Return what the record keeps of a player's curve."""
    low, high = curve.interval()
    return {
        "seeds": len(curve.returns),
        **{
            name: [round(float(x), 4) for x in part]
            for name, part in (("mean", curve.mean()), ("low", low), ("high", high))
        },
        "by_seed": [[round(float(x), 4) for x in seed] for seed in curve.returns.mean(axis=1, dtype=np.float64)],
        "optimum": curve.bounds["oracle"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the returns of some episodes as a table in Markdown."""
    head = ["player", *(f"episode {SHOWN[0]}", *map(str, SHOWN[1:])), "seeds"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for player, found in rows.items():
        cells = [f"{found['mean'][at - 1]:.2f}" if at <= len(found["mean"]) else "" for at in SHOWN]
        lines.append(f"| {TITLES[player]} | {' | '.join(cells)} | {found['seeds']} |")
    return "\n".join(lines)


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw every player's return of an episode over the number of the episode, and the optimum of a known goal."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    ax, shades = figure.add_subplot(), colours(rows)
    for player, found in rows.items():
        at, learner = np.arange(len(found["mean"])) + 1, player in ("AD", "q_learning")
        ax.plot(at, found["mean"], "-" if learner else "--", color=shades[player], label=TITLES[player])
        if learner:
            ax.fill_between(at, found["low"], found["high"], color=shades[player], alpha=0.2, linewidth=0)
    ax.axhline(rows["AD"]["optimum"], color="black", linewidth=1, label="known goal")
    ax.set_xscale("log")
    ax.set_xticks(SHOWN, [str(at) for at in SHOWN])
    ax.minorticks_off()
    ax.set_xlabel("episode of the trial")
    ax.set_ylabel("return of the episode")
    ax.set_title("DarkRoom, goals that training did not have")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trials", type=int, default=8, help="trials on each goal")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(arguments)
    tune()
    rows = study(options.seeds, options.runs, options.trials)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "distillation.json").write_text(to_json(rows, indent=1) + "\n", encoding="utf-8")
    print(shown := table(rows))
    if options.docs:
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "players", f"\n{shown}\n"), encoding="utf-8")
        draw(rows, FIGURE)


if __name__ == "__main__":
    main()
