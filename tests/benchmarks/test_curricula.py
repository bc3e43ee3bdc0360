"""The comparison of task samplers: everyone on the same tasks."""

import json

import pytest
import torch

from benchmarks import curricula
from metarl.agents.rl2.config import RL2Config
from metarl.envs.grids.wall_maze import WallMaze


@pytest.fixture
def runs(monkeypatch):
    """Agents in place of finished runs: those of the presets differ by their seeds."""
    asked = []

    def trained(preset, seed, runs, train):
        asked.append((preset, seed, train))
        return seed + 10 * (preset == "regret_wall_maze")

    def load(number):
        agent = RL2Config(hidden_size=4).build(WallMaze(episodes_per_trial=1), number, torch.device("cpu"))
        agent.trained = {"seed": number, "iteration": 1, "env_steps": 1000 * number}
        return agent

    monkeypatch.setattr(curricula, "trained", trained)
    monkeypatch.setattr(curricula.checkpoint, "load", load)
    return asked


def test_every_sampler_is_compared_with_uniform_draws(runs, tmp_path, capsys):
    few = ["--tasks", "12", "--repeats", "2", "--seeds", "1", "2", "--only", "PLR, exact regret", "--train"]
    curricula.main([*few, "--out", str(tmp_path)])
    assert runs == [(preset, seed, True) for preset in ("rl2_wall_maze", "regret_wall_maze") for seed in (1, 2)]
    found = json.loads((tmp_path / "curricula.json").read_text())
    assert list(found) == ["test", "ood"]
    for rows in found.values():
        uniform, ours = rows["uniform"], rows["PLR, exact regret"]
        for name in curricula.MEASURES:
            gain, low, high = ours[f"{name}_gain"]
            assert low <= gain <= high and gain == pytest.approx(ours[name][0] - uniform[name][0])
            assert f"{name}_gain" not in uniform
        assert uniform["env_steps"] == 1500 and ours["env_steps"] == 11_500 and ours["seeds"] == 2
    assert (tmp_path / "curricula.png").read_bytes().startswith(b"\x89PNG")
    assert "| worst 10 %: gain |" in capsys.readouterr().out


def test_the_presets_are_there_and_differ_in_their_tasks_only():
    from metarl.training.config.parsing import read

    configs = {title: read(preset) for title, preset in curricula.PRESETS.items()}
    uniform = configs.pop("uniform")
    assert all(config.agent == uniform.agent for config in configs.values())
    assert len({str(config.task_sampler) for config in [uniform, *configs.values()]}) == 6


def test_a_single_trial_is_refused(capsys):
    with pytest.raises(SystemExit):
        curricula.main(["--repeats", "1"])
    assert "--repeats must be at least 2" in capsys.readouterr().err
