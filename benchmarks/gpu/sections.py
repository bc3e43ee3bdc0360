"""The sections of the GPU measurement, each a process: ``python -m benchmarks.gpu.sections NAME --device cuda``.

A section prints its results as lines of JSON on standard output, as soon as it has them; whatever else is printed goes
to standard error. One that cannot take its next step says why in a result and goes on with the one after it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch

from benchmarks import floor, ours
from benchmarks.contender import timed
from benchmarks.gpu.children import Child
from benchmarks.works import CONTENDERS, WORKS, Work, resized, tiny
from metarl import rng
from metarl.runtime import tune

ROOT = Path(__file__).parents[2]
Result = dict[str, Any]


class Asked(NamedTuple):
    """What a section is asked to do."""

    device: torch.device
    tiny: bool
    seconds: float  # all that it has
    out: Path
    start: float  # `time.monotonic` at its beginning

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)


def attempt(result: Result, function: Callable[[], Result]) -> Result:
    """`result` with what the function found, or with the reason why it found nothing under "failed"."""
    try:
        return result | function()
    except Exception as error:  # anything at all: the next part goes on
        _forget(error)
        return result | {"failed": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"}


def _forget(error: BaseException) -> None:
    """Let go of what the failed part had on the device."""
    error.__traceback__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- the machine -----------------------------------------------------------------------------------------------------


def machine(asked: Asked) -> Iterator[Result]:
    """Versions, the device, and what it can do at most."""
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda, "system": platform.platform()}
    for name in ("torch", "numpy", "jax", "jaxlib", "gymnasium", "stable-baselines3", "mujoco"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    yield {"name": "versions", **versions}
    device: Result = {"name": "device", "device": asked.device.type, "cores": os.cpu_count()}
    if asked.device.type == "cuda":
        properties = torch.cuda.get_device_properties(asked.device)
        device |= {"card": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        device |= {"multiprocessors": properties.multi_processor_count}
    yield device
    for precision in ("float32", "tf32", "bfloat16"):
        yield attempt({"name": f"product in {precision}"}, lambda precision=precision: _product(asked, precision))
    yield attempt({"name": "copy"}, lambda: _copy(asked))


def _product(asked: Asked, precision: str) -> Result:
    size = 256 if asked.tiny or asked.device.type == "cpu" else 8192
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=asked.device, dtype=dtype) for _ in range(2))
    seconds = statistics.median(floor._timed(lambda: torch.mm(a, b), asked.device) for _ in range(7))
    torch.set_float32_matmul_precision("highest")
    return {"tflops": 2.0 * size**3 / seconds / 1e12, "size": size}


def _copy(asked: Asked) -> Result:
    count = 1 << (20 if asked.tiny or asked.device.type == "cpu" else 30)
    source = torch.ones(count, device=asked.device)
    target = torch.empty_like(source)
    seconds = statistics.median(floor._timed(lambda: target.copy_(source), asked.device) for _ in range(7))
    return {"gb_per_second": 2.0 * 4.0 * count / seconds / 1e9, "bytes": 4 * count}


# ---- tests -----------------------------------------------------------------------------------------------------------

OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
SILENCE = 60.0  # seconds without a word from pytest are a test that hangs


def tests(asked: Asked) -> Iterator[Result]:
    """Every test marked gpu. One that hangs is ended, named, and the rest goes on."""
    if asked.device.type == "cpu":
        yield {"name": "counts", "ended": "not run: they need a CUDA device"}
        return
    counts: dict[str, int] = {}
    past: list[str] = []
    while True:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "--no-header",
            "--tb=line",
        ]
        command += [part for name in past for part in ("--deselect", name)]
        child, current, hung = Child(command), None, False
        try:
            for line in child.lines(asked.start + asked.seconds - 3.0, SILENCE):
                found = OUTCOME.match(line)
                if found is None:
                    current = line.partition(" ")[0] if "::" in line.partition(" ")[0] else current
                    continue
                name, outcome = found[1], found[2].lower()
                past.append(name)
                counts[outcome] = counts.get(outcome, 0) + 1
                current = None
                if outcome in ("failed", "error"):
                    yield {"name": name, "outcome": outcome}
        except TimeoutError:
            hung = True
        finally:
            child.end()
        if hung and current is not None and asked.left > SILENCE:
            yield {"name": current, "outcome": "hung"}
            past.append(current)
            continue
        break
    ended = "out of time" if hung else "all of them"
    yield {"name": "counts", **counts, "ended": ended, **({} if counts else {"said": child.last_words})}


# ---- capture ---------------------------------------------------------------------------------------------------------


def capture(asked: Asked) -> Iterator[Result]:
    """Which of the functions that a GPU should replay it does replay, and why not."""
    for name in ("W1", "W2", "W3", "W3ppo"):
        work = _sized(WORKS[name], None, asked)
        yield from _captured(name, work)


def _captured(name: str, work: Work) -> Iterator[Result]:
    try:
        call = ours.training(work)
        for _ in range(5):  # a recording is made at the fourth call
            call()
    except Exception as error:
        yield {"name": name, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        _forget(error)
        return
    for part, captured in ours.captured_parts(call).items():
        recordings = len(captured._recordings)
        yield {"name": f"{name} {part}", "captured": recordings > 0, "why_not": captured.why_not}


# ---- speed -----------------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """A work in a size, and how it is done."""

    name: str
    rows: int | None
    captured: bool = True
    precision: str = "medium"  # of matrix products, as `metarl.runtime.tune` sets it: tensor cores where there are any

    @property
    def label(self) -> str:
        how = ("" if self.captured else ", eager") + (", fp32" if self.precision == "highest" else "")
        return f"{self.name}{'' if self.rows is None else f' × {self.rows:,}'}{how}"


SPEEDS = (  # the most telling first
    Measured("W1", 16_384),
    Measured("W2", 16_384),
    Measured("W3ppo", None),
    Measured("W5", 1_048_576),
    Measured("W1n100", 16_384),
    Measured("W3", None),
    Measured("W1", 16_384, captured=False),
    Measured("W1", 16_384, precision="highest"),
    Measured("W1", 65_536),
    Measured("W1", 512),
    Measured("W3ppo", 320),
    Measured("W3", 320),
)


def speed(asked: Asked) -> Iterator[Result]:
    """Environment steps per second, training included, with peak memory and the share of the device's ceilings."""
    peak = floor.measure(asked.device, 256 if asked.tiny or asked.device.type == "cpu" else 8192)
    for number, measured in enumerate(SPEEDS):
        if asked.left < 2.0:
            yield {"name": measured.label, "failed": "no time was left"}
            continue
        # An equal share of what is left, of which a third goes into the making.
        share = asked.left / (len(SPEEDS) - number)
        yield attempt(
            {"name": measured.label},
            lambda measured=measured, share=share: _speed(measured, share, peak, asked),  # type: ignore[misc]
        )


