"""Histories of runs: the evaluations during training, from ``metrics.jsonl``, and the final one.

Their value is the return of an episode at the last point of adaptation (the last episode of a trial, or the last
round), which is comparable for agents that adapt in their memory and agents that adapt by gradients.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.files import damaged, read_text

Floats = NDArray[np.float64]
METRICS = "metrics.jsonl"
POINT = re.compile(r"eval/([^/]+)/(?:episode|round)_(\d+)", re.ASCII)
"""Tags of the points of an evaluation's curve: the split, and the number of the point."""


@dataclass(frozen=True, eq=False)
class History:
    """Evaluations of a run on one split, in the order of training: at least one, every array ``(points,)``.

    The evaluation at the end of the run, if any, is the last point and `final`.
    """

    split: str
    train_steps: Floats  # environment steps of meta-training before the evaluation
    seconds: Floats  # seconds of training before it; evaluations are not counted
    returns: Floats  # mean return of an episode at the last point of adaptation
    low: Floats  # 95 % interval over tasks, of this agent
    high: Floats
    final: AdaptationCurve | None = None


def read_records(run: Path) -> list[dict[str, Any]]:
    """Read the metrics of every iteration of a run, in order; of several lines of an iteration the first counts.

    Raises ValueError (one sentence) if the run has none, or a line is damaged; a last line without an end is one that
    is just being written.
    """
    path = run / METRICS
    try:
        *lines, _ = read_text(path).split("\n")
    except FileNotFoundError:
        raise ValueError(
            f"{str(run)!r} has no training history: it has no {METRICS}, which runs write and pretrained agents lack; "
            "train it again, or leave it out."
        ) from None
    found: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"line {number} is not valid JSON") from error
        counts = [record.get(key) for key in ("iteration", "env_steps")] if isinstance(record, dict) else []
        if not counts or any(type(count) is not int or not 0 <= count < 2**63 for count in counts):
            raise damaged(path, f"line {number} has no iteration and env_steps")
        found.setdefault(record["iteration"], record)
    return [found[iteration] for iteration in sorted(found)]


def splits_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the splits that a run was evaluated on during training."""
    return list(dict.fromkeys(match[1] for record in records for key in record if (match := POINT.fullmatch(key))))


def history(run: Path, records: Sequence[Mapping[str, Any]], split: str) -> History:
    """Return the evaluations of a run on a split. Raises ValueError (one sentence) if it has none, or a damaged one."""
    rows = list(_evaluations(records, split))
    final, last = _final(run, records, split)
    if last is not None:  # replaces an earlier evaluation of the same agent
        rows = sorted([*(row for row in rows if row[0] != last[0]), last])
        if last[0] < records[-1]["env_steps"]:  # the run has continued since
            final = None
    if not rows:
        raise ValueError(f"{str(run)!r} has no evaluation on {split!r} with a finite return.")
    steps, seconds, returns, low, high = np.array(rows, dtype=np.float64).T
    return History(split, steps, seconds, returns, low, high, final)


def _evaluations(records: Sequence[Mapping[str, Any]], split: str) -> Iterator[tuple[float, ...]]:
    """Steps, seconds, mean, low and high of every evaluation during training whose numbers are finite."""
    for record, seconds in zip(records, _training_seconds(records), strict=True):
        tags = [key for key in record if (match := POINT.fullmatch(key)) and match[1] == split]
        if tags:
            tag = max(tags, key=lambda key: int(key.rpartition("_")[2]))
            numbers = [_number(record, f"{tag}{end}") for end in ("", "_low", "_high")]
            if all(map(math.isfinite, numbers)):
                yield record["env_steps"], seconds, *numbers


def _training_seconds(records: Sequence[Mapping[str, Any]]) -> Floats:
    """Seconds of training up to each record, without those of evaluations: ``(records,)``."""
    evaluating = np.nan_to_num([_number(record, "time/evaluate") for record in records])
    return np.array([_number(record, "seconds") for record in records]) - np.cumsum(evaluating)


def _number(record: Mapping[str, Any], key: str) -> float:
    """Return a number of a record; NaN if it is missing."""
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _final(
    run: Path, records: Sequence[Mapping[str, Any]], split: str
) -> tuple[AdaptationCurve | None, tuple[float, ...] | None]:
    """Return the evaluation at the end on a split, and its row as those of `_evaluations`; None where there is none."""
    try:
        curve = AdaptationCurve.load(run / "evaluation" / split)
    except FileNotFoundError:
        return None, None
    ends = [end[-1] for end in (curve.mean(), *curve.interval())]
    if not records or not np.isfinite(ends).all():
        return None, None
    steps = curve.training[0].get("env_steps") if curve.training else None
    at = steps if isinstance(steps, int) else records[-1]["env_steps"]
    done = [number for number, record in enumerate(records) if record["env_steps"] <= at]
    seconds = _training_seconds(records)[done[-1]] if done else math.nan
    return curve, (at, seconds, *ends)
