"""The Markdown of the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md")), ids=str)
def test_no_line_is_taken_for_a_comment(page: Path):
    """In MyST a line that begins with % is a comment, so a wrapped "95 %" would lose the rest of its line."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    assert not [number for number, line in enumerate(lines, start=1) if line.startswith("%")]
