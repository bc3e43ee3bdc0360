"""Cost of a step of every family against the number of rows that step together.

``python -m benchmarks.stepping [--sizes 1 16 …] [--figure PNG] [--out JSON]`` steps each family with random
actions drawn beforehand, through `BatchEnv` with both endings and restarts, on one core; prints a Markdown table of
steps per second (a step is one step of one row) and draws the cost of a row's step. Times are medians of the
processor's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import metarl
from benchmarks.ours import random_actions
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.envs import FAMILIES
from metarl.fast.runtime import tune
from metarl.report.card import short_name

SIZES = (1, 16, 256, 4096, 65_536)
STEPS = 40
NAMED = ("BernoulliBandit", "Navigation2D", "GridNavi", "TabularMDP", "CartPole", "Alchemy")
"""Families that the figure names; the others are grey."""


def cost(id: str, rows: int, rounds: int, steps: int = STEPS) -> float:
    """Median seconds of one step of all `rows`."""
    family, key = metarl.make(id), rng.key(0)
    env = make_env(family, family.sample_tasks(key, rows), key)
    actions = random_actions(family, min(steps, env.max_steps), rows)
    seconds = []
    for number in range(rounds + 1):
        env.reset()
        start = time.thread_time()
        for action in actions:
            env.step(action)
        if number:  # the first round warms up
            seconds.append((time.thread_time() - start) / len(actions))
    return statistics.median(seconds)


def table(found: dict[str, dict[int, float]]) -> str:
    """Steps per second of each family at each size, as Markdown."""
    sizes = list(next(iter(found.values())))
    lines = [f"| steps/s with … rows | {' | '.join(f'{size:,}' for size in sizes)} |", "|---|" + "---:|" * len(sizes)]
    for id, costs in found.items():
        lines.append(f"| `{id}` | " + " | ".join(f"{_short(rows / seconds)}" for rows, seconds in costs.items()) + " |")
    return "\n".join(lines)


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    """Microseconds of a row's step against the number of rows, both logarithmic."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.add_subplot()
    for id, costs in found.items():
        name, x = short_name(id), list(costs)
        y = [1e6 * seconds / rows for rows, seconds in costs.items()]
        if name in NAMED:
            ax.plot(x, y, "o-", markersize=4, label=name, zorder=3)
        else:
            ax.plot(x, y, color="0.8", linewidth=1.0)
    ax.plot([], [], color="0.8", label="the other families")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("rows that step together")
    ax.set_ylabel("microseconds of one row's step, one core")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    figure.savefig(path, dpi=90)


def _short(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.3g} k"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figure", type=Path, metavar="PNG")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the numbers to this file")
    args = parser.parse_args()
    tune(1)
    # MuJoCo's steps cost what MuJoCo does, whatever the number of rows: see W4 of `benchmarks.run`.
    ids = sorted(f"metarl/{family.__name__}-v0" for family in FAMILIES)
    found = {id: {rows: cost(id, rows, args.rounds) for rows in args.sizes} for id in ids}
    print(table(found))
    if args.figure:
        draw(found, args.figure)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
