"""The file of results, rewritten after every one of them, and the table at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.items import Result
from metarl.evaluation.files import to_json

LINES, WIDTH = 40, 160


class Report:
    """What has been found so far, in memory and in the file."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = {**head, "sections": {}}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def begin(self, letter: str, title: str) -> None:
        """Enter a section."""
        self.found["sections"][letter] = {"title": title, "results": {}}
        self.write()

    def note(self, letter: str, name: str, result: Result) -> None:
        """Enter a result, in place of an earlier one of that name."""
        self.results(letter)[name] = result
        self.write()

    def say(self, letter: str, **facts: Any) -> None:
        """Enter something about a section as a whole: "error", "skipped" or "seconds"."""
        self.found["sections"][letter] |= facts
        self.write()

    def results(self, letter: str) -> dict[str, Result]:
        """Those of a section by name; none if it has not begun."""
        found: dict[str, Result] = self.found["sections"].get(letter, {}).get("results", {})
        return found

    def write(self) -> None:
        """Replace the file in one step: whoever is killed leaves a whole one."""
        beside = self.path.with_suffix(".tmp")
        beside.write_text(to_json(self.found, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.path)


def failure(result: Result) -> str | None:
    """Why there is no result; None if there is one."""
    if "error" in result:
        return f"failed: {result['error']}"
    return f"skipped: {result['skipped']}" if "skipped" in result else None


def short(text: str, width: int = WIDTH) -> str:
    """One line of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 2] + " …"


def table(title: str, parts: Sequence[tuple[str, list[str]]], file: Path) -> list[str]:
    """At most `LINES` lines: the title, then those of each section under its letter; what is too much is left out.

    The longest sections lose lines first.
    """
    shown = [list(lines) for _, lines in parts]
    left_out = 0
    while 2 + sum(map(len, shown)) > LINES:
        longest = max(shown, key=len)
        longest.pop()
        left_out += 1
    lines = [short(f"({letter}) {line}") for (letter, _), some in zip(parts, shown, strict=True) for line in some]
    more = f" It has {left_out} lines more." if left_out else ""
    return [short(title), *lines, f"All of it is in {file}.{more}"]
