"""Environment steps per second: pure stepping, and end-to-end RL² training (rollout, advantages, 4 epochs).

``python -m benchmarks.steps [--threads N] [--rounds N]`` prints medians with minimum and maximum. One step is
one step of one row. The rounds of all items alternate, so that a machine whose speed drifts treats them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import metarl
from metarl.agents import RL2Config
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.family import TaskFamily
from metarl.core.rollout import run_trial
from metarl.fast.runtime import tune

WORK: dict[str, tuple[str, dict[str, int], int]] = {
    "Bernoulli bandit, 5 arms, 10 pulls": ("metarl/BernoulliBandit-v0", {"episodes_per_trial": 10}, 512),
    "Bernoulli bandit, 5 arms, 100 pulls": ("metarl/BernoulliBandit-v0", {"episodes_per_trial": 100}, 512),
    "Navigation2D, 5 episodes of 20 steps": ("metarl/Navigation2D-v0", {"episodes_per_trial": 5, "horizon": 20}, 256),
}


def stepping(family: TaskFamily, num_envs: int) -> Callable[[], int]:
    """One call steps `num_envs` rows through a trial with random actions drawn beforehand; returns the steps."""
    key = rng.key(0)
    task = family.sample_tasks(key, num_envs)
    env = make_env(family, task, key)
    acted, _ = RandomAgent(family).act((), env.reset(), rng.fold(key, torch.arange(num_envs)))
    steps = min(env.max_steps, 200)

    def call() -> int:
        env.reset()
        for _ in range(steps):
            env.step(acted.action)
        return steps * num_envs

    return call


def training(family: TaskFamily, num_tasks: int) -> Callable[[], int]:
    """One call is one iteration of RL² (GRU 128, 4 epochs of 4 minibatches); returns the steps."""
    agent = RL2Config(meta_batch_size=num_tasks, hidden_size=128).build(family, 0, torch.device("cpu"))
    key = rng.key(1)

    def call() -> int:
        trial = run_trial(agent, family, family.sample_tasks(key, num_tasks), key)
        agent.update(trial)
        return int(trial[0].mask.sum())

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up (default: 5)")
    parser.add_argument("--stepping_envs", type=int, default=4096, help="rows of the stepping items (default: 4096)")
    args = parser.parse_args()
    settings = tune(args.threads)
    items: dict[str, Callable[[], int]] = {}
    for name, (id, options, tasks) in WORK.items():
        family = metarl.make(id, **options)
        items[f"stepping, {args.stepping_envs} rows: {name}"] = stepping(family, args.stepping_envs)
        items[f"RL² training, GRU 128, {tasks} tasks: {name}"] = training(family, tasks)
    speeds: dict[str, list[float]] = {name: [] for name in items}
    for number in range(args.rounds + 1):
        for name, call in items.items():
            start = time.perf_counter()
            steps = call()
            if number:  # the first round warms up
                speeds[name].append(steps / (time.perf_counter() - start))
    threads = settings["threads"]
    table = Table(title=f"Environment steps per second, {threads} thread(s), torch {torch.__version__}")
    for heading in ("work", "median", "min", "max"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    for name, values in speeds.items():
        numbers = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(f"{value:,.0f}" for value in numbers))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
