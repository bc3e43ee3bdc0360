"""One iteration of MAML on Navigation2D: seconds, and environment steps per second, training included.

``python -m benchmarks.maml [--threads N] [--rounds N] [--variants NAME …] [--presets NAME …]``: 20 tasks × 20
trajectories × 100 steps before and again after one gradient step, a perceptron of 2 × 64 tanh units (80,000 steps an
iteration at most; steps after a trajectory's end do not count). The variants' iterations alternate, so that a machine
whose speed drifts treats them alike. With ``--presets`` the iterations are those of presets, at their own sizes. It
prints medians with minimum and maximum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import metarl
from metarl.agents import MAMLConfig
from metarl.agents.maml import PPOStep, ReptileStep, TRPOStep
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.rollout import run_trial
from metarl.fast.runtime import resolve_device, tune
from metarl.training.config import parsing as config

VARIANTS: dict[str, dict[str, Any]] = {
    "trpo": {"outer": "trpo"},
    "trpo, a fifth for Fisher products": {"outer": TRPOStep(fisher_share=0.2)},
    "ppo, 5 epochs": {"outer": "ppo"},
    "fomaml, trpo": {"outer": "trpo", "first_order": True},
    "anil, trpo": {"outer": "trpo", "adapted": "head"},
    "promp, 5 epochs": {"outer": PPOStep(inner_kl_coef=5e-4), "inner_loss": "likelihood_ratio"},
    "reptile": {"outer": ReptileStep(lr=0.5)},
}


def iteration(agent: LearningAgent, number: int) -> tuple[int, float, float]:
    """Steps taken, and seconds for the rollouts and for the update."""
    key = rng.fold(rng.key(0, agent.device), number)
    tasks = agent.family.sample_tasks(rng.fold(key, 0), agent.config.meta_batch_size)
    _wait(agent.device)
    start = time.perf_counter()
    trial = run_trial(agent, agent.family, tasks, rng.fold(key, 1))
    _wait(agent.device)
    middle = time.perf_counter()
    agent.update(trial)
    _wait(agent.device)
    end = time.perf_counter()
    return int(sum(rollout.mask.sum() for rollout in trial)), middle - start, end - middle


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="measured iterations, after one to warm up (default: 5)")
    parser.add_argument("--tasks", type=int, default=20, help="tasks of an iteration (default: 20)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--presets", nargs="+", metavar="NAME", help="time iterations of these presets instead")
    args = parser.parse_args()
    settings, device = tune(args.threads), resolve_device(args.device)
    if args.presets:
        title = "One iteration"
        configs = {name: config.parse(["--config", name]).config for name in args.presets}
        agents = {name: preset.agent.build(preset.family, 0, device) for name, preset in configs.items()}
    else:
        title = f"One iteration, {args.tasks} tasks × 20 trajectories × 100 steps"
        family = metarl.make("metarl/Navigation2D-v0")
        agents = {
            name: MAMLConfig(meta_batch_size=args.tasks, **VARIANTS[name]).build(family, 0, device)
            for name in args.variants
        }
    found: dict[str, list[tuple[int, float, float]]] = {name: [] for name in agents}
    for number in range(args.rounds + 1):
        for name, agent in agents.items():
            result = iteration(agent, number)
            if number:  # the first round warms up
                found[name].append(result)
    where = f"{settings['threads']} thread(s)" if device.type == "cpu" else torch.cuda.get_device_name()
    table = Table(title=f"{title}, {where}, torch {torch.__version__}")
    for heading in ("variant", "seconds", "rollouts", "update", "steps/s", "min", "max"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, results in found.items():
        speeds = [steps / (rollouts + update) for steps, rollouts, update in results]
        times = [statistics.median(t) for t in ([r + u for _, r, u in results], *list(zip(*results, strict=True))[1:])]
        numbers = [f"{value:.3f}" for value in times]
        table.add_row(name, *numbers, *(f"{s:,.0f}" for s in (statistics.median(speeds), min(speeds), max(speeds))))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
