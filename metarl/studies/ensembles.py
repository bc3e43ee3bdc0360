"""Ensembles of runs, which are saved, loaded and evaluated like a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarl.agents.ensemble import Ensemble
from metarl.core.errors import short
from metarl.evaluation.files import replace_file
from metarl.report.console import make_folder
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import as_yaml


def ensemble(
    runs: Sequence[str | Path],
    *,
    weights: str = "uniform",
    mix: str = "step",
    rate: float | None = None,
    run_dir: str | Path | None = None,
    which: str | int = "last",
    device: str = "cpu",
    allow: Sequence[str] = (),
) -> Ensemble:
    """Combine trained agents of one family into an ensemble::

        metarl.ensemble(["runs/seed_1", "runs/seed_2"], weights="hedge", mix="episode", run_dir="runs/both")

    `runs` are run directories, folders of several seeds, or ``pretrained:NAME``; `which`, `device` and `allow` are as
    in `metarl.load`. `weights`, `mix` and `rate` are those of `metarl.agents.ensemble.Ensemble`. With `run_dir` the
    ensemble is saved: its options, and a copy of each member. `metarl.load` and ``metarl evaluate`` then take this
    folder like that of a run. Raises ValueError if agents cannot be loaded or combined, or if `run_dir` is not
    empty.
    """
    if isinstance(runs, str | Path):
        runs = [runs]
    for run in runs:
        if not isinstance(run, str | Path):
            raise ConfigError(
                f"The members of an ensemble must be run directories or pretrained:NAME, got {short(run)}."
            )
    found = [each for run in runs for each in checkpoint.runs_of(run)]
    made = Ensemble([checkpoint.load(run, device, which, allow) for run in found], weights, mix, rate)
    if run_dir is not None:
        folder = Path(run_dir)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"run_dir must be a new or empty folder, got {str(folder)!r}.")
        make_folder(folder)
        for number, run in enumerate(found, start=1):
            checkpoint.copy_agent(checkpoint.find(run), folder / f"member_{number}", which, allow)
        options = {"weights": weights, "mix": mix, "rate": rate}
        replace_file(folder / checkpoint.ENSEMBLE, as_yaml(options))  # last: this file marks the ensemble as complete
    return made
