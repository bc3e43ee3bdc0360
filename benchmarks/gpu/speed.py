"""(d) Environment steps per second of training and of stepping, the share of the floor, and the memory they take."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from benchmarks import floor, ours
from benchmarks.contender import timed
from benchmarks.gpu import ceilings
from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.report import Report
from benchmarks.gpu.settings import NO_CUDA, Settings, synchronize
from benchmarks.works import WORKS, Work
from metarl.fast.capture import WARM_UP

ROUNDS = 3
MANY, MOST = 16_384, 65_536


class Case(NamedTuple):
    """A work in one of its sizes, trained as it usually is, or without something, to see what that brings."""

    work: str
    rows: int | None = None  # None: the work's own
    recorded: bool = True
    exact: bool = False  # products in float32 where training permits tf32

    @property
    def name(self) -> str:
        """What its result goes by."""
        rows = WORKS[self.work].rows if self.rows is None else self.rows
        return f"{self.work} × {rows:,}" + ("" if self.recorded else ", eager") + (", fp32" if self.exact else "")


CASES = (
    Case("W1", MANY),
    Case("W5", 1_048_576),
    Case("W1n100", MANY),
    Case("W2", MANY),
    Case("W3ppo"),
    Case("W3"),
    Case("W1", MANY, recorded=False),
    Case("W1", MANY, exact=True),
    Case("W1", MOST),
    Case("W1"),
    Case("W2"),
)
"""The most telling first."""


def items(settings: Settings, report: Report) -> list[Item]:
    """A case in each process, so that each has the memory for itself."""
    return [Item(case.name, partial(measure, case, settings, report), alone=True) for case in CASES]


def measure(case: Case, settings: Settings, report: Report, seconds: float) -> Result:
    """Median, least and greatest steps per second of some rounds."""
    if not settings.cuda and (case.exact or not case.recorded):
        return {"skipped": f"{NO_CUDA}: there is nothing to compare"}
    work = settings.work(WORKS[case.work], case.rows)
    call = ours.build(work, 1, case.recorded)  # this sets how exact products are
    if case.exact:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    speeds = rounds(call, settings, seconds)
    found: Result = {"work": case.work, "rows": work.rows, "steps_per_second": speeds, "title": work.title}
    found["median"] = statistics.median(speeds)
    found |= share(work, found["median"], ceilings.peak(report, "fp32" if case.exact or not settings.cuda else "tf32"))
    usual = report.results("d").get(Case(case.work, case.rows).name, {}).get("median")
    if (case.exact or not case.recorded) and usual is not None:
        found["usual_over_this"] = usual / found["median"]
    if settings.cuda:
        found["bytes"] = torch.cuda.max_memory_allocated()
        found["bytes_reserved"] = torch.cuda.max_memory_reserved()
    if isinstance(call, ours.Training | ours.ReplayedSteps):
        found["not_recorded"] = {name: part.why_not for name, part in call.parts.items() if part.why_not is not None}
    return found


def rounds(call: Callable[[], int], settings: Settings, seconds: float) -> list[float]:
    """Steps per second of each round, once everything is warm: the plain calls, the recording and one replay.

    A third of the seconds are left for making it warm; a single call is all of a round that it is longer than.
    """

    def whole() -> int:
        steps = call()
        synchronize(settings.device)
        return steps

    for _ in range(WARM_UP + 2 if settings.cuda else 1):
        whole()
    found = [timed(whole, 0.0 if settings.tiny else 0.4 * seconds / ROUNDS) for _ in range(ROUNDS)]
    return [one["steps"] / one["seconds"] for one in found]


def share(work: Work, speed: float, peak: floor.Peak | None) -> Result:
    """Of the products, or the bytes, that the device does at most: those that the work cannot do without."""
    if peak is None:
        return {"share": None}
    if needed := floor.operations(work):
        return {"share": needed * speed / peak.operations}
    if needed := floor.written(work):
        return {"share": needed * speed / peak.bytes}
    return {"share": None}  # not known, as of TRPO


def text(name: str, result: Result) -> str:
    """Speed, share of the floor, memory, and what was not recorded though it should have been."""
    speeds = result["steps_per_second"]
    size = "" if f"× {result['rows']:,}" in name else f" (tiny: {result['rows']})"
    told = f"{name}{size}: {result['median']:,.0f} steps/s ({min(speeds):,.0f} – {max(speeds):,.0f})"
    told += "" if result["share"] is None else f", {100 * result['share']:.2g} % of the peak"
    told += f", {result['bytes'] / 2**30:.2f} GiB" if "bytes" in result else ""
    if "usual_over_this" in result:
        told += f"; as it is trained {result['usual_over_this']:.2f} times as fast"
    if "eager" not in name and "bytes" in result and result.get("not_recorded"):
        told += "; not recorded: " + ", ".join(f"{part} ({why})" for part, why in result["not_recorded"].items())
    return told
