"""Peak memory of training: every preset, and the long trials that chunked back-propagation is for.

``python -m benchmarks.memory [PRESET …] [--out FILE]`` trains each for a few iterations in a process of its own and
prints a Markdown table: peak resident memory of the whole process, and of the GPU's where there is one. The first row
is what importing everything takes. One evaluation is included, of as many tasks as the preset's own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from metarl.training.config import parsing as config


class Case(NamedTuple):
    """A training run to measure."""

    name: str
    config: str
    options: tuple[str, ...] = ()


LONG = (
    "--family=metarl/BernoulliBandit-v0",
    "--family.num_arms=5",
    "--family.episodes_per_trial=500",
    "--agent.meta_batch_size=512",
)
LONGER = (
    "--family=metarl/TwoStep-v0",
    "--family.rounds=1000",
    "--family.episodes_per_trial=1",
    "--agent.meta_batch_size=256",
)
LONG_TRIALS = (
    Case("bandit, 500 pulls, 512 tasks", "rl2_bernoulli_bandit", LONG),
    Case("the same, chunk_length 100", "rl2_bernoulli_bandit", (*LONG, "--agent.chunk_length=100")),
    Case("two-step task, 2000 steps, 256 tasks", "rl2_bernoulli_bandit", LONGER),
    Case("the same, chunk_length 100", "rl2_bernoulli_bandit", (*LONGER, "--agent.chunk_length=100")),
)


def peak(command: list[str]) -> float:
    """Run a command to its end: its peak resident memory in MB.

    The system's own count for a finished child begins with what its *parent* had, so the high-water mark is read while
    it runs; what it grew in its last twentieth of a second is missed.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    highest = 0.0
    while process.poll() is None:
        highest = max(highest, high_water(process.pid))
        time.sleep(0.05)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said.strip()}")
    return highest


def high_water(pid: int) -> float:
    """Peak resident memory of a running process so far, in MB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return float(found[1]) / 1024 if found else 0.0  # a process that has just ended has no memory


def measure(case: Case, iterations: int) -> dict[str, float | None]:
    """Peak memory in MB of some iterations and one evaluation; "device" is None without a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        few = (f"--total_iterations={iterations}", f"--eval_every={iterations}", "--final_eval_tasks=0")
        start = [sys.executable, "-m", "metarl.train", "--config", case.config]
        resident = peak([*start, *case.options, *few, "--num_threads=1", f"--run_dir={run}"])
        last = json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    return {"resident": resident, "device": last.get("time/device_memory")}


def main() -> None:
    names = config.presets()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the numbers to this file")
    args = parser.parse_args()
    if wrong := sorted(set(args.presets) - set(names)):
        parser.error(f"unknown preset {wrong[0]!r}; known: {', '.join(names)}")
    cases = [Case(f"`{name}`", name) for name in args.presets or names] + list(() if args.presets else LONG_TRIALS)
    imports = peak([sys.executable, "-c", "import metarl.train"])
    print("| training | peak resident MB | peak device MB |\n|---|---|---|", flush=True)
    print(f"| importing alone | {imports:.0f} | |", flush=True)
    found: list[dict[str, object]] = [{"training": "importing alone", "resident": imports, "device": None}]
    for case in cases:
        numbers = measure(case, args.iterations)
        device = "" if numbers["device"] is None else f"{numbers['device']:.0f}"
        print(f"| {case.name} | {numbers['resident']:.0f} | {device} |", flush=True)
        found.append({"training": case.name, **numbers})
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
