"""What the programs show: quiet, without a terminal, and when a file cannot be written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from toy import TOY

import metarl
from metarl import train
from metarl.agents.reference.bandits import ThompsonBandit
from metarl.cli import compare
from metarl.cli import evaluate as evaluate_module
from metarl.report.console import Parser, in_words, make_console, make_folder, show, text_of
from metarl.training import checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained toy."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "toy.yaml").write_text(TOY)
    assert train.main(["--config", str(folder / "toy.yaml"), "--run_dir", str(folder / "run")]) == 0
    return folder / "run"


def test_quiet_leaves_the_tables_alone():
    buffer = io.StringIO()
    console, table = Console(file=buffer, quiet=True), Table("heading")
    console.print("a sentence")
    show(console, table)
    console.print("another")
    assert "heading" in buffer.getvalue() and "sentence" not in buffer.getvalue() and console.quiet


def table_lines(text: str) -> set[str]:
    return {line for line in text.splitlines() if "─" in line}


@pytest.mark.parametrize("seeds", [[], ["--seeds", "2"]])
def test_quiet_training(seeds: list[str], run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--config", str(run_dir.parent / "toy.yaml"), "--total_iterations", "2", "--final_eval_tasks", "10"]
    assert train.main([*given, *seeds, "--run_dir", str(tmp_path / "loud")]) == 0
    loud = capsys.readouterr()
    assert train.main([*given, "--quiet", *seeds, "--run_dir", str(tmp_path / "quiet")]) == 0
    quiet = capsys.readouterr()
    assert "iteration 1/2" in loud.out and "tensorboard" in loud.out
    assert "iteration" not in quiet.out and str(tmp_path) not in quiet.out and "tensorboard" not in quiet.out
    assert quiet.out.count("optimum") == loud.out.count("optimum") > 0, "every table"
    assert train.main([*given, "--quiet", "--run_dir", str(tmp_path / "q"), "--see", "3"]) == 2
    wrong = capsys.readouterr()
    assert not wrong.out and "Did you mean 'seed'" in wrong.err


def test_quiet_without_a_table_is_silent(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = [
        "--config",
        str(run_dir.parent / "toy.yaml"),
        "--total_iterations",
        "2",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    assert train.main([*given, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert train.main(["--resume", str(tmp_path / "run"), "--quiet", "--total_iterations", "3"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("program", [evaluate_module.main, compare.main])
def test_quiet_evaluation_and_comparison(program, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = [str(run_dir), "--tasks", "5", "--out", str(tmp_path), "--device", "cpu"]
    assert program(given) == 0
    loud = capsys.readouterr().out
    assert program([*given, "--quiet"]) == 0
    quiet = capsys.readouterr().out
    assert "Written to" in loud and "Written to" not in quiet and "Curves:" not in quiet
    assert table_lines(quiet) == table_lines(loud) != set()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_pipe_of_any_encoding_gets_plain_text(encoding: str, run_dir: Path, tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONIOENCODING": encoding}
    command = [
        sys.executable,
        "-m",
        "metarl",
        "evaluate",
        str(run_dir),
        "--allow=toy",
        "--tasks=5",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    shown = done.stdout.decode(encoding)
    assert "optimum" in shown and not [c for c in shown if ord(c) < 32 and c != "\n"], "no control characters"
    assert ("▁" in shown) == (encoding == "utf-8")


def test_output_that_stands_in_for_the_terminal_may_be_anything(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    make_console(width=50).print("x" * 60)
    assert sys.stdout.getvalue().splitlines()[0] == "x" * 50  # type: ignore[attr-defined]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path):
    make_folder(tmp_path / "new" / "one")
    assert (tmp_path / "new" / "one").is_dir() and not list((tmp_path / "new" / "one").iterdir())
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(ValueError, match=r"The folder '.*file.*' cannot be written to: .*\."):
            make_folder(wrong)


def test_a_full_disk_is_one_sentence(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "checkpoint.partial")

    monkeypatch.setattr(checkpoint, "save", full)
    given = ["--config", str(run_dir.parent / "toy.yaml"), "--run_dir", str(tmp_path / "run"), "--quiet"]
    assert train.main(given) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("metarl train: No space left on device: 'checkpoint.partial'. Free space on the disk of ")
    assert "start the run again with: python -m metarl.train " in error and error.count("\n") == 1
    assert in_words(OSError(28, "No space left on device")) == "No space left on device."
    assert in_words(OSError("only words")) == "only words."


def test_an_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    parser = Parser(prog="python -m metarl.thing")
    parser.add_argument("--tasks", type=int)
    assert parser.read(["--tasks", "3"]).tasks == 3
    for given, sentence in (
        (["--tsks", "3"], "option: '--tsks'. Did you mean '--tasks'?"),
        (["--tsks=3"], "option: '--tsks'. Did you mean '--tasks'?"),
        (["--tasks", "many"], "--tasks must be a whole number, got 'many'"),
    ):
        with pytest.raises(SystemExit) as done:
            parser.read(given)
        said = capsys.readouterr().err
        assert done.value.code == 2 and said.startswith("metarl.thing: ") and sentence in said
        assert said.count("\n") == 1


# ---- notebooks -----------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What rich takes for a notebook; gives what would be shown below the cell."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setenv("FORCE_COLOR", "1")  # as its kernel does
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    assert Console().is_jupyter
    displayed: list[object] = []
    monkeypatch.setattr("rich.jupyter.display", lambda *shown: displayed.append(shown))
    return displayed


def test_in_a_notebook_tables_are_printed_once_and_files_are_not_empty(
    notebook, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = ["--config", str(run_dir.parent / "toy.yaml"), "--total_iterations", "1", "--final_eval_tasks", "10"]
    for seeds in ([], ["--seeds", "1"]):
        folder = tmp_path / f"run{len(seeds)}"
        assert train.main([*given, *seeds, "--quiet", "--run_dir", str(folder)]) == 0
        shown = capsys.readouterr().out
        written = list(folder.rglob("table.txt"))
        assert len(written) == 1 + len(seeds) // 2
        for file in written:
            text = file.read_text(encoding="utf-8")
            assert "optimum" in text and text.splitlines()[0].startswith("RL2 on Guess(numbers=3)")
        assert shown.count("RL2 on Guess") == len(written) and "\x1b" not in shown, "once each"
    assert evaluate_module.main([str(run_dir), "--tasks", "5", "--out", str(tmp_path / "out")]) == 0
    assert "optimum" in (tmp_path / "out" / "table.txt").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("RL2 on Guess") == 1
    assert not notebook, "nothing goes past the output"


def test_the_text_of_a_table_is_plain_whatever_the_terminal(monkeypatch: pytest.MonkeyPatch, notebook):
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table("one", "two", title="a table")
    table.add_row("1" * 100, "[b]two")
    text = text_of(table, width=50)
    assert max(map(len, text.splitlines())) <= 50 and "\x1b" not in text and "a table" in text and "─" in text
    assert not notebook


def test_families_and_agents_say_what_they_are(run_dir: Path):
    assert repr(metarl.make("metarl/GridNavi-v0", episodes_per_trial=3)) == "GridNavi(episodes_per_trial=3)"
    assert repr(metarl.make("metarl/DarkRoom-v0")) == "DarkRoom(episodes_per_trial=5)"
    assert repr(ThompsonBandit(4)) == "ThompsonBandit(num_arms=4)"
    agent = repr(metarl.load(str(run_dir)))
    assert agent.startswith("<RL2(meta_batch_size=16, hidden_size=8") and agent.endswith("Guess(numbers=3) on cpu>")
    assert "max_grad_norm" not in agent, "what is as always is left out"
