"""Environment steps per second of metarl and of its peers on the same work, side by side.

``python -m benchmarks.run [--work W1 W1n100 W2 W3 W3ppo W4 W4n512 W4bodies W5 W5families] [--peers]
[--peers-python PYTHON]`` prints a table and writes a JSON file; ``--table FILE.json …`` prints the Markdown of such
files instead. ``--device cuda --rows 16384`` measures metarl on a GPU, where a work of its own size would not fill it.

Every contender runs in a process of its own, pinned to the same cores, and stays alive: after two rounds to warm up
(compilation is outside of the timing) the contenders of a work take turns, one round each, so that a machine whose
speed drifts treats them alike. A round repeats the work for at least `--seconds`. A peer that is not installed is
reported as missing. Install the peers of `benchmarks/requirements-peers.txt` beside the project or, with
``--peers-python``, in an environment of their own (which needs the project's dependencies only for TorchRL's torch).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from benchmarks.works import CONTENDERS, FAMILIES, WORKS, Contender, Work, contenders, expand, resized

ROOT = Path(__file__).parent.parent
HEADINGS = ("work", "contender", "steps/s", "min – max", "metarl is … times as fast")


class Process:
    """A contender that answers. `missing` says why it cannot take part, or what it died of."""

    def __init__(
        self,
        contender: Contender,
        work: Work,
        python: str,
        cores: list[int],
        small: bool,
        variables: Mapping[str, str] | None = None,  # of its environment, in place of those that are set otherwise
    ) -> None:
        self.missing: str | None = None
        self.versions: dict[str, str] = {}
        self.errors: TextIO = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        number, threads = str(CONTENDERS.index(contender)), str(len(cores))
        command = [python, "-m", "benchmarks.contender", number, work.name, "--threads", threads]
        command += ["--rows", str(work.rows), "--device", work.device]
        try:
            self.process = subprocess.Popen(
                command + ["--tiny"] * small,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                cwd=ROOT,
                env=environment(cores) | dict(variables or {}),
            )
        except OSError as error:
            self.missing = f"{python}: {error.strerror}"
            return
        answer = self._answer()
        self.missing = self.missing or answer.get("missing")
        self.versions = answer.get("ready", {})

    def round(self, seconds: float) -> dict[str, Any] | None:
        """One timed round; None if it cannot take part."""
        if self.missing is not None or self.process.stdin is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        return self._answer() or None

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        self.missing = f"failed: {said[-1] if said else 'without a word'}"
        return {}

    def close(self) -> None:
        """End it and wait for that."""
        if "process" in vars(self):
            with contextlib.suppress(BrokenPipeError):
                self.process.communicate()
        self.errors.close()


def environment(cores: list[int]) -> dict[str, str]:
    """The variables of a contender's process: as many threads as cores in every library that keeps a pool."""
    threads = str(len(cores))
    pools = {f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    flags = "--xla_cpu_multi_thread_eigen=" + ("true" if len(cores) > 1 else "false")
    own = {"METARL_CORES": ",".join(map(str, cores)), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **pools, **own}


def measure(
    work: Work, peers: bool, rounds: int, seconds: float, cores: list[int], peers_python: str, small: bool = False
) -> dict[str, Any]:
    """The entry of one work: every contender's rounds, or why it has none."""
    running: list[tuple[Contender, Process]] = []
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for contender in contenders(work, peers):
            python = peers_python if contender.peers_python else sys.executable
            running.append((contender, Process(contender, work, python, cores, small)))
        for number in range(-2, rounds):
            for contender, process in running:
                result = process.round(0.0 if number == -2 else seconds)
                if number >= 0 and result is not None:
                    found.setdefault(contender.name, []).append(result)
    finally:
        for _, process in running:
            process.close()
    entries: dict[str, Any] = {}
    for contender, process in running:
        if process.missing is not None:
            entries[contender.name] = {"missing": process.missing}
        else:
            results = found.get(contender.name, [])
            entries[contender.name] = {
                "versions": process.versions,
                "differs": contender.differs,
                "rounds": results,
                "steps_per_second": [result["steps"] / result["seconds"] for result in results],
            }
    return {"title": work.title, "contenders": entries}


def machine(cores: list[int], device: str = "cpu") -> dict[str, Any]:
    """What the numbers belong to."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(cores),
        "device": device_name(device),
        "cores_of_machine": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def device_name(device: str) -> str:
    """The GPU's name for itself, or "cpu"."""
    if device == "cpu":
        return device
    import torch

    return str(torch.cuda.get_device_name())


def cpu_model() -> str:
    """The processor's name for itself, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The lines of the table, in the order of `HEADINGS`."""
    for work in result["works"].values():
        ours = work["contenders"].get("metarl", {}).get("steps_per_second")
        for name, entry in work["contenders"].items():
            if "missing" in entry:
                yield work["title"], name, "–", entry["missing"], ""
                continue
            speeds = entry["steps_per_second"]
            median = statistics.median(speeds)
            ratio = "" if name == "metarl" or not ours else f"{statistics.median(ours) / median:.2f}"
            yield work["title"], name, f"{median:,.0f}", f"{min(speeds):,.0f} – {max(speeds):,.0f}", ratio


def caption(result: dict[str, Any]) -> str:
    """Machine, date, rounds and versions in one sentence."""
    versions: dict[str, str] = {}
    for work in result["works"].values():
        for entry in work["contenders"].values():
            versions |= entry.get("versions", {})
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    gpu = f"{result['device']}, " if result.get("device", "cpu") != "cpu" else ""
    where = f"{gpu}{result['cpu']}, {result['cores']} core(s), {result['date'][:10]}"
    return f"{where}; medians of {result['rounds']} alternating rounds; {libraries}."


def markdown(result: dict[str, Any]) -> str:
    """The table of a result, its caption, and what differs between the contenders."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| --- | --- | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(result)]
    differs: dict[str, str] = {}
    for work in result["works"].values():
        differs |= {name: e["differs"] for name, e in work["contenders"].items() if e.get("differs")}
    notes = [f"- {name}: {text}" for name, text in differs.items()]
    return "\n".join([*lines, "", caption(result), *([""] if notes else []), *notes])


def pinned(threads: int) -> list[int]:
    """The cores that every contender runs on. Raises ValueError if this process may not use that many."""
    if sys.platform == "linux":
        free = sorted(os.sched_getaffinity(0))
    else:
        free = list(range(os.cpu_count() or 1))
    if not 1 <= threads <= len(free):
        raise ValueError(f"threads must lie between 1 and {len(free)}, the cores of this process, got {threads}.")
    return free[:threads]


def main(arguments: list[str] | None = None) -> None:
    names = [*WORKS, FAMILIES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", nargs="+", metavar="WORK", default=names, help=f"default: {' '.join(names)}; or W5:ID"
    )
    parser.add_argument("--peers", action="store_true", help="measure the peers, too")
    parser.add_argument("--peers-python", default=sys.executable, help="the interpreter that has JAX and TorchRL")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each contender (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="least time of a round (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="cores, and threads of every library (default: 1)")
    parser.add_argument("--rows", type=int, help="tasks, or rows, in place of each work's own number")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of metarl; peers run on a CPU")
    parser.add_argument("--out", type=Path, help="the JSON file (default: benchmarks/results/DATE_THREADS.json)")
    parser.add_argument("--table", type=Path, nargs="+", metavar="JSON", help="print the Markdown of these files")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.table:
        print("\n\n".join(markdown(json.loads(path.read_text("utf-8"))) for path in args.table))
        return
    try:
        works = [resized(work, args.rows, args.device) for work in expand(args.work)]
        cores = pinned(args.threads)
    except ValueError as error:
        parser.error(str(error))
    if args.rounds < 1:
        parser.error(f"rounds must be at least 1, got {args.rounds}.")
    if args.peers and args.device != "cpu":
        parser.error("peers are measured on a CPU only: leave out --peers or --device cuda.")
    if args.device != "cpu":
        from metarl.fast.runtime import resolve_device

        try:
            resolve_device(args.device)
        except ValueError as error:
            parser.error(str(error))
    result: dict[str, Any] = machine(cores, args.device) | {"rounds": args.rounds, "seconds": args.seconds, "works": {}}
    out = args.out or ROOT / "benchmarks" / "results" / f"{result['date'][:10]}_{len(cores)}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    for work in works:
        print(f"{work.name}: {work.title}", file=sys.stderr, flush=True)
        result["works"][work.name] = measure(
            work, args.peers, args.rounds, args.seconds, cores, args.peers_python, args.tiny
        )
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")  # a long run that is ended keeps its part
    show(result)


def show(result: dict[str, Any]) -> None:
    """The table on the screen."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=caption(result))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row in rows(result):
        table.add_row(*row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
