"""The comparison on few-shot streams: everyone on the same tasks, from finished runs."""

import json

import numpy as np
import pytest

from benchmarks import few_shot
from metarl.train import main as train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of one small iteration each, named after the presets that they stand for."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--total_iterations", "1", "--eval_tasks", "4", "--eval_repeats", "1", "--agent.meta_batch_size", "40"]
    for preset in ("rl2_sinusoid", "maml_supervised_sinusoid"):
        for seed in (1, 2):
            run = folder / f"{preset}_{seed}"
            train(["--config", preset, "--seed", str(seed), "--run_dir", str(run), "--quiet", *small])
    return folder


def test_everyone_has_a_curve_over_the_same_tasks(runs, tmp_path, capsys):
    places = ["--runs", str(runs), "--out", str(tmp_path), "--figure", str(tmp_path / "few_shot.png")]
    few_shot.main(["--only", "Sinusoid", "--seeds", "1", "2", "--tasks", "5", *places])
    (found,) = json.loads((tmp_path / "few_shot.json").read_text()).values()
    assert list(found) == ["RL²", "MAML, 0 gradient steps", "MAML, 1 gradient step", "least squares"]
    assert [row["seeds"] for row in found.values()] == [2, 2, 2, 1]
    # Two exact points of a sine wave and its period determine the third, and an untrained answer is about 0.
    assert found["least squares"]["mean"][2] < 1e-3 < found["RL²"]["mean"][2]
    for row in found.values():
        assert row["all"][0] == pytest.approx(np.mean(row["mean"]))
        assert row["all"][1] <= row["all"][0] <= row["all"][2]
    assert (tmp_path / "few_shot.png").read_bytes().startswith(b"\x89PNG")
    assert "| MAML, 1 gradient step |" in capsys.readouterr().out


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"rl2_sinusoid_1 has no finished run: train it with --train\."):
        few_shot.main(["--only", "Sinusoid", "--runs", str(tmp_path)])
