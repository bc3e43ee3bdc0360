"""Probe the memory of a trained agent::

    metarl probe RUN_DIR [--split test] [--tasks 1000] [--steps 0 1 2 5 10] [--belief RUN]
    metarl probe pretrained:rl2_bernoulli_bandit_n10

The program decodes the exact belief and the task from a frozen agent's memory, prints a table, and writes JSON, CSV and
a figure. It needs the extra `probe`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.cli import usage
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.errors import check_counts
from metarl.evaluation.probing.probe import probe
from metarl.fast.runtime import resolve_device, tune
from metarl.report.console import files_in, in_words, make_console, show
from metarl.training.checkpoint import PRETRAINED, load
from metarl.training.config.names import allow
from metarl.training.config.regular import check_regular
from metarl.training.lock import locked


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl probe …`` as the main program of this process."""
    tune()
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = usage.probe().read(arguments)
    console = make_console(options.quiet, width=120)
    try:
        allow(options.allow)
        check_counts(tasks=options.tasks)
        rng.key(options.seed)
        agent, other = _agents(options)
        folder = options.out or _default_folder(options.run, _asked(options, agent))
        with files_in(folder), locked(folder, partial(console.print, markup=False, soft_wrap=True)):
            _probe(agent, other, options, folder, console)
    except (ValueError, OSError) as mistake:
        print(f"metarl probe: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _agents(options: Any) -> tuple[LearningAgent, LearningAgent | None]:
    """Load the agent to probe, and the belief agent, if one is given."""
    device = str(resolve_device(options.device))
    other = None if options.belief is None else load(options.belief, device)
    return load(options.run, device, options.which), other


def _probe(agent: LearningAgent, other: LearningAgent | None, options: Any, folder: Path, console: Console) -> None:
    """Probe, show the table, and write the files."""
    with console.status(f"{options.tasks} trials on tasks of {options.split}"):  # shown only on a terminal
        found = probe(
            agent, options.split, options.tasks, options.steps, options.part, options.hold_out, other, options.seed
        )
    from metarl.report.probing.files import save  # slow to import, since it draws
    from metarl.report.probing.table import probe_table

    show(console, probe_table(found, console.width))
    paths = save(found, folder)
    names = ", ".join(path.name for path in paths)
    console.print(f"Written to {folder}: {names}", markup=False, soft_wrap=True)


def _asked(options: Any, agent: LearningAgent) -> str:
    """Name a folder by the options: ``test_last_200_tasks_1000_seed_0``."""
    parts = [options.split, options.which, agent.trained.get("iteration", ""), "tasks", options.tasks]
    parts += ["seed", options.seed]
    for name in ("part", "hold_out", "belief"):
        if getattr(options, name) is not None:
            parts += [name, Path(str(getattr(options, name)).removeprefix("pretrained:")).name]
    if options.steps:
        parts += ["steps", *options.steps]
    return re.sub(r"[^\w.+-]", "_", "_".join(map(str, parts)))[:120]  # the checkpoint's own words are not a path


def _default_folder(run: str, asked: str) -> Path:
    if run.startswith("pretrained:"):
        return Path("runs") / f"probe_{run.removeprefix('pretrained:')}" / asked
    if Path(run).resolve().is_relative_to(PRETRAINED.resolve()):  # nothing is written into the package
        return _default_folder(f"pretrained:{Path(run).resolve().name}", asked)
    check_regular(Path(run), to_write=True)
    return Path(run) / "probes" / asked
