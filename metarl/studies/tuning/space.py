"""The search space of a study: a YAML file with one line per tuned field of the configuration::

    agent.lr: {log: [1e-4, 1e-2]}                  # between the bounds, on a log scale
    agent.gamma: {uniform: [0.9, 1.0]}
    agent.update_epochs: {int: [1, 8]}             # whole numbers, both bounds included
    agent.hidden_size: {choice: [32, 64, 128]}     # one of these, of any type
    agent.ent_coef: {log: [1e-3, 0.1], times: [[0.0, 1.0], [1.0, 0.0]]}   # a schedule: these values times the number

Every bound and every choice is tried as a configuration before anything is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.core.errors import brief, unknown
from metarl.training.config.errors import ConfigError
from metarl.training.config.file import read_yaml

if TYPE_CHECKING:
    import optuna

SPACES = Path(__file__).parent / "spaces"
"""The spaces that come with the package, by name."""
KINDS = ("uniform", "log", "int", "choice")
OWN = ("run_dir", "seed", "allow", "init_from", "eval_splits", "final_eval_tasks", "max_seconds", "max_env_steps")
"""Fields that are set by the study."""


@dataclass(frozen=True)
class Dimension:
    """A field and its possible values."""

    field: str
    """Its name, such as ``agent.lr``."""
    kind: str
    """uniform, log, int or choice."""
    values: tuple[Any, ...]
    """The two bounds, or the choices."""
    times: tuple[tuple[float, float], ...] = ()
    """Points (progress, factor) of a schedule, whose values are the drawn number times the factors; (): no schedule."""

    def suggest(self, trial: optuna.Trial) -> Any:
        """Return the value for a trial: of the type that the field has in a configuration."""
        if self.kind == "choice":  # Optuna stores numbers and strings; other values are passed as JSON
            return json.loads(trial.suggest_categorical(self.field, [json.dumps(value) for value in self.values]))
        low, high = self.values
        if self.kind == "int":
            return trial.suggest_int(self.field, low, high)
        return self.scheduled(trial.suggest_float(self.field, low, high, log=self.kind == "log"))

    def extremes(self) -> list[Any]:
        """Return the values that must be valid: both bounds, or all choices."""
        return list(self.values) if self.kind in ("choice", "int") else [self.scheduled(each) for each in self.values]

    def scheduled(self, number: float) -> Any:
        """Return the number, or the schedule that it defines."""
        return [[at, factor * number] for at, factor in self.times] if self.times else number


Space = tuple[Dimension, ...]


def find_space(name: str | Path) -> Path:
    """Return the file of a space: a path, or the name of one in `SPACES`. Raises ConfigError if there is none."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    known = sorted(each.stem for each in SPACES.glob("*.yaml"))
    if str(name) not in known:
        raise ConfigError(unknown("search space", str(name), known, see="or give a file that ends in .yaml"))
    return SPACES / f"{name}.yaml"


def read_space(path: Path) -> Space:
    """Read a space. Raises ConfigError if the file is invalid."""
    return tuple(_dimension(str(field), given) for field, given in read_yaml(path).items())


def _dimension(field: str, given: Any) -> Dimension:
    """Make a dimension from its line in the file."""
    if field.partition(".")[0] in OWN:
        raise ConfigError(f"{field} cannot be tuned: the study sets it. Leave it out of the search space.")
    kinds = [kind for kind in KINDS if isinstance(given, Mapping) and kind in given]
    if len(kinds) != 1 or {*given} - {*KINDS, "times"}:
        raise ConfigError(
            f"{brief(field)} must be one of {{uniform: [LOW, HIGH]}}, {{log: [LOW, HIGH]}}, {{int: [LOW, HIGH]}} and "
            f"{{choice: [VALUE, …]}}, with times: [[PROGRESS, FACTOR], …] if it is a schedule; got {brief(str(given))}."
        )
    (kind,) = kinds
    values = given[kind]
    if kind == "choice":
        if not isinstance(values, list) or len(values) < 2 or "times" in given:
            raise ConfigError(f"{field}: choice must be a list of two values or more, without times.")
        return Dimension(field, kind, tuple(values))
    _check_bounds(field, kind, values)
    return Dimension(field, kind, tuple(values), _times(field, kind, given.get("times", [])))


def _check_bounds(field: str, kind: str, values: Any) -> None:
    """Raise ConfigError unless the values are two bounds in order."""
    number = int if kind == "int" else (int, float)
    fine = isinstance(values, list) and len(values) == 2
    fine = fine and all(isinstance(each, number) and not isinstance(each, bool) for each in values)
    fine = fine and all(math.isfinite(each) for each in values) and values[0] < values[1]
    if not fine or (kind == "log" and values[0] <= 0):
        what = "two whole numbers" if kind == "int" else "two positive numbers" if kind == "log" else "two numbers"
        raise ConfigError(f"{field}: {kind} must be {what}, the lower one first, got {brief(str(values))}.")


def _times(field: str, kind: str, points: Any) -> tuple[tuple[float, float], ...]:
    """Return the points of a schedule. Raises ConfigError for anything else."""
    fine = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    if not fine or not all(isinstance(each, (int, float)) for point in points for each in point):
        raise ConfigError(f"{field}: times must be points [[PROGRESS, FACTOR], …], got {brief(str(points))}.")
    if points and kind == "int":
        raise ConfigError(f"{field}: whole numbers have no schedule, so leave out times, or use uniform.")
    return tuple((float(at), float(factor)) for at, factor in points)
