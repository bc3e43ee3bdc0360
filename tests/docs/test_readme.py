"""The README's examples are code that runs, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from metarl import registered
from metarl.testing import check_family
from metarl.training import checkpoint
from metarl.training.config import parsing as config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


def test_the_family_example_passes_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "their_module.py").write_text(block_with("class Mine"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("their_module")
    assert "theirs/Mine-v0" in registered()
    check_family(module.Mine())


def test_the_gymnasium_example_runs():
    scope: dict = {}
    exec(block_with("gym.make_vec"), scope)
    assert scope["trial"].observation_space.contains(scope["trial"].reset(seed=0)[0])


def test_the_example_of_a_task_of_one_s_own_runs(capsys: pytest.CaptureFixture[str]):
    scope: dict = {}
    exec(block_with("tasks=GoalCell("), scope)
    first, *later = scope["curve"].mean()
    assert scope["curve"].returns.shape == (1, 1, 4) and min(later) >= first and later[-1] > 10


def test_the_example_of_an_environment_of_one_s_own_runs(capsys: pytest.CaptureFixture[str]):
    exec(block_with("player.tell"), {})
    returns = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(returns) == 2 and returns[1] > 400, returns


def test_the_example_of_adaptation_adapts(capsys: pytest.CaptureFixture[str]):
    exec(block_with("agent.adapt"), {})
    returns = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(returns) == 4 and returns[0] < -25 and returns[1] > -20 and returns[3] > -8, returns


def test_the_example_of_one_figure_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(block_with("rl2_and_maml.png"), {})
    assert (tmp_path / "rl2_and_maml.png").stat().st_size > 10_000


def test_the_trained_agent_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(block_with("curve.plot()").replace("tasks=1000", "tasks=20"), scope)
    assert scope["curve"].returns.shape == (1, 20, 4) and (tmp_path / "curve.png").stat().st_size > 0


def test_the_example_of_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    small = "total_iterations=1, final_eval_tasks=10, num_threads=1"
    scope: dict = {}
    exec(block_with("metarl.run(").replace("total_iterations=400", small), scope)
    assert scope["run"].agent.config.lr == 1e-3 and scope["run"].directory.parent == Path("runs")


def test_every_preset_is_in_the_table_and_ships_its_agent():
    for name in config.presets():
        assert f"`{name}`" in README, f"the README says nothing of the preset {name}"
        assert f"pretrained:{name}" in checkpoint.pretrained()


def test_every_registered_family_and_linked_file_is_there():
    for id in registered():
        if id.startswith("metarl/"):
            assert f"`{id}`" in README
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
