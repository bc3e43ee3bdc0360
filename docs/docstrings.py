"""Sections of docstrings as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence


def markdown(section: str) -> str:
    """A docstring's section as Markdown: paragraphs and lists as they are, simple tables as Markdown tables."""
    blocks: list[str] = []
    plain: list[str] = []
    lines = section.splitlines()

    def flush() -> None:
        if any(plain):
            blocks.append(text("\n".join(plain).strip("\n")))
        plain.clear()

    at = 0
    while at < len(lines):
        if is_border(lines[at]):
            borders = [number for number in range(at, len(lines)) if is_border(lines[number])][:3]
            if len(borders) < 3:
                raise ValueError(f"A table needs three borders: {lines[at:]}")
            flush()
            blocks.append(table(lines[at : borders[2] + 1]))
            at = borders[2] + 1
        else:
            plain.append(lines[at])
            at += 1
    flush()
    return "\n\n".join(blocks)


def is_border(line: str) -> bool:
    return re.fullmatch(r"=+( +=+)+", line.strip()) is not None


def table(lines: Sequence[str]) -> str:
    """A reStructuredText simple table (border, heading, border, rows, border) as a Markdown table.

    As there, a row whose first cell is empty continues the one above, and the last column may be wider than its border.
    """
    written = ["| " + " | ".join(text(cell).replace("|", r"\|") for cell in row) + " |" for row in rows(lines)]
    return "\n".join([written[0], "|" + "---|" * (written[0].count(" | ") + 1), *written[1:]])


def rows(lines: Sequence[str]) -> list[list[str]]:
    """The cells of a simple table, the heading's first; none without lines."""
    starts = [found.start() for line in lines[:1] for found in re.finditer("=+", line)]
    ends = [*starts[1:], None]
    found: list[list[str]] = []
    for line in lines:
        if is_border(line) or not line.strip():
            continue
        cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        if cells[0] or not found:
            found.append(cells)
        else:
            found[-1] = [f"{above} {cell}".strip() for above, cell in zip(found[-1], cells, strict=True)]
    return found


def text(rst: str) -> str:
    """Inline markup: literals in double backticks get single ones; a lone * is no emphasis, a first ~ no definition."""
    rst = re.sub(r"^~ ", r"\\~ ", re.sub(r"::$", ":", rst, flags=re.MULTILINE), flags=re.MULTILINE)
    pieces = re.split(r"(``.+?``|`[^`]+`)", rst, flags=re.DOTALL)
    return "".join(
        f"`{piece.strip('`')}`" if piece.startswith("`") else piece.replace("*", r"\*").replace("<", "&lt;")
        for piece in pieces
    )
