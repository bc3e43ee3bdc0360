"""The evaluator: what it measures, that it is paired and independent of chunks, its files, and the program."""

import dataclasses
import inspect
import io
import json
import math
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
import toy
from rich.console import Console
from torch import Tensor

import metarl
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.agents.reference.bandit_planners import BayesOptimalBandit
from metarl.agents.reference.bandits import Counts, PosteriorMeanBandit, ThompsonBandit, UCB1Bandit
from metarl.agents.reference.grids import DarkRoomSweep, GridNaviSweep
from metarl.agents.reference.mdps import TabularMDPOracle
from metarl.agents.reference.points import Navigation2DOracle
from metarl.agents.rl2 import RL2, RL2Config
from metarl.cli.evaluate import main
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import TrialProtocol
from metarl.envs import BernoulliBandit, DarkRoom, GridNavi, Navigation2D, TabularMDP
from metarl.evaluation import evaluator, stats
from metarl.evaluation.bounds import rows_at_once
from metarl.evaluation.curve import AdaptationCurve, combine, generalisation_gaps
from metarl.evaluation.evaluator import EVALUATION, evaluate
from metarl.evaluation.results import chosen_points
from metarl.report.table import adaptation_table, sparkline
from metarl.training.checkpoint import PRETRAINED

torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings, and much more on a busy machine


class Coin(NamedTuple):
    bias: Tensor  # (B,)


class Count(NamedTuple):
    t: Tensor  # (B,)


class Walk(TaskFamily[Coin, Count]):
    """Reward = the task's bias + noise of the step + the action; an episode ends early after action > .5."""

    terminates = True

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.horizon, self.episodes_per_trial = 3, 2

    def draw_tasks(self, keys: Tensor, split: str) -> Coin:
        return Coin(rng.uniform(keys, 1)[:, 0])

    def reset(self, task: Coin, key: Tensor) -> Count:
        return Count(torch.zeros_like(task.bias))

    def observe(self, task: Coin, state: Count) -> Tensor:
        return state.t[:, None] / 3

    def step(self, task: Coin, state: Count, action: Tensor, key: Tensor) -> tuple[Count, Tensor, Tensor]:
        reward = task.bias + rng.normal(key, 1)[:, 0] + action[:, 0]
        return Count(state.t + 1), reward, action[:, 0] > 0.5


class Rounds(FixedAgent):
    """Adapts by adding .1 to its action in every round; its memory is (step, action per task)."""

    protocol = TrialProtocol(rounds=3, episodes=2, envs_per_task=4)

    def begin(self, num_tasks, task=None):
        return torch.zeros(num_tasks)

    def act(self, memory, step, key, greedy=False):
        return scripted(memory.repeat_interleave(4)[:, None], step), memory

    def adapt(self, memory, rollout):
        return memory + 0.1


def test_an_agent_of_one_round_has_a_point_per_episode():
    family = toy.Guess(numbers=2)
    curve = evaluate(RandomAgent(family), family, "train", tasks=50, episodes=4)
    assert curve.returns.shape == (1, 50, 4) and curve.returns.dtype == np.float32
    assert curve.labels == ("episode 1", "episode 2", "episode 3", "episode 4")
    np.testing.assert_array_equal(curve.episodes, [0, 1, 2, 3])
    np.testing.assert_array_equal(curve.env_steps, [0, 2, 4, 6])
    np.testing.assert_array_equal(curve.random, np.full(50, 1.0))
    np.testing.assert_array_equal(curve.oracle, np.full(50, 2.0))
    np.testing.assert_allclose(curve.totals, curve.returns.sum(2))
    assert (curve.agent, curve.family, curve.split) == ("RandomAgent", "Guess(numbers=2)", "train")


def test_an_agent_of_several_rounds_has_a_point_per_round():
    """3 rounds × 2 episodes × 4 rows of 3 steps. Every adaptation adds .1 to each of an episode's three rewards."""
    curve = evaluate(Rounds(), Walk(), tasks=400)
    assert curve.returns.shape == (1, 400, 3) and curve.rounds
    assert curve.labels == ("0 gradient steps", "1 gradient step", "2 gradient steps")
    np.testing.assert_array_equal(curve.episodes, [0, 8, 16])
    np.testing.assert_array_equal(curve.env_steps, [0, 24, 48])
    # Standard error of a point's mean: √(3² / 12 / 400 + 3 / 8 / 400) ≈ .053, but tasks are shared by the points.
    np.testing.assert_allclose(np.diff(curve.mean()), [0.3, 0.3], atol=4 * math.sqrt(2 * 3 / 8 / 400))
    np.testing.assert_array_equal(curve.scores, curve.returns[:, :, -1])
    assert evaluate(Rounds(), Walk(), tasks=5, rounds=1).labels == ("0 gradient steps",)
    assert evaluate(Rounds(), Walk(), tasks=5, rounds=5, episodes=1).episodes.tolist() == [0, 4, 8, 12, 16]


