"""Former starts of a run: the lines that they left in ``metrics.jsonl``, and the settings of their processes."""

from __future__ import annotations

import json
from pathlib import Path
from types import NoneType

from metarl.evaluation.files import replace_file


def changes(path: Path, runtime: str) -> str:
    """Keep the settings of this process in a file; return a sentence if those of a former start of the run differ.

    Another number of threads, for example, adds numbers in another order.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a new run, or a damaged file
        before = {}
    replace_file(path, runtime + "\n")
    now = json.loads(runtime)
    both = now.keys() & before.keys() if isinstance(before, dict) else ()
    changed = [f"{name} {before[name]}, now {now[name]}" for name in sorted(both) if before[name] != now[name]]
    if not changed:
        return ""
    return f"Resumed with other settings ({'; '.join(changed)}): numbers will differ from those of an uninterrupted run"


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
