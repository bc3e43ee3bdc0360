"""`metarl.run`: the same run as the program's, quiet, stopped by a callback, and mistakes as sentences."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import assert_same_run, lines
from toy import TOY

import metarl
from metarl import train
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    return tmp_path


def test_it_is_the_program_s_run_bit_for_bit(capsys: pytest.CaptureFixture[str]):
    options = ["--seed=3", "--agent.lr=1e-05", "--agent.gamma=[[0, 0.8], [1, 0.9]]", "--eval_every=2"]
    assert train.main(["toy.yaml", *options, "--final_eval_tasks=20", "--run_dir=program"]) == 0
    capsys.readouterr()
    run = metarl.run(
        Path("toy.yaml"), seed=3, agent={"lr": 1e-5, "gamma": [[0, 0.8], [1, 0.9]]}, eval_every=2, final_eval_tasks=20,
        run_dir="python",
    )  # fmt: skip
    assert capsys.readouterr() == ("", ""), "nothing is shown"
    assert_same_run("program", "python")
    assert Path("program/config.yaml").read_text() == Path("python/config.yaml").read_text()
    for split in ("train", "valid", "test", "ood"):
        theirs = metarl.AdaptationCurve.load(f"program/evaluation/{split}")
        assert (run.curves[split].returns == theirs.returns).all()
    assert run.directory == Path("python") and run.counters.iteration == 6 and run.signal == 0
    kept, _ = checkpoint.load_state("python")
    assert all(torch.equal(value, kept[name]) for name, value in run.agent.state_dict().items())


def test_the_callback_sees_the_metrics_and_may_end_training():
    seen: list[tuple[int, dict[str, float]]] = []

    def note(iteration: int, metrics: dict[str, float]) -> bool:
        seen.append((iteration, metrics))
        return iteration == 4

    run = metarl.run("toy.yaml", eval_every=2, final_eval_tasks=20, run_dir="run", on_iteration=note)
    assert [iteration for iteration, _ in seen] == [1, 2, 3, 4]
    assert {"train/return", "loss/policy", "eval/valid/score"} <= seen[1][1].keys()
    assert "eval/valid/score" not in seen[0][1]
    assert len(lines("run")) == run.counters.iteration == 4 and set(run.curves) == {"train", "valid", "test", "ood"}
    resumed = metarl.run(resume="run", total_iterations=6)
    metarl.run("toy.yaml", eval_every=2, final_eval_tasks=20, run_dir="whole")
    assert_same_run("run", "whole")
    assert resumed.counters.iteration == 6


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_and_then_stops_the_program(number: signal.Signals, raised: type[BaseException]):
    before = signal.getsignal(number)

    def send(iteration: int, metrics: dict[str, float]) -> None:
        if iteration == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(raised):
        metarl.run("toy.yaml", total_iterations=50, final_eval_tasks=20, run_dir="run", on_iteration=send)
    done = checkpoint.load_state("run")[1].iteration
    assert 3 <= done == len(lines("run")) <= 4 and not Path("run/evaluation").exists()
    assert signal.getsignal(number) == before


def test_loud_it_shows_what_the_program_shows(capsys: pytest.CaptureFixture[str]):
    metarl.run("toy.yaml", total_iterations=1, run_dir="run", quiet=False)
    assert "Training in run" in capsys.readouterr().out


def test_another_family_and_agent_by_name():
    run = metarl.run(
        "toy.yaml", family="GridNavi", agent={"name": "RL2", "meta_batch_size": 4}, allow=["toy"],
        total_iterations=1, run_dir="run",
    )  # fmt: skip
    assert type(run.agent.family).__name__ == "GridNavi" and run.agent.config.meta_batch_size == 4


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"agent": {"lrr": 1}}, "Did you mean 'lr'"),
        ({"sed": 1}, "Did you mean 'seed'"),
        ({"agent": 3}, "agent must be a name or a dictionary of options, got int"),
        ({"seed": object()}, "seed must be a number, a string, or a list or dictionary of them, got object"),
        ({"total_iterations": -1}, "total_iterations must be at least 0"),
    ],
)
def test_a_mistake_is_a_sentence_and_leaves_nothing(overrides: dict[str, Any], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        metarl.run("toy.yaml", **overrides)
    assert not Path("runs").exists()


def test_what_spoils_a_picture_is_a_warning():
    Path("toy.yaml").write_text(TOY.replace("toy/Guess", "toy/NoDisplay"))
    with pytest.warns(UserWarning) as caught:
        run = metarl.run("toy.yaml", total_iterations=1, final_eval_tasks=20, run_dir="run")
    assert "test" in run.curves and all("no display" in str(warning.message) for warning in caught)
