"""Several training seeds of one configuration: ``python -m metarl.train … --seeds 3``.

The runs are done one after the other in ``RUN_DIR/seed_1``, ``seed_2``, …, each like any other run. At the end their
final evaluations, which are on the same tasks, are combined in ``RUN_DIR/evaluation``. The same command with the same
``--run_dir`` continues where it stopped; with ``--auto_resume``, a seed without a checkpoint is started again.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.files import replace_file
from metarl.learning import ranks
from metarl.report.console import new_folder, show, text_of
from metarl.report.table import adaptation_table
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import Line
from metarl.training.config.parsing import Parsed, parse
from metarl.training.config.regular import check_regular
from metarl.training.lock import locked
from metarl.training.loop import find_device
from metarl.training.run_folder import check_place, check_same, finished

Train = Callable[[Parsed, Console], int]


def train_seeds(line: Line, train: Train, console: Console) -> int:
    """Train the seeds of a command line with --seeds, starting with the configuration's seed.

    Returns 0, or the exit code of the first run that stops.
    """
    first = parse(line)
    if first.resume:
        raise ConfigError("--seeds continues by itself: repeat the first command, with its --run_dir.")
    seeds = range(first.config.seed, first.config.seed + (line.seeds or 1))
    ranks.start(find_device(first.config))
    if first.config.run_dir is not None:
        folder = Path(first.config.run_dir)
    else:
        check_place(Path("runs"))
        name = f"{first.name}_{time.strftime('%Y%m%d-%H%M%S')}"
        folder = ranks.on_rank_zero(lambda: new_folder(Path("runs") / name))
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
        if checkpoint.newest(run_dir):
            check_same(run_dir, parsed)
            if finished(run_dir, parsed.config):
                console.print(f"Seed {seed} is done: {run_dir}", markup=False, soft_wrap=True)
                continue
            parsed = parse([f"--resume={run_dir}"])
        if code := train(parsed, console):
            if code > 128:  # a signal; the run has printed how to continue it alone
                command = [*first.command, f"--seeds={len(seeds)}"]
                command += [f"--run_dir={folder}"] if first.config.run_dir is None else []
                console.print(f"Continue all seeds with: {shlex.join(command)}", markup=False, soft_wrap=True)
            return code
    if first.config.final_eval_tasks and ranks.rank() == 0:
        runs, splits = [folder / f"seed_{seed}" for seed in seeds], first.config.family.splits
        (folder / "evaluation").mkdir(exist_ok=True)
        with locked(folder / "evaluation", partial(console.print, markup=False, soft_wrap=True)):
            join(runs, folder / "evaluation", splits, console)
    console.print(f"Curves: tensorboard --logdir {shlex.quote(str(folder))}", markup=False, soft_wrap=True)
    return 0


def join(runs: Sequence[Path], folder: Path, splits: Sequence[str], console: Console) -> dict[str, AdaptationCurve]:
    """Combine the final evaluations of several seeds to one curve per split; show them and write them to `folder`."""
    curves = {}
    for split in splits:
        curves[split] = combine([AdaptationCurve.load(run / "evaluation" / split) for run in runs])
        curves[split].save(folder / split)
    table = adaptation_table(curves, console.width)
    show(console, table)
    replace_file(folder / "table.txt", text_of(table))
    return curves
