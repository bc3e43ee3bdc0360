"""Stress: the family under it, what a condition costs, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_families import Corridor

import metarl
from metarl.agents import RL2Config
from metarl.agents.random import RandomAgent
from metarl.cli.main import main
from metarl.core import rng
from metarl.core.family import AnyFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import leaves, put, take
from metarl.envs.adapter.gym_family import GymFamily
from metarl.evaluation.evaluator import EVALUATION, choose_tasks
from metarl.studies.stress import files, study
from metarl.studies.stress.family import Stressed, StressedTask, switched, unchanged
from metarl.testing import check_family

IDS = ("metarl/GridNavi-v0", "metarl/BernoulliBandit-v0", "metarl/CartPole-v0", "metarl/Navigation2D-v0")
STRESSES: tuple[dict[str, Any], ...] = (
    {}, {"switch": True}, {"delay": 3}, {"reward_noise": 0.5}, {"obs_noise": 0.1},
)  # fmt: skip


def played(family: AnyFamily, task: Any, seed: int = 0) -> Rollout:
    (rollout,) = run_trial(RandomAgent(family), family, task, rng.key(seed))
    return rollout


@pytest.mark.parametrize("id", IDS[:2])
@pytest.mark.parametrize("options", STRESSES, ids=str)
def test_it_keeps_the_contract_of_families(id: str, options: dict[str, Any]):
    check_family(Stressed(id, **options))


@pytest.mark.parametrize("id", IDS)
def test_without_stress_it_is_the_family_inside(id: str):
    inner = metarl.make(id)
    family, task = Stressed(inner), inner.sample_tasks(rng.key(1), 6)
    drawn = family.sample_tasks(rng.key(1), 6)
    assert all(torch.equal(*pair) for pair in zip(leaves(task), leaves(drawn.first), strict=True))
    # The default environment draws the noise of a padded row, too: compare steps that count.
    plain, stressed = played(inner, task), played(family, unchanged(task))
    counts = plain.mask > 0
    assert torch.equal(plain.mask, stressed.mask)
    assert torch.equal(plain.step.obs[counts], stressed.step.obs[counts])
    assert torch.equal(plain.outcome.reward[counts], stressed.outcome.reward[counts])


@pytest.mark.parametrize("id", IDS)
def test_delayed_rewards_come_late_and_in_full(id: str):
    inner = metarl.make(id)
    task = inner.sample_tasks(rng.key(1), 6)
    plain, late = played(inner, task), played(Stressed(inner, delay=2), unchanged(task))
    reward, delayed = (rollout.outcome.reward * rollout.mask for rollout in (plain, late))
    torch.testing.assert_close(delayed.sum(0), reward.sum(0), rtol=1e-5, atol=1e-4)
    for row, length in enumerate(plain.mask.sum(0).int().tolist()):
        before = length - 3
        torch.testing.assert_close(delayed[2 : 2 + before, row], reward[:before, row], rtol=0, atol=0)
        assert torch.equal(delayed[:2, row], torch.zeros(2))


def test_a_repeated_action_adds_up_its_rewards():
    """Against a plain loop: row by row, until the row's episode has ended by itself or by its length."""
    inner = Corridor(episodes_per_trial=1)
    repeats, rows = 4, 30
    family, task = Stressed(inner, action_repeat=repeats), inner.sample_tasks(rng.key(0), rows, "train")
    assert family.horizon == 2, "six steps, four of them in one action"
    key = rng.fold(rng.key(5), torch.arange(rows))
    state, compared = family.reset(unchanged(task), key), 0
    plain, alive, taken = inner.reset(task, key), torch.ones(rows, dtype=torch.bool), 0
    for number in range(family.horizon):
        action = (torch.arange(rows) + number) % 2
        at = rng.fold(key, number)
        state, reward, terminated = family.step(unchanged(task), state, action, at)
        total, ended = torch.zeros(rows), torch.zeros(rows, dtype=torch.bool)
        for repeat in range(repeats):
            step_key = at if repeat == 0 else rng.fold(rng.fold(at, 0), repeat)
            for row in range(rows):
                if ended[row] or not alive[row] or taken + repeat >= inner.horizon:
                    continue
                one = torch.tensor([row])
                after, paid, over = inner.step(take(task, one), take(plain, one), action[one], step_key[one])
                plain, total[row], ended[row] = put(plain, one, after), total[row] + paid[0], over[0]
        taken += repeats
        torch.testing.assert_close(reward[alive], total[alive])
        assert torch.equal(terminated[alive], ended[alive])
        compared, alive = compared + int(alive.sum()), alive & ~ended
    assert compared > rows and 0 < int(alive.sum()) < rows, "some rows ended early, and others by their length"


