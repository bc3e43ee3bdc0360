"""Several training seeds of one configuration: ``python -m metarl.train … --seeds 3``.

The runs are done one after the other in ``RUN_DIR/seed_1``, ``seed_2``, …, each like any other run. At the end their
final evaluations, which are on the same tasks, are joined in ``RUN_DIR/evaluation``. The same command with the same
``--run_dir`` continues where it stopped.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.report.console import new_folder, show, text_of
from metarl.report.table import adaptation_table
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import Line
from metarl.training.config.parsing import Parsed, parse
from metarl.training.config.regular import check_regular

Train = Callable[[Parsed, Console], int]


def train_seeds(line: Line, train: Train, console: Console) -> int:
    """Train the seeds of a line with --seeds, from the configuration's own seed upwards.

    Returns 0, or the exit code of the first run that stops.
    """
    first = parse(line)
    if first.resume:
        raise ConfigError("--seeds goes on by itself: give the first command again, with its --run_dir.")
    seeds = range(first.config.seed, first.config.seed + (line.seeds or 1))
    if first.config.run_dir is not None:
        folder = Path(first.config.run_dir)
    else:
        folder = new_folder(Path("runs") / f"{first.name}_{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        return _train_into(folder, line, first, seeds, train, console)
    except ConfigError:
        if first.config.run_dir is None:
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()
        raise


def _train_into(folder: Path, line: Line, first: Parsed, seeds: Sequence[int], train: Train, console: Console) -> int:
    """Train the unfinished seeds in `folder`, then join all of them. Returns the exit code."""
    if folder.is_dir():
        check_regular(folder, to_write=True)
    for seed in seeds:
        run_dir = folder / f"seed_{seed}"
        parsed = parse(line.also(f"--seed={seed}", f"--run_dir={run_dir}"))
        if _finished(run_dir, parsed):
            console.print(f"Seed {seed} is done: {run_dir}", markup=False, soft_wrap=True)
            continue
        if (run_dir / checkpoint.CHECKPOINT).exists():
            parsed = parse([f"--resume={run_dir}"])
        if code := train(parsed, console):
            return code
    if first.config.final_eval_tasks:
        join([folder / f"seed_{seed}" for seed in seeds], folder / "evaluation", first.config.family.splits, console)
    console.print(f"Curves: tensorboard --logdir {shlex.quote(str(folder))}", markup=False, soft_wrap=True)
    return 0


def join(runs: Sequence[Path], folder: Path, splits: Sequence[str], console: Console) -> dict[str, AdaptationCurve]:
    """Join the final evaluations of several seeds to one curve for each split; show them and write them to `folder`."""
    curves = {}
    for split in splits:
        curves[split] = combine([AdaptationCurve.load(run / "evaluation" / split) for run in runs])
        curves[split].save(folder / split)
    table = adaptation_table(curves, console.width)
    show(console, table)
    (folder / "table.txt").write_text(text_of(table), encoding="utf-8")
    return curves


def _finished(run_dir: Path, parsed: Parsed) -> bool:
    """Tell whether the run exists and is complete. Raises ConfigError if the folder holds another configuration."""
    kept = run_dir / "config.yaml"
    if not kept.exists():
        return False
    if parse([f"--config={kept}"]).text() != parsed.text():
        raise ConfigError(f"{str(run_dir)!r} holds a run of another configuration: choose another --run_dir.")
    if not (run_dir / checkpoint.CHECKPOINT).exists():
        raise ConfigError(f"The run in {str(run_dir)!r} stopped before its first checkpoint: remove that folder.")
    _, done = checkpoint.load_state(run_dir)
    evaluated = all((run_dir / "evaluation" / f"{split}.json").exists() for split in parsed.config.family.splits)
    return done.iteration == parsed.config.total_iterations and (evaluated or not parsed.config.final_eval_tasks)
