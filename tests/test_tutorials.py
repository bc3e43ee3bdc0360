"""The code of the tutorials runs: the Python blocks of each page in order, in one namespace, in an empty folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [DOCS / "one_page.md", *sorted(set((DOCS / "tutorials").glob("*.md")) - {DOCS / "tutorials" / "index.md"})]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def run(blocks: list[str], name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> ModuleType:
    """Execute the blocks as a module of that name, so that their classes can be pickled."""
    monkeypatch.chdir(folder)
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{name}, block {number}", "exec"), vars(module))
    return module


def code(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = code(page)
    assert blocks, f"{page.name} shows no code"
    run(blocks, f"page_{page.stem}", monkeypatch, tmp_path)


def test_the_loop_of_the_overview_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    curve = run(code(DOCS / "one_page.md"), "page_one", monkeypatch, tmp_path).curve
    assert curve.mean()[-1] > curve.mean()[0] + 0.1
