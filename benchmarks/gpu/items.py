"""Measurements one by one, each in a process that may hang, crash or run out of memory without harm to the others.

The processes are forks of one that has imported everything and has never touched the GPU, so that a new one costs no
imports. What they print goes to a log.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

Result = dict[str, Any]
"""What was measured, as JSON has it. "error" says what went wrong, "skipped" why nothing was measured."""

OVERTIME = 2.0
"""An item is ended when it takes this many times the seconds it was told, and not much time either."""
TOLD = 0.9
"""The share of its time that an item is told of, so that it can end by itself."""
LEAST = 20.0
"""Seconds that an item may take whatever it was told: to load a library on a GPU's first call takes some."""


class Item(NamedTuple):
    """One thing to be measured."""

    name: str
    call: Callable[[float], Result | Iterator[Result]]  # given the seconds it should take; an iterator gives ever more
    weight: float = 1.0  # its share of the section's time
    alone: bool = False  # whether it needs a process of its own, in which nothing was measured before


def results_of(item: Item, seconds: float) -> Iterator[Result]:
    """What an item finds, as it finds it; an exception is the last of its results."""
    found: Result = {}
    try:
        answer = item.call(seconds)
        for part in iter([answer]) if isinstance(answer, dict) else answer:
            found = part
            yield found
    except Exception as error:
        traceback.print_exc()
        yield found | {"error": told(error)}


def told(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Inline:
    """Measures in this process: nothing ends an item that hangs."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def ask(self, number: int, seconds: float, most: float) -> Iterator[Result]:
        """The results of an item."""
        yield from results_of(self.items[number], seconds)

    def close(self) -> None:
        """There is nothing to be ended."""


class Forked:
    """Measures in a fork of this process, which is replaced after an error, and where an item asks for its own."""

    def __init__(self, items: Sequence[Item], log: Path) -> None:
        self.items, self.log = items, log
        self._process: Any = None
        self._answers: Connection | None = None
        self._used = False

    def ask(self, number: int, seconds: float, most: float) -> Iterator[Result]:
        """The results of an item, which is ended after `most` seconds."""
        if self._used and self.items[number].alone:
            self.close()
        answers = self._answers or self._start()
        try:
            answers.send((number, seconds))
        except OSError:  # it has died since its last answer
            self.close()
            answers = self._start()
            answers.send((number, seconds))
        self._used = True
        found: Result = {}
        end = time.monotonic() + most
        whole = False
        try:
            while answers.poll(max(0.0, end - time.monotonic())):
                kind, result = answers.recv()
                if kind == "end":
                    whole = True
                    break
                found = result
                yield found
            else:
                yield found | {"error": f"it was ended after {most:.0f} s"}
        except (EOFError, OSError):
            self._process.join(5)
            yield found | {"error": f"its process ended with code {self._process.exitcode}"}
        finally:
            if not whole or "error" in found:
                self.close()  # what an error leaves behind, on the GPU above all, is not the next one's

    def close(self) -> None:
        """End the process, and all that it has started."""
        process, self._process = self._process, None
        if self._answers is not None:
            self._answers.close()
            self._answers = None
        self._used = False
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join(10)

    def _start(self) -> Connection:
        context: Any = multiprocessing.get_context("fork")
        self._answers, theirs = context.Pipe()
        self._process = context.Process(target=self._serve, args=(self._answers, theirs))
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of NumPy's, which outlive a fork
            self._process.start()
        theirs.close()
        with contextlib.suppress(OSError):  # it does the same: whoever comes first
            os.setpgid(self._process.pid, self._process.pid)
        return self._answers

    def _serve(self, ours: Connection, requests: Connection) -> None:
        """What the fork does."""
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        ours.close()
        with self.log.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        with contextlib.suppress(EOFError):
            while True:
                number, seconds = requests.recv()
                print(f"---- {self.items[number].name}", flush=True)
                for result in results_of(self.items[number], seconds):
                    requests.send(("part", result))
                requests.send(("end", None))


Worker = Inline | Forked


def run(
    worker: Worker, left: Callable[[], float], note: Callable[[Item, Result, bool], None], clock: Callable[[], float]
) -> None:
    """Measure all items of a worker in the time that is `left`; ``note(item, result, whether it is over)`` is told.

    Each item is told its share of what is left, so that what one does not need is the others'. One that is not begun in
    time is noted as skipped.
    """
    try:
        for number, item in enumerate(worker.items):
            now = left()
            if now <= 0.0:
                note(item, {"skipped": "out of time"}, True)
                continue
            share = now * item.weight / sum(other.weight for other in worker.items[number:])
            begun, found = clock(), {}
            for result in worker.ask(number, TOLD * share, min(now, max(OVERTIME * share, LEAST))):
                found = result | {"took": round(clock() - begun, 2)}
                note(item, found, False)
            note(item, found, True)
    finally:
        worker.close()
