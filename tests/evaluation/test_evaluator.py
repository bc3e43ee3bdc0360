"""Protocol of the evaluator: distinct tasks, repeats, greedy play, steps of a trial, what a curve says of itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from small_families import Corridor, Reach, Target, TwoDoors
from torch import Tensor

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.agents.reference.catalogue import baseline
from metarl.core import rng
from metarl.core.rollout import Rollout, TrialProtocol, episode_returns, episode_rewards, run_trial
from metarl.core.tree import take
from metarl.envs import BernoulliBandit, DarkRoom, GridNavi, Navigation2D
from metarl.evaluation.curve import AdaptationCurve, combine, generalisation_gaps
from metarl.evaluation.evaluator import EVALUATION, _noise, default_repeats, evaluate
from metarl.evaluation.step_curve import MAX_BINS, StepCurve, binned, borders

torch.set_num_threads(1)


# Tasks and repeats --------------------------------------------------------------------------------------------------


def test_a_finite_split_is_played_whole_each_task_once():
    family = GridNavi()
    curve = evaluate(RandomAgent(family), family, tasks=1000)
    assert curve.returns.shape == (1, 6, 4) and curve.distinct == 6
    assert curve.repeats == 167, "as many trials as were asked for tasks"
    goals = {tuple(goal) for goal in curve.task_values["goal"].astype(int).tolist()}
    assert goals == set(GridNavi.TEST_GOALS)


def test_of_a_larger_split_different_tasks_are_chosen():
    family = DarkRoom()
    curve = evaluate(RandomAgent(family), family, tasks=10)
    assert curve.returns.shape[1] == 10 and curve.distinct == 16 and curve.repeats == 1
    assert len(np.unique(curve.task_values["goal"], axis=0)) == 10
    other = evaluate(RandomAgent(family), family, tasks=10, seed=1)
    assert {*map(tuple, other.task_values["goal"])} != {*map(tuple, curve.task_values["goal"])}
    more = evaluate(RandomAgent(family), family, tasks=12)
    np.testing.assert_array_equal(more.task_values["goal"][:10], curve.task_values["goal"])
    np.testing.assert_array_equal(more.returns[:, :10], curve.returns)


def test_tasks_of_a_distribution_are_drawn_from_the_split():
    family = BernoulliBandit()
    for split in family.splits:
        tasks = evaluate(RandomAgent(family), family, split, tasks=5, repeats=1, seed=3).task_values["probs"]
        key = rng.fold(rng.fold(rng.key(3), EVALUATION), 0)
        np.testing.assert_array_equal(tasks, family.sample_tasks(key, 5, split).probs)


@pytest.mark.parametrize("agent", ["scripted", "network"])
def test_a_task_is_played_by_itself_as_among_others(agent: str):
    family = DarkRoom()
    player = RandomAgent(family)
    if agent == "network":
        player = RL2Config(meta_batch_size=4, hidden_size=8).build(family, 1, torch.device("cpu"))
    many = evaluate(player, family, tasks=20, repeats=2)
    single = evaluate(player, family, tasks=1, repeats=2)
    np.testing.assert_allclose(single.returns, many.returns[:, :1], rtol=0 if agent == "scripted" else 1e-5)


@pytest.mark.parametrize(("family", "expected"), [(BernoulliBandit(), 20), (GridNavi(), 2), (Navigation2D(), 1)])
def test_default_repeats_give_a_point_enough_steps(family, expected):
    assert default_repeats(family, 1000, None) == expected


class Loud(FixedAgent):
    """Returns are task-free noise: the variance of a task's result is that of a trial over the repeats."""

    def act(self, memory, step, key, greedy=False):
        return scripted(rng.normal(key, 2), step), memory


def test_repeats_are_averaged_per_task():
    family = Reach(horizon=3)
    same = Target(torch.full((1000, 2), 0.7))
    once, often = (evaluate(Loud(), family, tasks=same, repeats=repeats) for repeats in (1, 16))
    assert once.returns.shape == often.returns.shape and often.repeats == 16
    assert 13 < once.returns.var() / often.returns.var() < 20
    few = evaluate(Loud(), family, tasks=take(same, slice(0, 20)), repeats=16)
    np.testing.assert_array_equal(few.returns, often.returns[:, :20])


