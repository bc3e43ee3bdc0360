"""The code of the tutorials runs: the Python blocks of each page in order, in one namespace, in an empty folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(path for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index"), DOCS / "text_agents.md"]
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


def cells() -> list[dict]:
    """The code cells of the notebook."""
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs():
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells())


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = run(["".join(cell["source"]) for cell in cells()], "notebook_quickstart", monkeypatch, tmp_path)
    assert module.curve.mean()[-1] > module.curve.mean()[0]