def test_env_steps_are_those_that_were_taken():
    class Impatient(FixedAgent):
        def act(self, memory, step, key, greedy=False):
            return scripted(torch.ones(len(step.obs), 1), step), memory

    curve = evaluate(Impatient(), Walk(), tasks=7, episodes=3)
    np.testing.assert_array_equal(curve.env_steps, [0, 1, 2])


@pytest.mark.parametrize("agent", ["random", "rounds", "rl2"])
def test_chunks_change_nothing(agent, monkeypatch):
    family = Walk()
    agent = {"random": RandomAgent(family), "rounds": Rounds(), "rl2": RL2(RL2Config(hidden_size=8), family)}[agent]
    whole = evaluate(agent, family, tasks=37)
    monkeypatch.setattr(evaluator, "CHUNK_ROWS", 20)
    parts = evaluate(agent, family, tasks=37)
    # A network's matrix products may differ in the last bit with the number of rows; all else is equal bit for bit.
    tolerance = 1e-5 if isinstance(agent, RL2) else 0.0
    np.testing.assert_allclose(parts.returns, whole.returns, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(parts.random, whole.random)
    np.testing.assert_allclose(parts.env_steps, whole.env_steps)


def test_memory_is_bounded(monkeypatch):
    rows = partial(rows_at_once, most_rows=evaluator.CHUNK_ROWS, most_bytes=evaluator.CHUNK_BYTES)
    assert rows(Walk(), 3) == 4096
    assert rows(Walk(), 100_000) * 100_000 * 56 <= evaluator.CHUNK_BYTES
    assert rows(Walk(), 10**9) == 1


def test_an_agent_s_own_memory_counts(monkeypatch):
    """An agent that remembers 1 MB of each task is asked to play few of them at once, however small a step is."""
    batches = []

    class Elephant(Rounds):
        def begin(self, num_tasks, task=None):
            batches.append(num_tasks)
            return torch.zeros(num_tasks, 2**18)

        def act(self, memory, step, key, greedy=False):
            return scripted(memory[:, :1].repeat_interleave(4, dim=0), step), memory

    monkeypatch.setattr(evaluator, "CHUNK_BYTES", 64 * 2**20)
    evaluate(Elephant(), Walk(), tasks=100)
    assert batches[0] == evaluator.PROBED and max(batches[1:]) * 3 * 2**20 <= 64 * 2**20


def test_evaluation_is_paired_and_repeatable():
    """Tasks, starts and noise depend on the seed and the task's number: not on the agent, nor on how many tasks."""
    family = Walk()
    still = evaluate(Rounds(), family, tasks=20, rounds=1, episodes=1)

    class Louder(Rounds):
        def begin(self, num_tasks, task=None):
            return torch.full((num_tasks,), 0.25)

    louder = evaluate(Louder(), family, tasks=20, rounds=1, episodes=1)
    np.testing.assert_allclose(louder.returns - still.returns, 0.75, atol=1e-5)
    fewer = evaluate(Rounds(), family, tasks=5, rounds=1, episodes=1)
    np.testing.assert_array_equal(fewer.returns, still.returns[:, :5])
    other = evaluate(Rounds(), family, tasks=20, rounds=1, episodes=1, seed=1)
    assert not np.isclose(other.returns, still.returns).any()


def test_nothing_is_shared_with_training():
    """Neither tasks nor keys of an evaluation can be those of a run, which folds small counters into key(seed)."""
    root = rng.fold(rng.key(0), EVALUATION)
    training = {int(rng.fold(rng.key(seed), stream)) for seed in range(20) for stream in range(200)}
    assert int(root) not in training
    ours = Walk().sample_tasks(rng.fold(root, 0), 500, "train").bias
    theirs = Walk().sample_tasks(rng.fold(rng.fold(rng.fold(rng.key(0), 0), 0), 0), 500, "train").bias
    assert not torch.isin(ours, theirs).float().mean() > 0.01


def test_own_tasks():
    tasks = Coin(torch.tensor([0.0, 100.0, 1000.0]))
    curve = evaluate(Rounds(), Walk(), tasks=tasks, rounds=1, episodes=1)
    np.testing.assert_allclose(curve.returns[0, :, 0], [0.0, 300.0, 3000.0], atol=5.0)
    assert curve.split == "given tasks"
    for wrong in (toy.Hidden(torch.zeros(2, dtype=torch.int64)), 2.5, [1, 2]):
        with pytest.raises(
            ValueError, match=r"A task of Walk must be a Coin, got a value of (Hidden|int)|whole number, got 2\.5"
        ):
            evaluate(Rounds(), Walk(), tasks=wrong)


def test_random_bound_is_played_where_the_family_knows_none():
    curve = evaluate(Rounds(), Walk(), tasks=300, episodes=5)
    # Uniform on [-1, 1], over after a > .5 (chance 1/4) or 3 steps: E[steps] = 1 + 3/4 + 9/16; E[a] = 0; bias ½.
    assert curve.random.shape == (300,)
    assert curve.random.mean() == pytest.approx(0.5 * (1 + 3 / 4 + 9 / 16), abs=0.15)
    assert curve.oracle is None and "normalised" not in curve.summary() and "oracle" not in curve.summary()


def test_greedy_reaches_the_agent():
    family = toy.Guess(numbers=3)
    agent = RL2(RL2Config(hidden_size=8), family)
    greedy, again = (evaluate(agent, family, tasks=30, greedy=True) for _ in range(2))
    sampled = evaluate(agent, family, tasks=30)
    np.testing.assert_array_equal(greedy.returns, again.returns)
    assert greedy.greedy and not sampled.greedy and not np.array_equal(greedy.returns, sampled.returns)


def test_mistakes():
    family = toy.Guess()
    with pytest.raises(ValueError, match=r"'tset'.*Did you mean 'test'"):
        evaluate(RandomAgent(family), family, "tset")
    for wrong in ({"tasks": 0}, {"episodes": 0}, {"rounds": 0}):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            evaluate(RandomAgent(family), family, **wrong)
    with pytest.raises(ValueError, match="finite bounds"):
        unbounded = Walk()
        unbounded.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
        RandomAgent(unbounded)


# Witnesses: agents that are written down give the exact values of FAMILIES.md ---------------------------------------


def assert_mean(samples, exact: float, errors: float = 4.0):
    """The mean of independent samples is `exact` within four standard errors (one false alarm in 16,000)."""
    samples = np.asarray(samples, dtype=np.float64).ravel()
    error = samples.std(ddof=1) / math.sqrt(len(samples))
    assert abs(samples.mean() - exact) < errors * error, f"{samples.mean():.4f} ± {error:.4f}, expected {exact}"


@pytest.mark.parametrize(("arms", "pulls", "exact"), [(2, 2, 13 / 12), (2, 10, 6.021786), (5, 10, 6.659988)])
def test_bayes_optimal_bandit(arms, pulls, exact):
    agent = BayesOptimalBandit(arms, pulls)
    assert agent.value == pytest.approx(exact, abs=1e-6)
    curve = evaluate(agent, BernoulliBandit(arms, pulls), tasks=20_000, seed=1)
    assert_mean(curve.totals, exact)  # standard error about .013 for ten pulls
    assert_mean(curve.returns[:, :, 0], 0.5)


def test_bayes_optimal_bandit_knows_its_limits():
    assert BayesOptimalBandit(5, 20).value == pytest.approx(14.287338, abs=1e-6)
    with pytest.raises(ValueError, match="too many states"):
        BayesOptimalBandit(10, 100)
    with pytest.raises(ValueError, match="plans for 3 pulls"):
        evaluate(BayesOptimalBandit(2, 3), BernoulliBandit(2, 4), tasks=2)


def test_classical_bandits():
    """Thompson 5.833 and random 5 (FAMILIES.md); greedy with random ties 6.626225, by dynamic programming."""
    family = BernoulliBandit(5, 10)
    known = {ThompsonBandit(5): 5.833, PosteriorMeanBandit(5): 6.626225, RandomAgent(family): 5.0}
    for agent, exact in known.items():
        curve = evaluate(agent, family, tasks=10_000)
        assert_mean(curve.totals, exact)
        assert_mean(curve.random, 0.5)
        assert_mean(curve.oracle, 5 / 6)
    assert_mean(evaluate(PosteriorMeanBandit(2), BernoulliBandit(2, 10), tasks=10_000).totals, 6.005811)


def test_ucb1_by_hand():
    """Each arm once, in order; then the index. After 1 of 1, 0 of 1 and bonus 2: 1 + √(2 ln 2) against √(2 ln 2)."""
    agent, key = UCB1Bandit(2), rng.key(0)[None]
    choices = []
    for wins, losses in ((0, 0), (0, 0)), ((1, 0), (0, 0)), ((1, 0), (0, 1)), ((3, 0), (6, 1)):
        choices.append(int(agent.choose(Counts(torch.tensor([wins]).float(), torch.tensor([losses]).float()), key)))
    # The last: arm 0 won 3 of 9, arm 1 0 of 1: .333 + √(2 ln 10 / 9) = 1.049 against 0 + √(2 ln 10) = 2.146.
    assert choices == [0, 1, 0, 1]
    assert int(UCB1Bandit(2, bonus=0.01).choose(Counts(torch.tensor([[3.0, 0]]), torch.tensor([[6.0, 1]])), key)) == 0


def test_gridnavi_sweep_is_exactly_bayes_optimal():
    family = GridNavi()
    curve = evaluate(GridNaviSweep(), family, tasks=family.enumerate_tasks("all"))
    assert curve.returns.shape == (1, 21, 4)
    np.testing.assert_allclose(curve.mean(), [84 / 21, *[11.0714286] * 3], atol=1e-5)
    assert curve.totals.mean() == pytest.approx(37.2142857, abs=1e-4)
    np.testing.assert_allclose(curve.returns[0, :, 1:], np.repeat(curve.oracle[:, None], 3, axis=1), atol=1e-5)
    np.testing.assert_array_equal(curve.env_steps, [0, 15, 30, 45])


def test_dark_room_sweep():
    """20 new cells in each of four episodes, the start in the fifth, and the oracle's return once found."""
    family = DarkRoom()
    curve = evaluate(DarkRoomSweep(), family, tasks=family.enumerate_tasks("all"))
    assert curve.mean()[0] == pytest.approx(210 / 81) and curve.mean()[4] == pytest.approx(1340 / 81)
    found = curve.returns[0] > 0
    assert found.sum(0).tolist() == [20, 40, 60, 80, 81]
    for episode in range(1, 5):
        before = found[:, episode - 1]
        np.testing.assert_array_equal(curve.returns[0, before, episode], curve.oracle[before])


def test_tabular_mdp_oracle():
    family = TabularMDP()
    curve = evaluate(TabularMDPOracle(), family, tasks=1500)
    assert_mean(curve.oracle, 21.83)
    assert_mean(curve.returns.mean(2) - curve.oracle, 0.0)
    assert curve.summary()["normalised"] == pytest.approx(1.0, abs=0.01)


def test_navigation_oracle():
    family = Navigation2D()
    curve = evaluate(Navigation2DOracle(), family, tasks=4000)
    assert_mean(curve.returns[:, :, 0], -0.506)
    np.testing.assert_allclose(curve.returns[0], np.repeat(curve.oracle[:, None], 2, axis=1), atol=1e-3)
    # max(|x|, |y|) / .1 full steps, less what lies within the reach of .01: episodes end early, and are counted so.
    assert 3.5 < curve.env_steps[1] < 4.0


@pytest.mark.parametrize("family", [GridNavi(), DarkRoom(), TabularMDP()], ids=lambda family: type(family).__name__)
def test_random_agent_gives_the_exact_random_returns(family):
    curve = evaluate(RandomAgent(family), family, tasks=2000)
    assert_mean(curve.returns.mean(2) - curve.random, 0.0)


@pytest.mark.parametrize("oracle", [TabularMDPOracle(), Navigation2DOracle()])
def test_an_oracle_must_be_told(oracle):
    with pytest.raises(ValueError, match="told the task"):
        oracle.begin(3)


# The curve ----------------------------------------------------------------------------------------------------------


def curve_of(returns, random=(0.0, 0.0), oracle=(10.0, 10.0), **changes) -> AdaptationCurve:
    returns = np.asarray(returns, dtype=np.float32)
    points = returns.shape[2]
    curve = AdaptationCurve(
        returns=returns,
        episodes=np.arange(points, dtype=np.float64),
        env_steps=5.0 * np.arange(points),
        labels=tuple(f"episode {number}" for number in range(1, points + 1)),
        random=np.array(random, dtype=np.float32),
        oracle=np.array(oracle, dtype=np.float32),
        agent="Someone",
        family="Somewhere(size=3)",
        split="test",
        greedy=False,
    )
    return dataclasses.replace(curve, **changes)


RETURNS = [[[1.0, 9.0], [3.0, 9.0]]]


def test_summary_by_hand():
    summary = curve_of(RETURNS).summary()
    assert summary["episode 1"] == 2.0 and summary["episode 2"] == 9.0
    assert summary["score"] == summary["score_iqm"] == 11.0
    half = 12.706  # of 10 and 12: the t quantile of one degree of freedom
    assert summary["score_low"] == pytest.approx(11.0 - half, abs=1e-3)
    assert summary["score_high"] == pytest.approx(11.0 + half, abs=1e-3)
    assert summary["normalised"] == pytest.approx(11.0 / 20.0)
    assert summary["normalised_regret"] == pytest.approx(9.0 / 20.0)
    assert summary["area_under_curve"] == 5.5 and summary["adaptation_delta"] == 7.0
    assert summary["episodes_to_threshold"] == 1.0 and summary["env_steps_to_threshold"] == 5.0
    assert summary["cumulative_regret"] == 8.0 + 1.0 and summary["regret_per_episode"] == pytest.approx(1.0)
    assert (summary["random"], summary["oracle"]) == (0.0, 10.0)
    assert (summary["tasks"], summary["seeds"], summary["greedy"]) == (2.0, 1.0, 0.0)
    assert all(type(value) is float for value in summary.values())
    rounds = curve_of(RETURNS, rounds=True).summary()
    assert rounds["score"] == 9.0 and rounds["normalised"] == pytest.approx(0.9)
    assert "normalised" not in curve_of(RETURNS, random=[10.0, 10.0]).summary(), "no scale between equal bounds"
    assert not {"adaptation_delta", "regret_per_episode"} & curve_of([[[1.0], [2.0]]]).summary().keys()
    assert not {"episodes_to_threshold", "env_steps_to_threshold"} & curve_of([[[1.0, 2.0]] * 2]).summary().keys()
    assert "cumulative_regret" not in dataclasses.replace(curve_of(RETURNS), oracle=None).summary()


def test_generalisation_gaps_are_those_of_the_scores():
    train, test = curve_of(RETURNS), curve_of([[[0.0, 4.0], [0.0, 4.0]]])  # totals 10 and 12; 4 and 4
    assert generalisation_gaps({"test": test}) == {}
    gaps = generalisation_gaps({"test": test, "train": train, "ood": train})
    assert list(gaps) == ["test", "ood"] and gaps["test"][0] == 7.0 and gaps["ood"][0] == 0.0
    np.testing.assert_allclose(gaps["test"], (7.0, 7.0 - 12.706, 7.0 + 12.706), atol=1e-3)
    last = {name: dataclasses.replace(curve, rounds=True) for name, curve in (("train", train), ("test", test))}
    assert generalisation_gaps(last)["test"][0] == 9.0 - 4.0, "in rounds: after the last one"
    assert generalisation_gaps({"train": combine([train, train]), "test": test}) == {}


def test_intervals_are_drawn_once_and_belong_to_the_caller(monkeypatch: pytest.MonkeyPatch):
    curve, asked = curve_of(np.random.default_rng(0).normal(size=(1, 9, 3)), [0.0] * 9, [1.0] * 9), []
    drawn = stats.interval
    monkeypatch.setattr(stats, "interval", lambda *a, **k: asked.append(a[1:]) or drawn(*a, **k))
    low, high = curve.interval()
    curve.plot()
    first = curve.summary()
    count = len(asked)
    kept = low.copy(), high.copy()
    low[:], high[:] = 0.0, 0.0
    curve.plot()
    first["score"] = 99.0
    assert curve.summary()["score"] != 99.0 and len(asked) == count == 3, "the points', the score's and the delta's"
    np.testing.assert_array_equal(curve.interval(), kept)
    assert not np.array_equal(curve.interval(0.5), kept) and len(asked) == 4
    assert not np.array_equal(dataclasses.replace(curve, returns=curve.returns + 1.0).interval(), kept)


def test_chosen_points():
    assert chosen_points(4, 6) == [0, 1, 2, 3]
    assert [point + 1 for point in chosen_points(100, 6)] == [1, 2, 5, 10, 50, 100]
    assert [point + 1 for point in chosen_points(10, 6)] == [1, 2, 5, 10]
    assert [point + 1 for point in chosen_points(500, 6)] == [1, 5, 10, 50, 100, 500]
    for points in range(1, 1200):
        chosen = chosen_points(points, 6)
        assert len(chosen) <= 6 and chosen[0] == 0 and chosen[-1] == points - 1 and sorted(set(chosen)) == chosen


def test_combine():
    joined = combine([curve_of(RETURNS), curve_of([[[2.0, 8.0], [4.0, 8.0]]], env_steps=np.array([0.0, 7.0]))])
    assert joined.returns.shape == (2, 2, 2)
    np.testing.assert_allclose(joined.mean(), [2.5, 8.5])
    np.testing.assert_allclose(joined.env_steps, [0.0, 6.0])
    for changes, named in (({"oracle": np.array([1.0, 2.0])}, "oracle"), ({"greedy": True}, "greedy")):
        with pytest.raises(ValueError, match=named):
            combine([curve_of(RETURNS), curve_of(RETURNS, **changes)])
    with pytest.raises(ValueError, match="at least one"):
        combine([])


def test_save_and_load(tmp_path: Path):
    returns = np.random.default_rng(0).normal(size=(2, 5, 3))
    for curve in (curve_of(returns, range(5), range(5, 10)), dataclasses.replace(curve_of(RETURNS), oracle=None)):
        paths = curve.save(tmp_path / "made" / "test")
        assert [path.name for path in paths] == ["test.json", "test.csv", "test.png"]
        for path in (tmp_path / "made" / "test", paths[0]):
            back = AdaptationCurve.load(path)
            for field in dataclasses.fields(curve):
                np.testing.assert_array_equal(getattr(back, field.name), getattr(curve, field.name), strict=False)
    document = json.loads(paths[0].read_text())
    assert document["summary"] == curve.summary()
    assert document["points"]["mean"] == [2.0, 9.0] and document["points"]["low"][0] < 2.0
    assert paths[1].read_text().splitlines()[:2] == ["seed,task,random,oracle,episode 1,episode 2", "0,0,0,,1,9"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_a_point_in_a_name_is_kept(tmp_path: Path):
    assert curve_of(RETURNS).save(tmp_path / "lr_0.5")[0].name == "lr_0.5.json"


def test_plot_shows_a_curve_that_random_would_flatten():
    near, far = (curve_of(returns, random=(-900.0, -900.0)) for returns in ([[[2.0, 9.0]] * 2], [[[-700.0, 9.0]] * 2]))
    (ax,) = near.plot().axes
    assert ax.get_ylim()[0] > -5 and "random -900.0 (below)" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert far.plot().axes[0].get_ylim()[0] < -900


def test_agents_of_two_kinds_share_an_axis_of_experience():
    memory = curve_of(RETURNS)
    steps = {"labels": ("0 gradient steps", "1 gradient step"), "episodes": np.array([0.0, 40.0])}
    rounds = dataclasses.replace(memory, rounds=True, env_steps=np.array([0.0, 400.0]), **steps)
    for x, expected, title in (("episodes", [0, 40], "episodes"), ("env_steps", [0, 400], "environment steps")):
        (ax,) = memory.plot(x=x).axes
        lines = len(ax.lines)
        rounds.plot(ax, x=x, bounds=False)
        assert len(ax.lines) == lines + 1, "one curve more, and no second random and optimum"
        assert ax.lines[-1].get_xdata().tolist() == expected
        assert title in ax.get_xlabel() and ax.get_xscale() == "symlog"
    with pytest.raises(ValueError, match="env_steps"):
        memory.plot(x="steps")


def test_plot_leaves_a_margin_and_wraps_long_titles():
    curve = curve_of(RETURNS, family=f"Somewhere({', '.join(f'option_{i}=100' for i in range(9))})")
    figure = curve.plot()
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    assert low < 0.0 and high > 10.0, "random and optimum lie inside"
    assert ax.get_title().count("\n") >= 1 and max(map(len, ax.get_title().splitlines())) <= 68


def test_plot_says_what_is_what():
    figure = curve_of(RETURNS).plot()
    (ax,) = figure.axes
    legend = ax.get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["Someone", "95 % interval over tasks, of this agent", "random 0.000", "known-task optimum 10.00"]
    assert legend.get_title().get_text() == "2 tasks, 1 seed, sampling"
    assert ax.get_xlabel() and ax.get_ylabel() and "Somewhere" in ax.get_title()
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2.0, 9.0])
    again = curve_of(RETURNS, split="ood").plot(ax)
    assert again is figure and len(ax.lines) == 6


