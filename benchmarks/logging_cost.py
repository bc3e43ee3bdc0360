"""What logging costs: the same training with it and without, in alternation.

``python -m benchmarks.logging_cost [PRESET …] [--iterations 20] [--rounds 3] [--end]`` trains each preset for a few
iterations, in the first of them as always, in the second with a logger that writes and shows nothing, and so on. Times
are seconds of processor time of the whole process, the writer's thread included, since a shared machine's clock says
little. It prints, as a Markdown table, the medians, their difference, and the time spent inside the logger's calls,
which is the steadier number. With ``--end`` the evaluation at the end and its pictures are played and counted too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from metarl import train
from metarl.training import final_evaluation, loop
from metarl.training.log.logger import Logger

METHODS = ("__init__", "__exit__", "iteration", "evaluation", "picture", "flush")


class Silent:
    """Stands in for the logger: takes everything and does nothing."""

    def __init__(self, *_: Any) -> None:
        self.console = mock.MagicMock()
        self.bar = mock.MagicMock()

    def __enter__(self) -> Silent:
        return self

    def _nothing(self, *_: Any) -> dict[str, float]:
        return {}

    __exit__ = iteration = evaluation = picture = say = flush = _nothing


class Spent:
    """Processor time inside some calls; a call inside another counts once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        self._depth += 1
        start = time.process_time()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.process_time() - start

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            with self.counted():
                return function(*args, **keywords)

        return wrapped


def seconds(options: list[str], silent: bool) -> tuple[float, float]:
    """Processor time of a training run, and of the logging in it."""
    spent = Spent()
    original = final_evaluation.pictures
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if silent:
            stack.enter_context(mock.patch.object(loop, "Logger", Silent))
            stack.enter_context(mock.patch.object(final_evaluation, "pictures", lambda *_: []))
        else:
            for name in METHODS:
                stack.enter_context(mock.patch.object(Logger, name, spent.wrap(getattr(Logger, name))))
            stack.enter_context(
                mock.patch.object(final_evaluation, "pictures", spent.wrap(lambda *a: list(original(*a))))
            )
        start = time.process_time()
        code = train.main([*options, "--run_dir", str(Path(folder) / "run")])
        taken = time.process_time() - start
    if code:
        raise RuntimeError(f"Training ended with exit code {code}.")
    return taken, spent.seconds


def row(preset: str, iterations: int, rounds: int, end: bool) -> str:
    """A line of the table."""
    options = ["--config", preset, f"--total_iterations={iterations}", "--num_threads=1"]
    options += [] if end else ["--final_eval_tasks=0"]
    seconds([*options, "--total_iterations=1"], silent=False)  # to warm up: imports, fonts, kernels
    both = [(seconds(options, silent=False), seconds(options, silent=True)) for _ in range(rounds)]
    logged, without = (statistics.median(run[silent][0] for run in both) for silent in (0, 1))
    inside = statistics.median(run[0][1] for run in both)
    share = f"{100 * inside / (logged - inside):.2f} %"
    difference = f"{logged - without:+.2f} s ({100 * (logged / without - 1):+.1f} %)"
    return f"| `{preset}` | {iterations} | {logged:.2f} s | {without:.2f} s | {difference} | {inside:.2f} s | {share} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.logging_cost", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("presets", nargs="*", default=["rl2_navigation2d"], metavar="PRESET")
    parser.add_argument("--iterations", type=int, default=20, help="of each run (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--end", action="store_true", help="with the evaluation at the end and its pictures")
    given = parser.parse_args()
    print("| preset | iterations | with logging | without | difference | inside the logger | of the rest |")
    print("|---|---|---|---|---|---|---|")
    for preset in given.presets:
        print(row(preset, given.iterations, given.rounds, given.end), flush=True)


if __name__ == "__main__":
    main()
