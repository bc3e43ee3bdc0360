"""The command `metarl`: its commands, its usage pages, and the short forms of `metarl train`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from toy import TOY

from metarl import train
from metarl.cli import usage
from metarl.cli.main import main
from metarl.cli.train import spelled_out
from metarl.training.config.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_the_command_is_declared():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert EntryPoint("metarl", scripts["metarl"], "console_scripts").load() is main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_overview_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name}" in shown for name in usage.COMMANDS)
    programs = {path.stem for path in (ROOT / "metarl" / "cli").rglob("*.py")}
    assert programs == {*usage.COMMANDS, "__init__", "main", "usage", "contenders", "histories", "parsers"}
    assert {*usage.PARSERS} | {"train"} == {*usage.COMMANDS}


@pytest.mark.parametrize("name", usage.COMMANDS)
def test_every_command_has_a_page(name: str, capsys: pytest.CaptureFixture[str]):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: metarl {name}") and max(map(len, shown.splitlines()[:-1])) <= 120


@pytest.mark.parametrize("words", [["metarl"], *(["metarl", name] for name in usage.COMMANDS), ["metarl.train"]])
def test_a_page_appears_without_torch(words: list[str]):
    """Importing torch takes a second; a page takes a fifth of one."""
    program = "import runpy, sys; module, *sys.argv[1:] = sys.argv[1:]\n"
    program += "try: runpy.run_module(module, run_name='__main__', alter_sys=False)\n"
    program += "except SystemExit as end: assert not end.code\n"
    program += "assert not {'torch', 'jsonargparse', 'matplotlib'} & sys.modules.keys()"
    command = [sys.executable, "-W", "error", "-c", program, *words, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: metarl"), done.stderr


def test_another_command_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["evalute", "run"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("metarl: There is no command 'evalute'. Did you mean 'evaluate'?")


@pytest.mark.parametrize("module", ["metarl", "metarl.train"])
def test_it_runs_as_a_module(module: str, tmp_path: Path):
    (tmp_path / "toy.yaml").write_text(TOY)
    words = ["train"] if module == "metarl" else []
    command = [sys.executable, "-m", module, *words, "toy.yaml", "--allow=toy", "--total_iterations=1", "--quiet"]
    command += ["--run_dir=run"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_short_forms_written_out():
    assert spelled_out(["rl2_gridnavi", "--seed", "2"]) == ["rl2_gridnavi", "--seed", "2"]
    assert spelled_out(["--help", "agent", "MAML"]) == ["--agent", "MAML", "--help"]
    assert spelled_out(["x.yaml", "-h", "family", "GridNavi"]) == ["x.yaml", "--family", "GridNavi", "--help"]
    for wrong in (["--help", "agent"], ["--help", "me"]):
        with pytest.raises(ConfigError, match="--help must come last, or be followed by agent NAME or family NAME"):
            spelled_out(wrong)


def test_the_help_of_an_agent_has_its_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        train.main(["--help", "agent", "MAML"])
    shown = capsys.readouterr().out
    assert "--agent.inner_steps" in shown and "--total_iterations" in shown
    assert train.main(["--help", "agent", "MAMLL"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
