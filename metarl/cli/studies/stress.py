"""Stress tests: conditions that an agent was not trained for::

    metarl stress RUN_DIR [--split test] [--only "task switch" "reward noise"]
    metarl stress pretrained:rl2_bernoulli_bandit

The program shows the loss in return under each condition on the same tasks, and writes JSON, CSV and a figure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from metarl.cli.studies import parsers
from metarl.core import rng
from metarl.core.errors import check_counts
from metarl.core.family import TaskFamily
from metarl.fast.runtime import resolve_device, tune
from metarl.report.console import files_in, in_words, make_console, show
from metarl.studies.stress.study import stress
from metarl.training.checkpoint import PRETRAINED, load
from metarl.training.config.names import allow
from metarl.training.config.regular import check_regular
from metarl.training.lock import locked


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl stress …``. Returns 0, or 2 after one sentence on standard error for a user error."""
    tune()
    options = parsers.stress().read(arguments)
    console = make_console(options.quiet, width=120)
    try:
        allow(options.allow)
        check_counts(tasks=options.tasks)
        rng.key(options.seed)
        device = str(resolve_device(options.device))
        agent = load(options.run, device, options.which)
        retrained = [load(each, device) for each in options.retrained]
        folder = options.out or _default_folder(options.run, options.split)
        with files_in(folder), locked(folder, partial(console.print, markup=False, soft_wrap=True)):
            with console.status("undisturbed") as status:  # shown only on a terminal
                found = stress(
                    agent, _family_of(agent), options.split, options.tasks, options.only, options.seed, status.update,
                    retrained,
                )  # fmt: skip
            from metarl.studies.stress.files import save, stress_table  # slow to import, since they draw

            show(console, stress_table(found))
            paths = save(found, folder)
            names = ", ".join(path.name for path in paths)
            console.print(f"Written to {folder}: {names}", markup=False, soft_wrap=True)
    except (ValueError, OSError) as mistake:
        print(f"metarl stress: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _family_of(agent: object) -> TaskFamily:
    family = getattr(agent, "family", None)
    assert isinstance(family, TaskFamily), "a loaded agent has its family"
    return family


def _default_folder(run: str, split: str) -> Path:
    """Return the folder in a run, or in ``runs`` for an agent that comes with the package."""
    folder, name = Path(run), run.removeprefix("pretrained:")
    if name in {path.name for path in PRETRAINED.glob("*")} and not folder.exists():
        return Path("runs") / f"{name}_stress_{split}"
    check_regular(folder, to_write=True)
    return folder / "stress" / split
