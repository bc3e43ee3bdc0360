"""Several seeds of one configuration: each is the run that it would be alone, and the results are joined."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from metarl.evaluation.curve import AdaptationCurve
from metarl.train import main
from metarl.training import checkpoint, loop
from metarl.training.checkpoint import Counters
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import read_line

SMALL = [
    "--config=rl2_gridnavi", "--total_iterations=2", "--eval_every=0", "--final_eval_tasks=12", "--num_threads=1",
    "--agent.meta_batch_size=8", "--agent.hidden_size=8", "--agent.num_minibatches=1",
]  # fmt: skip


def test_the_number_of_seeds_is_taken_out_of_the_command_line():
    line = read_line(["--config", "x", "--seeds", "3", "--seed=5", "--quiet"])
    assert (line.seeds, line.words, line.quiet) == (3, ["--config", "x", "--seed=5"], True)
    assert line.also("--seed=6").options == [("seed", "5"), ("seed", "6")]
    assert read_line(["--config", "x"]).seeds is None
    for wrong in (["--seeds"], ["--seeds", "0"], ["--seeds=-1"], ["--seeds", "many"]):
        with pytest.raises(ConfigError, match="--seeds must be a whole number from 1 to 999999, got"):
            read_line(wrong)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "three"
    assert main([*SMALL, "--seed=4", "--seeds=2", f"--run_dir={folder}"]) == 0
    return folder


def test_each_seed_is_the_run_that_it_would_be_alone(trained: Path, tmp_path: Path):
    assert sorted(path.name for path in trained.iterdir()) == ["evaluation", "seed_4", "seed_5"]
    assert main([*SMALL, "--seed=5", f"--run_dir={tmp_path / 'alone'}"]) == 0
    together, alone = (checkpoint.load_state(run)[0] for run in (trained / "seed_5", tmp_path / "alone"))
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[name], alone[name]) for name in alone)


def test_the_results_are_joined(trained: Path):
    for split in ("train", "test", "ood", "all"):
        joined = AdaptationCurve.load(trained / "evaluation" / split)
        assert joined.returns.shape == (2, min(12, joined.distinct), 4)
        for number, seed in enumerate((4, 5)):
            single = AdaptationCurve.load(trained / f"seed_{seed}" / "evaluation" / split)
            np.testing.assert_array_equal(joined.returns[number], single.returns[0])
    table = (trained / "evaluation" / "table.txt").read_text("utf-8")
    assert "2 training seeds" in " ".join(table.split())


def test_the_command_again_goes_on_where_it_stopped(trained: Path, capsys: pytest.CaptureFixture[str]):
    before = (trained / "seed_4" / checkpoint.CHECKPOINT).stat().st_mtime_ns
    assert main([*SMALL, "--seed=4", "--seeds=3", f"--run_dir={trained}"]) == 0
    said = capsys.readouterr().out
    assert "Seed 4 is done" in said and "Seed 5 is done" in said and "Seed 6" not in said
    assert (trained / "seed_4" / checkpoint.CHECKPOINT).stat().st_mtime_ns == before
    assert AdaptationCurve.load(trained / "evaluation" / "test").returns.shape[0] == 3


@pytest.mark.parametrize("given", [[], ["--run_dir=it's mine"]])
def test_stopped_in_the_second_seed_it_says_how_all_go_on(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    honest = loop.keep_best

    def stop(run_dir: Path, *more: Any) -> Counters:
        if run_dir.name == "seed_2":
            signal.raise_signal(signal.SIGINT)
        return honest(run_dir, *more)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "keep_best", stop)
        assert main([*SMALL, "--final_eval_tasks=0", "--seeds=2", *given]) == 128 + signal.SIGINT
    said = capsys.readouterr().out
    command = shlex.split(said.partition("Continue all seeds with: ")[2].partition("\n")[0])
    assert command[:3] == ["python", "-m", "metarl.train"] and main(command[3:]) == 0
    assert "Seed 1 is done" in capsys.readouterr().out
    (second,) = Path().rglob("seed_2/checkpoint.safetensors")
    assert checkpoint.load_state(second.parent)[1].iteration == 2


def test_a_damaged_evaluation_is_made_again(trained: Path, capsys: pytest.CaptureFixture[str]):
    path = trained / "seed_5" / "evaluation" / "test.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert main([*SMALL, "--seed=4", "--seeds=2", f"--run_dir={trained}"]) == 0
    said = capsys.readouterr().out
    assert "Seed 4 is done" in said and "Seed 5 is done" not in said
    assert path.read_bytes() == whole


def test_a_folder_of_another_configuration_is_left_alone(trained: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*SMALL, "--agent.lr=0.5", "--seed=4", "--seeds=2", f"--run_dir={trained}"]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert main(["--resume", str(trained / "seed_4"), "--seeds=2"]) == 2
    assert "continues by itself" in capsys.readouterr().err


def test_help_names_it(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["rl2_gridnavi", "--help"])
    Console().print(shown := capsys.readouterr().out)
    assert "--seeds N" in shown
