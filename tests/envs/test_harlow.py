"""Harlow's task: exact values, endings, splits, and what the agent can and cannot see."""

import inspect
import re

import numpy as np
import pytest
import scipy.stats
import torch

from metarl.agents.random import RandomAgent
from metarl.agents.reference.cognitive import WinStayLoseShift
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.rollout import episode_lengths, episode_returns, run_trial
from metarl.core.tree import take
from metarl.envs.cognitive.harlow import Harlow, HarlowState
from metarl.testing import check_family

STAY, LEFT, RIGHT = range(3)


def walk(family: Harlow, task, state: HarlowState, actions: list[int]):
    """The reward and the ending of each action, and the last state."""
    log = []
    for action in actions:
        state, reward, terminated = family.step(task, state, torch.tensor([action]), torch.zeros(1, dtype=torch.int64))
        log.append((float(reward), bool(terminated)))
    return log, state


def start(cross: int, side: int) -> HarlowState:
    return HarlowState(torch.tensor([0]), torch.tensor([cross % 17]), torch.tensor([side]), torch.tensor([False]))


@pytest.mark.parametrize("family", [Harlow(), Harlow(num_features=1, horizon=6, episodes_per_trial=2)])
def test_contract(family):
    check_family(family)


def test_docstring_follows_the_schema():
    headings = re.findall(r"^(\w[\w ]*):$", inspect.cleandoc(Harlow.__doc__ or ""), re.MULTILINE)
    assert headings == [
        "Description", "What varies", "Splits", "Actions", "Observations", "Rewards", "Endings", "Optimum",
        "Differs from the source", "Source", "Version history",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"num_features": 0}, {"horizon": 5}, {"episodes_per_trial": 0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number of at least"):
        Harlow(**wrong)


def test_splits():
    family = Harlow()
    features = {s: torch.cat(family.sample_tasks(rng.key(0), 2000, s)).flatten() for s in family.splits}
    for split in ("train", "test"):
        assert scipy.stats.kstest(features[split].numpy(), "uniform", (-1, 2)).pvalue > 0.001
    assert scipy.stats.kstest(features["ood"].abs().numpy(), "uniform", (1, 0.5)).pvalue > 0.001
    assert abs(float((features["ood"] > 0).double().mean()) - 0.5) < 0.02
    assert features["ood"].abs().min() >= 1 and features["train"].abs().max() <= 1


@pytest.mark.parametrize("split", Harlow.splits)
def test_win_stay_lose_shift_is_optimal(split):
    """0 in the mean of the first round, then the oracle's 1 in every round, of at most 6 steps."""
    family, n = Harlow(), 10_000
    task = family.sample_tasks(rng.key(0), n, split)
    rollout = run_trial(WinStayLoseShift(), family, task, rng.key(1))[0]
    returns = episode_returns(rollout, 6)
    assert set(returns[:, 0].tolist()) == {-1.0, 1.0} and abs(float(returns[:, 0].mean())) < 4 / n**0.5
    assert torch.equal(returns[:, 1:], family.oracle(task)[:, None].expand(n, 5))
    lengths = episode_lengths(rollout, 6)
    assert lengths.min() == 4 and lengths.max() == 6


def test_random_is_zero_in_the_mean():
    family, n = Harlow(), 10_000
    task = family.sample_tasks(rng.key(0), n)
    returns = episode_returns(run_trial(RandomAgent(family), family, task, rng.key(2), episodes=1)[0], 1)[:, 0]
    assert abs(float(returns.mean())) < 4 * float(returns.std()) / n**0.5 and (family.random_return(task) == 0).all()


def test_a_policy_without_memory_is_not_better_than_chance():
    """Trap: which object pays must not show, neither by its side nor by its features."""
    family, n = Harlow(), 10_000
    task = family.sample_tasks(rng.key(0), n)
    env = BatchEnv(family, task, rng.key(1), episodes=1)
    step, total, keen = env.reset(), torch.zeros(n), torch.linspace(-1, 1, 8)
    direction = torch.zeros(n, dtype=torch.int64)
    while not env.all_done():
        window = step.obs.unflatten(1, (9, 9))
        cross = window[:, :, 0]
        likes_right = (window[:, 7, 1:] @ keen) > (window[:, 1, 1:] @ keen)
        fixated = (cross.sum(1) == 0) & (direction == 0)
        direction = torch.where(fixated, torch.where(likes_right, RIGHT, LEFT), direction)
        action = torch.where(direction > 0, direction, torch.where(cross[:, :4].sum(1) > 0, LEFT, RIGHT))
        alive = env.alive
        outcome, step = env.step(action)
        total += outcome.reward * alive
    assert (total.abs() == 1).all() and abs(float(total.mean())) < 4 / n**0.5


def test_a_round():
    family = Harlow(num_features=2)
    task = family.sample_tasks(rng.key(0), 1)
    log, state = walk(family, task, start(cross=-2, side=1), [STAY, LEFT, LEFT])
    assert log == [(0, False)] * 3 and bool(state.fixated)
    window = family.observe(task, state)[0].unflatten(0, (9, 3))
    assert window[:, 0].sum() == 0, "the cross is gone"
    assert torch.equal(window[7, 1:], task.right[0]) and torch.equal(window[1, 1:], task.wrong[0])
    assert (window[[0, 2, 3, 4, 5, 6, 8]] == 0).all()
    assert walk(family, task, state, [RIGHT] * 3)[0] == [(0, False), (0, False), (1, True)]
    assert walk(family, task, state, [LEFT] * 3)[0] == [(0, False), (0, False), (-1, True)]
    around = walk(family, task, state, [LEFT, RIGHT, STAY, LEFT, RIGHT, RIGHT, RIGHT, RIGHT])[0]
    assert around == [(0, False)] * 7 + [(1, True)]


def test_nothing_is_chosen_before_the_fixation_and_the_tape_is_a_circle():
    family = Harlow()
    task = family.sample_tasks(rng.key(0), 1)
    log, state = walk(family, task, start(cross=3, side=1), [LEFT] * 14)  # past the objects' cells, the long way
    assert log == [(0, False)] * 14 and bool(state.fixated) and state.gaze.tolist() == [3]


def test_cross_and_sides_are_uniform_and_independent_of_the_task():
    family, n = Harlow(), 12_000
    keys = rng.fold(rng.key(0), torch.arange(n))
    state = family.reset(family.sample_tasks(rng.key(1), n), keys)
    cell = state.cross * 2 + (state.side > 0)
    counts = cell.bincount(minlength=34)
    assert counts.nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6, 7, 28, 29, 30, 31, 32, 33]
    assert scipy.stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.001


def test_row_of_a_batch_equals_a_batch_of_one():
    family = Harlow()
    task = family.sample_tasks(rng.key(0), 9, "test")
    whole = run_trial(WinStayLoseShift(), family, task, rng.key(3))[0]
    for i in range(9):
        alone = run_trial(WinStayLoseShift(), family, take(task, slice(i, i + 1)), rng.key(3), first_task=i)[0]
        n = len(alone.mask)
        assert torch.equal(whole.step.obs[:n, i], alone.step.obs[:, 0])
        assert torch.equal(whole.outcome.reward[:n, i], alone.outcome.reward[:, 0])


def test_picture():
    family = Harlow()
    task = family.sample_tasks(rng.key(0), 1)
    states = [start(2, 1)]
    for action in (RIGHT, RIGHT, LEFT, LEFT, LEFT):
        states.append(walk(family, task, states[-1], [action])[1])
    pictures = [family.render(task, seen) for seen in ([], states[:1], states)]
    assert all(p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 for p in pictures)
    assert not np.array_equal(family.render(task, states), family.render(task, states[::-1]))
