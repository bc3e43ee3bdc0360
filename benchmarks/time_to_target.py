"""Seconds of training until a preset reaches a target on held-out tasks: the number that users feel.

``python -m benchmarks.time_to_target [TARGET …] [--seeds 1 2 3] [--threads 1] [--parallel 1] [--out FILE]`` trains each
preset, evaluates it often on many tasks, and stops it when the mean reaches the target. Evaluations do not count as
training time. Presets are made for where they end; with fewer tasks in an iteration they are sooner near to it. The
table has the median over the seeds; a seed that ends below the target is shown as such.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple


class Target(NamedTuple):
    """What a preset has to reach."""

    preset: str
    what: str
    tag: str
    value: float
    sooner: tuple[str, ...]  # options of the preset that lead there faster
    evaluation: tuple[str, ...]
    student: tuple[str, ...] = ()  # a preset and its options that are trained first, to start from; its seconds count


TARGETS = {
    "bandit": Target(
        "rl2_bernoulli_bandit",
        "RL², bandit, 5 arms, 100 pulls: return of a trial",
        "eval/valid/score",
        77.5,
        ("--agent.meta_batch_size=384", "--agent.num_minibatches=3"),
        ("--eval_every=10", "--eval_tasks=20000"),
    ),
    "gridnavi": Target(
        "rl2_gridnavi",
        "RL², GridNavi: return of a trial",
        "eval/all/score",
        35.0,
        ("--agent.meta_batch_size=256",),
        ("--eval_every=5", "--eval_tasks=2000"),
    ),
    "bandit_student": Target(
        "dagger_bernoulli_bandit",
        "DAgger of the Gittins index, bandit, 5 arms, 100 pulls: return of a trial",
        "eval/valid/score",
        77.5,
        (),
        ("--eval_every=10", "--eval_tasks=20000"),
    ),
    "gridnavi_student": Target(
        "dagger_gridnavi",
        "DAgger of the Bayes-optimal sweep, GridNavi: return of a trial",
        "eval/all/score",
        35.0,
        (),
        ("--eval_every=10", "--eval_tasks=2000"),
    ),
    "gridnavi_from_student": Target(
        "rl2_gridnavi",
        "RL², GridNavi, from a student of a player that is told the goal: return of a trial",
        "eval/all/score",
        35.0,
        ("--agent.meta_batch_size=256",),
        ("--eval_every=5", "--eval_tasks=2000"),
        student=("dagger_gridnavi", "--agent.teacher=optimal", "--agent.labels=sampled", "--total_iterations=40"),
    ),
    "maml": Target(
        "maml_navigation2d",
        "MAML, Navigation2D: return after one gradient step",
        "eval/valid/round_01",
        -11.7,
        ("--agent.meta_batch_size=20",),
        ("--eval_every=5", "--eval_tasks=400"),
    ),
}


class Reached(NamedTuple):
    """When a run reached its target."""

    seed: int
    seconds: float  # of training
    env_steps: int
    iterations: int
    value: float | None  # None: it ended below the target
    best: float | None = None  # the highest that was seen; None: it was never evaluated


def records(path: Path, process: subprocess.Popen[bytes], limit: float = math.inf) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl as they are written, until the run ends or for `limit` seconds."""
    number, end = 0, time.monotonic() + limit
    while True:
        over = process.poll() is not None or time.monotonic() >= end
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        for line in lines[number:]:
            if line.endswith("\n"):
                number += 1
                yield json.loads(line)
        if over:
            return
        time.sleep(0.2)


def reach(target: Target, seed: int, threads: int, options: tuple[str, ...] = (), limit: float = math.inf) -> Reached:
    """Train one seed until it reaches the target, to its end, or until `limit` seconds by the clock have passed.

    A student is trained before that, to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        run, student = Path(folder) / "run", Path(folder) / "student"
        given = ["--config", target.preset, f"--seed={seed}", f"--num_threads={threads}", f"--run_dir={run}"]
        given += ["--final_eval_tasks=0", "--checkpoint_every=1000000", *target.sooner, *target.evaluation, *options]
        seconds, steps, iterations, best = 0.0, 0, 0, -math.inf
        if target.student:
            device = tuple(option for option in options if option.startswith("--device"))
            seconds, steps = train_student((*target.student, *device), seed, threads, student)
            given.append(f"--init_from={student}")
        before = steps
        command = [sys.executable, "-m", "metarl.train", *given]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for record in records(run / "metrics.jsonl", process, limit):
            seconds += record["time/collect"] + record["time/update"]
            steps, iterations = before + record["env_steps"], record["iteration"]
            best = max(best, record.get(target.tag, -math.inf))
            if best >= target.value:
                process.send_signal(signal.SIGINT)
                process.communicate()
                return Reached(seed, seconds, steps, iterations, best, best)
        if stopped := process.poll() is None:  # its time is over
            process.kill()
        _, said = process.communicate()
        if process.returncode and not stopped:
            raise RuntimeError(f"{' '.join(command)} failed: {said.decode().strip()}")
    return Reached(seed, seconds, steps, iterations, None, best if math.isfinite(best) else None)


def train_student(student: Sequence[str], seed: int, threads: int, run: Path) -> tuple[float, int]:
    """Train a student to its end; return its seconds of training and its environment steps."""
    preset, *options = student
    given = ["--config", preset, f"--seed={seed}", f"--num_threads={threads}", f"--run_dir={run}", *options]
    command = [sys.executable, "-m", "metarl.train", *given, "--eval_every=0", "--final_eval_tasks=0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return sum(each["time/collect"] + each["time/update"] for each in records), records[-1]["env_steps"]


def row(target: Target, results: list[Reached]) -> str:
    """A line of the table."""
    missed = sum(result.value is None for result in results)
    seconds, steps = ([getattr(r, name) for r in results] for name in ("seconds", "env_steps"))
    each = ", ".join("not reached" if r.value is None else f"{r.seconds:.0f}" for r in results)
    median = "not reached" if missed * 2 > len(results) else f"**{statistics.median(seconds):.0f}**"
    words = [target.preset, *target.sooner, *(("after", *target.student) if target.student else ())]
    options = " ".join(word if word == "after" else f"`{word}`" for word in words)
    reached = f"{target.what} ≥ {target.value:g}"
    return f"| {reached} | {options} | {median} | {each} | {statistics.median(steps) / 1e6:.1f} M |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: {', '.join(TARGETS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each run")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the numbers to this file")
    args = parser.parse_args()
    if wrong := sorted(set(args.targets) - set(TARGETS)):
        parser.error(f"unknown target {wrong[0]!r}; known: {', '.join(TARGETS)}")
    print("| target | options | seconds of training, median | each seed | environment steps |", flush=True)
    print("|---|---|---|---|---|", flush=True)
    found = {}
    for name in args.targets or TARGETS:
        target = TARGETS[name]
        with ThreadPoolExecutor(args.parallel) as pool:
            results = list(pool.map(lambda seed, target=target: reach(target, seed, args.threads), args.seeds))
        print(row(target, results), flush=True)
        found[name] = [result._asdict() for result in results]
    if args.out:
        about = {
            "threads": args.threads,
            "parallel": args.parallel,
            "machine": platform.processor() or platform.machine(),
        }
        args.out.write_text(json.dumps(about | {"targets": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