def shown(curves, width=80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(adaptation_table(curves))
    return stream.getvalue()


def test_table():
    text = shown({"train": curve_of(RETURNS), "[ood]": curve_of(RETURNS, greedy=True)})
    rows = [line.split() for line in text.splitlines()]
    assert ["train", "2.00", "9.00", "11.00", "[-1.71,", "23.71]", "0.550"] in rows
    assert ["random", "0.000", "0.000", "0.000", "0"] in rows
    assert ["optimum", "10.00", "10.00", "20.00", "1"] in rows
    assert "Below train (generalisation gap): [ood] 0.000 [-6.08, 6.08]." in " ".join(text.split())
    assert "[ood]" in text and "samples its actions" in " ".join(text.split())
    many = shown({"test": curve_of(np.full((1, 2, 100), 0.25))})
    assert "…" not in many, "everything fits in 80 columns"
    assert "total" not in shown({"test": curve_of(RETURNS, rounds=True)})
    with pytest.raises(ValueError, match="labels differ"):
        adaptation_table({"a": curve_of(RETURNS), "b": curve_of(np.ones((1, 2, 3)))})
    with pytest.raises(ValueError, match="at least one"):
        adaptation_table({})


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="seeds, tasks, points"):
        dataclasses.replace(curve_of(RETURNS), returns=np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="random must have one return for each of 2 tasks"):
        curve_of(RETURNS, random=[1.0])
    with pytest.raises(ValueError, match="one entry for each of 2 points"):
        curve_of(RETURNS, labels=("episode 1",))


