"""The English of docstrings: each begins with a verb, or with a noun phrase."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("metarl", "agents", "envs")
FIRST_WORDS = ("Of", "By", "What", "Whether")
"""Words at the beginning of fragments, such as "What is carried on", that only the code next to them explains."""


def sources() -> list[Path]:
    """Every module once, by its path from the root; links to folders and trained agents are left out."""
    found = (path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    linked = ("metarl/agents/", "metarl/envs/")  # some versions of Python follow links
    return sorted(path for path in found if not path.as_posix().startswith(linked))


def docstrings(source: str) -> list[tuple[int, str]]:
    """Line and text of all docstrings: of modules, classes and functions, and those below a field or a constant."""
    bodies = [body for node in ast.walk(ast.parse(source)) if isinstance(body := getattr(node, "body", None), list)]
    strings = [
        s.value for body in bodies for s in body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
    ]
    return [(string.lineno, string.value) for string in strings if isinstance(string.value, str)]


def offences(source: str) -> list[int]:
    """The lines at which a docstring begins with one of `FIRST_WORDS`."""
    return [line for line, text in docstrings(source) if text.split(maxsplit=1)[:1] and text.split()[0] in FIRST_WORDS]


@pytest.mark.parametrize("path", sources(), ids=str)
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path):
    found = offences((ROOT / path).read_text(encoding="utf-8"))
    assert not found, f"{path}: begin the docstrings at lines {found} with a verb or a noun, not {FIRST_WORDS}"


def test_the_rule_bites():
    assert offences('"""What it is."""') == [1]
    assert offences('class A:\n    x: int = 1\n    """Whether it is."""\n') == [3]
    assert offences('def f():\n    """Of a family."""\n') == [2]
    assert offences('"""Whatever it is."""\nx = """What is no docstring."""\n"""Bytes of it."""') == []