def test_all_tasks_are_there_only_if_each_was_played():
    family = GridNavi()
    every, some = (evaluate(RandomAgent(family), family, "all", tasks=tasks, repeats=1) for tasks in (21, 20))
    assert every.every_task and not some.every_task


def test_given_tasks_and_whole_numbers_of_numpy():
    family = GridNavi()
    curve = evaluate(RandomAgent(family), family, tasks=family.tasks_of("test"), repeats=np.int64(3))
    assert curve.returns.shape == (1, 6, 4) and curve.split == "given tasks" and curve.distinct is None
    assert evaluate(RandomAgent(family), family, tasks=np.int64(4)).returns.shape[1] == 4
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        evaluate(RandomAgent(family), family, repeats=0)


def test_the_family_is_that_of_training():
    agent = metarl.load("pretrained:rl2_gridnavi")
    assert evaluate(agent, tasks=5).family.startswith("GridNavi(")
    with pytest.raises(ValueError, match="A family is needed: RandomAgent was not made for one"):
        evaluate(RandomAgent(GridNavi()))


# Greedy -------------------------------------------------------------------------------------------------------------


class Explorer(FixedAgent):
    """Learns which door pays from sampled play alone: greedily it always opens door 0, until it has learned better."""

    protocol = TrialProtocol(rounds=2, episodes=8, envs_per_task=1)

    def begin(self, num_tasks, task=None):
        return torch.zeros(num_tasks, dtype=torch.int64), torch.zeros(num_tasks, dtype=torch.bool)

    def act(self, memory, step, key, greedy=False):
        best, known = memory
        sampled = rng.integers(key, 1, 2).squeeze(-1)
        return scripted(best if greedy else torch.where(known, best, sampled), step), memory

    def adapt(self, memory, rollout: Rollout):
        action, reward = rollout.acted.action, rollout.outcome.reward  # (T, B)
        paid = torch.stack([(reward * (action == door)).sum(0) for door in (0, 1)])
        return paid.argmax(0), paid.sum(0) > 0


def test_greedy_play_adapts_by_sampling():
    curve = evaluate(Explorer(), TwoDoors(), "train", tasks=2, greedy=True, repeats=50)
    first, second = curve.mean()
    assert first == pytest.approx(0.5), "door 0 in both tasks"
    assert second > 0.99, "what it learned from its sampled first round"
    assert curve.total_steps == 16, "experience is what was learned from: 8 episodes a round"


def test_greedy_maml_still_adapts():
    """Without noise in the rounds that it learns from, the shipped agent gains nothing in three steps."""
    agent = metarl.load("pretrained:maml_navigation2d")
    mean = evaluate(agent, tasks=20, greedy=True).mean()
    assert mean[0] < -25 and mean[1] > -20 and mean[-1] > -6


def test_an_agent_that_adapts_in_rounds_is_measured_by_rounds_even_in_one():
    agent = MAMLConfig(fast_batch_size=2, hidden_sizes=(4,)).build(Reach(), 0, torch.device("cpu"))
    curve = evaluate(agent, tasks=2, rounds=1)
    assert curve.rounds and curve.labels == ("0 gradient steps",)
    assert evaluate(agent, tasks=2, rounds=3).episodes.tolist() == [0.0, 2.0, 4.0], "of its two rows in each round"


@pytest.mark.parametrize(("greedy", "played"), [(False, 2), (True, 3)])
def test_a_round_is_played_twice_only_where_it_must(greedy: bool, played: int):
    """Sampling: each of the two rounds once. Greedily: the first, which `adapt` learns from, once more by sampling."""
    calls = []

    class Counted(Explorer):
        def act(self, memory, step, key, greedy=False):
            calls.append(greedy)
            return super().act(memory, step, key, greedy)

    evaluate(Counted(), TwoDoors(), "train", tasks=2, repeats=1, greedy=greedy)
    assert len(calls) == played * Explorer.protocol.episodes
    assert sum(calls) == (2 * Explorer.protocol.episodes if greedy else 0)