# The program --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """What a training run leaves behind, without the training."""
    from metarl.training import checkpoint
    from metarl.training.config import parsing as config

    folder = tmp_path / "run"
    folder.mkdir()
    toy.write_config(folder)
    read = config.read(folder / "config.yaml")
    checkpoint.save(folder, read.agent.build(read.family, read.seed, torch.device("cpu")), checkpoint.Counters())
    return folder


def test_program(run_dir: Path, capsys):
    assert main([str(run_dir), "--tasks", "20", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    for word in (
        "RL2 on Guess(numbers=3)",
        "train",
        "test",
        "ood",
        "random",
        "optimum",
        "20 tasks",
        "samples",
        "Written",
    ):
        assert word in text, word
    folder = run_dir / "evaluations" / "last_0_tasks_20_seed_0"
    names = sorted(path.name for path in folder.iterdir())
    ends = (".json", ".csv", ".png", "_steps.csv", "_steps.png")
    each = [f"{split}{end}" for split in ("train", "valid", "test", "ood") for end in ends]
    assert names == sorted([*each, "table.txt"])
    assert "20 tasks" in (folder / "table.txt").read_text("utf-8"), "the table beside these numbers"
    assert AdaptationCurve.load(folder / "test").returns.shape == (1, 20, 3)
    assert not (run_dir / "evaluation").exists(), "where the run's own final evaluation is"


def test_program_options(run_dir: Path, tmp_path: Path, capsys):
    out = tmp_path / "elsewhere"
    options = ["--split", "test", "--episodes", "5", "--tasks", "10", "--seed", "3", "--greedy", "--out", str(out)]
    assert main([str(run_dir), *options, "--device", "cpu"]) == 0
    assert "greedy" in capsys.readouterr().out
    curve = AdaptationCurve.load(out / "test_greedy")
    assert curve.returns.shape == (1, 10, 5) and curve.greedy


def test_program_on_a_folder_of_seeds(run_dir: Path, tmp_path: Path):
    """Each run is evaluated on the same tasks; the curve has their seeds. A run's own final evaluation stays."""
    folder = tmp_path / "seeds"
    for seed in (1, 2, 10):
        shutil.copytree(run_dir, folder / f"seed_{seed}")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "test.json").write_text("the final one")
    assert main([str(folder), "--split", "test", "--tasks", "9", "--device", "cpu"]) == 0
    assert (folder / "evaluation" / "test.json").read_text() == "the final one"
    curve = AdaptationCurve.load(folder / "evaluations" / "last_0_tasks_9_seed_0" / "test")
    assert curve.returns.shape == (3, 9, 3) and len(curve.training) == 3
    assert curve.interval_of() == "over seeds and tasks"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}", "--split", "tets"], "Did you mean 'test'?"),
        (["{run}", "--rounds", "3"], "RL2 does not adapt in rounds, so rounds must be 1, got 3"),
        (["{run}", "--repeats", "0"], "repeats must be at least 1"),
        (["{run}", "--which", "30"], "keeps no checkpoint of iteration 30"),
        (["{run}", "--which", "worst"], "must be last, best or the number of an iteration, got 'worst'"),
        (["{run}", "--which", "best"], "no best checkpoint, since it was not evaluated on 'valid'"),
        (["{run}", "--tasks", "0"], "tasks must be at least 1"),
        (["{run}", "--seed", "-1"], "seed must be"),
        (["{run}", "--device", "gpu"], "'cpu', 'cuda' or 'auto'"),
        (["{run}", "--tasks", "many"], "--tasks must be a whole number, got 'many'"),
        (["{run}", "--taks", "10"], "Did you mean '--tasks'?"),
        ([], "RUN"),
        (["no/such/run"], "no/such/run"),
        (["pretrained:nothing"], "pretrained:nothing"),
        (["{run}", "--out", "{run}/config.yaml/sub"], "cannot be written to"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, run_dir: Path, capsys):
    try:
        code = main([argument.format(run=run_dir) for argument in arguments])
    except SystemExit as exit:  # argparse's own way
        code = exit.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == "" and sentence in captured.err
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert not (run_dir / "evaluation").exists()


