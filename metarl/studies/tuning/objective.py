"""The objective of a study: an agent is trained with a trial's settings, and scored on tasks that are not for test.

The score is that of the last evaluation in training, on `valid`; or, for a preset that trains on `all`, on those
tasks. With a target, the value is the seconds of training, without evaluations, until one first reaches the target.
`test` and `ood` are never played, so later results on them are not biased by the selection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna

from metarl.studies.tuning.space import Space
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import Parsed, parse
from metarl.training.config.run_config import TrainConfig
from metarl.training.divergence import Diverged
from metarl.training.runs import run

FOLDER = "folder"
"""Attribute of a trial with the name of its run directory; a resumed trial already has it."""


def split_of(config: TrainConfig) -> str:
    """Return the split whose score is tuned. Raises ConfigError if the family has no such split."""
    if config.train_split == "all":
        return "all"
    if "valid" not in config.family.splits:
        raise ConfigError(f"{config.family!r} must have a split 'valid', the only one that tuning may use.")
    return "valid"


@dataclass(frozen=True)
class Objective:
    """A preset with a search space, as a function of Optuna's trials."""

    preset: str
    """A preset or a YAML file."""
    space: Space
    fixed: Mapping[str, Any]
    """Other fields that differ from the preset's, such as ``{"total_iterations": 50}``."""
    folder: Path
    """For the run directories of the trials."""
    split: str
    """The split whose score counts."""
    target: float | None = None
    """Score to reach as fast as possible; None: maximise the score itself."""

    @property
    def tag(self) -> str:
        """The metric that is tuned."""
        return f"eval/{self.split}/score"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.target is None else "minimize"

    def __call__(self, trial: optuna.Trial) -> float:
        """Train with a trial's settings. Raises TrialPruned for a run that is worse than the others, or diverges."""
        values = {dimension.field: dimension.suggest(trial) for dimension in self.space}
        name = trial.user_attrs.get(FOLDER, f"trial_{trial.number:04d}")
        trial.set_user_attr(FOLDER, name)
        watched = _Watched(self, trial)
        try:
            run(
                self.preset,
                run_dir=str(self.folder / name),
                auto_resume=True,
                eval_splits=[self.split],
                final_eval_tasks=0,
                on_iteration=watched,
                **as_overrides({**self.fixed, **values}),
            )
        except Diverged as reason:
            raise optuna.TrialPruned(str(reason)) from reason
        except (KeyboardInterrupt, SystemExit):  # the run is saved and continues with the study
            trial.study.enqueue_trial(trial.params, user_attrs={FOLDER: name})
            raise
        if watched.pruned:
            raise optuna.TrialPruned("worse than the median of the others")
        return value_of(self.folder / name, self.tag, self.target)

    def check(self) -> None:
        """Raise ConfigError unless every bound and every choice of the space is a valid configuration."""
        for dimension in self.space:
            for value in dimension.extremes():
                self.parsed({dimension.field: value})

    def parsed(self, values: Mapping[str, Any]) -> Parsed:
        """Return the preset's configuration with the fixed fields and these."""
        words = [f"--{field}={_word(value)}" for field, value in {**self.fixed, **values}.items()]
        return parse(["--config", self.preset, *words])


class _Watched:
    """Callback of a run: reports each evaluation to the trial, and ends the run once the trial is decided."""

    def __init__(self, objective: Objective, trial: optuna.Trial) -> None:
        self.objective, self.trial = objective, trial
        self.pruned = False

    def __call__(self, iteration: int, metrics: dict[str, float]) -> bool:
        """Return True to end the run: the target is reached, or the run is worse than the median of the others."""
        score, target = metrics.get(self.objective.tag), self.objective.target
        if score is None:
            return False
        if target is not None and score >= target:
            return True
        # By iteration, so that a resumed run reports on the same scale.
        self.trial.report(score if target is None else -score, iteration)
        self.pruned = self.trial.should_prune()
        return self.pruned


def value_of(run_dir: Path, tag: str, target: float | None) -> float:
    """Return the value of a finished run: its last score, or the seconds of training until it reached the target.

    Raises TrialPruned if the target was not reached, and ConfigError for a run without an evaluation.
    """
    seconds, score = 0.0, None
    for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        metrics = json.loads(line)
        seconds += metrics["time/collect"] + metrics["time/update"]
        score = metrics.get(tag, score)
        if target is not None and tag in metrics and metrics[tag] >= target:
            return seconds
    if score is None:
        raise ConfigError("There was no evaluation to score: total_iterations must be at least eval_every.")
    if target is not None:
        raise optuna.TrialPruned(f"{target} was not reached")
    return float(score)


def as_overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert fields with dotted names to the overrides that `metarl.run` takes."""
    made: dict[str, Any] = {}
    for field, value in values.items():
        first, _, rest = field.partition(".")
        if rest and first in ("agent", "family"):
            made.setdefault(first, {})[rest] = value
        else:
            made[field] = value
    return made


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