# Noise of the trials ------------------------------------------------------------------------------------------------


class Guesser(Explorer):
    """A random door in every episode; nothing is learned."""

    def act(self, memory, step, key, greedy=False):
        return scripted(rng.integers(key, 1, 2).squeeze(-1), step), memory


def test_noise_is_what_other_evaluations_of_the_same_tasks_scatter_by():
    """Means over 2 tasks × 30 trials × 8 fair guesses: standard error ½ / √480. Other seeds scatter by as much."""
    curves = [evaluate(Guesser(), TwoDoors(), "train", tasks=2, repeats=30, seed=seed) for seed in range(40)]
    noise = np.mean([curve.noise for curve in curves], axis=0)[0]
    np.testing.assert_allclose(noise[:3], 0.5 / np.sqrt(480), rtol=0.1)  # both rounds, and the score: the last round
    assert noise[3] == pytest.approx(np.sqrt(2.0) * noise[0], rel=0.1)  # the last less the first
    scatter = np.std([curve.mean() for curve in curves], axis=0)
    np.testing.assert_allclose(scatter, noise[:2], rtol=0.35)


def test_noise_is_the_standard_error_over_trials_summed_over_tasks():
    """Of two points, of their sum, which is the score, and of their difference."""
    trials = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    columns = np.stack([trials[..., 0], trials[..., 1], trials.sum(2), trials[..., 1] - trials[..., 0]], axis=2)
    expected = np.sqrt((scipy_stats.sem(columns, axis=1) ** 2).sum(0)) / 3
    np.testing.assert_allclose(_noise(trials, by_rounds=False), expected, rtol=1e-6)
    np.testing.assert_allclose(_noise(trials, by_rounds=True), expected[[0, 1, 1, 3]], rtol=1e-6)


def test_the_interval_on_every_task_is_one_over_trials(tmp_path: Path):
    given = TwoDoors().sample_tasks(rng.key(1), 2, "train")
    curve = evaluate(Guesser(), TwoDoors(), tasks=given, repeats=30)
    assert curve.every_task and curve.interval_of() == "over trials, of this agent on these tasks"
    low, high = curve.interval()
    np.testing.assert_allclose(high - low, 2 * 1.96 * curve.noise[0, :2], rtol=1e-3)
    curve.save(tmp_path / "x")
    again = AdaptationCurve.load(tmp_path / "x")
    np.testing.assert_array_equal(again.noise, curve.noise)
    assert again.summary() == curve.summary()
    both = combine([curve, dataclasses.replace(curve, returns=curve.returns + 0.5)])
    assert both.interval_of() == "over seeds, on these tasks" and both.noise.shape == (2, 4)
    once = evaluate(Guesser(), TwoDoors(), tasks=given, repeats=1)
    assert once.noise is None and once.interval_of() == "over tasks, of this agent"


# Steps of a trial ---------------------------------------------------------------------------------------------------


def test_rewards_of_steps_add_up_to_returns():
    """Episodes that end early, padding behind a row's last one, rows of unlike length."""
    family = Corridor(episodes_per_trial=4, horizon=6)
    (rollout,) = run_trial(RandomAgent(family), family, family.sample_tasks(rng.key(0), 50), rng.key(1))
    rewards = episode_rewards(rollout, 4, 6)
    assert rewards.shape == (50, 4, 6)
    torch.testing.assert_close(rewards.sum(-1), episode_returns(rollout, 4))
    row, steps = 7, 0
    for t in range(len(rollout.mask)):  # one row by hand
        if not rollout.mask[t, row]:
            break
        episode = int((rollout.outcome.terminated | rollout.outcome.truncated)[:t, row].sum())
        before = (rollout.outcome.terminated | rollout.outcome.truncated)[:t, row].nonzero()
        began = int(before[-1]) + 1 if len(before) else 0
        assert rewards[row, episode, t - began] == rollout.outcome.reward[t, row]
        steps += 1
    assert int((rewards[row] != 0).sum()) <= steps


