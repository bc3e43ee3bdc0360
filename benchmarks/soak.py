"""Hours of kills: small runs are killed at random moments and resumed; others are left alone, and their memory watched.

``python -m benchmarks.soak --minutes 60 [--out DIR]`` does two things, each for half of the time, for RL², MAML and PPO
in turn, with evaluations:

- *Kills*: a run is ended by SIGKILL, SIGTERM or SIGINT at a random moment, from its first second on, and resumed, until
  it is finished. It must then be bit for bit the run that nothing interrupted: all tensors, the logged metrics but
  times, TensorBoard's points, the evaluation at the end. No process may be left behind by any of its starts.
- *Memory*: a run is left alone. Its resident memory is fitted by a straight line after a warm-up, in which the first
  figure is drawn; the slope must be 0 within its error. Files and threads must not become more.

It prints a Markdown table, writes DIR/soak.json, and returns 1 if anything of this fails. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.training import checkpoint

CASES = {
    "RL²": ("rl2_gridnavi", "--agent.meta_batch_size=64", "--agent.hidden_size=32"),
    "MAML": ("maml_navigation2d", "--agent.meta_batch_size=4", "--agent.fast_batch_size=5"),
    "PPO": ("ppo_gridnavi", "--agent.meta_batch_size=16", "--agent.batch_size=60", "--agent.test_steps=0"),
}
SMALL = ("--eval_every=5", "--eval_tasks=20", "--eval_splits=[valid]", "--checkpoint_every=4", "--num_threads=1")
"""Options of every run."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WARM_UP = 1 / 3
"""Share of a run that does not count for its memory: the first figure, after 20 seconds, imports a library."""
BLOCKS = 12
"""Means of successive samples, to which the line is fitted: samples themselves are not independent."""
PATIENCE = 300.0
"""The most seconds that a signal may take to end a program."""


class Line(NamedTuple):
    """A straight line through the resident memory of a process."""

    slope: float  # MB an hour
    error: float  # half of the slope's interval of 95 %
    first: float  # MB, the mean of the first block
    last: float

    @property
    def flat(self) -> bool:
        """True if the slope is 0 within its error."""
        return abs(self.slope) <= self.error


class Sample(NamedTuple):
    """What a process holds at one moment."""

    seconds: float
    memory: float  # MB resident
    files: int
    threads: int


def line(seconds: list[float], memory: list[float]) -> Line:
    """Fit a line to means of blocks. Raises ValueError for fewer than two samples in each."""
    if len(seconds) < 2 * BLOCKS:
        raise ValueError(f"A line needs at least {2 * BLOCKS} samples, got {len(seconds)}.")
    at = np.array([block.mean() for block in np.array_split(np.array(seconds), BLOCKS)]) / 3600
    mean = np.array([block.mean() for block in np.array_split(np.array(memory), BLOCKS)])
    fit = stats.linregress(at, mean)
    error = float(stats.t.ppf(0.975, BLOCKS - 2) * fit.stderr)
    return Line(float(fit.slope), error, float(mean[0]), float(mean[-1]))


def command(case: str, run_dir: Path, iterations: int, last: int) -> list[str]:
    """Return the command that starts a run, or goes on with it."""
    name, *options = CASES[case]
    size = (f"--total_iterations={iterations}", f"--final_eval_tasks={last}", f"--run_dir={run_dir}")
    return [sys.executable, "-m", "metarl.train", name, *options, *SMALL, *size, "--auto_resume", "--quiet"]


def start(args: list[str], said: Path) -> subprocess.Popen[bytes]:
    """Start a program in a group of processes of its own; what it says goes to a file."""
    with said.open("wb") as file:
        return subprocess.Popen(args, stdout=file, stderr=file, start_new_session=True)


def words(said: Path) -> str:
    """Return the end of what a program said."""
    return said.read_text("utf-8", errors="replace").strip()[-300:]


def left_behind(group: int) -> bool:
    """Tell whether a process of a group is still there; end it if so."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def sample(pid: int, began: float) -> Sample:
    """Look at a process. Raises OSError if it has ended."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Sample(time.monotonic() - began, memory, len(os.listdir(folder / "fd")), len(os.listdir(folder / "task")))


def content(run_dir: Path) -> dict[str, Any]:
    """Return everything of a run that kills must not change."""
    state, counters = checkpoint.load_state(run_dir)
    best, _ = checkpoint.load_state(run_dir, which="best")
    lines = [json.loads(text) for text in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    found = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in found.Tags()["scalars"] if not tag.startswith("time/")]
    return {
        "tensors": {name: _bytes(value) for name, value in state.items()},
        "best": {name: _bytes(value) for name, value in best.items()},
        "counters": dataclasses.asdict(counters) | {"seconds": 0.0},
        "metrics": [{k: v for k, v in one.items() if not k.startswith(("time/", "seconds"))} for one in lines],
        "points": {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags},
        "evaluation": {path.name: path.read_text("utf-8") for path in (run_dir / "evaluation").glob("*.json")},
    }


