"""The README's examples are code that runs, what it names exists, and it stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.presets import NOT_MEASURED, NOT_SHIPPED
from metarl.training import checkpoint
from metarl.training.config import parsing as config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
TABLE = re.compile(r"<!-- results -->.*?<!-- /results -->", flags=re.DOTALL)


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


def test_the_gymnasium_example_runs():
    scope: dict = {}
    exec(block_with("gym.make_vec"), scope)
    assert scope["trial"].observation_space.contains(scope["trial"].reset(seed=0)[0])


def test_the_loop_learns(capsys: pytest.CaptureFixture[str]):
    scope: dict = {}
    exec(block_with("run_trial"), scope)
    first, *_, last = scope["curve"].mean()
    assert last > first + 0.1


def test_the_trained_agent_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(block_with("curve.plot()").replace("tasks=1000", "tasks=21"), scope)
    assert scope["curve"].returns.shape == (1, 21, 4) and (tmp_path / "curve.png").stat().st_size > 0


def test_training_from_python_is_what_the_start_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "metarl.run(" in block]
    monkeypatch.chdir(tmp_path)
    small = "total_iterations=1, final_eval_tasks=10, num_threads=1"
    scope: dict = {}
    exec(block.replace("total_iterations=40", small), scope)
    assert scope["run"].agent.config.lr == 1e-3 and scope["run"].directory.parent == Path("runs")


def test_it_says_how_to_start():
    for command in ("make train", "make test", "python -m metarl.train", "python -m pytest"):
        assert command in README
    assert "pip install -c constraints.txt -e '.[test]'" in README


def test_it_is_short_and_has_few_numbers():
    assert len(README.splitlines()) <= 200
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", TABLE.sub("", re.sub(r"```.*?```", "", README, flags=re.DOTALL)))
    words, numbers = len(prose.split()), len(re.findall(r"\d[\d.,]*", prose))
    assert numbers <= words / 50, f"{numbers} numbers in {words} words"


def test_every_preset_is_on_the_page_of_results_and_ships_its_agent():
    page = (ROOT / "docs" / "every_split.md").read_text(encoding="utf-8")
    for name in set(config.presets()) - set(NOT_MEASURED):
        assert f"\n## {name}\n" in page, f"the page of results says nothing of the preset {name}"
        assert (f"pretrained:{name}" in checkpoint.pretrained()) == (name not in NOT_SHIPPED)


def test_every_preset_and_linked_file_of_the_readme_is_there():
    for name in re.findall(r"`((?:rl2|maml|ppo)_\w+)`|pretrained:(\w+)", README):
        assert "".join(name) in config.presets()
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
