"""The final evaluation of a run, on all splits of the family: a table, files and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

import metarl.report.best_arm
import metarl.report.few_shot  # noqa: F401  (both register pictures, and the second one measures)
from metarl.agents.family_extras import measures_for
from metarl.core.agent import LearningAgent
from metarl.core.family import has_picture
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.files import MEASURES, replace_file, to_json
from metarl.evaluation.playback import watch
from metarl.evaluation.results import not_finite
from metarl.learning import ranks
from metarl.report.behaviour import pictures
from metarl.report.console import show, text_of
from metarl.report.table import adaptation_table
from metarl.training.checkpoint import Counters
from metarl.training.config.run_config import TrainConfig, reported_split
from metarl.training.faults.iterations import first_spoiled
from metarl.training.log.curve_runs import write_curve
from metarl.training.log.logger import Logger, NoLog

CURVES = "adaptation"
"""Folder in a run directory with the curves as separate TensorBoard runs."""
TABLE = "table.txt"
"""The file of the table at the end."""


def evaluate_at_the_end(
    agent: LearningAgent,
    config: TrainConfig,
    run_dir: Path,
    done: Counters,
    log: Logger | NoLog,
    warn: Callable[[str], None],
) -> dict[str, AdaptationCurve]:
    """Evaluate on all splits, show the table, and write it to ``RUN_DIR/evaluation/``. Returns the curves by split."""
    family, folder, repeats = config.family, run_dir / "evaluation", config.final_eval_repeats
    # A plot takes about half a second, so only the reported split and `ood` have one.
    shown = {reported_split(config), "ood"}
    curves, watched, drawn = {}, {}, dict[str, list[Path]]()
    for number, split in enumerate(family.splits, start=1):
        log.say(f"Evaluating on {config.final_eval_tasks} tasks of {split} ({number} of {len(family.splits)} splits)")
        if split in shown:
            watched[split] = watch(agent, family, split, config.final_eval_tasks, repeats=repeats)
            curves[split] = watched[split][0]
        else:
            curves[split] = evaluate(agent, family, split, config.final_eval_tasks, repeats)
        if ranks.rank() == 0:
            drawn[split] = _save(curves[split], folder / split, warn)
            write_curve(run_dir / CURVES / split, curves[split])
    if ranks.rank():  # all ranks have the curves, and the first one shows them
        return curves
    log.evaluation(done, curves, figures=False)
    for split, files in drawn.items():  # to draw them again would take as long as all the rest
        for name, file in zip(("curve", "steps"), files, strict=False):
            log.picture(done, f"eval/{split}/{name}", file.read_bytes())
    log.bar.stop()
    table = adaptation_table(curves, log.console.width)
    show(log.console, table)
    for split, curve in curves.items():
        spoiled = not_finite(split, returns=curve.returns, random=curve.random, oracle=curve.oracle)
        if spoiled:
            first = first_spoiled(curve)
            warn(spoiled if first is None else f"{spoiled} In detail: {first}")
    with ranks.single_process():  # measures and some pictures are of evaluations of their own
        measure = measures_for(family)
        if measure is not None:
            for split in curves:
                found = measure(agent, family, split, config.final_eval_tasks)
                log.measures(done, split, found)
                replace_file(folder / f"{split}{MEASURES}", to_json(found) + "\n")
        for picture in pictures(family, watched, warn):
            log.picture(done, picture.tag, picture.data)
            replace_file(folder / picture.file_name, picture.data)
    if not has_picture(family):
        log.say(f"No pictures of behaviour: {type(family).__name__} has no picture: {family.no_picture}".rstrip("."))
    # This file is written last and marks the run as finished.
    replace_file(folder / TABLE, text_of(table))
    log.console.print(f"Everything of this run: {run_dir}", markup=False, soft_wrap=True)
    return curves


def show_again(run_dir: Path, splits: Sequence[str], console: Console) -> dict[str, AdaptationCurve]:
    """Show the table of a finished run that was evaluated on `splits`; return the curves by split."""
    curves = {split: AdaptationCurve.load(run_dir / "evaluation" / split) for split in splits}
    if curves:
        show(console, adaptation_table(curves, console.width))
    console.print(f"This run is done: {run_dir}", markup=False, soft_wrap=True)
    return curves


def _save(curve: AdaptationCurve, path: Path, warn: Callable[[str], None]) -> list[Path]:
    """Save a curve and return its plots; a plot that cannot be drawn only causes a warning."""
    try:
        return [file for file in curve.save(path) if file.suffix == ".png"]
    except OSError:
        raise
    except Exception as error:  # matplotlib may raise anything; the numbers were written before it draws
        if not path.with_suffix(".json").exists():
            raise
        warn(f"The picture of {path} could not be drawn ({type(error).__name__}: {str(error)[:100]}).")
        return []
