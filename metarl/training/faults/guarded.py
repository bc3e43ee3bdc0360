"""A writer whose failures never end a run: after one warning it writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Warn = Callable[[str], None]


class Guarded:
    """Calls methods of TensorBoard's writer until one of them raises.

    `make` makes the writer; `rest` is the part of the warning that says where the data still goes.
    """

    def __init__(self, make: Callable[[], Any], warn: Warn, rest: str) -> None:
        self._warn, self._rest = warn, rest
        self._failed = False
        # A failing writer thread would print its own traceback; the next call raises its error.
        self._before, threading.excepthook = threading.excepthook, self._in_a_thread
        self._writer: Any = None
        try:
            self._writer = make()
        except Exception as error:  # such as a library that does not fit
            self._fail(error)

    def __call__(self, method: str, *args: Any, **options: Any) -> None:
        """Call a method of the writer; ``"_get_file_writer.add_summary"`` is one of what another method returns."""
        if self._failed:
            return
        try:
            target = self._writer
            *way, last = method.split(".")
            for name in way:
                target = getattr(target, name)()
            getattr(target, last)(*args, **options)
        except Exception as error:  # whatever a library, a disk or a drawing may raise
            self._fail(error)

    def draw(self, method: str, tag: str, draw: Callable[[], Any], *args: Any, **options: Any) -> None:
        """Draw a picture and write it; if drawing fails, only this picture is left out."""
        try:
            drawn = draw()
        except Exception as error:  # a failed picture must not end the run
            self._warn(f"{tag} could not be drawn ({_said(error)}); the run continues.")
            return
        if drawn is not None:  # there is nothing to draw
            self(method, tag, drawn, *args, **options)

    def close(self) -> None:
        """Close the writer."""
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:  # such as a full disk
            if not self._failed:
                self._fail(error)
        finally:
            threading.excepthook = self._before

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._warn(f"TensorBoard's file can no longer be written ({_said(error)}); {self._rest}")

    def _in_a_thread(self, raised: threading.ExceptHookArgs) -> None:
        if type(raised.thread).__name__ != "_AsyncWriterThread":
            self._before(raised)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:100]}"
