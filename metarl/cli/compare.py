"""Which agent adapts fastest? ::

    metarl compare RUN [NAME=RUN …] [--baselines random oracle …] [--tasks 200]

evaluates all of them on the same tasks with the same noise, prints a table per split, and writes
``comparison.{json,csv,md,png}`` and a TensorBoard run. Runs of one configuration with several seeds are one line. With
``--x train_steps`` (or ``time``) it reads how good the runs were during training instead.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from metarl.agents.reference.catalogue import baseline
from metarl.cli import histories, usage
from metarl.cli.contenders import Line, check_families, compare, lines, suite
from metarl.core.errors import unknown
from metarl.core.family import TaskFamily
from metarl.evaluation.arguments import check_size
from metarl.fast.runtime import resolve_device, tune
from metarl.report.comparison import Comparison
from metarl.report.console import files_in, in_words, make_console, new_folder, show
from metarl.training.config.names import allow
from metarl.training.lock import locked
from metarl.training.log.curve_runs import write_curve


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl compare …`` as the main program of this process."""
    tune()
    return main(arguments)


def to_tensorboard(comparison: Comparison, folder: Path) -> None:
    """Write a TensorBoard run per agent, whose curves can be overlaid, and the figure and the tables to `folder`."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("compare/figure", comparison.figure(), close=False)
        writer.add_text("compare/tables", comparison.markdown())
    for name, curves in comparison.entries.items():
        with SummaryWriter(str(folder / _file_name(name))) as writer:
            for split, curve in curves.items():
                for steps, value in zip(curve.env_steps, curve.mean(), strict=True):
                    writer.add_scalar(f"compare/{split}/return", float(value), int(steps))
        for split, curve in curves.items():
            write_curve(folder / _file_name(name) / split, curve)


def _file_name(name: str) -> str:
    """Convert a name to a folder name that cannot leave its parent folder."""
    return re.sub(r"^\.+$|[/\\\0]", "_", name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a user error."""
    options = usage.compare().read(arguments)
    console = make_console(options.quiet, width=140)
    try:
        for name in ("tasks", "costly_tasks", "repeats", "rounds"):
            if getattr(options, name) is not None and getattr(options, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}.")
        allow(options.allow)
        if options.x != "adaptation":
            _compare_histories(options, console)
        elif options.suite:
            _compare_in_suite(options, console)
        else:
            _compare(options, console)
    except (ValueError, OSError) as mistake:
        print(f"metarl compare: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _compare_in_suite(options: Any, console: Console) -> None:
    with _out(options, console) as folder:
        together = suite(options.runs, options, console)
        paths = together.save(folder)
        show(console, together.table())
        _say_written(folder, paths, console)


def _compare_histories(options: Any, console: Console) -> None:
    histories.check_options(options)
    split = options.split[0] if options.split else None
    comparison = histories.read_comparison(options.runs, options.x, split)
    with _out(options, console) as folder:
        paths = comparison.save(folder)
        names = {curve.name: _file_name(curve.name) for panel in comparison.panels for curve in panel.curves}
        histories.to_tensorboard(comparison, folder, names)
        histories.print_comparison(comparison, console)
        _say_written(folder, paths, console)
    _say_curves(folder, console)


def _compare(options: Any, console: Console) -> None:
    found = _asked(options)
    splits = _splits(options, found[0].family)
    with _out(options, console) as folder:
        comparison = compare(
            found, splits, options.tasks, options.rounds, options.seed, options.greedy or None, console,
            options.costly_tasks, options.repeats,
        )  # fmt: skip
        paths = comparison.save(folder)
        to_tensorboard(comparison, folder)
        for split in splits:
            for table in comparison.tables(split, console.width):
                show(console, table)
        _print_gaps(comparison, console)
        _say_written(folder, paths, console)
    _say_curves(folder, console)


def _asked(options: Any) -> list[Line]:
    """Return the runs and baselines to compare. Raises ValueError if one is unknown or for other tasks."""
    device = str(resolve_device(options.device))
    found = lines(options.runs, device)
    check_families(found)
    family = found[0].family
    for name in options.baselines:
        found.append(Line(name, [baseline(name, family, device)], family, "not trained"))
    return found


def _splits(options: Any, family: TaskFamily) -> list[str]:
    splits = options.split or [split for split in ("train", "test", "ood") if split in family.splits]
    for split in splits:
        if split not in family.splits:
            raise ValueError(unknown("split", split, family.splits, f" of {type(family).__name__}"))
        check_size(family, split, options.tasks, options.repeats, None, options.rounds)
    return splits


def _say_written(folder: Path, paths: Sequence[Path], console: Console) -> None:
    names = ", ".join(path.name for path in paths)
    console.print(f"Written to {folder}: {names}", markup=False, soft_wrap=True)


def _say_curves(folder: Path, console: Console) -> None:
    console.print(f"Curves: tensorboard --logdir {shlex.quote(str(folder))}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _out(options: Any, console: Console) -> Iterator[Path]:
    """Create the output folder (``--out`` or a new one), and hold its lock."""
    new = Path("runs") / f"comparison_{time.strftime('%Y%m%d-%H%M%S')}"
    made = files_in(new, new_folder) if options.out is None else files_in(options.out)
    with made as folder, locked(folder, partial(console.print, markup=False, soft_wrap=True)):
        yield folder


def _print_gaps(comparison: Comparison, console: Console) -> None:
    text = comparison.markdown()
    for heading in ("## Generalisation gap", "## Training"):
        if heading in text:
            part = text[text.index(heading) :].partition("\n\n")[0]
            console.print(part.removeprefix("## "), markup=False, highlight=False, soft_wrap=True)