def test_the_task_changes_in_the_middle_and_nobody_is_told():
    inner = metarl.make("metarl/BernoulliBandit-v0", num_arms=2, episodes_per_trial=10)
    family = Stressed(inner, switch=True)
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    task = switched(inner.sample_tasks(rng.key(0), 2)._replace(probs=sure))
    assert torch.equal(task.second.probs, sure.flip(0))
    rollout = played(family, task)
    first = rollout.acted.action == torch.tensor([0, 1])
    expected = torch.where(torch.arange(10)[:, None] < 5, first, ~first).float()
    assert torch.equal(rollout.outcome.reward, expected)
    assert family.observation_space == inner.observation_space and family.action_space == inner.action_space
    single = Stressed("metarl/CartPole-v0", switch=True)
    single.episodes_per_trial = 1
    halves = single._played(
        StressedTask(torch.zeros(2), torch.ones(2)), torch.zeros(2).long(), torch.tensor([249, 250])
    )
    assert halves.tolist() == [0.0, 1.0]


def test_noise_has_the_size_that_was_asked_for():
    inner = metarl.make("metarl/Navigation2D-v0")
    task = inner.sample_tasks(rng.key(0), 40)
    plain = played(inner, task)
    noisy = played(Stressed(inner, obs_noise=[0.05, 0.2], reward_noise=0.3), unchanged(task))
    counts = plain.mask > 0
    seen = (noisy.step.obs - plain.step.obs)[counts]
    paid = (noisy.outcome.reward - plain.outcome.reward)[counts]
    torch.testing.assert_close(seen.std(0), torch.tensor([0.05, 0.2]), rtol=0.05, atol=0)
    assert float(paid.std()) == pytest.approx(0.3, rel=0.05) and abs(float(paid.mean())) < 0.02
    assert float(torch.corrcoef(torch.stack([seen[:, 0], paid]))[0, 1]) < 0.05


@pytest.mark.parametrize(
    "options",
    [{"obs_noise": -1.0}, {"reward_noise": math.nan}, {"delay": -1}, {"action_repeat": 0}, {"action_repeat": 99}],
)
def test_wrong_options(options: dict[str, Any]):
    with pytest.raises(ValueError, match="must"):
        Stressed("metarl/GridNavi-v0", **options)


@pytest.mark.parametrize("options", [{"switch": True}, {"action_repeat": 2}], ids=str)
def test_a_simulator_is_not_stepped_twice(options: dict[str, Any]):
    """Its states can be stepped once; noise and delays are between it and the agent."""
    family = GymFamily()
    with pytest.raises(ValueError, match="without a simulator"):
        Stressed(family, **options)
    assert study._why_not(study.STRESSES[1], RandomAgent(family), family) == "the family is played in a simulator"
    rollout = played(
        Stressed(family, delay=1, reward_noise=0.1, obs_noise=0.1), unchanged(family.sample_tasks(rng.key(0), 2))
    )
    assert bool(rollout.outcome.reward.isfinite().all())


def test_a_family_keeps_its_fold():
    inner = metarl.make("metarl/GridNavi-v0")
    inner.hold_out(1, 3)
    own, stressed = inner.tasks_of("test"), Stressed(inner, delay=1).tasks_of("test")
    assert own is not None and stressed is not None and torch.equal(own.goal, stressed.first.goal)


def test_parameters_are_put_further_out():
    family = metarl.make("metarl/CartPole-v0")
    train, task = family.sample_tasks(rng.key(0), 1000), family.sample_tasks(rng.key(1), 50, "ood")
    further = study.beyond(family, task, 2.0)
    for mean, now, out in zip((leaf.mean(0) for leaf in leaves(train)), leaves(task), leaves(further), strict=True):
        positive = bool((now > 0).all()) and not bool((now <= 1).all())
        expected = mean * (now / mean) ** 2 if positive else mean + 2 * (now - mean)
        if bool((now >= 0).all()):
            assert bool((out >= 0).all())
        if positive:
            torch.testing.assert_close(out, expected)
    means = study.beyond(metarl.make("metarl/BernoulliBandit-v0"), family_task("metarl/BernoulliBandit-v0"), 3.0).probs
    assert float(means.min()) >= 0.0 and float(means.max()) <= 1.0
    grid = metarl.make("metarl/GridNavi-v0")
    assert "real numbers" in study.beyond(grid, grid.sample_tasks(rng.key(0), 3, "ood"), 2.0)


def family_task(id: str) -> Any:
    return metarl.make(id).sample_tasks(rng.key(0), 30, "ood")


