"""(f) Seconds of training until a preset reaches its target on held-out tasks, in as much time as there is."""

from __future__ import annotations

from functools import partial

from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.report import Report
from benchmarks.gpu.settings import Settings
from benchmarks.time_to_target import TARGETS, Target, reach

WEIGHTS = {"bandit": 3.0, "gridnavi": 1.2, "maml": 1.5}
SMALL = ("--total_iterations=1", "--eval_every=1", "--eval_tasks=8", "--agent.meta_batch_size=8")
"""Of every preset, to try the command."""


def items(settings: Settings, report: Report) -> list[Item]:
    """A training each; the tiny command tries one."""
    names = ["gridnavi"] if settings.tiny else list(WEIGHTS)
    return [Item(name, partial(measure, TARGETS[name], settings), WEIGHTS[name]) for name in names]


def measure(target: Target, settings: Settings, seconds: float) -> Result:
    """Seconds of training (evaluations do not count) to the target, or the best that was seen in the time."""
    options = (f"--device={settings.device}", *(SMALL if settings.tiny else ()))
    found = reach(target, seed=1, threads=1, options=options, limit=seconds)
    return {"what": target.what, "target": target.value, "limit": round(seconds, 1), **found._asdict()}


def text(name: str, result: Result) -> str:
    """When it was reached, or how near it came."""
    told = f"{result['what']} ≥ {result['target']:g}: "
    if result["value"] is not None:
        return told + f"reached after {result['seconds']:.1f} s of training, {result['env_steps']:,} steps"
    best = "never evaluated" if result["best"] is None else f"best {result['best']:.2f}"
    spent = f"{result['seconds']:.1f} s of training in {result['limit']:.0f} s, {result['env_steps']:,} steps"
    return told + f"not reached ({best}) after {spent}"
