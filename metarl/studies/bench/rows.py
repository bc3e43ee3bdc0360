"""Results of the benchmark as data: one row per agent, problem and seed, and the file format.

``results.json`` is ``{"format": "metarl-bench", "version": 1, "rows": [...]}``. A row has the fields of `Row`. Files
are validated strictly: every field with its type, finite numbers, known problems, sizes within bounds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import brief, unknown
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.files import replace_file, to_json
from metarl.studies.bench.protocol import PROBLEMS, VERSION

FORMAT = "metarl-bench"
LONGEST = 50_000_000
"""Largest size of a file in bytes."""
MOST_ROWS, MOST_POINTS, MOST_TASKS, MOST_EVALUATIONS = 10_000, 1_000, 2_000, 10_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+²-]{0,59}")
"""Pattern of agent names."""
DIGITS = 6
"""Significant digits of a number in the file."""


@dataclass(frozen=True)
class Row:
    """The result of an agent of one seed on one problem. Returns are per episode."""

    agent: str
    problem: str
    seed: int
    """Training seed; 0 for an agent that is not trained."""
    rounds: bool
    """True if points are rounds of adaptation; else they are episodes of the trial."""
    labels: list[str]
    """Names of the points of the curve: "episode 1", …"""
    episodes: list[float]
    """Episodes of experience on the task before each point."""
    env_steps: list[float]
    """Environment steps on the task before each point."""
    mean: list[float]
    """Mean return at each point, over tasks."""
    low: list[float]
    """Lower end of the 95 % interval over tasks, of this agent."""
    high: list[float]
    last: list[float]
    """Return of each task at the last point, averaged over its repeats."""
    noise: float | None
    """Standard error of the last point's mean over replays of the same tasks; None: one trial each."""
    random: float
    """Mean return of the uniformly random policy."""
    oracle: float | None
    """Best known mean return with the task known; None: unknown."""
    repeats: int
    train_steps: int
    """Environment steps of meta-training."""
    train_seconds: float | None
    """Seconds of meta-training without evaluations; None: unknown."""
    training: list[list[float]]
    """Evaluations during training: [environment steps, return at point 1, at point 2, …], on other tasks."""
    hardware: str
    versions: dict[str, str]

    @property
    def curve(self) -> AdaptationCurve:
        """The last point of the adaptation curve, for statistics over tasks and agents."""
        problem, tasks = PROBLEMS[self.problem], len(self.last)
        bounds = [
            np.full(tasks, value, np.float32) if value is not None else None for value in (self.random, self.oracle)
        ]
        return AdaptationCurve(
            returns=np.array(self.last, np.float32)[None, :, None],
            episodes=np.array(self.episodes[-1:]),
            env_steps=np.array(self.env_steps[-1:]),
            labels=(self.labels[-1],),
            random=bounds[0],
            oracle=bounds[1],
            agent=self.agent,
            family=self.problem,
            split=problem.split,
            greedy=False,
            rounds=self.rounds,
            repeats=self.repeats,
            eval_seed=0,
            distinct=tasks if problem.split == "all" else None,
            noise=None if self.noise is None else np.array([[self.noise, self.noise, 0.0]]),
        )

    def normalised(self, values: Sequence[float]) -> list[float] | None:
        """Normalise returns so that random play is 0 and the known optimum 1; None without an optimum."""
        if self.oracle is None or self.oracle == self.random:
            return None
        return [(value - self.random) / (self.oracle - self.random) for value in values]


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a file of results."""
    data = {"format": FORMAT, "version": VERSION, "rows": [_rounded(asdict(row)) for row in rows]}
    replace_file(path, to_json(data, ensure_ascii=False) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def read(path: Path) -> list[Row]:
    """Read a file of results. Raises ValueError if it is invalid or has another version."""
    where = f"The file {brief(str(path))!r}"
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"{where} is not a results file: it has more than {LONGEST:,} bytes.")
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise ValueError(f"There is no file {brief(str(path))!r}.") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith(where):
            raise
        raise ValueError(f"{where} is not a results file: it cannot be read as JSON.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("rows"), list):
        raise ValueError(f"{where} is not a results file: it does not have the format {FORMAT!r}.")
    if data.get("version") != VERSION:
        raise ValueError(
            f"{where} must be from version {VERSION} of the benchmark, got {brief(str(data.get('version')))}."
        )
    if len(data["rows"]) > MOST_ROWS:
        raise ValueError(f"{where} has more than {MOST_ROWS:,} rows.")
    return [_row(given, f"{where}, row {number}") for number, given in enumerate(data["rows"], start=1)]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _row(given: Any, where: str) -> Row:
    """Make a row from an entry of a file. Raises ValueError if it is invalid."""
    if not isinstance(given, dict):
        raise ValueError(f"{where}, must be a JSON object.")
    known = {each.name for each in fields(Row)}
    if missing := known - {*given}:
        raise ValueError(f"{where}, lacks {sorted(missing)[0]!r}.")
    if more := {*given} - known:
        raise ValueError(f"{where}, has an unknown field: {brief(sorted(map(str, more))[0])!r}.")
    row = Row(**given)
    points, tasks = len(row.labels) if isinstance(row.labels, list) else 0, MOST_TASKS
    rules: dict[str, bool] = {
        "agent": isinstance(row.agent, str) and NAME.fullmatch(row.agent) is not None,
        "problem": isinstance(row.problem, str) and row.problem in PROBLEMS,
        "seed": _whole(row.seed),
        "rounds": isinstance(row.rounds, bool),
        "labels": 1 <= points <= MOST_POINTS and all(isinstance(each, str) and len(each) <= 60 for each in row.labels),
        "last": _numbers(row.last, least=1, most=tasks),
        "noise": row.noise is None or (_number(row.noise) and row.noise >= 0),
        "random": _number(row.random),
        "oracle": row.oracle is None or _number(row.oracle),
        "repeats": _whole(row.repeats) and row.repeats >= 1,
        "train_steps": _whole(row.train_steps),
        "train_seconds": row.train_seconds is None or (_number(row.train_seconds) and row.train_seconds >= 0),
        "training": isinstance(row.training, list)
        and len(row.training) <= MOST_EVALUATIONS
        and all(_numbers(each, least=2, most=MOST_POINTS + 1) for each in row.training),
        "hardware": isinstance(row.hardware, str) and len(row.hardware) <= 200,
        "versions": isinstance(row.versions, dict)
        and len(row.versions) <= 50
        and all(isinstance(each, str) and len(each) <= 200 for pair in row.versions.items() for each in pair),
    }
    rules |= {
        name: _numbers(getattr(row, name), points, points) for name in ("episodes", "env_steps", "mean", "low", "high")
    }
    if wrong := [name for name, fine in rules.items() if not fine]:
        name = wrong[0]
        if name == "problem":
            raise ValueError(f"{where}: {unknown('problem', str(row.problem), PROBLEMS)}")
        raise ValueError(f"{where}, has an invalid {name!r}: {brief(str(getattr(row, name)))}.")
    return row


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _numbers(value: Any, least: int, most: int) -> bool:
    return isinstance(value, list) and least <= len(value) <= most and all(map(_number, value))
