"""Measure metarl on a GPU, in one command that ends in time.

``python -m benchmarks.gpu [--out DIR] [--minutes 6] [--device cuda|cpu] [--tiny]`` goes through the sections of
`benchmarks.gpu.sections` in their order: the machine and its ceilings, the tests marked ``gpu``, what can be captured,
steps per second, the JAX peer's, seconds to a target, CPU against GPU, and where the time goes. Each section runs in a
process of its own and has its share of the time; what it does not use is left to the next ones. A section that fails
or hangs loses its own rest and nothing else. Every result is written to ``DIR/gpu.json`` as soon as it is there. A
table of at most 40 lines comes last.

``--device cpu --tiny`` rehearses all of it without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.children import lines_of
from benchmarks.gpu.table import table
from metarl.finite import to_json

ROOT = Path(__file__).parents[2]


class Section(NamedTuple):
    """A part of the measurement: a function of `benchmarks.gpu.sections`, and its share of the time."""

    name: str
    title: str
    share: float


SECTIONS = (
    Section("machine", "versions and ceilings", 0.06),
    Section("tests", "tests marked gpu", 0.22),
    Section("capture", "what is captured", 0.08),
    Section("speed", "environment steps per second", 0.26),
    Section("peer", "the same by JAX", 0.14),
    Section("targets", "seconds to a target", 0.13),
    Section("parity", "CPU against the device", 0.06),
    Section("kernels", "where the time goes", 0.05),
)

Run = Callable[[Section, float, Callable[[dict[str, Any]], None]], str]


def measure(run: Run, minutes: float, write: Callable[[Mapping[str, Any]], None], clock: Callable[[], float]) -> Any:
    """Go through the sections: `run` (section, seconds, what takes a result) does one and returns how it ended.

    `write` is called with everything that is known whenever something is new. Returns that.
    """
    found: dict[str, Any] = {"minutes": minutes, "sections": {}}
    start, shares = clock(), sum(section.share for section in SECTIONS)
    due = 0.0
    for section in SECTIONS:
        due += 60.0 * minutes * section.share / shares  # what earlier sections left over is this one's
        begun = clock()
        entry: dict[str, Any] = {"title": section.title, "status": "running", "seconds": 0.0, "results": []}
        found["sections"][section.name] = entry
        write(found)

        def take(result: dict[str, Any], entry: dict[str, Any] = entry) -> None:
            entry["results"].append(result)
            write(found)

        seconds = start + due - begun
        entry["status"] = run(section, seconds, take) if seconds > 0.0 else "no time was left"
        entry["seconds"] = round(clock() - begun, 1)
        write(found)
    return found


def in_a_process(device: str, tiny: bool, out: Path) -> Run:
    """Runs a section in a process, whose lines are its results."""

    def run(section: Section, seconds: float, take: Callable[[dict[str, Any]], None]) -> str:
        print(f"-- {section.title} ({seconds:.0f} s)", flush=True)

        def said(result: dict[str, Any]) -> None:
            print(f"   {to_json(result, ensure_ascii=False)}"[:200], flush=True)
            take(result)

        command = [sys.executable, "-m", "benchmarks.gpu.sections", section.name, "--device", device]
        command += ["--seconds", f"{seconds:.1f}", "--out", str(out), *(["--tiny"] if tiny else [])]
        status = lines_of(command, seconds, said, environment())
        if status != "done":
            print(f"   {status}", flush=True)
        return status

    return run


def environment() -> dict[str, str]:
    """Variables of the sections' processes: this checkout before any installed one, and memory left to neighbours."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}


def writer(path: Path) -> Callable[[Mapping[str, Any]], None]:
    """Writes all that is known to `path`, which is whole at every moment."""

    def write(found: Mapping[str, Any]) -> None:
        beside = path.with_suffix(".partial")
        beside.write_text(to_json(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(beside, path)

    return write


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="default: runs/gpu")
    parser.add_argument("--minutes", type=float, default=6.0, help="of the whole measurement (default: 6)")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda where there is one")
    parser.add_argument("--tiny", action="store_true", help="sizes that take no time: a rehearsal, no measurement")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("torch") is None:
        parser.error("torch is not installed.")
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu --tiny rehearses without one.")
    if not 0.0 < args.minutes < 600.0:
        parser.error(f"--minutes must lie between 0 and 600, got {args.minutes:g}.")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{args.out}: {error.strerror}.")
    path = args.out / "gpu.json"
    found = measure(in_a_process(device, args.tiny, args.out), args.minutes, writer(path), time.monotonic)
    print("\n".join(["", *table(found), f"All of it: {path}"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
