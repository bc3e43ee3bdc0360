"""Adaptation curves in files: JSON, CSV and PNG next to each other, read back without loss; also as a data frame."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.finite import to_json
from metarl.evaluation.results import Array, Results
from metarl.evaluation.step_curve import StepCurve

NAMES = ("agent", "family", "split", "greedy", "rounds")
"""Fields that every JSON file has as they are."""


PROTOCOL = ("repeats", "eval_seed", "distinct", "episodes_of_a_point", "total_steps")
"""Fields that files of earlier versions do not have."""


def with_suffix(path: str | Path, suffix: str) -> Path:
    """`path` with `suffix` in place of ``.json``, ``.csv`` or ``.png``, or added where it has none of them."""
    path = Path(path)
    stem = path.name.removesuffix(".json").removesuffix(".csv").removesuffix(".png")
    return path.with_name(stem + suffix)


def steps_path(path: str | Path) -> Path:
    """The CSV file of the steps: ``test_steps.csv`` for the stem ``test``."""
    stem = with_suffix(path, "")
    return stem.with_name(f"{stem.name}_steps.csv")


def write(results: Results, path: str | Path) -> None:
    """Write ``<path>.json``, ``<path>.csv`` and, where the steps are known, ``<path>_steps.csv``; folders are made."""
    json_path = with_suffix(path, ".json")
    json_path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(name)}: {to_json(value)}" for name, value in document(results).items())
    json_path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    _write_csv(results, with_suffix(path, ".csv"))
    if results.steps is not None:
        results.steps.write(steps_path(path))


def document(results: Results) -> dict[str, Any]:
    """The content of ``<path>.json``: all but the tasks' own results, as plain values."""
    low, high = results.interval()
    columns = {"mean": results.mean(), "low": low, "high": high, "iqm": results.iqm()}
    found = {name: getattr(results, name) for name in (*NAMES, *PROTOCOL)}
    found |= {"labels": list(results.labels), "episodes": list(results.episodes), "env_steps": list(results.env_steps)}
    found |= {"training": [dict(each) for each in results.training], "versions": dict(results.versions)}
    found |= {"interval": results.interval_of(), "summary": results.summary()}
    found |= {} if results.noise is None else {"noise": results.noise.tolist()}
    found["points"] = {name: [round(float(value), 6) for value in values] for name, values in columns.items()}
    return found | ({} if results.steps is None else {"steps": results.steps.summary()})


def _write_csv(results: Results, path: Path) -> None:
    """Write a row for each seed and task: both, the task's own numbers (``task.<field>``), random, oracle, all points.

    Random and oracle are empty where they are not known; a number of several is ``task.<field>[0]``.
    """
    numbers = {
        f"task.{name}" + (f"[{index}]" if values.shape[1] > 1 else ""): values[:, index]
        for name, values in results.task_values.items()
        for index in range(values.shape[1])
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "task", *numbers, "random", "oracle", *results.labels])
        for seed, tasks in enumerate(results.returns):
            for task, row in enumerate(tasks):
                own = (f"{values[task]:.9g}" for values in numbers.values())
                bounds = ["" if b is None else f"{b[task]:.9g}" for b in (results.random, results.oracle)]
                writer.writerow([seed, task, *own, *bounds, *(f"{value:.9g}" for value in row)])


def read(path: str | Path) -> dict[str, Any]:
    """Read the fields of the results that `write` wrote to `path`, also in an earlier version."""
    plain = json.loads(with_suffix(path, ".json").read_text(encoding="utf-8"))
    fields = _read_csv(with_suffix(path, ".csv"))
    fields |= {name: np.array(plain[name], dtype=np.float64) for name in ("episodes", "env_steps")}
    fields["noise"] = np.array(plain["noise"], dtype=np.float64) if "noise" in plain else None
    fields |= {name: plain[name] for name in NAMES}
    fields |= {name: plain[name] for name in PROTOCOL if name in plain}
    fields |= {"labels": tuple(plain["labels"]), "versions": plain.get("versions", {})}
    fields["training"] = tuple(plain.get("training", ()))
    steps = steps_path(path)
    fields["steps"] = StepCurve.read(steps) if "steps" in plain and steps.exists() else None
    return fields


def _read_csv(path: Path) -> dict[str, Any]:
    """Read the fields `returns`, `random`, `oracle` and `task_values`."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    at = header.index("random")
    seeds = int(rows[-1][0]) + 1
    tasks = len(rows) // seeds
    random, oracle = (
        np.array([row[column] for row in rows[:tasks]], dtype=np.float32) if rows[0][column] else None
        for column in (at, at + 1)
    )
    return {
        "returns": np.array([row[at + 2 :] for row in rows], dtype=np.float32).reshape(seeds, tasks, -1),
        "random": random,
        "oracle": oracle,
        "task_values": _task_values(header[2:at], [row[2:at] for row in rows[:tasks]]),
    }


def _task_values(names: list[str], rows: list[list[str]]) -> dict[str, Array]:
    """The tasks' numbers by field, from the columns ``task.<field>`` or ``task.<field>[n]`` of a CSV file."""
    numbers: NDArray[np.float32] = np.array(rows, dtype=np.float32).reshape(len(rows), len(names))
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        columns.setdefault(name.removeprefix("task.").partition("[")[0], []).append(column)
    return {name: numbers[:, of] for name, of in columns.items()}


def to_frame(results: Results) -> Any:
    """A pandas DataFrame with a row for every seed, task and point; see `AdaptationCurve.to_frame`."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas; save(path) writes a CSV without it.") from error
    tasks = results.returns.shape[1]
    seed, task, point = (index.ravel() for index in np.indices(results.returns.shape))
    bounds = [np.full(tasks, np.nan) if bound is None else bound for bound in (results.random, results.oracle)]
    columns = {"seed": seed, "task": task, "point": np.array(results.labels)[point]}
    columns |= {"episodes": results.episodes[point], "env_steps": results.env_steps[point]}
    columns |= {"return": results.returns.ravel(), "random": bounds[0][task], "oracle": bounds[1][task]}
    return pandas.DataFrame(columns)
