"""The comparison of task samplers: everyone on the same tasks, from finished runs."""

import json

import pytest

from benchmarks import curricula
from metarl.train import main as train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of one small iteration each, named after the presets that they stand for."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--total_iterations=1", "--eval_every=0", "--final_eval_tasks=1", "--agent.meta_batch_size=8"]
    for preset in ("rl2_wall_maze", "regret_wall_maze"):
        for seed in (1, 2):
            assert (
                train(["--config", preset, f"--seed={seed}", f"--run_dir={folder / f'{preset}_{seed}'}", *small]) == 0
            )
    return folder


def test_every_sampler_is_compared_with_uniform_draws(runs, tmp_path, capsys):
    few = ["--tasks", "12", "--repeats", "2", "--seeds", "1", "2", "--only", "PLR, exact regret"]
    curricula.main([*few, "--runs", str(runs), "--out", str(tmp_path)])
    found = json.loads((tmp_path / "curricula.json").read_text())
    assert list(found) == ["test", "ood"]
    for rows in found.values():
        assert list(rows) == ["uniform", "PLR, exact regret"]
        for name in curricula.MEASURES:
            ours, uniform = rows["PLR, exact regret"], rows["uniform"]
            gain, low, high = ours[f"{name}_gain"]
            assert low <= gain <= high and gain == pytest.approx(ours[name][0] - uniform[name][0])
        assert rows["uniform"]["mean"][0] > rows["uniform"]["cvar_10"][0] - 1e-9
        assert rows["uniform"]["env_steps"] > 0
    assert (tmp_path / "curricula.png").read_bytes().startswith(b"\x89PNG")
    assert "| worst 10 %: gain |" in capsys.readouterr().out


def test_a_single_trial_is_refused(capsys):
    with pytest.raises(SystemExit):
        curricula.main(["--repeats", "1"])
    assert "--repeats must be at least 2" in capsys.readouterr().err