def test_the_program_runs_without_a_warning():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "metarl", "evaluate", "no/such/run"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("metarl evaluate: There is no run directory 'no/such/run'")


def test_the_public_name_is_a_plain_function():
    assert inspect.isfunction(metarl.evaluate)
    assert list(inspect.signature(metarl.evaluate).parameters)[:3] == ["agent", "family", "split"]
    assert "adaptation curve" in inspect.getdoc(metarl.evaluate)


def test_the_family_is_the_agent_s_own_or_an_id_or_one_that_was_made():
    family = metarl.make("metarl/BernoulliBandit-v0")
    agent = RL2Config(meta_batch_size=8, hidden_size=8).build(family, 1, torch.device("cpu"))
    curves = [metarl.evaluate(agent, given, tasks=4) for given in (None, "metarl/BernoulliBandit-v0", family)]
    assert all(np.array_equal(curve.returns, curves[0].returns) for curve in curves)
    with pytest.raises(ValueError, match="Did you mean 'metarl/BernoulliBandit-v0'"):
        metarl.evaluate(agent, "metarl/BernouliBandit-v0", tasks=4)


def test_a_sparkline_by_hand():
    assert sparkline(np.array([0.0, 0.5, 1.0]), 0.0, 1.0) == "▁▅█"
    assert sparkline(np.array([-5.0, 9.0]), 0.0, 1.0) == "▁█", "beyond the scale it is cut off"
    assert sparkline(np.linspace(0, 1, 100), 0.0, 1.0, width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.array([-10.0, -2.0]), -10.0, 0.0) == "▁▇"
    with pytest.raises(ValueError, match="differ"):
        sparkline(np.zeros(2), 1.0, 1.0)


