"""Standard output that is closed, narrow or left by its reader; empty paths; what a refused request leaves behind."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import metarl
from metarl.cli.contenders import named_run
from metarl.cli.main import main
from metarl.report.console import PipeConsole, files_in, make_console, new_folder, show

ROOT = Path(__file__).parents[2]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "METARL": f"{sys.executable} -m metarl"}
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("line", ["$METARL --help | head -1; exit ${PIPESTATUS[0]}", "$METARL --help >&-"])
def test_a_page_nobody_reads_is_no_crash(line: str):
    done = shell(line)
    assert done.returncode == 0 and not done.stderr


def test_work_goes_on_when_the_reader_of_a_pipe_leaves():
    lines = "from metarl.report.console import make_console; import sys, time; console = make_console()\n"
    lines += "console.print('first'); time.sleep(0.3); console.print('second'); console.print('third')\n"
    done = shell(f'{sys.executable} -c "{lines}print(sys.stdout.closed, file=sys.stderr)" | head -1')
    assert done.stdout == "first\n" and done.stderr == "False\n"


def test_narrow_terminals_get_whole_numbers():
    table = Table(*"abcdef")
    table.add_row(*["-123.456789"] * 4, "1", "2")
    file = io.StringIO()
    show(PipeConsole(file=file, width=30, force_terminal=False), table)
    assert file.getvalue().count("-123.456789") == 4


def test_no_columns_are_the_usual_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "0")
    assert make_console().width == 80


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run", "--out", ""],
        ["watch", "run", "--video", ""],
        ["bench", "--out", ""],
        ["train", "rl2_gridnavi", "--run_dir", ""],
        ["train", "rl2_gridnavi", "-agent.lr", "1"],
        ["train", "."],
        ["evaluate", "run", "--task", "5"],
        ["evaluate", "run", "--tasks", "x"],
        ["compare", "=run"],
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) if words[0] not in ("train", "compare") else pytest.MonkeyPatch.context() as end:
        assert main(words) == 2
    assert getattr(getattr(end, "value", None), "code", 2) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_an_empty_name_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert named_run("A=run") == ("A", "run")
    for text in ("=run", "run="):
        with pytest.raises(ValueError, match="needs a name before the = and a run after it"):
            named_run(text)


@pytest.mark.parametrize("make", [None, new_folder])
def test_a_failure_takes_away_only_what_it_made_and_is_empty(tmp_path: Path, make):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ValueError, match="refused"), files_in(tmp_path / "theirs" / "a" / "b", make):
        raise ValueError("refused")
    assert (tmp_path / "theirs").is_dir() and not (tmp_path / "theirs" / "a").exists()
    with pytest.raises(ValueError, match="late"), files_in(tmp_path / "full", make) as folder:
        (folder / "result").touch()
        raise ValueError("late")
    assert (tmp_path / "full" / "result").exists()


def test_help_and_version_are_words_too(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"metarl {metarl.__version__}\n"
    assert main(["help", "train"]) == 0 and capsys.readouterr().out.startswith("usage: metarl train")


@pytest.mark.parametrize(
    "call",
    [
        lambda: metarl.load(3),  # type: ignore[arg-type]
        lambda: metarl.load("pretrained:rl2_gridnavi", device="gpu3"),
        lambda: metarl.Player("pretrained:rl2_gridnavi"),  # type: ignore[arg-type]
        lambda: metarl.evaluate("pretrained:rl2_gridnavi"),  # type: ignore[arg-type]
        lambda: metarl.run("rl2_gridnavi", on_iteration=3),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_agent_device_or_function_is_a_sentence(call):
    with pytest.raises((TypeError, ValueError), match=r"must be .*, got .*\.$"):
        call()