def _speed(measured: Measured, seconds: float, peak: floor.Peak, asked: Asked) -> Result:
    work = _sized(WORKS[measured.name], measured.rows, asked)
    if asked.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.set_float32_matmul_precision(measured.precision)
    begun = time.perf_counter()
    try:
        call = ours.stepping(work) if work.kind == "stepping" else ours.training(work, plain=not measured.captured)
        for _ in range(5):
            call()
        made = time.perf_counter() - begun
        rounds = [timed(call, max(0.02, min(1.5, (seconds - made) / 4.0))) for _ in range(3)]
    finally:
        torch.set_float32_matmul_precision("medium")
    speeds = [each["steps"] / each["seconds"] for each in rounds]
    median = statistics.median(speeds)
    found: Result = {"steps_per_second": median, "least": min(speeds), "most": max(speeds), "seconds_to_make": made}
    if asked.device.type == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if needed := floor.operations(work):
        found["of_peak_operations"] = needed * median / peak.operations
    elif needed := floor.written(work):
        found["of_peak_bytes"] = needed * median / peak.bytes
    return found


def _sized(work: Work, rows: int | None, asked: Asked) -> Work:
    work = resized(work, rows, asked.device.type)
    return tiny(work) if asked.tiny else work


# ---- the peer --------------------------------------------------------------------------------------------------------

PEER_SPEEDS = (Measured("W1", 16_384), Measured("W2", 16_384), Measured("W5", 1_048_576), Measured("W1n100", 16_384))


def peer(asked: Asked) -> Iterator[Result]:
    """JAX's speed on the same device, in processes of its own."""
    for number, measured in enumerate(PEER_SPEEDS):
        seconds = asked.left / (len(PEER_SPEEDS) - number)
        if seconds < 2.0:
            yield {"name": measured.label, "failed": "no time was left"}
            continue
        yield attempt(
            {"name": measured.label},
            lambda measured=measured, seconds=seconds: _peer(measured, seconds, asked),  # type: ignore[misc]
        )