class Frame(dict):
    """Stands for pandas.DataFrame where there is no pandas."""


def test_a_frame_has_a_row_for_every_return(monkeypatch: pytest.MonkeyPatch):
    module = type(sys)("pandas")
    module.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", module)
    curve = evaluate(RandomAgent(GridNavi()), GridNavi(), "test", tasks=3)
    twice = combine([curve, curve])
    frame = twice.to_frame()
    assert {len(column) for column in frame.values()} == {2 * 3 * 4}
    row = 1 * 12 + 2 * 4 + 3  # seed 1, task 2, episode 4
    assert (frame["seed"][row], frame["task"][row], frame["point"][row]) == (1, 2, "episode 4")
    assert frame["return"][row] == curve.returns[0, 2, 3] and frame["episodes"][row] == 3
    assert frame["random"][row] == curve.random[2] and frame["oracle"][row] == curve.oracle[2]
    nothing = dataclasses.replace(curve, oracle=None).to_frame()
    assert np.isnan(nothing["oracle"]).all()


def test_a_frame_without_pandas_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        evaluate(RandomAgent(GridNavi()), GridNavi(), "test", tasks=2).to_frame()


def test_an_agent_of_the_package_that_is_given_as_a_path_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = PRETRAINED / "rl2_gridnavi"
    before = sorted(folder.iterdir())
    assert main([str(folder), "--tasks=2", "--repeats=1", "--split=all", "--quiet"]) == 0
    assert sorted(folder.iterdir()) == before
    assert [path.parent.name for path in (tmp_path / "runs").glob("*/*")] == ["evaluation_rl2_gridnavi"]
