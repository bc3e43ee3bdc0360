"""Paths mean what they say, in every program and in every command that one prints; new folders are nobody else's."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from toy import TOY

import metarl
from metarl import train
from metarl.cli import compare, contenders
from metarl.cli import evaluate as evaluate_module
from metarl.report.console import at_home, new_folder
from metarl.training import checkpoint, run_folder
from metarl.training.config import parsing as config
from metarl.training.config.errors import ConfigError

ROOT = Path(__file__).parents[2]
SMALL = ["--config=toy.yaml", "--total_iterations=1"]
NAMES = ["it's $HOME", "~", "[bold]$a_b$;x&y #", "-%{a}.b=c,lr=0.001"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a config file to work in, and a home below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    export = functools.partial(checkpoint.export_pretrained, into=tmp_path / "pretrained")
    monkeypatch.setattr(checkpoint, "export_pretrained", export)
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    Path("toy.yaml").write_text(TOY)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name(name: str, capsys: pytest.CaptureFixture[str]):
    run = f"runs/{name}"
    assert train.main([*SMALL, "--run_dir", run, "--final_eval_tasks=5"]) == 0
    shown = capsys.readouterr().out
    assert f"Training in {run} on" in shown
    assert shlex.split(shown.splitlines()[-1].partition(": ")[2]) == ["tensorboard", "--logdir", run]
    assert evaluate_module.main([run, "--tasks=5", "--out", f"out/{name}", "--quiet"]) == 0
    assert compare.main([run, f"other={run}", "--tasks=5", "--out", f"out/{name}/compared", "--quiet"]) == 0
    assert checkpoint.main([run, "mine"]) == 0
    assert {path.name for path in Path("runs").iterdir()} == {path.name for path in Path("out").iterdir()} == {name}
    assert metarl.load(run).config == checkpoint.load("pretrained:mine").config, "which stands in no other folder"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text")
def test_names_that_are_no_text(capsys: pytest.CaptureFixture[str]):
    """As a shell passes on a name of Latin-1, or any but ASCII in an ASCII locale: bytes that no text has."""
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert train.main([*SMALL, "--run_dir", name]) == 2
    assert capsys.readouterr().err == (
        "metarl train: The folder 'caf\\udce9' has a name that is not valid text: choose another --run_dir.\n"
    )
    assert not Path(name).exists()
    Path(f"{name}.yaml").write_text(TOY)
    assert train.main([f"{name}.yaml", "--total_iterations=1", "--run_dir=run"]) == 0
    assert b"caf\xe9.yaml" in Path("run/command.txt").read_bytes() and not capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]):
    """The commands by which a run is continued, in a real shell."""
    run = Path("runs") / name
    assert train.main([*SMALL, "--run_dir", str(run)]) == 0
    assert train.main([*SMALL, "--run_dir", str(run)]) == 2
    found = re.search(r"continue it with (--resume .*), or choose", capsys.readouterr().err)
    assert found is not None and shlex.split(found[1]) == ["--resume", str(run)]
    (run / checkpoint.CHECKPOINT).unlink()
    with pytest.raises(ConfigError, match="has no checkpoint yet") as caught:
        checkpoint.load(run)
    command = str(caught.value).partition("start it again with: ")[2]
    printed = subprocess.run(
        ["sh", "-c", f"python() {{ printf '%s\\n' \"$@\"; }}; {command}"], capture_output=True, text=True
    )
    given = ["--config", str(run / "config.yaml"), "--run_dir", str(run), "--auto_resume"]
    assert printed.stdout.splitlines() == ["-m", "metarl.train", *given]
    assert train.main(printed.stdout.splitlines()[2:]) == 0


def test_home_where_no_shell_has_seen_it(folder: Path):
    """In a file, behind a "=", and in Python; a $ is a $ everywhere."""
    (folder / "home").mkdir()
    mine = yaml.safe_load(TOY) | {"run_dir": "~/runs/$USER", "final_eval_tasks": 5}
    Path("home/mine.yaml").write_text(yaml.safe_dump(mine))
    assert train.main(["--config=~/mine.yaml", "--total_iterations=1"]) == 0
    assert train.main(["--resume=~/runs/$USER", "--total_iterations=2"]) == 0
    assert train.main([*SMALL, "--run_dir=~/runs/second", "--seeds=1"]) == 0
    run = folder / "home" / "runs" / "$USER"
    assert metarl.load("~/runs/$USER").config == metarl.load(run).config
    assert metarl.load(Path("~/runs/second/seed_1")).config == metarl.load(run).config
    assert evaluate_module.main(["~/runs/$USER", "--tasks=5", "--out=~/out", "--quiet"]) == 0
    assert compare.main(["~/runs/$USER", "b=~/runs/second", "--tasks=5", "--out=~/compared", "--quiet"]) == 0
    assert checkpoint.main(["~/runs/$USER", "mine"]) == 0
    assert (folder / "home/out/test.json").exists() and (folder / "home/compared/comparison.json").exists()
    assert not Path("~").exists() and not Path("runs").exists()
    assert train.main([*SMALL, "--run_dir=./~/x"]) == 0 and Path("~/x").is_dir(), "a folder of that name"


def test_at_home(folder: Path):
    assert at_home(["~/a", "b~", Path("~"), 3, None]) == [f"{folder}/home/a", "b~", folder / "home", 3, None]


def test_the_name_and_the_run_of_a_comparison(folder: Path):
    for path in ("lr=1", "runs/lr=1,seed=2", "runs/plain", "a=b=c"):
        Path(path).mkdir(parents=True)
    for given, name, where in (
        ("lr=1", "", "lr=1"),
        ("runs/lr=1,seed=2", "", "runs/lr=1,seed=2"),
        ("mine=runs/lr=1,seed=2", "mine", "runs/lr=1,seed=2"),
        ("lr=1=runs/plain", "lr=1", "runs/plain"),
        ("x=lr=1", "x", "lr=1"),
        ("x=a=b=c", "x", "a=b=c"),
        ("a=pretrained:rl2_gridnavi", "a", "pretrained:rl2_gridnavi"),
        ("a=b=pretrained:x", "a=b", "pretrained:x"),
        ("pretrained:a=b", "", "pretrained:a=b"),
        ("mine=missing", "mine", "missing"),
        ("runs/lr=3", "", "runs/lr=3"),
        ("missing", "", "missing"),
    ):
        assert contenders.named_run(given) == (name, where)
    for given in ("mine=", "=runs/plain"):
        with pytest.raises(ValueError, match="needs a name before the = and a run after it, got"):
            contenders.named_run(given)
    with pytest.raises(ConfigError, match="no run directory 'runs/lr=3'"):
        contenders.lines(["runs/lr=3"], "cpu")


def test_every_new_folder_is_a_new_one(folder: Path):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: new_folder(folder / "deep" / "v1.0"), range(16)))
    assert len({*made}) == 16 and all(path.is_dir() and not list(path.iterdir()) for path in made)
    assert {path.name for path in made} == {"v1.0", *(f"v1.0_{number}" for number in range(2, 17))}
    (folder / "file").write_text("")
    assert new_folder(folder / "file").name == "file_2"
    with pytest.raises(ValueError, match="cannot be made"):
        new_folder(folder / "file" / "below")


def test_programs_that_start_in_the_same_second(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    for _ in range(3):
        assert train.main([*SMALL, "--quiet"]) == 0
        assert train.main([*SMALL, "--seeds=1", "--quiet"]) == 0
        assert compare.main(["runs/toy_1_now", "--tasks=5", "--split=test", "--quiet"]) == 0
    kinds = ("toy_1_now", "toy_now", "comparison_now")
    assert {path.name for path in Path("runs").iterdir()} == {kind + end for kind in kinds for end in ("", "_2", "_3")}
    assert all((run / checkpoint.CHECKPOINT).exists() for run in Path("runs").glob("toy_1_now*"))


@pytest.mark.slow
def test_runs_at_once_in_processes_of_their_own():
    command = [sys.executable, "-m", "metarl.train", *SMALL, "--quiet", "--allow=toy"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    running = [
        subprocess.Popen([*command, *given], env=environment) for given in ([], [], ["--run_dir=x"], ["--run_dir=x"])
    ]
    codes = [process.wait() for process in running]
    assert codes[:2] == [0, 0] and sorted(codes[2:]) == [0, 2], "one of them has what both asked for"
    assert len([*Path("runs").glob("toy_1_*/checkpoint.safetensors")]) == 2
    assert len(Path("x/metrics.jsonl").read_text().splitlines()) == 1


def test_a_folder_that_another_run_took_in_the_meantime(folder: Path):
    parsed = config.parse([*SMALL, "--run_dir=run"])
    Path("run").mkdir()
    run_folder.write_run_files(Path("run"), parsed)
    with pytest.raises(ConfigError, match="already holds a run"):
        run_folder.write_run_files(Path("run"), parsed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it is no mistake")
def test_a_mistake_leaves_no_folder(capsys: pytest.CaptureFixture[str]):
    assert train.main([*SMALL, "--seeds=2", "--device=cuda"]) == 2 and capsys.readouterr().err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ([], "rl2_navigation2d"),
        (["--family=GridNavi"], "rl2_gridnavi"),
        (["--family=metarl/GridNavi-v0", "--agent=MAML"], "maml_gridnavi"),
        (["--agent=PPO"], "ppo_navigation2d"),
        (["--family=toy/Guess-v0"], "rl2_guess"),
        (["--config=rl2_gridnavi", "--family=DarkRoom"], "rl2_darkroom"),
        (["--config=rl2_gridnavi", "--family=GridNavi", "--agent=RL2"], "rl2_gridnavi"),
        (["--config=promp_navigation2d"], "promp_navigation2d"),
        (["--config=toy.yaml"], "toy"),
    ],
)
def test_a_run_is_named_after_what_it_is(given: list[str], name: str):
    assert config.parse(given).name == name
