"""What do several processes bring? Iterations by one process, by two threads and by two ranks; the all-reduce's cost.

``python -m benchmarks.ranks [--iterations 20] [--repeats 5] [--out DIR]`` measures, in turn and on the same machine:

1. an iteration (rollout and update) of some presets by one process with one thread, by one with two threads, and by two
   ranks of one thread each, connected by gloo;
2. the time of one all-reduce of P numbers between two ranks on this machine, which a line latency + P / bandwidth is
   fitted to;
3. a *model* of larger machines: an iteration takes compute / ranks + reductions · all-reduce(P, ranks), with the
   compute and the number of reductions measured here, and a ring's time (Patarasuk & Yuan 2009) for stated links. It
   is arithmetic, no measurement, and knows nothing of stragglers.

Other processes disturb it: leave both cores to it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from metarl.fast.runtime import tune
from metarl.learning import ranks
from metarl.training.checkpoint import Counters
from metarl.training.config import parsing
from metarl.training.loop import Iteration

PRESETS = ("rl2_navigation2d", "rl2_gridnavi", "maml_navigation2d", "promp_navigation2d")
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LINKS = {"8 GPUs in a machine": (20e-6, 100e9), "8 machines, 10 Gbit/s": (100e-6, 1.25e9)}
"""Assumed latency in seconds and bandwidth in bytes a second of one link."""
MODELLED = (2, 4, 8, 16, 64)


def measure(preset: str, iterations: int, threads: int) -> dict[str, float]:
    """The median time of an iteration of this rank, after three to warm up, its all-reduces and parameters."""
    tune(threads)
    config = parsing.read(preset, ["--eval_every=0", "--final_eval_tasks=0"])
    agent = config.agent.build(config.family, 1, torch.device("cpu"))
    iterate, done, times = Iteration(agent, config, torch.device("cpu")), Counters(), []
    calls, plain = 0, dist.all_reduce

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return plain(*args, **kwargs)

    dist.all_reduce = counted
    for _ in range(iterations + 3):
        start = time.perf_counter()
        done = iterate(done).done
        times.append(time.perf_counter() - start)
    dist.all_reduce = plain
    parameters = sum(p.numel() for p in agent.net.parameters())
    return {
        "seconds": statistics.median(times[3:]),
        "reductions": calls / (iterations + 3),
        "parameters": float(parameters),
    }


def all_reduces(repeats: int = 50) -> dict[str, float]:
    """The median time of one all-reduce by its number of float32."""
    found = {}
    for size in SIZES:
        x, times = torch.ones(size), []
        for _ in range(repeats):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(x)
            times.append(time.perf_counter() - start)
        found[str(size)] = statistics.median(times)
    return found


def worker(task: str, iterations: int, threads: int) -> None:
    """Measure as one rank; rank 0 prints the result."""
    ranks.start(torch.device("cpu"))
    found = all_reduces() if task == "all_reduce" else measure(task, iterations, threads)
    if ranks.rank() == 0:
        print(json.dumps(found))
    ranks.stop()


def launch(task: str, iterations: int, world_size: int, threads: int) -> dict[str, float]:
    """Measure `task` with some ranks of some threads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    place |= {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.ranks", "--worker", task, "--iterations", str(iterations)]
    running = [
        subprocess.Popen(
            [*command, "--threads", str(threads)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    texts = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"A process of {task} failed.")
    found: dict[str, float] = json.loads(texts[0].splitlines()[-1])
    return found


def by_link(reduction_bytes: float, world_size: int, latency: float, bandwidth: float) -> float:
    """Seconds of a ring's all-reduce: 2 (R - 1) messages, of 1 / R of the bytes each."""
    return 2 * (world_size - 1) * (latency + reduction_bytes / world_size / bandwidth)


def modelled(row: dict[str, Any]) -> dict[str, dict[int, float]]:
    """The speed-up that the model gives by link and number of ranks, from a preset's row."""
    found: dict[str, dict[int, float]] = {}
    for name, (latency, bandwidth) in LINKS.items():
        found[name] = {}
        for world_size in MODELLED:
            talk = row["reductions"] * by_link(4 * row["parameters"], world_size, latency, bandwidth)
            found[name][world_size] = row["one"] / (row["one"] / world_size + talk)
    return found


def run(iterations: int, repeats: int) -> dict[str, Any]:
    """All measurements; the variants of a preset alternate."""
    result: dict[str, Any] = {"presets": {}, "cores": os.cpu_count()}
    variants = {"one": (1, 1), "two threads": (1, 2), "two ranks": (2, 1)}
    for preset in PRESETS:
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        for _ in range(repeats):
            for name, (world_size, threads) in variants.items():
                rounds[name].append(launch(preset, iterations, world_size, threads))
        row: dict[str, Any] = {
            name: statistics.median(each["seconds"] for each in found) for name, found in rounds.items()
        }
        row |= {name: rounds["two ranks"][0][name] for name in ("reductions", "parameters")}
        result["presets"][preset] = row | {"model": modelled(row)}
    result["all_reduce"] = launch("all_reduce", 0, 2, 1)
    sizes = np.array([float(size) for size in result["all_reduce"]])
    times = np.array([*result["all_reduce"].values()])
    # Relative errors count, so that small sizes say the latency.
    slope, latency = np.polyfit(sizes * 4, times, 1, w=1 / times)
    result["all_reduce_line"] = {"latency": latency, "bytes_per_second": 1 / slope}
    return result


def show(result: dict[str, Any], console: Console) -> None:
    table = Table("preset", "one process, ms", "two threads", "two ranks", "all-reduces", "parameters")
    for preset, row in result["presets"].items():
        ratios = [f"{row['one'] / row[name]:.2f} ×" for name in ("two threads", "two ranks")]
        table.add_row(
            preset, f"{1000 * row['one']:.0f}", *ratios, f"{row['reductions']:.0f}", f"{row['parameters']:.0f}"
        )
    console.print(table)
    reduce = Table("numbers", "all-reduce, ms")
    for size, seconds in result["all_reduce"].items():
        reduce.add_row(f"{int(size):,}", f"{1000 * seconds:.3f}")
    console.print(reduce)
    model = Table("model: speed-up", "link", *(f"{n} ranks" for n in MODELLED))
    for preset, row in result["presets"].items():
        for link, speeds in row["model"].items():
            model.add_row(preset, link, *(f"{speed:.1f}" for speed in speeds.values()))
    console.print(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.iterations, given.threads)
        return
    result = run(given.iterations, given.repeats)
    show(result, Console(width=110))
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "ranks.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
