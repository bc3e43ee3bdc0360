"""(e) The same work by JAX on the same device, when ours is over."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial

from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.report import Report, failure
from benchmarks.gpu.settings import Settings, cores
from benchmarks.gpu.speed import MANY, ROUNDS, Case
from benchmarks.run import Process
from benchmarks.works import CONTENDERS, WORKS, Contender

CASES = {
    Case("W1", MANY): 2.0,
    Case("W5", 1_048_576): 1.0,
    Case("W1n100", MANY): 1.5,
    Case("W2", MANY): 1.5,
    Case("W1"): 0.7,
    Case("W2"): 0.7,
}
"""Shares of the time, the most telling first: compiling takes JAX a while."""


def items(settings: Settings, report: Report) -> list[Item]:
    """A case each."""
    return [Item(case.name, partial(measure, case, settings, report), weight) for case, weight in CASES.items()]


def variables(device: str) -> dict[str, str]:
    """Of its environment: the device, or an error, but no other one; memory as it is needed; errors in full."""
    found = {"JAX_PLATFORMS": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_TRACEBACK_FILTERING": "off"}
    return found | ({"XLA_FLAGS": ""} if device == "cuda" else {})  # those for CPUs are not every version's


def contender(work: str) -> Contender:
    """Who does this work in JAX."""
    return next(one for one in CONTENDERS if work in one.works and "jax" in one.needs)


def measure(case: Case, settings: Settings, report: Report, seconds: float) -> Iterator[Result]:
    """Steps per second, and how many times as fast metarl was."""
    one, work = contender(case.work), settings.work(WORKS[case.work], case.rows)
    # `tiny` is left to the process, which would make a tiny work smaller still.
    given = WORKS[case.work]._replace(rows=case.rows or WORKS[case.work].rows, device=settings.device)
    with closing(Process(one, given, sys.executable, cores(), settings.tiny, variables(settings.device))) as process:
        for _ in range(2):  # to compile, and once more
            process.round(0.0)
        speeds: list[float] = []
        for _ in range(ROUNDS):
            answer = process.round(0.0 if settings.tiny else 0.2 * seconds / ROUNDS)
            if answer is not None:
                speeds.append(answer["steps"] / answer["seconds"])
        if process.missing is not None:
            absent = process.missing.startswith("No module named 'jax")
            yield {"skipped": "jax is not installed"} if absent else {"error": process.missing}
            return
    median = statistics.median(speeds)
    ours = report.results("d").get(case.name, {}).get("median")
    yield {
        "work": case.work,
        "rows": work.rows,
        "peer": one.name,
        "versions": process.versions,
        "steps_per_second": speeds,
        "median": median,
        "ratio": None if ours is None else ours / median,
    }


def text(name: str, result: Result) -> str:
    """Its speed beside ours."""
    speeds = result["steps_per_second"]
    told = f"{name} by {result['peer']}: {result['median']:,.0f} steps/s ({min(speeds):,.0f} – {max(speeds):,.0f})"
    return told + ("" if result["ratio"] is None else f"; metarl is {result['ratio']:.2f} times as fast")


def lines(results: dict[str, Result]) -> list[str]:
    """A line each."""
    return [
        text(name, result) if "median" in result else f"{name} by JAX {failure(result)}"
        for name, result in results.items()
    ]
