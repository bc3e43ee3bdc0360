"""Learning histories in files, for agents that imitate other agents' learning::

    metarl dataset q_learning --family DarkRoom --set episodes_per_trial=200 --tasks 65 --trials 10 --out histories
    metarl dataset ppo_scratch --family GridNavi --tasks 100 --rounds 30 --out histories
    metarl dataset pretrained:rl2_gridnavi --tasks 1000 --out histories

A history holds all episodes of an agent on a task. `metarl.load_histories` reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from metarl.cli.studies import parsers
from metarl.fast.runtime import resolve_device, tune
from metarl.report.console import in_words, make_console
from metarl.studies.dataset.recording import Wanted, check_new, write_histories
from metarl.studies.dataset.sources import find_source
from metarl.training.config.names import allow


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl dataset …`` as the main program of this process."""
    tune()
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence on standard error for a mistake of the user's."""
    options = parsers.dataset().read(arguments)
    console = make_console(options.quiet)
    try:
        allow(options.allow)
        _write(options, console)
    except (ValueError, OSError) as mistake:
        print(f"metarl dataset: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _write(options: Any, console: Console) -> None:
    """Play the trials, write the histories, and report the contents of the folder."""
    check_new(options.out)
    device = str(resolve_device(options.device))
    source = find_source(options.agent, options.family, options.set, device, options.which, options.allow)
    wanted = Wanted(**{name: getattr(options, name) for name in Wanted._fields})
    with console.status("") as status:  # shown only on a terminal
        index = write_histories(source, wanted, options.out, status.update)
    console.print(
        f"Written to {options.out}: {index.histories:,} histories of {index.agent} on {index.tasks:,} tasks of "
        f"{index.split}, {index.episodes:,} episodes each, {index.env_steps:,} steps in {len(index.shards)} "
        f"shard{'s'[: len(index.shards) != 1]}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
