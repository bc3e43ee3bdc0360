"""All that is to be known of metarl on a GPU, in a few minutes.

``python -m benchmarks.gpu [--out DIR] [--minutes 6] [--device cuda|cpu] [--only LETTERS] [--tiny]`` measures, in this
order: (a) versions and ceilings of the device, (b) the tests marked `gpu`, (c) whether CUDA graphs are recorded,
(d) steps per second, (e) JAX's on the same device, (f) seconds to a target, (g) whether CPU and GPU compute the same,
(h) the kernels of an iteration. Every result is printed and written to ``DIR/gpu.json`` as it comes; ``DIR/gpu.log``
has what the measurements themselves print, exceptions above all. A section has its share of the time, and what it does
not need is the later ones'. What is not begun in time is skipped, what takes too long, hangs or crashes is ended and
noted, and the rest goes on. It ends with a table of at most 40 lines.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import agreement, ceilings, kernels, marked_tests, peer, recordings, speed, targets
from benchmarks.gpu.items import Forked, Inline, Item, Result, Worker, run, told
from benchmarks.gpu.report import Report, failure, short, table
from benchmarks.gpu.settings import NO_CUDA, Settings

RESERVE = 0.04
"""The share of the time that is kept for the start and the end."""


class Section(NamedTuple):
    """A part of the command: a module with ``items``, ``text``, and ``lines`` where the table has not one per item."""

    letter: str
    title: str
    module: Any
    share: float  # of the time


SECTIONS = (
    Section("a", "versions and ceilings", ceilings, 4),
    Section("b", "tests marked gpu", marked_tests, 13),
    Section("c", "recordings", recordings, 16),
    Section("d", "steps per second", speed, 26),
    Section("e", "JAX on the same device", peer, 18),
    Section("f", "seconds to a target", targets, 18),
    Section("g", "CPU and GPU", agreement, 6),
    Section("h", "kernels", kernels, 5),
)


class Budget:
    """The time of the whole, and when each section has to be over."""

    def __init__(self, seconds: float, sections: Sequence[Section], clock: Callable[[], float]) -> None:
        self.clock, begun = clock, clock()
        whole, gone = sum(section.share for section in sections), 0.0
        self.deadlines: dict[str, float] = {}
        for section in sections:
            gone += section.share
            self.deadlines[section.letter] = begun + (1.0 - RESERVE) * seconds * gone / whole

    def left(self, letter: str) -> float:
        """Seconds until a section has to be over."""
        return self.deadlines[letter] - self.clock()


def measure(section: Section, settings: Settings, report: Report, budget: Budget, isolated: bool) -> None:
    """All items of a section. Whatever goes wrong is noted."""
    letter, begun = section.letter, budget.clock()
    report.begin(letter, section.title)

    def note(item: Item, result: Result, over: bool) -> None:
        report.note(letter, item.name, result)
        if over:
            print(short(f"({letter}) {line_of(section, item.name, result)}"), flush=True)

    try:
        if budget.left(letter) <= 0.0:
            report.say(letter, skipped="out of time")
            print(f"({letter}) {section.title} skipped: out of time", flush=True)
            return
        items = section.module.items(settings, report)
        worker: Worker = Forked(items, settings.out / "gpu.log") if isolated else Inline(items)
        run(worker, lambda: budget.left(letter), note, budget.clock)
    except Exception as error:
        traceback.print_exc()
        report.say(letter, error=told(error))
        print(short(f"({letter}) {section.title} failed: {told(error)}"), flush=True)
    finally:
        report.say(letter, seconds=round(budget.clock() - begun, 2))


def line_of(section: Section, name: str, result: Result) -> str:
    """A result in words. One that is not whole is no reason to stop, either."""
    why = failure(result)
    if why is not None:
        return f"{name} {why}"
    try:
        return str(section.module.text(name, result))
    except Exception as error:
        return f"{name}: cannot be described: {told(error)}"


def lines_of(section: Section, report: Report) -> list[str]:
    """A section's lines of the table."""
    said = failure(report.found["sections"].get(section.letter, {"skipped": "out of time"}))
    if said is not None:
        return [f"{section.title} {said}"]
    results = report.results(section.letter)
    reasons = {failure(result) for result in results.values()}
    if len(reasons) == 1 and (why := reasons.pop()) is not None:
        return [f"{section.title} {why}"]
    if hasattr(section.module, "lines"):
        try:
            found: list[str] = section.module.lines(results)
            return found
        except Exception as error:
            return [f"{section.title}: cannot be described: {told(error)}"]
    return [line_of(section, name, result) for name, result in results.items()]


def has_cuda(log: Path) -> tuple[bool, bool, str]:
    """Whether there is a CUDA device, whether forks of this process can use it, and what was said of it, in brackets.

    It is asked in a fork: a process that has begun with CUDA can have none that uses it.
    """

    def ask(_: float) -> Result:
        import torch

        return {"cuda": torch.cuda.is_available() and float(torch.ones(1, device="cuda")) == 1.0}

    if not hasattr(os, "fork"):
        return bool(ask(0.0)["cuda"]), False, ""
    worker = Forked([Item("probe", ask)], log)
    answer = list(worker.ask(0, 60.0, 60.0))[-1]
    worker.close()
    said = answer.get("error", "")
    if "forked subprocess" in said:  # something in this process has begun with CUDA
        return True, False, ""
    return bool(answer.get("cuda")), True, f" ({said})" if said else ""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="default: runs/gpu")
    parser.add_argument("--minutes", type=float, default=6.0, help="in which it ends (default: 6)")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda if there is one")
    parser.add_argument(
        "--only", default="", metavar="LETTERS", help="sections, such as cd: they and (a) share all of the time"
    )
    parser.add_argument("--tiny", action="store_true", help="sizes that take no time: to try the command itself")
    args = parser.parse_args(arguments)
    if not args.minutes > 0.0:
        parser.error(f"minutes must be positive, got {args.minutes}.")
    if unknown := sorted(set(args.only) - {section.letter for section in SECTIONS}):
        parser.error(f"--only knows the sections a to h, got {unknown[0]!r}.")
    return args


def main(arguments: list[str] | None = None, clock: Callable[[], float] = time.monotonic, isolated: bool = True) -> int:
    """The command; its exit code. Without `isolated` all is measured in this process."""
    args = parse(arguments)
    begun = clock()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda, forks, why = False, hasattr(os, "fork"), ""
    if args.device != "cpu":
        cuda, forks, why = has_cuda(args.out / "gpu.log")
    if args.device == "cuda" and not cuda:
        print(f"device is 'cuda', but torch finds no CUDA device here{why}: use --device cpu.", file=sys.stderr)
        return 2
    settings = Settings("cuda" if cuda else "cpu", args.tiny, args.out)
    sections = [section for section in SECTIONS if not args.only or section.letter in args.only + "a"]
    head = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": settings.device,
        "tiny": args.tiny,
        "minutes": args.minutes,
        "isolated": isolated and forks,
    }
    report = Report(args.out / "gpu.json", head)
    budget = Budget(60.0 * args.minutes - (clock() - begun), sections, clock)
    for section in sections:
        measure(section, settings, report, budget, isolated and forks)
    spent = clock() - begun
    title = f"metarl on {settings.device}, {spent:.0f} s of {60.0 * args.minutes:.0f}"
    title += " (tiny: to try the command, no measurement)" if args.tiny else ""
    title += "" if settings.cuda else f"; {NO_CUDA}"
    print("\n" + "\n".join(table(title, [(s.letter, lines_of(s, report)) for s in sections], report.path)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
