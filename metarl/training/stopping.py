"""How training ends: requests by signals, and the limits of the configuration.

This module imports nothing heavy, since the programs need it right from the start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.training.checkpoint import Counters
    from metarl.training.config.run_config import TrainConfig

SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM
SIGHUP, SIGUSR1 = getattr(signal, "SIGHUP", None), getattr(signal, "SIGUSR1", None)  # Windows has neither


_TERMINALS = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]  # of standard output and error


class Stopped(KeyboardInterrupt):
    """The end of a program by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(name(number))
        self.signal = number


def name(number: int) -> str:
    """Return the name of a signal: SIGTERM."""
    return signal.Signals(number).name


def exit_code(stopped: KeyboardInterrupt) -> int:
    """Return the exit code that shells report for a signal: 128 plus its number."""
    return 128 + getattr(stopped, "signal", SIGINT)


def reached(config: TrainConfig, done: Counters) -> str:
    """Return the option whose limit the run has reached; "" while training continues."""
    if done.iteration >= config.total_iterations:
        return "total_iterations"
    if config.max_env_steps is not None and done.env_steps >= config.max_env_steps:
        return "max_env_steps"
    if config.max_seconds is not None and done.seconds >= config.max_seconds:
        return "max_seconds"
    return ""


class AtOnce:
    """A context manager for a whole program, in which a signal raises Stopped, so that it ends with one sentence.

    SIGUSR1 requests a checkpoint, and has no effect if there is none to write. Signals that the caller handles or
    ignores (nohup) are not changed.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The signal received; 0: none. Unlike an exception, an import cannot swallow it."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> AtOnce:
        self._before = _install(self, {SIGINT, SIGTERM, SIGHUP, SIGUSR1}, always=set())
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number != SIGUSR1:
            self.signal = number
            _leave_dead_terminals()
            raise Stopped(number)


class Stop:
    """A context manager that records signals, so that the loop can finish its iteration and save.

    Ctrl-C (SIGINT), a scheduler's SIGTERM and the SIGHUP of a closed terminal stop the run, which can then be resumed
    exactly. A second SIGINT or SIGTERM has its usual effect and ends the program at once. SIGUSR1 requests a
    checkpoint.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.signal = 0
        """The signal that was received; 0: none."""
        self._save = self._at_once = False
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """True if the loop must stop after its iteration."""
        return self.signal != 0

    def save_asked(self) -> bool:
        """Return True if a checkpoint was requested since the last call."""
        asked, self._save = self._save, False
        return asked

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block at once, for work that a resumed run repeats."""
        self._at_once = True
        try:
            yield
        except Stopped as stopped:
            self.signal = stopped.signal
        finally:
            self._at_once = False

    def __enter__(self) -> Stop:
        self._before = _install(self._handle, {SIGINT, SIGTERM, SIGHUP, SIGUSR1}, always={SIGINT, SIGTERM})
        self.signal = next((early.signal for early in self._before.values() if isinstance(early, AtOnce)), 0)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == SIGUSR1:
            self._save = True
            self._tell("Saving after this iteration")
            return
        if self.asked:  # a closing terminal may send SIGHUP twice
            return
        self.signal = number
        _leave_dead_terminals()
        _restore({each: handler for each, handler in self._before.items() if each in (SIGINT, SIGTERM)})
        if self._at_once:
            raise Stopped(number)
        self._tell("Stopping after this iteration" + ("" if number == SIGHUP else " (again: at once)"))

    def _tell(self, sentence: str) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the output is gone, or was just being written
            self.say(sentence)


def _install(handle: Callable[[int, FrameType | None], Any], numbers: set[Any], always: set[Any]) -> dict[int, Any]:
    """Install a handler for signals whose effect is the default or ours, and for those in `always`; return the old."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        for number in sorted(numbers - {None}):
            now = signal.getsignal(number)
            usual = now in (signal.SIG_DFL, signal.default_int_handler) or isinstance(now, AtOnce)
            if usual or (number in always and now is not None):
                before[number] = signal.signal(number, handle)
    return before


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _leave_dead_terminals() -> None:
    """Discard further output if the terminal has been closed, since writing to it would fail."""
    for descriptor in _TERMINALS:
        if not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
