"""Ensembles of runs: saved, loaded and evaluated like one run; and runs on resampled tasks, their members."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import metarl
from metarl.cli.contenders import by_configuration, lines
from metarl.cli.evaluate import main
from metarl.core import rng
from metarl.core.tree import features, take
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi
from metarl.training import checkpoint
from metarl.training.config.errors import ConfigError

SHORT = {"total_iterations": 1, "eval_every": 0, "final_eval_tasks": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two training seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        metarl.run(
            "rl2_bernoulli_bandit_n10", seed=seed, run_dir=str(folder / f"seed_{seed}"),
            agent={"meta_batch_size": 8, "hidden_size": 8}, **SHORT,
        )  # fmt: skip
    return folder


def test_what_is_saved_plays_as_before(seeds: Path, tmp_path: Path):
    made = metarl.ensemble([seeds], weights="hedge", mix="episode", rate=0.3, run_dir=tmp_path / "both")
    loaded = metarl.load(tmp_path / "both")
    curves = [metarl.evaluate(agent, tasks=20, repeats=1, step_curve=False) for agent in (made, loaded)]
    assert (curves[0].returns == curves[1].returns).all()
    assert loaded.config == made.config and repr(loaded.family) == repr(made.family)
    assert loaded.trained["env_steps"] == 2 * 8 * 10
    assert not any("optimizer" in name for name in checkpoint.load_state(tmp_path / "both" / "member_1")[0])


def test_rounds_are_saved_too(tmp_path: Path):
    runs = [tmp_path / name for name in "ab"]
    small = {"meta_batch_size": 2, "fast_batch_size": 3, "hidden_sizes": [8]}
    for seed, run in enumerate(runs):
        metarl.run("maml_bernoulli_bandit_n10", seed=seed, run_dir=str(run), agent=small, **SHORT)
    metarl.ensemble(runs, run_dir=tmp_path / "both")
    loaded = metarl.load(tmp_path / "both")
    for member, run in zip(loaded.members, runs, strict=True):
        expected = metarl.load(run).state_dict()
        assert all(torch.equal(x, expected[name]) for name, x in member.state_dict().items() if "net." in name)
    assert loaded.protocol.rounds == metarl.load(runs[0]).protocol.test().rounds > 1


def test_the_programs_take_it_like_a_run(seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    metarl.ensemble([seeds], run_dir=tmp_path / "both")
    assert main([str(tmp_path / "both"), "--split", "test", "--tasks", "5", "--repeats", "1"]) == 0
    assert "Ensemble on BernoulliBandit" in capsys.readouterr().out
    assert [len(members) for members in by_configuration([str(tmp_path / "both"), str(seeds)])] == [1, 2]
    (line,) = lines([str(tmp_path / "both")], "cpu")
    assert line.budget.startswith("160 environment steps") and line.budget.endswith("1 seed(s)")


def test_a_mistake_is_one_sentence(seeds: Path, tmp_path: Path):
    both = tmp_path / "both"
    with pytest.raises(ValueError, match="two members"):
        metarl.ensemble([seeds / "seed_1"], run_dir=both)
    assert not both.exists(), "nothing is written before the members are known to fit"
    metarl.ensemble([seeds], run_dir=both)
    with pytest.raises(ConfigError, match="run_dir must be a new or empty folder, got"):
        metarl.ensemble([seeds], run_dir=both)
    with pytest.raises(ConfigError, match="leave out which='best'"):
        metarl.load(both, which="best")
    with pytest.raises(ConfigError, match="is an ensemble, not a run"):
        checkpoint.find(both)
    for options in ("weights: bayes", "metric: 3", "rate: fast"):
        (both / checkpoint.ENSEMBLE).write_text(f"{options}\n")
        with pytest.raises(ConfigError, match=r"^The ensemble in .* cannot be loaded: "):
            metarl.load(both)


# ---- resampled tasks ------------------------------------------------------------------------------------------------


def test_a_bootstrap_draws_as_many_tasks_with_replacement():
    family = BernoulliBandit()
    family.train_on(2000)
    every = {tuple(row) for row in features(family.tasks_of("train")).tolist()}
    drawn = []
    for seed in (1, 2):
        family.resample("train", seed)
        tasks = {tuple(row) for row in features(family.sample_tasks(rng.key(0), 40_000)).tolist()}
        assert tasks < every and 0.59 < len(tasks) / 2000 < 0.66  # 1 - 1/e
        again = {tuple(row) for row in features(family.sample_tasks(rng.key(7), 40_000)).tolist()}
        assert len(again ^ tasks) < 5, "the sample depends on the seed alone"
        drawn.append(tasks)
    assert 0.35 < len(drawn[0] & drawn[1]) / 2000 < 0.45  # (1 - 1/e)²


def test_a_bootstrap_changes_nothing_but_what_is_trained_on():
    plain, family = GridNavi(), GridNavi()
    family.resample("train", 3)
    for split in plain.splits:
        assert torch.equal(plain.tasks_of(split).goal, family.tasks_of(split).goal)
        same = torch.equal(*(each.sample_tasks(rng.key(0), 50, split).goal for each in (plain, family)))
        assert same is (split != "train")
    tasks = family.sample_tasks(rng.key(0), 50)
    assert torch.equal(tasks.goal[7:9], family.sample_tasks(rng.key(0), 2, first=7).goal), "a shard has the same tasks"
    assert take(tasks, 0).goal.shape == (2,)


def test_a_run_resamples_by_its_seed(tmp_path: Path):
    run = metarl.run(
        "rl2_gridnavi", bootstrap=True, seed=5, run_dir=str(tmp_path / "run"),
        agent={"meta_batch_size": 8, "hidden_size": 8}, **SHORT,
    )  # fmt: skip
    assert run.agent.family.resampled == metarl.load(tmp_path / "run").family.resampled == ("all", 5)
    with pytest.raises(ConfigError, match="set train_tasks"):
        metarl.run("rl2_bernoulli_bandit_n10", bootstrap=True, **SHORT)
