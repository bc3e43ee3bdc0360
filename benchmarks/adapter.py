"""Steps per second of Gymnasium environments as families, next to Gymnasium's own vector environments.

``python -m benchmarks.adapter`` steps `metarl.envs.adapter.gym_family.GymFamily`, in process and with one and two
workers, and Gymnasium's SyncVectorEnv and AsyncVectorEnv, with the same environments and random actions that are drawn
beforehand. Episodes restart by themselves in all of them. Everything is pinned to one core (``--cores 2``: two). The
contenders of a row take turns, so that a machine whose speed drifts does not favour one of them; a speed is the median
of their rounds, by the clock. It writes ``benchmarks/results/adapter.json`` and, from it, the table of the docs.

``--table`` writes the table of the docs from the record again. Other processes disturb it: leave the machine to it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from gymnasium.wrappers import FilterObservation

import metarl
from benchmarks.ours import random_actions
from benchmarks.run import machine
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.family import AnyFamily
from metarl.envs.adapter.gym_family import find
from metarl.fast.runtime import tune

RECORD = Path(__file__).parent / "results" / "adapter.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
MARKS = ("<!-- adapter -->", "<!-- /adapter -->")
SIZES = (16, 64)
ACTIONS = 64
"""Different actions of a row; they repeat."""
EPISODES = 1_000_000
"""Episodes of a trial: more than are played."""


class Case(NamedTuple):
    """An environment, with one number that is the task."""

    where: str
    train: dict[str, list[float]]
    test: dict[str, list[float]] | None = None
    observe: tuple[str, ...] | None = None


CASES = {
    "CartPole-v1": Case("attribute:length", {"log_uniform": [0.25, 1.0]}),
    "LunarLander-v3": Case("attribute:gravity", {"uniform": [-11, -6]}),
    "HalfCheetah-v5": Case("model:opt.gravity[2]", {"uniform": [-12, -8]}),
    "MiniGrid-MultiRoom-N2-S4-v0": Case(
        "seed", {"integers": [0, 999]}, {"integers": [1000, 1099]}, ("image", "direction")
    ),
}

Stepper = Callable[[], object]
"""Steps all environments of a contender once."""


def family(env: str, workers: int = 0) -> AnyFamily:
    """Return the family of a case."""
    case = CASES[env]
    number = {"where": case.where, "train": case.train} | ({} if case.test is None else {"test": case.test})
    return metarl.make(
        "metarl/Gym-v0", env=env, parameters={"number": number}, observe=case.observe, workers=workers, shows_task=True
    )


def ours(env: str, rows: int, workers: int) -> Stepper:
    """Return what steps a batch of the family, with both endings, restarts and all inputs of an agent."""
    made, key = family(env, workers), rng.key(0)
    batch = make_env(made, made.sample_tasks(key, rows), key, episodes=EPISODES)
    actions, count = random_actions(made, ACTIONS, rows), 0
    batch.reset()

    def step() -> object:
        nonlocal count
        count += 1
        return batch.step(actions[count % ACTIONS])

    return step


def gymnasiums(env: str, rows: int, mode: str) -> Stepper:
    """Return what steps one of Gymnasium's vector environments, on the environment as it is."""
    observe = CASES[env].observe
    wrappers = [] if observe is None else [lambda each: FilterObservation(each, observe)]
    find(env)  # imports the package that registers it
    batch = gymnasium.make_vec(env, rows, vectorization_mode=mode, wrappers=wrappers)
    batch.action_space.seed(0)
    actions, count = [batch.action_space.sample() for _ in range(ACTIONS)], 0
    batch.reset(seed=0)

    def step() -> object:
        nonlocal count
        count += 1
        return batch.step(actions[count % ACTIONS])

    step.batch = batch  # type: ignore[attr-defined]
    return step


CONTENDERS: dict[str, Callable[[str, int], Stepper]] = {
    "metarl": lambda env, rows: ours(env, rows, 0),
    "metarl, 1 worker": lambda env, rows: ours(env, rows, 1),
    "metarl, 2 workers": lambda env, rows: ours(env, rows, 2),
    "SyncVectorEnv": lambda env, rows: gymnasiums(env, rows, "sync"),
    "AsyncVectorEnv": lambda env, rows: gymnasiums(env, rows, "async"),
}


def speed(step: Stepper, rows: int, seconds: float) -> float:
    """Return steps of a row per second, over at least this time."""
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        step()
        count += 1
    return rows * count / passed


def measure(env: str, rows: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the steps per second of every contender in each round, after one that warms up."""
    steppers = {name: make(env, rows) for name, make in CONTENDERS.items()}
    found: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(rounds + 1):
        for name, step in steppers.items():
            rate = speed(step, rows, seconds)
            if number:
                found[name].append(round(rate, 1))
    for step in steppers.values():
        if (batch := getattr(step, "batch", None)) is not None:
            batch.close()
    return found


def table(result: dict[str, Any]) -> str:
    """Return the caption and the table of a record, as Markdown."""
    lines = [
        f"{result['cpu']}, {result['cores']} core{'s' * (result['cores'] > 1)}, medians of {result['rounds']} "
        f"alternating rounds of {result['seconds']:g} s, {result['date'][:10]}. Steps of a row per second:",
        "",
        f"| environment | rows | {' | '.join(CONTENDERS)} |",
        "|---|---:|" + "---:|" * len(CONTENDERS),
    ]
    for env, sizes in result["works"].items():
        for rows, found in sizes.items():
            cells = (_short(statistics.median(found[name])) for name in CONTENDERS)
            lines.append(f"| {env} | {rows} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(result: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table of a record between the marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{table(result)}\n{MARKS[1]}{after}", encoding="utf-8")


def _short(number: float) -> str:
    return f"{number / 1e3:.3g} k" if number >= 1e3 else f"{number:.0f}"


def _pin(cores: int) -> list[int]:
    """Keep this process, and those that it starts, on the first of its cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("Processes can be pinned to cores on Linux only.")
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, chosen)
    return chosen


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(CASES), choices=list(CASES), metavar="ID")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of a contender")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RECORD, metavar="JSON")
    parser.add_argument("--table", action="store_true", help="only write the table of the docs from the record")
    args = parser.parse_args(arguments)
    if not args.table:
        tune(1)
        result: dict[str, Any] = machine(_pin(args.cores)) | {"rounds": args.rounds, "seconds": args.seconds}
        result["works"] = {env: {} for env in args.envs}
        for env in args.envs:
            for rows in args.sizes:
                result["works"][env][str(rows)] = measure(env, rows, args.rounds, args.seconds)
                print(table(result).splitlines()[-1], flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(args.out.read_text(encoding="utf-8"))
    print(table(result))
    if args.out.resolve() == RECORD.resolve():
        write_page(result)


if __name__ == "__main__":
    main()
