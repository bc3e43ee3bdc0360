"""A study: trials of a search space, chosen by Optuna, on a storage that several processes can share.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes settings, and its median rule ends runs that
are worse than the median of the others at the same iteration. A study's state is in its storage, a database; each
trial has a run directory. The same call thus continues a stopped study and its trials: an interrupted trial is
continued from its last checkpoint, at once, or once its process has sent no heartbeat for a while.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from metarl.evaluation.files import replace_file
from metarl.studies.tuning.objective import Objective
from metarl.studies.tuning.space import Space
from metarl.training.config.errors import ConfigError

DECIDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of decided trials: those with a value, and pruned ones."""
ALIVE = 30
"""Seconds between heartbeats of a process."""
LOST = 120
"""Seconds without a heartbeat after which another process may continue a trial."""
OF_MACHINE = ("num_threads", "device")
"""Fields in which the processes of a study may differ, since they do not affect the search."""
STARTUP = 5
"""Number of initial random trials, and of finished trials before any is pruned."""


def open_study(storage: str, name: str, objective: Objective, seed: int, lost: int = LOST) -> optuna.Study:
    """Open or create the study `name` in a storage. Raises ConfigError if that fails.

    `lost` are the seconds without a heartbeat after which the process of a running trial is considered dead.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():  # heartbeats are marked as experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            kept = RDBStorage(
                storage,
                heartbeat_interval=min(ALIVE, lost),
                grace_period=lost,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        study = optuna.create_study(
            storage=kept,
            study_name=name,
            direction=objective.direction,
            sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed, constant_liar=True),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
            load_if_exists=True,
        )
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"The storage {storage!r} cannot be opened: {reason}.") from error
    _check_same(study, objective)
    return study


def _check_same(study: optuna.Study, objective: Objective) -> None:
    """Raise ConfigError if the study has another space, preset or objective."""
    about: dict[str, Any] = {
        "preset": objective.preset,
        "fixed": {name: value for name, value in objective.fixed.items() if name not in OF_MACHINE},
        "split": objective.split,
        "target": objective.target,
        "space": described(objective.space),
    }
    about = json.loads(json.dumps(about))  # in the form that the storage returns
    known = study.user_attrs.get("about")
    if known is None:
        study.set_user_attr("about", about)
    elif different := [name for name in about if about[name] != known.get(name)]:
        raise ConfigError(
            f"The study {study.study_name!r} in this storage has another {different[0]}: "
            f"go on with the same one, or choose another --name or --storage."
        )


def described(space: Space) -> dict[str, Any]:
    """Return a space as plain data."""
    return {each.field: [each.kind, list(each.values), [list(point) for point in each.times]] for each in space}


def search(
    study: optuna.Study,
    objective: Objective,
    trials: int,
    on_trial: Callable[[optuna.Study, FrozenTrial], None] = lambda study, trial: None,
) -> None:
    """Try settings until `trials` of the study are decided, including those of other processes and earlier calls."""
    enough = optuna.study.MaxTrialsCallback(trials, states=DECIDED)
    if len(decided(study)) < trials:
        study.optimize(objective, callbacks=[on_trial, enough])


def decided(study: optuna.Study) -> list[FrozenTrial]:
    """Return the decided trials."""
    return study.get_trials(deepcopy=False, states=DECIDED)


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials with a value, the best one first."""
    sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: sign * float(trial.value or 0.0))


def settings_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """Return the fields that a trial has set, as values of a configuration."""
    fixed = optuna.trial.FixedTrial(trial.params)
    return {dimension.field: dimension.suggest(fixed) for dimension in space}  # type: ignore[arg-type]


def importances(study: optuna.Study) -> Mapping[str, float]:
    """Return each field's importance for good trials (PED-ANOVA), as fractions; {} for too few trials."""
    if len(ranked(study)) < 2 * STARTUP:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


def write_best(study: optuna.Study, objective: Objective, path: Path) -> None:
    """Write the best trial's settings as a config file for ``metarl train``."""
    best = ranked(study)[0]
    parsed = objective.parsed(settings_of(best, objective.space))
    what = f"score on {objective.split!r}" if objective.target is None else f"seconds to {objective.target}"
    head = (
        f"# The best of {len(decided(study))} trials of {objective.preset}: {what} {best.value:.6g}, with one seed.\n"
        "# It was chosen by this number, so expect less: train several seeds, and read them on 'test'.\n"
    )
    replace_file(path, head + parsed.text())