def _bytes(value: torch.Tensor) -> tuple[str, bytes]:
    return f"{value.dtype} {tuple(value.shape)}", value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Kills:
    """Runs of one agent that are killed and resumed, and their uninterrupted twin."""

    def __init__(self, case: str, folder: Path, draw: random.Random, iterations: int) -> None:
        self.case, self.folder, self.draw, self.iterations = case, folder, draw, iterations
        self.signals: Counter[str] = Counter()
        self.starts = self.finished = self.left_behind = 0
        self.wrong: list[str] = []
        self.said = folder / f"{case}.txt"
        began = time.monotonic()
        self.twin = self._whole(folder / f"{case}_twin")
        self.seconds = time.monotonic() - began  # of a run that nothing interrupts
        self.run_dir = folder / f"{case}_1"

    def _whole(self, run_dir: Path) -> dict[str, Any]:
        process = start(command(self.case, run_dir, self.iterations, 10), self.said)
        if process.wait():
            raise RuntimeError(f"{self.case}, uninterrupted, failed: {words(self.said)}")
        return content(run_dir)

    def once(self) -> None:
        """Start or resume the run, and kill it after a random time; compare it if it comes to its end before."""
        process = start(command(self.case, self.run_dir, self.iterations, 10), self.said)
        self.starts += 1
        try:
            code = process.wait(self.draw.uniform(0.5, self.seconds))
        except subprocess.TimeoutExpired:
            chosen = self.draw.choice(SIGNALS)
            self.signals[chosen.name] += 1
            process.send_signal(chosen)
            code = process.wait(PATIENCE)
            if code not in (0, -chosen, 128 + chosen):
                self.wrong.append(f"{chosen.name}: exit code {code}: {words(self.said)}")
        else:
            if code:
                self.wrong.append(f"exit code {code}: {words(self.said)}")
        self.left_behind += left_behind(process.pid)
        if code == 0:
            self._compare()

    def _compare(self) -> None:
        found = content(self.run_dir)
        self.finished += 1
        if different := [name for name in self.twin if found[name] != self.twin[name]]:
            self.wrong.append(f"{self.run_dir.name} differs in {', '.join(different)}")
        self.run_dir = self.folder / f"{self.case}_{self.finished + 1}"

    def result(self) -> dict[str, Any]:
        """Return what happened, for the table."""
        shown = {"starts": self.starts, "signals": dict(self.signals), "finished": self.finished}
        return shown | {"left_behind": self.left_behind, "wrong": self.wrong}


def watch(case: str, run_dir: Path, seconds: float, every: float = 0.5) -> list[Sample]:
    """Leave a run alone for some time; return what it held."""
    said = run_dir.with_suffix(".txt")
    process, began, found = start(command(case, run_dir, 10**6, 0), said), time.monotonic(), []
    try:
        while time.monotonic() - began < seconds:
            found.append(sample(process.pid, began))
            time.sleep(every)
            if process.poll() is not None:
                raise RuntimeError(f"{case}, left alone, ended: {words(said)}")
    finally:
        process.kill()
        process.wait()
    return found


def memory_result(samples: list[Sample], warm_up: float) -> dict[str, Any]:
    """Return the line through the memory, and what grew besides."""
    kept = [one for one in samples if one.seconds >= warm_up]
    fitted = line([one.seconds for one in kept], [one.memory for one in kept])
    third = len(kept) // 3
    grown = {
        name: max(getattr(one, name) for one in kept[-third:]) - max(getattr(one, name) for one in kept[:third])
        for name in ("files", "threads")
    }
    return {**fitted._asdict(), "flat": fitted.flat, "samples": len(kept), **grown}


def soak(minutes: float, folder: Path, seed: int, iterations: int = 40) -> dict[str, Any]:
    """Do everything; return the numbers of each agent."""
    half, draw = minutes * 30.0, random.Random(seed)
    each = half / len(CASES)
    found: dict[str, Any] = {}
    for case in CASES:
        kills, began = Kills(case, folder, draw, iterations), time.monotonic()
        while time.monotonic() - began < each:
            kills.once()
        samples = watch(case, folder / f"{case}_alone", each)
        memory = memory_result(samples, WARM_UP * each)
        found[case] = {"kills": kills.result(), "memory": memory}
    return {"minutes": minutes, "seed": seed, "agents": found, "good": all(map(good, found.values()))}


def good(agent: dict[str, Any]) -> bool:
    """Tell whether everything that must hold for an agent held, and enough happened to tell."""
    kills, memory = agent["kills"], agent["memory"]
    held = not kills["wrong"] and not kills["left_behind"] and kills["finished"] > 0
    return held and memory["flat"] and memory["files"] <= 0 and memory["threads"] <= 0


def table(result: dict[str, Any]) -> str:
    """Write the numbers as a Markdown table."""
    head = (
        "agent",
        "starts",
        "KILL, TERM, INT",
        "finished",
        "as uninterrupted",
        "MB, first → last",
        "MB an hour",
        "held",
    )
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case, agent in result["agents"].items():
        kills, memory = agent["kills"], agent["memory"]
        counts = ", ".join(str(kills["signals"].get(each.name, 0)) for each in SIGNALS)
        same = kills["finished"] - sum("differs" in sentence for sentence in kills["wrong"])
        held = "yes" if good(agent) else "no"
        rows.append(
            f"| {case} | {kills['starts']} | {counts} | {kills['finished']} | {same} | {memory['first']:.1f} → "
            f"{memory['last']:.1f} | {memory['slope']:+.1f} ± {memory['error']:.1f} | {held} |"
        )
    wrong = [f"- {case}: {each}" for case, agent in result["agents"].items() for each in agent["kills"]["wrong"]]
    return "\n".join([*rows, *wrong])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder for soak.json and the runs; by default a new one"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the signals")
    args = parser.parse_args()
    folder = args.out or Path(tempfile.mkdtemp(prefix="soak_"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(path.name.startswith(tuple(CASES)) for path in folder.iterdir()):
        parser.error(f"{str(folder)!r} already has the runs of another soak: choose another --out.")
    result = soak(args.minutes, folder, args.seed)
    (folder / "soak.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{table(result)}\n\nEverything: {folder / 'soak.json'}", flush=True)
    return 0 if result["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
