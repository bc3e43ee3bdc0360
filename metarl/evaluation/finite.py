"""Numbers that are not finite: null in JSON, and a sentence for the user."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def to_json(value: Any, **options: Any) -> str:
    """Write plain data as JSON text, in which nan and the infinities are null.

    NumPy's numbers, truth values and arrays are written as Python's. `options` are those of `json.dumps`.
    """
    return json.dumps(_plain(value), allow_nan=False, **options)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def not_finite(split: str, **numbers: ArrayLike | None) -> str | None:
    """Say in a sentence how many tasks of an evaluation have numbers that are not finite; None if there are none.

    `numbers` are by name, as an adaptation curve has them: ``(tasks,)`` or ``(seeds, tasks, points)``; None: unknown.
    """
    found = []
    for name, values in numbers.items():
        if values is None:
            continue
        finite = np.isfinite(np.asarray(values, dtype=np.float64))
        by_task = finite.all(axis=(0, 2)) if finite.ndim == 3 else finite
        if not by_task.all():
            found.append(f"{name} of {np.count_nonzero(~by_task)} of {by_task.size} tasks")
    if not found:
        return None
    return f"On {split!r} these are not finite numbers: {', '.join(found)}; nor is what is computed from them."
