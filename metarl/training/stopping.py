"""Requests to stop a run: Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Stop:
    """A context manager that notes Ctrl-C or a scheduler's SIGTERM, so that the loop can finish its iteration.

    Then a resume is exact. A second signal has its usual effect: it ends the program at once.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.signal = 0
        """The signal that was received; 0: none."""
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """True if the loop is to stop after its iteration."""
        return self.signal != 0

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.say("Stopping after this iteration (again: at once)")
        self.__exit__()