@pytest.mark.parametrize(
    ("rounds", "episodes", "horizon"),
    [(1, 100, 1), (1, 10, 1), (1, 2, 200), (1, 4, 15), (4, 1, 100), (1, 1, 1), (3, 100, 1)],
)
def test_bins_stay_inside_episodes(rounds: int, episodes: int, horizon: int):
    edges = borders(rounds, episodes, horizon)
    total = rounds * episodes * horizon
    assert edges[0] == 0 and edges[-1] == total and (np.diff(edges) > 0).all()
    unit = horizon if horizon > 1 else episodes
    assert set(range(0, total + 1, unit)) <= set(edges.tolist()), "the end of every episode, or of a round of pulls"
    assert len(edges) - 1 <= max(2 * MAX_BINS, total // unit)


def test_means_of_bins():
    edges = np.array([0, 2, 3, 6])
    np.testing.assert_allclose(binned(np.array([[1.0, 3.0, 5.0, 0.0, 0.0, 9.0]]), edges), [[2.0, 5.0, 3.0]])


def test_learning_inside_the_first_episode_shows():
    """RL² finds the goal in its first episode; the told policy needs no time, and the random one never gets there."""
    agent = metarl.load("pretrained:rl2_navigation2d")
    curve = evaluate(agent, tasks=200)
    reached = curve.summary()["env_steps_to_threshold"]
    assert 3 <= reached <= 60
    family = agent.family
    told = evaluate(baseline("oracle", family), family, tasks=200)
    assert told.summary()["env_steps_to_threshold"] == 0
    assert "env_steps_to_threshold" not in evaluate(RandomAgent(family), family, tasks=200).summary()
    np.testing.assert_allclose(told.steps.mean(), told.steps.bounds["oracle"], atol=1e-6)
    # Each bin times its steps: the steps add up to the trial's return.
    np.testing.assert_allclose((curve.steps.mean() * np.diff(curve.steps.edges)).sum(), curve.mean().sum(), rtol=1e-4)


def test_steps_of_rows_side_by_side_are_added():
    agent = metarl.load("pretrained:maml_navigation2d")
    curve = evaluate(agent, tasks=4)
    rows = agent.protocol.test().envs_per_task
    assert rows > 1 and curve.steps.edges[-1] == len(curve.labels) * rows * agent.family.horizon


def test_threshold_passes_over_steps_that_say_nothing():
    edges, ones = np.arange(5.0), np.ones((1, 3, 4), dtype=np.float32)
    flat = np.zeros((3, 4), dtype=np.float32)
    oracle = np.array([[0.0, 1.0, 1.0, 1.0]] * 3, dtype=np.float32)
    curve = StepCurve(edges, ones * np.array([0.5, 0.5, 0.95, 0.2], dtype=np.float32), flat, oracle)
    assert curve.steps_to_threshold() == 2.0, "at step 0 nobody can be told from random"
    assert StepCurve(edges, 0.5 * ones, flat, oracle).steps_to_threshold() is None
    assert StepCurve(edges, ones, flat, None).steps_to_threshold() is None


# What a curve says --------------------------------------------------------------------------------------------------


def test_regret_counts_every_episode_of_the_experience():
    """An agent in rounds and one in episodes that lose the same in every pull have the same regret per pull."""
    family = BernoulliBandit(num_arms=2, episodes_per_trial=40)

    class InRounds(RandomAgent):
        protocol = TrialProtocol(rounds=4, episodes=10)

    memory, rounds = (evaluate(kind(family), family, tasks=400) for kind in (RandomAgent, InRounds))
    a, b = memory.summary(), rounds.summary()
    assert a["cumulative_regret"] == pytest.approx(b["cumulative_regret"], rel=0.03)
    assert a["cumulative_regret"] == pytest.approx(40 / 6, rel=0.1)  # each pull: 2/3 - 1/2
    for name in ("regret_per_episode", "regret_per_step"):
        assert a[name] == pytest.approx(1 / 6, rel=0.15) and b[name] == pytest.approx(1 / 6, rel=0.15)


def test_combined_curves_combine_as_their_seeds_would():
    """Each seed has the same weight in the experience, however the curves were put together."""
    curve = evaluate(RandomAgent(GridNavi()), GridNavi(), tasks=2, repeats=1)
    seeds = [dataclasses.replace(curve, env_steps=curve.env_steps * n, total_steps=60.0 * n) for n in (1, 2, 6)]
    together, pairwise = combine(seeds), combine([combine(seeds[:2]), seeds[2]])
    np.testing.assert_allclose(together.env_steps, 3.0 * curve.env_steps)
    np.testing.assert_allclose(pairwise.env_steps, together.env_steps)
    assert pairwise.total_steps == together.total_steps == 180.0
    assert generalisation_gaps({"train": together, "test": curve, "ood": pairwise}).keys() == {"ood"}, (
        "of as many seeds"
    )


def test_a_curve_says_what_it_was_made_with(tmp_path):
    agent = metarl.load("pretrained:rl2_gridnavi")
    curve = evaluate(agent, tasks=6, seed=5)
    assert curve.eval_seed == 5 and curve.versions["torch"]
    assert curve.training[0].keys() == {"seed", "iteration", "env_steps"} and min(curve.training[0].values()) > 0
    curve.save(tmp_path / "test")
    header = (tmp_path / "test.csv").read_text().splitlines()[0]
    points = "episode 1,episode 2,episode 3,episode 4"
    halves = '"score, odd trials","score, even trials"'  # as each task was played several times
    assert header == f"seed,task,task.goal[0],task.goal[1],random,oracle,{points},{halves}"
    back = metarl.AdaptationCurve.load(tmp_path / "test")
    assert (back.eval_seed, back.repeats, back.distinct, back.training) == (5, curve.repeats, 6, curve.training)
    np.testing.assert_array_equal(back.task_values["goal"], curve.task_values["goal"])
    np.testing.assert_array_equal(back.steps.rewards, curve.steps.rewards)
    np.testing.assert_array_equal(back.steps.oracle, curve.steps.oracle)


def test_a_number_that_is_none_is_null(tmp_path):
    class Broken(Reach):
        def step(self, task, state, action: Tensor, key):
            state, reward, over = super().step(task, state, action, key)
            return state, reward * float("nan"), over

    import json

    curve = evaluate(RandomAgent(Broken()), Broken(), tasks=3)
    path = curve.save(tmp_path / "test")[0]
    document = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["points"]["mean"] == [None, None]


def test_notebooks_get_a_table_and_a_picture():
    family = GridNavi()
    curve = evaluate(RandomAgent(family), family, tasks=6)
    assert curve._repr_png_().startswith(b"\x89PNG")
    text = curve._repr_html_()
    assert "<table>" in text and "episode 4" in text and "data:image/png;base64," in text


def test_pulls_are_shown_in_tens():
    family = BernoulliBandit()
    curve = evaluate(RandomAgent(family), family, tasks=30)
    blocks = curve.blocks()
    assert blocks.returns.shape == (1, 30, 10) and blocks.labels[-1] == "episodes 91 to 100"
    np.testing.assert_allclose(blocks.mean(), curve.mean().reshape(10, 10).mean(1), rtol=1e-5)
    assert curve.plot().axes[0].lines[0].get_xdata().tolist() == [5.5 + 10 * n for n in range(10)]
    navi = GridNavi()
    other = evaluate(RandomAgent(navi), navi, tasks=6)
    assert other.blocks() is other


def test_rounds_are_drawn_as_steps():
    agent = metarl.load("pretrained:maml_navigation2d")
    curve = evaluate(agent, tasks=3, step_curve=False)
    assert curve.steps is None
    assert curve.plot(x="env_steps").axes[0].lines[0].get_drawstyle() == "steps-post"
