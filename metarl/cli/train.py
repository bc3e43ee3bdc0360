"""``metarl train``: the program of ``python -m metarl.train``."""

from __future__ import annotations

from collections.abc import Sequence

from metarl.train import main


def program(arguments: Sequence[str]) -> int:
    """``metarl train …`` in a process of its own."""
    return main(arguments)