@pytest.fixture(scope="module")
def found() -> study.Study:
    agent = metarl.load("pretrained:rl2_bernoulli_bandit_n10")
    return study.stress(agent, agent.family, "test", 100)


def test_what_a_condition_costs(found: study.Study):
    by_name = {(each.stress, each.strength): each for each in found.results}
    assert set(found.left_out) == {"observation noise", "action repeat"}
    plain = metarl.evaluate(metarl.load("pretrained:rl2_bernoulli_bandit_n10"), tasks=100, step_curve=False)
    switch = by_name["task switch", 1]
    assert switch.plain == pytest.approx(float(plain.returns.mean()), abs=0.03)
    for each in found.results:
        lost, low, high = each.lost
        assert lost == pytest.approx(each.plain - each.score, abs=1e-6) and low <= lost <= high
    assert by_name["delayed reward", 5].lost[1] > 0.0, "it cannot see what an arm pays"
    assert by_name["reward noise", 2].lost[0] > by_name["reward noise", 0.5].lost[0]
    assert by_name["reward noise", 0.5].random == pytest.approx(0.5, abs=0.05)


def test_who_was_trained_under_a_condition_plays_it(tmp_path: Path):
    inner = metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=10)
    agent = metarl.load("pretrained:rl2_bernoulli_bandit_n10")
    again = RL2Config(hidden_size=8).build(Stressed(inner, delay=5), 0, torch.device("cpu"))
    found = study.stress(agent, inner, "test", 20, ["delayed reward"], retrained=[again])
    assert [each.retrained is None for each in found.results] == [True, False]
    chosen, _ = choose_tasks(inner, rng.fold(rng.key(0), EVALUATION), "test", 20)
    curve = metarl.evaluate(
        again, again.family, tasks=unchanged(chosen), repeats=found.repeats, step_curve=False
    )  # fmt: skip
    assert found.results[1].retrained == pytest.approx(float(curve.returns.mean()), abs=1e-6)
    assert "retrained" in [str(column.header) for column in files.stress_table(found).columns]
    files.draw(found).savefig(tmp_path / "x.png")
    with pytest.raises(ValueError, match="fits none of the conditions: train it on a Stressed family"):
        study.stress(agent, inner, "test", 4, ["task switch"], retrained=[again])


def test_the_share_that_is_kept():
    before = study.Played(np.array([8.0, 8.0]), 0.0, 10.0)
    assert study.expected(before, study.Played(np.array([1.0]), 2.0, 7.0)) == pytest.approx(2.0 + 0.8 * 5.0)
    assert study.expected(before, study.Played(np.array([1.0]), 2.0, None)) == 8.0
    result = study.Result("x", 1, "", 8.0, 4.0, (4.0, 3.0, 5.0), 2.0, 7.0, 6.0)
    assert result.kept == 0.5 and result.share(6.0) == 1.0 and result.share(2.0) == 0.0
    assert math.isnan(result._replace(expected=2.0).kept)


def test_agents_in_rounds_have_no_switch():
    agent = metarl.load("pretrained:maml_bernoulli_bandit_n10")
    found = study.stress(agent, agent.family, "test", 4, ["task switch", "longer trial"])
    assert [each.stress for each in found.results] == ["longer trial", "longer trial"]
    assert "rounds" in found.left_out["task switch"]


def test_the_files_hold_the_study(found: study.Study, tmp_path: Path):
    paths = files.save(found._replace(results=(*found.results, found.results[0]._replace(expected=-9.0))), tmp_path)
    data = json.loads(paths[0].read_text())
    assert [each["score"] for each in data["results"][:-1]] == [each.score for each in found.results]
    assert data["results"][-1]["kept"] is None and data["tasks"] == 100 and data["left_out"]
    assert paths[1].read_text().count("\n") == len(data["results"]) + 1 and paths[2].stat().st_size > 5000
    axes = files.draw(found).axes[0]
    assert len(axes.get_yticklabels()) == len(found.results)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = "pretrained:rl2_bernoulli_bandit_n10"
    words = ["stress", run, "--tasks", "20", "--only", "task switch", "--out", str(tmp_path), "--device", "cpu"]
    assert main(words) == 0
    assert "in the middle of the trial" in capsys.readouterr().out and (tmp_path / "stress.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--only", "storm"], "Unknown kind of stress: 'storm'"),
        (["--split", "tset"], "Did you mean 'test'"),
        (["--tasks", "0"], "tasks must be at least 1"),
        (["--which", "best"], "best"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["stress", "pretrained:rl2_bernoulli_bandit_n10", "--out", str(tmp_path / "x"), *words]) == 2
    found = capsys.readouterr().err
    assert sentence in found and found.count("\n") == 1
