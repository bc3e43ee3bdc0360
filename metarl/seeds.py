"""Several training seeds of one configuration: ``python -m metarl.train … --seeds 3``.

The runs are played one after the other in ``RUN_DIR/seed_1``, ``seed_2``, …, each like any other run; at the end their
final evaluations, which are on the same tasks, are joined in ``RUN_DIR/evaluation``. The same command with the same
``--run_dir`` again goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from metarl import checkpoint
from metarl.config import Parsed, parse
from metarl.config_errors import ConfigError
from metarl.config_settings import split_args
from metarl.console import new_folder, show, text_of
from metarl.curve import AdaptationCurve, combine
from metarl.table import adaptation_table

Train = Callable[[Parsed, Console], int]


def requested(args: Sequence[str]) -> tuple[list[str], int | None]:
    """The command line without ``--seeds N``, and N (None where it is not there). Raises ConfigError for a bad N."""
    rest: list[str] = []
    count: int | None = None
    if not any(arg.partition("=")[0] == "--seeds" for arg in args):
        return list(args), None
    for key, value in split_args(args):
        if key != "--seeds":
            rest += [key] if value is None else [f"{key}={value}"]
        elif value is None or not value.isdigit() or int(value) < 1:
            raise ConfigError(f"--seeds needs how many, at least 1, got {value}.")
        else:
            count = int(value)
    return rest, count


def train_seeds(args: Sequence[str], count: int, train: Train, console: Console) -> int:
    """Train `count` seeds, from the configuration's own one upwards; returns the exit code of the first that stops."""
    first = parse(args)
    if first.resume:
        raise ConfigError("--seeds goes on by itself: give the first command again, with its --run_dir.")
    seeds = range(first.config.seed, first.config.seed + count)
    if first.config.run_dir is not None:
        folder = Path(first.config.run_dir)
    else:
        folder = new_folder(Path("runs") / f"{first.name}_{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        return _train_into(folder, args, first, seeds, train, console)
    except ConfigError:
        if first.config.run_dir is None:
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()
        raise


def _train_into(
    folder: Path, args: Sequence[str], first: Parsed, seeds: Sequence[int], train: Train, console: Console
) -> int:
    """What is left to do of the seeds in `folder`."""
    for seed in seeds:
        run_dir = folder / f"seed_{seed}"
        parsed = parse([*args, f"--seed={seed}", f"--run_dir={run_dir}"])
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
    """The final evaluations of several seeds as one curve for each split: shown, and written to `folder`."""
    curves = {}
    for split in splits:
        curves[split] = combine([AdaptationCurve.load(run / "evaluation" / split) for run in runs])
        curves[split].save(folder / split)
    table = adaptation_table(curves, console.width)
    show(console, table)
    (folder / "table.txt").write_text(text_of(table), encoding="utf-8")
    return curves


def _finished(run_dir: Path, parsed: Parsed) -> bool:
    """Whether the run is there and complete. Raises ConfigError if what is there is of another configuration."""
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
