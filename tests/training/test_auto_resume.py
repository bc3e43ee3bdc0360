"""One command that starts a run, continues it, or finds it done; folders that it leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_train import EVALUATED, ROOT, assert_same_run, lines, start, wait_for
from toy import TOY

import metarl
from metarl import train
from metarl.evaluation.files import replace_file
from metarl.report.console import silent_console
from metarl.training import checkpoint, loop
from metarl.training.checkpoint import CHECKPOINT
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import parse
from metarl.training.lock import locked
from metarl.training.run_folder import claim

AGAIN = ["toy.yaml", "--run_dir=run", "--auto_resume"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)


def content(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_it_starts_continues_and_finds_it_done(capsys: pytest.CaptureFixture[str]):
    given = [*AGAIN, *EVALUATED]
    ended = metarl.run(
        "toy.yaml", run_dir="run", auto_resume=True, eval_every=3, final_eval_tasks=30,
        on_iteration=lambda done, _: done == 4,
    )  # fmt: skip
    assert ended.counters.iteration == 4
    assert train.main(given) == 0
    assert train.main(["toy.yaml", *EVALUATED, "--run_dir=whole"]) == 0
    assert_same_run("run", "whole")
    before = content("run")
    capsys.readouterr()
    assert train.main(given) == 0
    said = capsys.readouterr().out
    assert "optimum" in said and "This run is done: run" in said and "Training in" not in said
    assert content("run") == before
    found = metarl.run("toy.yaml", run_dir="run", auto_resume=True, eval_every=3, final_eval_tasks=30)
    assert found.counters.iteration == 6 and found.curves.keys() == {"train", "valid", "test", "ood"}
    kept, _ = checkpoint.load_state("run")
    assert all(torch.equal(value, kept[name]) for name, value in found.agent.state_dict().items())


def test_a_run_that_is_done_is_not_evaluated_again_unless_something_is_asked(capsys: pytest.CaptureFixture[str]):
    assert train.main(["toy.yaml", *EVALUATED, "--run_dir=run"]) == 0
    before = content("run")
    for given in ([], ["--final_eval_tasks=30"], ["--total_iterations=6"]):
        capsys.readouterr()
        assert train.main(["--resume=run", *given]) == 0
        said = capsys.readouterr().out
        assert "optimum" in said and "This run is done: run" in said and "Training in" not in said
        assert content("run") == before
    assert metarl.run(resume="run").curves.keys() == {"train", "valid", "test", "ood"}
    for given, shown in (("--final_eval_tasks=40", "on 40 tasks"), ("--total_iterations=7", "iteration 7/7")):
        assert train.main(["--resume=run", given]) == 0
        assert shown in capsys.readouterr().out and content("run") != before
    Path("run/evaluation/table.txt").unlink()  # as if it had been stopped in its evaluation
    assert train.main(["--resume=run"]) == 0
    assert "on 40 tasks" in capsys.readouterr().out and Path("run/evaluation/table.txt").exists()


def test_killed_at_any_moment_it_becomes_the_uninterrupted_run():
    """kill -9 before the first checkpoint, and after it."""
    long = ["--total_iterations=80", "--checkpoint_every=40"]
    for reached in (lambda: Path("run/metrics.jsonl").exists() and lines("run"), Path("run/" + CHECKPOINT).exists):
        process = start(*AGAIN, *long)
        wait_for(reached, process)
        process.kill()
        process.communicate()
    assert train.main([*AGAIN, *long]) == 0
    assert train.main(["toy.yaml", *long, "--run_dir=whole"]) == 0
    assert_same_run("run", "whole")
    assert len(list(Path("run").glob("events.out.tfevents.*"))) == 2, "nothing half of the first start is left"


SAC = ["--agent=RecurrentSAC", "--agent.meta_batch_size=4", "--agent.hidden_size=8", "--agent.buffer_size=10"]
SAC += ["--agent.updates_per_iteration=2", "--agent.learning_starts=8", "--agent.batch_size=4"]


@pytest.mark.parametrize("how", ["--auto_resume", "--resume=run"])
def test_killed_in_its_first_checkpoint_after_the_numbered_one_it_goes_on_from_that(how: str):
    Path("sac.yaml").write_text(TOY[: TOY.index("agent:")] + TOY[TOY.index("total_iterations") :])
    given = ["sac.yaml", *SAC, "--keep_checkpoints=2"]

    def full(path: Path, *_: object) -> None:
        if path.name == checkpoint.CHECKPOINT:
            raise KeyboardInterrupt
        replace_file(path, *_)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "replace_file", full)
        loop.train(parse([*given, "--run_dir=run"]), silent_console(), print)
    assert {path.name for path in Path("run").glob("checkpoint*")} == {"checkpoint_2.safetensors"}
    assert train.main([how, *([*given, "--run_dir=run"] if how == "--auto_resume" else [])]) == 0
    assert train.main([*given, "--run_dir=whole"]) == 0
    assert_same_run("run", "whole")


@pytest.mark.parametrize("kept", [0, 7, -1])
def test_a_half_written_configuration_is_no_other_run(kept: int):
    assert train.main(AGAIN) == 0
    (Path("run") / CHECKPOINT).unlink()
    config = Path("run/config.yaml")
    config.write_text(config.read_text()[:kept])
    assert train.main(AGAIN) == 0 and len(lines("run")) == 6
    assert parse(["--config=run/config.yaml"]).values == parse([*AGAIN, "--run_dir=null"][:1]).values


def test_another_configuration_is_refused_by_its_first_difference(capsys: pytest.CaptureFixture[str]):
    assert train.main(AGAIN) == 0
    before = content("run")
    for change, sentence in (
        ("--agent.lr=0.5", "agent.lr is 0.001 there, and 0.5 was asked for"),
        ("--family=GridNavi", "family.name is 'toy/Guess-v0' there, and 'metarl/GridNavi-v0' was asked for"),
        ("--seed=2", "seed is 1 there, and 2 was asked for): choose another --run_dir."),
        ("--total_iterations=9", "or change it with --resume run --total_iterations 9."),
        ("--agent=MAML", "agent.name is 'RL2' there"),
    ):
        capsys.readouterr()
        assert train.main([*AGAIN, change]) == 2
        said = capsys.readouterr().err
        assert "holds a run of another configuration" in said and sentence in said and said.count("\n") == 1, said
    (Path("run") / CHECKPOINT).unlink()
    before.pop(Path("run") / CHECKPOINT)
    assert train.main([*AGAIN, "--seed=2"]) == 2
    assert content("run") == before, "another run's curves are kept, though it has no checkpoint"


def test_it_needs_a_folder_of_its_own(capsys: pytest.CaptureFixture[str]):
    for given, sentence in (
        (["toy.yaml", "--auto_resume"], "--auto_resume needs --run_dir"),
        (["toy.yaml", "--auto_resume", "--seeds=2"], "--auto_resume needs --run_dir"),
        (["--resume=run", "--auto_resume"], "--auto_resume replaces --resume"),
        (["toy.yaml", "--auto_resume=yes", "--run_dir=run"], "--auto_resume takes no value"),
    ):
        if "--resume=run" in given:
            assert train.main(["toy.yaml", "--run_dir=run", "--quiet"]) == 0
        assert train.main(given) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    assert not Path("runs").exists()


def test_resuming_without_a_checkpoint_erases_no_curves(capsys: pytest.CaptureFixture[str]):
    assert train.main(["toy.yaml", "--run_dir=run"]) == 0
    (Path("run") / CHECKPOINT).unlink()
    before = content("run")
    capsys.readouterr()
    assert train.main(["--resume=run"]) == 2
    said = capsys.readouterr().err
    assert "has no checkpoint to continue from" in said and said.count("\n") == 1 and content("run") == before
    assert train.main(["toy.yaml", "--run_dir=run"]) == 2
    assert "start it again by adding --auto_resume" in capsys.readouterr().err and content("run") == before
    command = said.partition(" with: ")[2].split()
    assert command[:3] == ["python", "-m", "metarl.train"] and train.main(command[3:]) == 0
    assert checkpoint.load_state("run")[1].iteration == 6 == len(lines("run"))


def test_nothing_trains_inside_the_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    package = checkpoint.PRETRAINED.parent
    agent = checkpoint.PRETRAINED / "rl2_gridnavi"
    before = sorted(path.name for path in agent.iterdir())
    Path("link").symlink_to(package)
    inside = (package / "x", package / "envs" / "x", agent, Path("link/x"), package / "cli" / ".." / "x")
    for place in inside:
        for more in ([], ["--auto_resume"], ["--seeds=2"]):
            assert train.main(["toy.yaml", f"--run_dir={place}", *more]) == 2
            said = capsys.readouterr().err
            assert "is inside the package metarl itself: choose another --run_dir" in said and said.count("\n") == 1
        assert place == agent or not place.exists()
    assert sorted(path.name for path in agent.iterdir()) == before
    monkeypatch.chdir(package)
    assert train.main([str(Path(ROOT / "configs/rl2_gridnavi.yaml")), "--seeds=2"]) == 2
    assert not (package / "runs").exists()


def test_a_trained_agent_s_folder_is_no_run_to_go_on_with(capsys: pytest.CaptureFixture[str]):
    shutil.copytree(checkpoint.PRETRAINED / "rl2_gridnavi", "mine")
    before = content("mine")
    assert train.main(["--config=mine/config.yaml", "--run_dir=mine", "--auto_resume"]) == 2
    assert "is a trained agent, not a run" in capsys.readouterr().err and content("mine") == before


def test_of_many_that_start_at_once_one_wins():
    parsed = parse(["toy.yaml", "--run_dir=run"])

    def begin(_: int) -> str:
        try:
            with claim(parsed, print) as run_dir:
                (run_dir / "config.yaml").write_text(parsed.text())
            return "won"
        except ConfigError as refused:
            return str(refused)

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(begin, range(8)))
    assert said.count("won") == 1
    assert all("is being written by" in each or "already holds a run" in each for each in said if each != "won")


def test_seeds_go_on_from_before_their_first_checkpoint(capsys: pytest.CaptureFixture[str]):
    given = ["toy.yaml", *EVALUATED, "--seeds=2", "--run_dir=three"]
    assert train.main(given) == 0
    whole = content("three")
    (Path("three/seed_2") / CHECKPOINT).unlink()
    shutil.rmtree("three/evaluation")
    capsys.readouterr()
    assert train.main(given) == 2
    assert "it has no checkpoint, so start it again by adding --auto_resume" in capsys.readouterr().err
    assert train.main([*given, "--auto_resume"]) == 0
    assert "Seed 1 is done" in capsys.readouterr().out
    assert train.main([*given, "--auto_resume"]) == 0
    said = capsys.readouterr().out
    assert "Seed 1 is done" in said and "Seed 2 is done" in said and "2 training seeds" in " ".join(said.split())
    for name in ("evaluation/test.csv", "seed_2/evaluation/test.csv", "seed_2/config.yaml"):
        assert (Path("three") / name).read_bytes() == whole[Path("three") / name]


def test_a_seed_that_another_process_trains_is_refused(capsys: pytest.CaptureFixture[str]):
    given = ["toy.yaml", "--seeds=2", "--run_dir=three"]
    Path("three/seed_1").mkdir(parents=True)
    for more in ([], ["--auto_resume"]):
        with locked(Path("three/seed_1"), print):
            assert train.main([*given, *more]) == 2
        said = capsys.readouterr().err
        assert f"'three/seed_1' is being written by process {os.getpid()} on" in said and said.count("\n") == 1
    assert train.main(given) == 0


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--auto_resume"], ["--seeds=2"], ["--seeds=2", "--auto_resume"]])
def test_processes_that_start_at_once_make_one_run(more: list[str]):
    command = [sys.executable, "-m", "metarl.train", "toy.yaml", "--quiet", "--allow=toy", "--run_dir=run", *more]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    running = [subprocess.Popen([*command], env=environment, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    said = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert 0 in codes and {*codes} <= {0, 2} and not [text for text in said if text.count("\n") > 1]
    folders = ["run/seed_1", "run/seed_2"] if "--seeds=2" in more else ["run"]
    for each in folders:
        assert [line["iteration"] for line in lines(each)] == [1, 2, 3, 4, 5, 6]
        assert len(list(Path(each).glob("events.out.tfevents.*"))) == 1
