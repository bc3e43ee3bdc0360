"""Paths in a configuration: a run that was started with a relative one is resumed, and its agent goes, anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from recorded import written
from toy import TOY

import metarl
from metarl import train
from metarl.agents.random import RandomAgent
from metarl.training import checkpoint

HERE = ["--num_threads=1", "--device=cpu", "--quiet", "--final_eval_tasks=0", "--eval_every=0", "--run_dir=runs/mine"]
AD = ["--agent=AD", "--family=DarkRoom", "--agent.meta_batch_size=4", "--agent.num_minibatches=1", *HERE]
DAGGER = ["--agent=DAgger", "--family=toy/Guess-v0", "--agent.meta_batch_size=4", "--family.numbers=3", *HERE]
MISSING = {"histories": "runs/histories", "teacher": "runs/teacher"}


@pytest.fixture(autouse=True)
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which runs are started, with the histories and the teacher that they name."""
    (tmp_path / "start").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    family = metarl.make("metarl/DarkRoom-v0")
    written(RandomAgent(family), family, Path("runs/histories"), tasks=5, episodes=10)
    Path("toy.yaml").write_text(TOY)
    assert train.main(["toy.yaml", "--total_iterations=1", "--quiet", "--run_dir=runs/teacher"]) == 0
    return tmp_path / "start"


def begun(option: str, value: str) -> list[str]:
    """The command of a run that names a path by this option."""
    return [*(AD if option == "histories" else DAGGER), f"--agent.{option}={value}", "--total_iterations=1"]


@pytest.mark.parametrize("option", MISSING)
def test_a_run_is_resumed_from_any_folder(
    option: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert train.main(begun(option, MISSING[option])) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ["--resume", str(start / "runs/mine"), "--quiet"]
    assert train.main([*command, "--total_iterations=2"]) == 0, capsys.readouterr().err
    shutil.move(start / MISSING[option], tmp_path / "gone")
    assert train.main([*command, "--total_iterations=3"]) == 2
    error = capsys.readouterr().err
    assert str(start / MISSING[option]) in error and error.count("\n") == 1
    agent = metarl.load(start / "runs/mine")
    assert metarl.evaluate(agent, split="test", tasks=2, step_curve=False).returns.shape[1] == 2


@pytest.mark.parametrize("option", MISSING)
def test_a_run_s_own_relative_path_that_is_not_here_is_said_with_its_place(
    option: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As an agent of the package and runs of before have it."""
    assert train.main(begun(option, MISSING[option])) == 0
    file = start / "runs/mine/config.yaml"
    file.write_text(file.read_text().replace(str(start / MISSING[option]), MISSING[option]))
    assert train.main(["--resume", "runs/mine", "--quiet", "--total_iterations=2"]) == 0, "it is here"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train.main(["--resume", str(start / "runs/mine"), "--quiet", "--total_iterations=3"]) == 2
    error = capsys.readouterr().err
    assert repr(MISSING[option]) in error and f"was looked for in {str(tmp_path / 'elsewhere')!r}." in error


def test_the_same_command_finds_its_run_also_if_the_run_kept_the_path_as_it_was_given(start: Path):
    command = [*begun("histories", "runs/histories"), "--auto_resume"]
    assert train.main(command) == 0
    file = start / "runs/mine/config.yaml"
    assert f"histories: {start / 'runs/histories'}\n" in file.read_text()
    assert train.main(command) == 0
    file.write_text(file.read_text().replace(str(start / "runs/histories"), "./runs/histories"))
    assert train.main(command) == 0


def test_the_parameters_that_a_run_begins_with_have_an_absolute_path(start: Path):
    given = ["toy.yaml", "--total_iterations=0", "--quiet"]
    assert train.main([*given, "--run_dir=runs/a", "--init_from=runs/teacher"]) == 0
    assert train.main([*given, "--run_dir=runs/b", "--init_from=pretrained:rl2_gridnavi"]) == 2, "of other sizes"
    assert yaml.safe_load(Path("runs/a/config.yaml").read_text())["init_from"] == str(start / "runs/teacher")


def test_an_agent_that_goes_elsewhere_names_no_folder_of_this_machine(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert train.main(begun("teacher", "runs/teacher")) == 0
    checkpoint.copy_agent(Path("runs/mine"), tmp_path / "here")
    assert yaml.safe_load((tmp_path / "here/config.yaml").read_text())["agent"]["teacher"] == "runs/teacher"
    monkeypatch.chdir(tmp_path / "elsewhere")
    checkpoint.copy_agent(start / "runs/mine", tmp_path / "there")
    text = (tmp_path / "there/config.yaml").read_text()
    assert str(tmp_path) not in text and yaml.safe_load(text)["agent"]["teacher"] == "./teacher"
    for copy in ("here", "there"):
        assert metarl.load(tmp_path / copy).config.meta_batch_size == 4
