"""(h) Where the device's time goes in one iteration, and whether a rollout copies between host and device."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.report import Report
from benchmarks.gpu.settings import Settings, synchronize
from benchmarks.gpu.speed import MANY
from benchmarks.ours import Training, training
from benchmarks.works import WORKS
from metarl.core import rng
from metarl.fast.capture import WARM_UP
from metarl.fast.profiling import PREFIX
from metarl.fast.runtime import tune

TOP = 10
COPIES = ("Memcpy HtoD", "Memcpy DtoH")
CASES = {"RL², bandit": ("W1", MANY), "MAML with PPO, Navigation2D": ("W3ppo", None)}


def items(settings: Settings, report: Report) -> list[Item]:
    """An RL² and a MAML iteration."""
    return [Item(name, partial(measure, settings, work, rows), alone=True) for name, (work, rows) in CASES.items()]


def measure(settings: Settings, work: str, rows: int | None, seconds: float) -> Result:
    """An iteration as it is trained, and a rollout by itself, once all that is recorded is replayed."""
    tune(1)
    train: Training = training(settings.work(WORKS[work], rows))
    for _ in range(WARM_UP + 2 if settings.cuda else 1):
        train()
    spent, count, whole = profiled(train, settings)
    busy = sum(spent.values())
    top = sorted(spent, key=lambda name: -spent[name])[:TOP]
    found: Result = {
        "seconds": whole,
        "busy": busy,  # seconds of kernels; on a CPU of operations, slowed down by the profiler
        "device": settings.device,
        "launches": sum(count.values()),
        "top": [{"name": name, "seconds": spent[name], "calls": count[name]} for name in top],
    }
    found["copies_in_iteration"] = copies(count)
    key = rng.key(2, settings.torch_device)
    tasks = train.family.sample_tasks(key, train.tasks)
    found["copies_in_rollout"] = copies(profiled(lambda: train.play(tasks, key), settings)[1])
    found["copies_in_sampling"] = copies(profiled(lambda: train.family.sample_tasks(key, train.tasks), settings)[1])
    found["rollout_recorded"] = train.play.why_not is None
    return found


def copies(count: dict[str, int]) -> dict[str, int] | None:
    """How often each kind of copy between host and device is among the calls; None if the profiler saw no calls."""
    return (
        None if not count else {kind: sum(n for name, n in count.items() if name.startswith(kind)) for kind in COPIES}
    )


def profiled(call: Callable[[], Any], settings: Settings) -> tuple[dict[str, float], dict[str, int], float]:
    """Seconds and numbers of calls of each kernel (of each operation on a CPU), and the seconds of the whole.

    The whole is timed a second time without the profiler, which slows it down.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if settings.cuda else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        call()
        synchronize(settings.device)
    start = time.perf_counter()
    call()
    synchronize(settings.device)
    seconds = time.perf_counter() - start
    spent: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for event in profiler.events() or []:
        if event.name.startswith((PREFIX, "ProfilerStep")):
            continue  # the span of many
        if settings.cuda and event.device_type == DeviceType.CUDA:
            spent[event.name] += event.time_range.elapsed_us() / 1e6
        elif not settings.cuda and event.device_type == DeviceType.CPU:
            spent[event.name] += event.self_cpu_time_total / 1e6
        else:
            continue
        count[event.name] += 1
    return dict(spent), dict(count), seconds


def text(name: str, result: Result) -> str:
    """The three longest, how busy the device was, and the copies."""
    busy = f", busy {100 * result['busy'] / result['seconds']:.0f} %" if result["device"] == "cuda" else ""
    top = ", ".join(
        f"{100 * one['seconds'] / max(result['busy'], 1e-12):.0f} % {one['name'][:40]}" for one in result["top"][:3]
    )
    if (found := result["copies_in_rollout"]) is None:
        told = "not known, the profiler saw no kernels"
    else:
        told = ", ".join(f"{count} × {kind}" for kind, count in found.items() if count) or "none"
    return (
        f"{name}: {1e3 * result['seconds']:.1f} ms{busy}; "
        f"copies in a rollout{'' if result['rollout_recorded'] else ' (plain)'}: {told}; {top}"
    )