def _peer(measured: Measured, seconds: float, asked: Asked) -> Result:
    number = next(
        number for number, each in enumerate(CONTENDERS) if each.name.startswith("JAX") and measured.name in each.works
    )
    command = [sys.executable, "-m", "benchmarks.gpu.peer", str(number), measured.name, "--seconds", f"{seconds:.1f}"]
    command += [*([] if measured.rows is None else ["--rows", str(measured.rows)]), *(["--tiny"] if asked.tiny else [])]
    child = Child(command, {**os.environ, "JAX_PLATFORMS": asked.device.type})
    answers: list[Result] = []
    try:
        answers.extend(json.loads(line) for line in child.lines(time.monotonic() + seconds) if line.startswith("{"))
    except TimeoutError:
        pass
    finally:
        code = child.end()
    speeds = [answer["steps"] / answer["seconds"] for answer in answers if "steps" in answer]
    missing = next((answer["missing"] for answer in answers if "missing" in answer), None)
    if not speeds:
        raise RuntimeError(missing or f"no round in {seconds:.0f} s (exit code {code}): {child.last_words}")
    return {"steps_per_second": statistics.median(speeds), "least": min(speeds), "most": max(speeds)}


# ---- targets ---------------------------------------------------------------------------------------------------------


def targets(asked: Asked) -> Iterator[Result]:
    """Seconds of training until the presets reach what a user would call learned."""
    from benchmarks.time_to_target import TARGETS, reach

    threads = 1 if asked.tiny else min(4, os.cpu_count() or 1)
    options: tuple[str, ...] = (f"--device={asked.device.type}",)
    if asked.tiny:
        options += ("--total_iterations=2", "--eval_every=1", "--eval_tasks=10", "--agent.meta_batch_size=8")
    for number, name in enumerate(TARGETS):
        limit = asked.left / (len(TARGETS) - number)
        if limit < 2.0:
            yield {"name": name, "failed": "no time was left"}
            continue

        def run(name: str = name, limit: float = limit) -> Result:
            reached = reach(TARGETS[name], 1, threads, options, limit=0.8 * limit)
            return {**reached._asdict(), "reached": reached.value is not None, "target": TARGETS[name].value}

        yield attempt({"name": name}, run)


# ---- parity ----------------------------------------------------------------------------------------------------------


def parity(asked: Asked) -> Iterator[Result]:
    """One iteration of every agent from the same seed on the CPU and on the device, and checkpoints between the two."""
    from benchmarks.gpu.parity import AGENTS, compare

    for name in AGENTS:
        if asked.left < 1.0:
            yield {"name": name, "failed": "no time was left"}
            continue
        yield attempt({"name": name}, lambda name=name: compare(name, asked.device, asked.out))  # type: ignore[misc]


# ---- kernels ---------------------------------------------------------------------------------------------------------


def kernels(asked: Asked) -> Iterator[Result]:
    """The ten operations that take most of the device's time in an iteration, and copies inside a rollout."""
    for name, rows in (("W1", 16_384), ("W3ppo", None)):
        work = _sized(WORKS[name], rows, asked)
        yield from _kernels(name, work, asked.device)


def _kernels(name: str, work: Work, device: torch.device) -> Iterator[Result]:
    try:
        call = ours.training(work)
        for _ in range(5):
            call()
        events = _profiled(call, device)
        yield {"name": f"{name}: an iteration", "top": events[:10]}
        parts = ours.captured_parts(call)
        family, root = ours.family_of(work), rng.key(7, device)
        tasks = family.sample_tasks(root, work.rows)
        copies = [
            event
            for event in _profiled(lambda: parts["rollout"](tasks, root), device)
            if "memcpy" in event["name"].lower() and "dtod" not in event["name"].lower()
        ]
        yield {"name": f"{name}: copies to or from the host in a rollout", "copies": copies}
    except Exception as error:
        yield {"name": name, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        _forget(error)


def _profiled(call: Callable[[], Any], device: torch.device) -> list[Result]:
    """Names, milliseconds and calls of operations, the longest first: of the device's own on a GPU."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        call()
        if cuda:
            torch.cuda.synchronize()
    spent = "self_device_time_total" if cuda else "self_cpu_time_total"
    found = [
        {"name": event.key[:80], "ms": getattr(event, spent) / 1e3, "calls": event.count}
        for event in profiler.key_averages()
    ]
    return sorted((event for event in found if event["ms"] > 0.0), key=lambda event: -event["ms"])


SECTIONS: dict[str, Callable[[Asked], Iterator[Result]]] = {
    section.__name__: section for section in (machine, tests, capture, speed, peer, targets, parity, kernels)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    answers: TextIO
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no result
    tune(1 if args.tiny else None)
    asked = Asked(torch.device(args.device), args.tiny, args.seconds, args.out, time.monotonic())
    for result in SECTIONS[args.section](asked):
        print(json.dumps(result, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
