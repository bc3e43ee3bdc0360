"""Docstrings of families as data: the first paragraph, and the text under each heading."""

from __future__ import annotations

import inspect
import re
import textwrap


def parts(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into its first paragraph, as one line, and the text under each heading, a line with a colon."""
    first, *rest = re.split(r"^(\w[\w ]*):\n", inspect.cleandoc(docstring) + "\n", flags=re.MULTILINE)
    summary = " ".join(first.strip().split("\n\n")[0].split())
    return summary, {rest[i]: textwrap.dedent(rest[i + 1]).strip() for i in range(0, len(rest), 2)}
