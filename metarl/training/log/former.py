"""Former starts of a run: the lines that they left in ``metrics.jsonl``, their settings and their configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from metarl.evaluation.files import replace_file
from metarl.training.config.errors import shown
from metarl.training.config.plain import flat
from metarl.training.config.run_config import RESUMABLE

DIFFER = "numbers will differ from those of an uninterrupted run"


def changes(path: Path, runtime: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Keep the settings of this process, and what no resume may change of the configuration `values`, in a file.

    Returns a sentence if the settings of a former start of the run differ (another number of threads, for example, adds
    numbers in another order), and one if config.yaml was edited since then.
    """
    fixed = {key: value for key, value in values.items() if key not in (*RESUMABLE, "run_dir")}
    now = json.loads(runtime) | {"configuration": json.loads(json.dumps(flat(fixed)))}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a new run, or a damaged file
        before = {}
    before = before if isinstance(before, dict) else {}
    replace_file(path, json.dumps(now, indent=1) + "\n")
    options, former = now.pop("configuration"), before.pop("configuration", {})
    settings, edited = _changed(before, now), _changed(former if isinstance(former, dict) else {}, options)
    return (
        settings and f"Resumed with other settings ({settings}): {DIFFER}",
        edited and f"The run's config.yaml was edited since its last start ({edited}): {DIFFER}.",
    )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which values differ, of those that both have: the first three of them."""
    both = [name for name in now if name in before and before[name] != now[name]]
    said = [f"{name} {_text(before[name])}, now {_text(now[name])}" for name in both[:3]]
    return "; ".join([*said, *([f"and {len(both) - 3} more"] if len(both) > 3 else [])])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def keep_lines(path: Path, iterations: int) -> int:
    """Keep the lines of the first `iterations` iterations, in order; return how many are damaged or repeated.

    An incomplete last line, which a killed run leaves, is dropped without being counted. The first of several lines of
    an iteration is kept: a later one is by another process, or has a damaged number.
    """
    if not path.exists():
        return 0
    before = path.read_bytes()
    *lines, _ = before.split(b"\n")
    kept: dict[int, bytes] = {}
    dropped = later = 0
    for line in lines:
        number = _iteration(line)
        if number is None or number in kept:
            dropped += 1
        elif number > iterations:
            later += 1
        else:
            kept[number] = line
            dropped, later = dropped + later, 0  # a line from after the checkpoint that stands before one of before it
    after = b"".join(kept[number] + b"\n" for number in sorted(kept))
    if after != before:
        replace_file(path, after)
    return dropped


def _iteration(line: bytes) -> int | None:
    """Return the iteration of a line; None for a damaged line."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    if not isinstance(record, dict) or not all(type(value) in (int, float, NoneType) for value in record.values()):
        return None
    number, env_steps = record.get("iteration"), record.get("env_steps")
    whole = type(number) is int and type(env_steps) is int and number > 0 and env_steps >= 0
    return number if whole else None
