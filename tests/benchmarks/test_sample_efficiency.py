"""The figure of sample efficiency of the presets, from tiny runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import sample_efficiency
from metarl.train import main as train
from metarl.training.config.parsing import presets


def test_it_draws_the_runs_that_are_there_and_names_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = ["--config=rl2_sparse_point_robot", "--total_iterations=2", "--eval_every=1", "--eval_tasks=10", "--quiet"]
    small += ["--final_eval_tasks=0", "--num_threads=1", "--agent.meta_batch_size=8", "--agent.num_minibatches=1"]
    assert train([*small, f"--run_dir={tmp_path / 'rl2_sparse_point_robot_1'}"]) == 0
    (tmp_path / "rl2_sparse_point_robot_copy").mkdir()
    capsys.readouterr()
    assert sample_efficiency.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "SparsePointRobot, valid" in shown and "RL²" in shown
    assert "No run of maml_half_cheetah_vel" in shown and "No run of rl2_sparse_point_robot" not in shown
    assert (tmp_path / "out" / "train_steps.png").stat().st_size > 10_000


def test_without_any_run_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert sample_efficiency.main(["--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and "at least one agent" in said


def test_its_presets_are_presets():
    named = {preset for several in sample_efficiency.PRESETS.values() for preset in several}
    assert {preset for preset in named if not preset.startswith("pearl_")} <= set(presets())
