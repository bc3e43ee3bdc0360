"""A hyperparameter search::

    metarl tune rl2_gridnavi --space rl2 --trials 50 --workers 2
    metarl tune rl2_gridnavi --space mine.yaml --target 35 --set total_iterations=60 --storage sqlite:///shared.db

Each trial is a run in OUT. The program shows the best trials and writes ``trials.csv`` and ``best.yaml``, which
``metarl train`` takes. It needs the extra `tune`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from metarl.cli.studies import parsers
from metarl.core.errors import brief, check_counts
from metarl.evaluation.files import replace_file
from metarl.report.console import in_words, make_console, make_folder, show
from metarl.training.config.errors import ConfigError
from metarl.training.config.names import allow
from metarl.training.config.safe_yaml import load_yaml

BEST = 10
"""Number of trials in the table."""
WORKER = "METARL_TUNE_WORKER"
"""Environment variable with the number of a process that ``--workers`` started."""


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl tune …``. Returns 0, or 2 after one sentence on standard error for a user error."""
    options = parsers.tune().read(arguments)
    console = make_console(options.quiet, width=120)
    try:
        allow(options.allow)
        check_counts(trials=options.trials, workers=options.workers)
        _tune(options, [*arguments], console)
    except (ValueError, OSError) as mistake:
        print(f"metarl tune: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _tune(options: Any, arguments: list[str], console: Console) -> None:
    """Search, alone or with worker processes, then show and write the results."""
    try:
        from metarl.studies.tuning import objective as objectives
        from metarl.studies.tuning import study as studies
    except ImportError as missing:
        raise ConfigError(
            f"metarl tune needs Optuna ({missing.name} is missing): pip install 'metarl[tune]'."
        ) from missing
    from metarl.studies.tuning.space import find_space, read_space

    name = options.name or Path(options.preset).stem
    folder = options.out or Path("runs") / f"tune_{name}"
    fixed = _fixed(options.set) | ({"allow": options.allow} if options.allow else {})
    if options.workers > 1 and "num_threads" not in fixed:
        fixed["num_threads"] = max(1, (os.cpu_count() or 1) // options.workers)
    space = read_space(find_space(options.space))
    objective = objectives.Objective(options.preset, space, fixed, folder, "valid", options.target)
    objective = replace(objective, split=objectives.split_of(objective.parsed({}).config))
    objective.check()
    make_folder(folder)
    study = studies.open_study(options.storage or f"sqlite:///{folder}/study.db", name, objective, _seed(options))
    if options.workers == 1 or WORKER in os.environ:
        studies.search(study, objective, options.trials, partial(_say, console, options.trials, studies))
    else:
        _start_workers(options.workers, arguments)
    if WORKER in os.environ:
        return
    if not studies.ranked(study):
        raise ConfigError(f"None of the {len(studies.decided(study))} trials has a score: is the target within reach?")
    show(console, _table(study, objective, studies))
    _write(study, objective, studies, folder)
    shares = studies.importances(study)
    if shares:
        console.print("What mattered: " + ", ".join(f"{field} {share:.2f}" for field, share in shares.items()))
    console.print(
        f"The best trial is also the luckiest: train several seeds of it with metarl train {folder / 'best.yaml'} "
        "--seeds 3",
        markup=False,
        soft_wrap=True,
    )


def _seed(options: Any) -> int:
    """Return the seed of the proposals; processes have different seeds, so that they do not try the same settings."""
    return int(options.seed) + int(os.environ.get(WORKER, 0))


def _fixed(settings: Sequence[str]) -> dict[str, Any]:
    """Parse ``--set FIELD=VALUE``. Raises ConfigError if the text is invalid."""
    made = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not field:
            raise ConfigError(f"--set needs FIELD=VALUE, such as total_iterations=50, got {brief(setting)!r}.")
        try:
            made[field] = load_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {brief(field)} must be valid YAML, got {brief(text)!r}.") from error
    return made


def _start_workers(workers: int, arguments: list[str]) -> None:
    """Run the same command in several processes, and wait for them. Raises ConfigError if all of them fail."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "metarl", "tune", *arguments, "--quiet"], env={**os.environ, WORKER: str(number)}
        )
        for number in range(workers)
    ]
    try:
        codes = [process.wait() for process in started]
    except BaseException:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        raise
    if all(codes):
        raise ConfigError(f"All {workers} processes have ended with an error.")


def _say(console: Console, trials: int, studies: Any, study: Any, trial: Any) -> None:
    """Print a line about a finished trial."""
    value = "pruned" if trial.value is None else f"{trial.value:.6g}"
    done = len(studies.decided(study))
    console.print(f"Trial {trial.number} ({done} of {trials}): {value}", markup=False, highlight=False)


def _table(study: Any, objective: Any, studies: Any) -> Table:
    """Make the table of the best trials."""
    value = f"score on {objective.split}" if objective.target is None else f"seconds to {objective.target:g}"
    table = Table(title=f"Best trials of {len(studies.decided(study))}", title_justify="left")
    for column in ("trial", value, *(dimension.field for dimension in objective.space)):
        table.add_column(column, justify="right")
    for trial in studies.ranked(study)[:BEST]:
        shown = studies.settings_of(trial, objective.space)
        drawn = [trial.params[field] if isinstance(trial.params[field], float) else shown[field] for field in shown]
        table.add_row(str(trial.number), f"{trial.value:.5g}", *(_short(each) for each in drawn))
    return table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(study: Any, objective: Any, studies: Any, folder: Path) -> None:
    """Write all trials as CSV, and the best one's settings as a config file."""
    fields = [dimension.field for dimension in objective.space]
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["trial", "state", "value", *fields])
    for trial in study.get_trials(deepcopy=False):
        settings = studies.settings_of(trial, objective.space) if {*fields} <= {*trial.params} else {}
        rows.writerow(
            [trial.number, trial.state.name.lower(), trial.value, *(json.dumps(settings.get(each)) for each in fields)]
        )
    replace_file(folder / "trials.csv", text.getvalue())
    studies.write_best(study, objective, folder / "best.yaml")
