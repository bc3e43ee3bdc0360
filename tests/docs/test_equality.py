"""Every test that the page "What is equal to what" names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "equality.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str):
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_every_line_of_the_table_names_a_test():
    lines = [line for line in PAGE.split("What is *not* equal")[0].splitlines() if line.startswith("| ")][1:]
    assert len(lines) >= 15 and all(re.search(r"`tests/[\w/]+\.py::\w+` \|$", line) for line in lines)
