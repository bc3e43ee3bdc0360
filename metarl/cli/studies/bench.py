"""A benchmark of agents::

    metarl bench [--suite small|full] [--agents rl2 maml …] [--seeds 3]
    metarl bench --agents random rl2 --no_training --add theirs.json

The program trains missing agents, evaluates all by the protocol, and writes ``results.json``, ``leaderboard.md``
and ``leaderboard.html`` (needs the extra `bench`). After an interruption, the same command continues.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from metarl.cli.studies import parsers
from metarl.core.errors import check_counts, unknown
from metarl.evaluation.files import replace_file
from metarl.fast.runtime import tune
from metarl.report.console import files_in, in_words, make_console, show
from metarl.studies.bench import protocol
from metarl.studies.bench.board import Board, joined
from metarl.studies.bench.play import play
from metarl.studies.bench.protocol import Problem
from metarl.studies.bench.rows import read, write
from metarl.training.lock import locked


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl bench …``. Returns 0, or 2 after one sentence on standard error for a user error."""
    tune()
    options = parsers.bench().read(arguments)
    console = make_console(options.quiet, width=120)
    try:
        check_counts(seeds=options.seeds)
        agents = list(dict.fromkeys(options.agents or protocol.DEFAULT))
        protocol.check_agents(agents)
        problems = _problems(options)
        for path in options.add:
            read(path)  # fail before training
        folder = options.out or options.runs
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        with files_in(folder), locked(folder, say):
            rows = joined(
                play(agents, problems, options.seeds, options.runs, folder, not options.no_training, say), options.add
            )
            _write(rows, folder, console, say)
    except (ValueError, OSError) as mistake:
        print(f"metarl bench: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _problems(options: Any) -> list[Problem]:
    """Return the requested problems. Raises ValueError for an unknown one."""
    problems = {problem.name: problem for problem in protocol.problems_of(options.suite)}
    for name in options.problems or ():
        if name not in problems:
            raise ValueError(unknown(f"problem of the suite {options.suite!r}", name, problems))
    return [problems[name] for name in options.problems or problems]


def _write(rows: list[Any], folder: Any, console: Console, say: Any) -> None:
    """Write the results and the leaderboards, and show the ranking."""
    if not rows:
        raise ValueError("Nothing was measured: there is no preset, run or pretrained agent for these problems.")
    board = Board(rows)
    write(rows, folder / "results.json")
    replace_file(folder / "leaderboard.md", board.markdown())
    written = ["results.json", "leaderboard.md"]
    try:
        from metarl.studies.bench.page import page
    except ImportError:
        say("No leaderboard.html, which needs: pip install 'metarl[bench]'.")
    else:
        replace_file(folder / "leaderboard.html", page(rows))
        written.append("leaderboard.html")
    suite = board.suite()
    if suite is not None:
        show(console, suite.table())
    say(f"Written to {folder}: {', '.join(written)}")
