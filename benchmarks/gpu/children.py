"""Processes whose output is read line by line until they end or their time is up."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any


class Child:
    """A process in a group of its own, which ends with it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True, errors="replace",
            env=None if env is None else dict(env), start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.last_words = ""  # the last line on standard error, once it has ended
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def lines(self, until: float, silence: float = float("inf")) -> Iterator[str]:
        """Its lines until it ends. Raises TimeoutError at `until` (`time.monotonic`), or after so long a silence."""
        while True:
            wait = min(until - time.monotonic(), silence)
            try:
                line = self._lines.get(timeout=max(0.0, wait))
            except queue.Empty:
                raise TimeoutError from None
            if line is None:
                return
            yield line

    def end(self) -> int:
        """Kill what is left of it, keep its last words, and let go of it; its exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self._reader.join(10.0)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.seek(0)
        said = [line for line in self.errors.read().splitlines() if line.strip()]
        self.last_words = said[-1].strip() if said else "it said nothing"
        self.errors.close()
        return code


def lines_of(
    command: Sequence[str], seconds: float, take: Callable[[dict[str, Any]], None], env: Mapping[str, str] | None = None
) -> str:
    """Run `command`, give each line of JSON that it prints to `take`, and return how it ended: "done", or in words."""
    child = Child(command, env)
    try:
        for line in child.lines(time.monotonic() + seconds):
            if line.startswith("{"):
                take(json.loads(line))
        code = child.process.wait(10.0)
    except (TimeoutError, subprocess.TimeoutExpired):
        return f"out of time after {seconds:.0f} s"
    finally:
        child.end()
    return "done" if code == 0 else f"failed: {child.last_words}"
