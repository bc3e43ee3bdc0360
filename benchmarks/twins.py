"""What each fast part of `metarl.fast` is worth: the time of some work with its plain twin, against that with it.

``python -m benchmarks.twins [--rounds N] [--device cpu]``: an iteration of RL² (Navigation2D, 128 tasks, a GRU of 64),
one of MAML with PPO (Navigation2D, 20 × 20 trajectories), and 1,000 rows of a maze stepped 200 times. All variants of
a work alternate, so that a machine whose speed drifts treats them alike; the table has medians of N rounds after one to
warm up. Above 1 the fast part is faster; that is what `metarl/fast/__init__.py` decides by.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.maml import PPOStep
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.rollout import run_trial
from metarl.fast import twins
from metarl.fast.runtime import resolve_device, tune

Work = Callable[[], object]


def iteration(config: RL2Config | MAMLConfig, device: torch.device) -> Work:
    """One iteration of an agent on Navigation2D, on the same tasks every time."""
    family = metarl.make("metarl/Navigation2D-v0")
    agent = config.build(family, 0, device)
    tasks, key = family.sample_tasks(rng.key(0, device), config.meta_batch_size), rng.key(1, device)
    return lambda: agent.update(run_trial(agent, family, tasks, key))


def stepping(device: torch.device) -> Work:
    """A thousand rows of DarkRoom, stepped 200 times."""
    family, key = metarl.make("metarl/DarkRoomHard-v0"), rng.key(0, device)
    tasks = family.sample_tasks(key, 1000)
    actions = rng.integers(rng.fold(key, torch.arange(200_000, device=device)), 1, 5).reshape(200, 1000)

    def play() -> None:
        env = make_env(family, tasks, key)
        env.reset()
        for action in actions:
            env.step(action)

    return play


def works(device: torch.device) -> dict[str, Work]:
    return {
        "RL²": iteration(RL2Config(meta_batch_size=128, hidden_size=64), device),
        "MAML with PPO": iteration(MAMLConfig(outer=PPOStep()), device),
        "stepping": stepping(device),
    }


def measure(work: Work, parts: list[str], rounds: int) -> dict[str, float]:
    """Median seconds with every fast part (under ""), and without each part in turn."""
    found: dict[str, list[float]] = {part: [] for part in ("", *parts)}
    for number in range(rounds + 1):
        for part, seconds in found.items():
            with twins.plain(part) if part else contextlib.nullcontext():
                start = time.perf_counter()
                work()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            if number:  # the first round warms up
                seconds.append(time.perf_counter() - start)
    return {part: statistics.median(seconds) for part, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds, after one to warm up (default: 7)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    args = parser.parse_args()
    tune(1)
    parts = [*twins.registered_parts(), twins.STEPPING]
    table = Table("part", *(works_of := works(resolve_device(args.device))), title="Time with the plain twin, relative")
    medians = {name: measure(work, parts, args.rounds) for name, work in works_of.items()}
    for part in parts:
        table.add_row(part, *(f"{found[part] / found['']:.2f}" for found in medians.values()))
    table.add_row("seconds, all fast", *(f"{found['']:.3f}" for found in medians.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
