"""Adaptation curves in JSON, CSV and PNG files, which are read back without loss, and as data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.files import checksum, damaged, read_csv, read_json, read_text, replace_file, singles, to_json
from metarl.evaluation.results import Array, Results
from metarl.evaluation.step_curve import StepCurve

NAMES = ("agent", "family", "split", "greedy", "rounds")
"""Fields that every JSON file contains unchanged."""


PROTOCOL = ("repeats", "eval_seed", "distinct", "episodes_of_a_point", "total_steps")
"""Fields that files of earlier versions do not have."""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(map(holds, value))


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _is_step(value: Any) -> bool:
    return _is_number(value) and value >= 0


_NUMBERS_OR_NULL = _list_of(_or_null(_is_number))


HALVES = ["score, odd trials", "score, even trials"]
"""The names of the columns of `Results.halves`."""


LARGEST = 2.0**63
"""Largest magnitude of numbers in a JSON file."""


RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "agent": ("a string", _is_text),
    "family": ("a string", _is_text),
    "split": ("a string", _is_text),
    "greedy": ("true or false", lambda value: type(value) is bool),
    "rounds": ("true or false", lambda value: type(value) is bool),
    "labels": ("a list of strings", _list_of(_is_text)),
    "episodes": ("a list of non-negative numbers", _list_of(_is_step)),
    "env_steps": ("a list of non-negative numbers", _list_of(_is_step)),
    "repeats": ("a positive whole number", _is_count),
    "eval_seed": ("a whole number or null", _or_null(lambda value: type(value) is int and _is_number(value))),
    "distinct": ("a positive whole number or null", _or_null(_is_count)),
    "episodes_of_a_point": ("a positive whole number", _is_count),
    "total_steps": ("a non-negative number or null", _or_null(_is_step)),
    "training": ("a list with an object for each seed", lambda value: value == [] or _list_of(_is_mapping)(value)),
    "versions": ("a string for each library", lambda value: _is_mapping(value) and all(map(_is_text, value.values()))),
    "noise": ("lists of numbers", _or_null(_list_of(_NUMBERS_OR_NULL))),
    "counts_success": ("true or false", lambda value: type(value) is bool),
    "halves": ("true or false", lambda value: type(value) is bool),
    "checksums": ("a checksum for each CSV file", lambda value: _is_mapping(value) and {*value} <= {"csv", "steps"}),
}
"""Types and checks of the fields of a JSON file."""


OPTIONAL = {*PROTOCOL, "training", "versions", "noise", "counts_success", "halves", "checksums"}
"""Fields that may be missing in a JSON file."""


def with_suffix(path: str | Path, suffix: str) -> Path:
    """Return `path` with `suffix` instead of ``.json``, ``.csv`` or ``.png``, or appended if it has none of them."""
    path = Path(path)
    stem = path.name.removesuffix(".json").removesuffix(".csv").removesuffix(".png")
    return path.with_name(stem + suffix)


def steps_path(path: str | Path) -> Path:
    """Return the path of the CSV file of the steps: ``test_steps.csv`` for the stem ``test``."""
    stem = with_suffix(path, "")
    return stem.with_name(f"{stem.name}_steps.csv")


def write(results: Results, path: str | Path) -> None:
    """Write ``<path>.json``, ``<path>.csv`` and, if the steps are known, ``<path>_steps.csv``; create missing folders.

    The JSON file is written last and has checksums of all files, so that files of two evaluations are never mixed.
    """
    json_path = with_suffix(path, ".json")
    json_path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"csv": _as_csv(results)} | ({} if results.steps is None else {"steps": results.steps.as_csv()})
    replace_file(with_suffix(path, ".csv"), parts["csv"])
    if "steps" in parts:
        replace_file(steps_path(path), parts["steps"])
    found = document(results) | {"checksums": {name: checksum(text) for name, text in parts.items()}}
    lines = [f" {json.dumps(name)}: {to_json(value)}" for name, value in found.items()]
    own = checksum(json.loads(f"{{{','.join(lines)}}}"))
    replace_file(json_path, "{\n" + ",\n".join([*lines, f' "checksum": "{own}"']) + "\n}\n")


def document(results: Results) -> dict[str, Any]:
    """Return the content of ``<path>.json`` as plain values: everything but the results of single tasks."""
    low, high = results.interval()
    columns = {"mean": results.mean(), "low": low, "high": high, "iqm": results.iqm()}
    found = {name: getattr(results, name) for name in (*NAMES, *PROTOCOL)}
    found |= {"labels": list(results.labels), "episodes": list(results.episodes), "env_steps": list(results.env_steps)}
    found |= {"training": [dict(each) for each in results.training], "versions": dict(results.versions)}
    found |= {"interval": results.interval_of(), "summary": results.summary()}
    found |= {} if results.noise is None else {"noise": results.noise.tolist()}
    found |= {} if results.success is None else {"counts_success": True}
    found |= {} if results.halves is None else {"halves": True}
    found["points"] = {name: [round(float(value), 6) for value in values] for name, values in columns.items()}
    return found | ({} if results.steps is None else {"steps": results.steps.summary()})


def solved_columns(labels: Sequence[str]) -> list[str]:
    """Return the names of the success columns."""
    return [f"success, {label}" for label in labels]


def _as_csv(results: Results) -> str:
    """Return a CSV with one row per seed and task: both, the task's values (``task.<field>``), bounds, all points.

    Random and oracle are empty if unknown; the entries of a vector are ``task.<field>[0]`` and so on. If success is
    known, a column ``success, <point>`` for each point follows; with several trials, also the scores of both halves.
    """
    values_of = {
        f"task.{name}" + (f"[{index}]" if values.shape[1] > 1 else ""): values[:, index]
        for name, values in results.task_values.items()
        for index in range(values.shape[1])
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    solved = [] if results.success is None else solved_columns(results.labels)
    solved += [] if results.halves is None else HALVES
    writer.writerow(["seed", "task", *values_of, "random", "oracle", *results.labels, *solved])
    for seed, tasks in enumerate(results.returns):
        for task, row in enumerate(tasks):
            own = (f"{values[task]:.9g}" for values in values_of.values())
            bounds = ["" if b is None else f"{b[task]:.9g}" for b in (results.random, results.oracle)]
            shares = [] if results.success is None else [*results.success[seed, task]]
            shares += [] if results.halves is None else [*results.halves[seed, task]]
            writer.writerow([seed, task, *own, *bounds, *(f"{value:.9g}" for value in (*row, *shares))])
    return text.getvalue()


def read(path: str | Path) -> dict[str, Any]:
    """Read the fields of the results that this or an earlier version of `write` wrote to `path`.

    Raises FileNotFoundError without the JSON file, and ValueError if any file is damaged or missing.
    """
    json_path, csv_path = with_suffix(path, ".json"), with_suffix(path, ".csv")
    plain = read_json(json_path)
    _check_document(json_path, plain)
    labels, counted = plain["labels"], plain.get("counts_success", False)
    halved = HALVES if plain.get("halves", False) else []
    fields = _read_csv(csv_path, [*labels, *(solved_columns(labels) if counted else []), *halved])
    if halved:
        fields["returns"], fields["halves"] = np.split(fields["returns"], [-2], axis=2)
    if counted:
        fields["returns"], fields["success"] = np.split(fields["returns"], 2, axis=2)
    seeds, tasks, points = fields["returns"].shape
    fields |= {name: np.array(plain[name], dtype=np.float64) for name in ("episodes", "env_steps")}
    noise = plain.get("noise")
    fields["noise"] = None if noise is None else np.array(noise, dtype=np.float64).reshape(len(noise), -1)
    fields |= {name: plain[name] for name in NAMES}
    fields |= {name: plain[name] for name in PROTOCOL if name in plain}
    fields |= {"labels": tuple(plain["labels"]), "versions": plain.get("versions", {})}
    fields["training"] = tuple(plain.get("training", ()))
    fields["steps"] = StepCurve.read(steps_path(path), seeds, tasks) if "steps" in plain else None
    if noise is not None and fields["noise"].shape != (seeds, points + 2):
        raise damaged(json_path, f"noise must have {points + 2} numbers for each of {seeds} seeds")
    _check_parts(path, plain, fields["returns"])
    return fields


def _check_document(path: Path, plain: dict[str, Any]) -> None:
    """Raise ValueError unless all fields of a JSON file are present, have the right types, and match the checksum."""
    for name, (what, holds) in RULES.items():
        if name not in plain and name not in OPTIONAL:
            raise damaged(path, f"it has no {name!r}")
        if name in plain and not holds(plain[name]):
            raise damaged(path, f"{name!r} must be {what}, got {to_json(plain[name])[:40]}")
    if "checksum" not in plain and "checksums" not in plain:  # a file of an earlier version
        return
    stated = plain.pop("checksum", None)
    if stated != checksum(plain):
        raise damaged(path, "its content does not match its checksum")


def _check_parts(path: str | Path, plain: dict[str, Any], returns: Array) -> None:
    """Raise ValueError unless the CSV files are those written with the JSON file."""
    files = {"csv": with_suffix(path, ".csv"), "steps": steps_path(path)}
    for name, stated in plain.get("checksums", {}).items():
        if checksum(read_text(files[name])) != stated:
            raise damaged(files[name], "its content does not match its checksum in the JSON file")
    # A file of an earlier version has no checksums, but it has the numbers of seeds and tasks, and the means.
    summary, points = plain.get("summary"), plain.get("points")
    for name, count in zip(("seeds", "tasks"), returns.shape, strict=False):
        if isinstance(summary, dict) and summary.get(name, count) != count:
            raise damaged(
                files["csv"], f"it has {count} {name}, not {to_json(summary[name])[:40]} as the JSON file says"
            )
    means = points.get("mean") if isinstance(points, dict) else None
    if means is not None and not _like(means, returns.mean(axis=(0, 1), dtype=np.float64)):
        raise damaged(files["csv"], "its means differ from those in the JSON file")


def _like(stated: Any, means: NDArray[np.float64]) -> bool:
    """Return True if numbers in JSON, which are rounded and null where not finite, match `means`."""
    if not _NUMBERS_OR_NULL(stated) or len(stated) != len(means):
        return False
    given = np.array(stated, dtype=np.float64)
    finite = np.isfinite(means)
    return bool((np.isfinite(given) == finite).all()) and np.allclose(given[finite], means[finite], 1e-5, 2e-6)


def _read_csv(path: Path, labels: list[str]) -> dict[str, Any]:
    """Read the fields `returns`, `random`, `oracle` and `task_values`. Raises ValueError if the file is damaged."""
    header, rows = read_csv(path)
    at = len(header) - len(labels) - 2
    if at < 2 or header[:2] != ["seed", "task"] or header[at:] != ["random", "oracle", *labels]:
        raise damaged(path, "its header does not match the JSON file")
    tasks = next((number for number, row in enumerate(rows) if row[0] != "0"), len(rows))
    seeds = len(rows) // max(tasks, 1)
    if [row[:2] for row in rows] != [[str(seed), str(task)] for seed in range(seeds) for task in range(tasks)]:
        raise damaged(path, "its rows do not list every seed on every task")
    if any(row[2 : at + 2] != rows[number % tasks][2 : at + 2] for number, row in enumerate(rows)):
        raise damaged(path, "its seeds differ in their tasks")
    bounds = []
    for column in (at, at + 1):
        cells = [[row[column]] for row in rows[:tasks]]
        bounds.append(singles(path, cells)[:, 0] if any(cell for (cell,) in cells) else None)
    return {
        "returns": singles(path, [row[at + 2 :] for row in rows]).reshape(seeds, tasks, len(labels)),
        "random": bounds[0],
        "oracle": bounds[1],
        "task_values": _task_values(path, header[2:at], [row[2:at] for row in rows[:tasks]]),
    }


def _task_values(path: Path, names: list[str], rows: list[list[str]]) -> dict[str, Array]:
    """Return the tasks' values by field, from the columns ``task.<field>`` or ``task.<field>[n]`` of a CSV file."""
    values = singles(path, rows).reshape(len(rows), len(names))
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        columns.setdefault(name.removeprefix("task.").partition("[")[0], []).append(column)
    expected = [
        f"task.{name}" + (f"[{index}]" if len(of) > 1 else "")
        for name, of in columns.items()
        for index in range(len(of))
    ]
    if names != expected:
        raise damaged(path, "its task columns do not describe a task")
    return {name: values[:, of] for name, of in columns.items()}


def to_frame(results: Results) -> Any:
    """Return a pandas DataFrame with one row per seed, task and point; see `AdaptationCurve.to_frame`."""
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
    columns |= {} if results.success is None else {"success": results.success.ravel()}
    return pandas.DataFrame(columns)
