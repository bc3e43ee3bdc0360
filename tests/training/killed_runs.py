"""Run this file to start many runs and kill each by SIGKILL: ``python killed_runs.py FILE``.

The JSON file holds a list of [command line, iteration, moment]. Torch is imported once, and each run is a fork of this
process. The moment is "iteration" (after that iteration was logged and saved), "write" (in the middle of the next
checkpoint's replacement) or "evaluation" (in the evaluation at the end).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import toy  # noqa: F401  (registers the family)
from rich.console import Console

from metarl.evaluation import files
from metarl.training import checkpoint, final_evaluation, loop
from metarl.training.config.parsing import parse


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(args: list[str], iteration: int, moment: str) -> None:
    if moment == "write":
        honest = checkpoint.save

        def interrupted(run_dir: Path, agent: Any, counters: checkpoint.Counters, *more: Any) -> Path:
            if counters.iteration >= iteration:
                files.os.replace = die  # type: ignore[attr-defined]
            return honest(run_dir, agent, counters, *more)

        checkpoint.save = interrupted  # type: ignore[assignment]
    if moment == "evaluation":
        final_evaluation.evaluate = die
    with open(os.devnull, "w") as nowhere:
        loop.train(
            parse(args), Console(file=nowhere), print, lambda i, _: moment == "iteration" and i == iteration and die()
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for args, iteration, moment in json.loads(Path(sys.argv[1]).read_text()):
        child = os.fork()
        if child == 0:
            try:
                train_until_killed(args, iteration, moment)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, (args, "was not killed")
