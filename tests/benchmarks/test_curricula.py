"""The comparison of task samplers: everyone on the same tasks."""

import json

import pytest
import torch

from benchmarks import curricula, curricula_control, locks
from metarl.agents.rl2.config import RL2Config
from metarl.core import rng
from metarl.envs.grids.wall_maze import WallMaze
from metarl.testing import check_family


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
    (tmp_path / "curricula.json").write_text((curricula.RESULTS / "curricula.json").read_text())
    recorded = json.loads((tmp_path / "curricula.json").read_text())
    curricula.main([*few, "--family", "WallMaze", "--out", str(tmp_path)])
    assert runs == [(preset, seed, True) for preset in ("rl2_wall_maze", "regret_wall_maze") for seed in (1, 2)]
    everything = json.loads((tmp_path / "curricula.json").read_text())
    found = everything.pop("WallMaze")
    recorded.pop("WallMaze")
    assert everything == recorded, "what was measured on other families stays"
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


@pytest.mark.parametrize("family", curricula.FAMILIES)
def test_the_presets_are_there_and_differ_in_their_tasks_only(family):
    from metarl.training.config.parsing import read

    configs = {title: read(preset) for title, preset in curricula.presets_of(family).items()}
    uniform = configs.pop("uniform")
    for config in configs.values():
        assert config.agent == uniform.agent and repr(config.family) == repr(uniform.family)
    assert type(uniform.family).__name__ == family
    assert len({str(config.task_sampler) for config in [uniform, *configs.values()]}) == len(configs) + 1


def test_a_single_trial_is_refused(capsys):
    with pytest.raises(SystemExit):
        curricula.main(["--repeats", "1"])
    assert "--repeats must be at least 2" in capsys.readouterr().err


def test_a_sampler_that_a_family_has_no_preset_of_is_refused_before_anything_is_written(runs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        curricula.main(["--only", "SFL", "--out", str(tmp_path)])
    assert "--only SFL: CartPole has no such preset" in capsys.readouterr().err
    assert runs == [] and not list(tmp_path.iterdir())


def test_samplers_that_were_not_played_keep_their_rows():
    before = {"PLR": {"seeds": 3}, "uniform": {"seeds": 3}}
    found = {"uniform": {"seeds": 5}, "SFL": {"seeds": 5}}
    assert list(curricula.kept(before, found).items()) == [
        ("uniform", {"seeds": 5}),
        ("PLR", {"seeds": 3}),
        ("SFL", {"seeds": 5}),
    ]


def test_the_control_s_locks_keep_the_contract():
    check_family(locks.Locks())


def test_the_control_counts_locks_that_can_be_opened():
    possible = curricula_control.possible_locks(50, "test")
    assert len(possible.length) == 50 and float(possible.length.max()) <= locks.Locks.LONGEST
    drawn = locks.Locks().sample_tasks(rng.key(1), 20_000, "train")
    share = float((drawn.length <= 16).float().mean())
    assert abs(share - locks.POSSIBLE) < 5 * (0.05 * 0.95 / 20_000) ** 0.5


def test_where_most_tasks_teach_nothing_edits_of_those_that_do_teach_more_in_the_same_steps(tmp_path, capsys):
    few = ["--steps", "150000", "--tasks", "300", "--split", "valid", "--seeds", "1"]
    curricula_control.main([*few, "--only", "ACCEL", "--out", str(tmp_path)])
    uniform, accel = json.loads((tmp_path / "curricula_control.json").read_text())["rows"]
    assert uniform["gain"] is None and uniform["sampler"] == "uniform"
    assert min(uniform["env_steps"], accel["env_steps"]) >= 150_000
    assert max(uniform["env_steps"], accel["env_steps"]) < 150_000 + 2 * 64 * 32, "by at most two batches more"
    gain, low, high = accel["gain"]
    assert gain == pytest.approx(accel["opened"][0] - uniform["opened"][0]) and low <= gain <= high
    assert low > 0.15
    assert "| above uniform draws |" in capsys.readouterr().out
