"""Dark rooms that end when all is found: partitions, endings, exact returns, oracles and searches."""

import numpy as np
import pytest
import scipy.stats
import torch
from test_envs import assert_mean, play, random_policy
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.grids import RoomOracle, RoomSearch
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.tree import num_rows, take
from metarl.envs.grids.dark_room import DarkRoomHard, DarkTask
from metarl.envs.grids.grid import MOVES, hitting
from metarl.envs.grids.key_to_door import DarkKeyToDoor, KeyDoorState, KeyDoorTask
from metarl.testing import check_family

STAY, UP, RIGHT, DOWN, LEFT = range(5)
FAMILIES = [DarkRoomHard(), DarkKeyToDoor()]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)


@each_family
def test_contract(family):
    check_family(family)
    with pytest.raises(ValueError, match="episodes_per_trial must be a whole number of at least"):
        type(family)(episodes_per_trial=0)


def rows(task) -> list[tuple]:
    return [tuple(map(tuple, (field.tolist() for field in row))) for row in zip(*task, strict=True)]


@each_family
def test_partition(family):
    places = {split: {row[:-1] for row in rows(family.enumerate_tasks(split))} for split in ("train", "test", "all")}
    assert not places["train"] & places["test"]
    assert places["train"] | places["test"] == places["all"]
    count = {DarkRoomHard: (289, 58), DarkKeyToDoor: (6480, 1296)}[type(family)]
    assert (len(places["all"]), len(places["test"])) == count
    assert all(len(set(row)) == len(row) for row in places["all"]), "a key at its door"
    ood = family.enumerate_tasks("ood")
    assert num_rows(ood) == 44 * len(places["train"])
    assert (ood.actions.sort(-1).values == torch.arange(5)).all() and (ood.actions != torch.arange(5)).all()
    drawn = family.sample_tasks(rng.key(0), 3000, "ood")
    assert {row[:-1] for row in rows(drawn)} <= places["train"]
    assert len(drawn.actions.unique(dim=0)) == 44


def test_test_goals_stay_what_they_are():
    """The partition is the library's own generator's: these first rows pin it."""
    assert DarkRoomHard().enumerate_tasks("test").goal[:4].tolist() == [[0, 0], [7, 0], [16, 0], [0, 1]]
    pairs = DarkKeyToDoor().enumerate_tasks("test")
    assert torch.cat([pairs.key, pairs.door], dim=1)[:3].tolist() == [[0, 0, 1, 0], [0, 0, 7, 0], [0, 0, 1, 1]]


@each_family
def test_draws_are_uniform(family):
    for split in ("train", "test", "all"):
        number = {row: i for i, row in enumerate(rows(family.enumerate_tasks(split)))}
        drawn = rows(family.sample_tasks(rng.key(1), 20_000, split))
        counts = np.bincount([number[row] for row in drawn], minlength=len(number))
        assert scipy.stats.chisquare(counts).pvalue > 0.001


@each_family
@pytest.mark.parametrize("split", ["train", "ood"])
def test_row_of_a_batch_equals_a_batch_of_one(family, split):
    task, n = family.sample_tasks(rng.key(0), 7, split), 7
    actions = [rng.integers(rng.fold(rng.fold(rng.key(9), t), torch.arange(n)), 1, 5)[:, 0] for t in range(120)]

    def trace(index: slice) -> list[Tensor]:
        env = BatchEnv(family, take(task, index), rng.key(2), 5, first_row=index.start)
        env.reset()
        seen = [env.step(action[index]) for action in actions]
        return [torch.cat([step.obs, outcome.final_obs, outcome.reward[:, None]], dim=1) for outcome, step in seen]

    whole = trace(slice(0, n))
    for i in range(n):
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(whole, trace(slice(i, i + 1)), strict=True))


@each_family
def test_the_world_looks_the_same_whatever_is_sought(family):
    """A task-blind, memory-less policy cannot beat chance in episode 1: what it sees follows from its actions alone."""
    keys = rng.fold(rng.key(1), torch.zeros(50, dtype=torch.int64))
    task = family.sample_tasks(rng.key(0), 50, "test")
    state = family.reset(task, keys)
    for t in range(family.horizon):
        seen = family.observe(task, state)
        assert (seen == seen[:1]).all(), "also with the key"
        state, _, _ = family.step(task, state, rng.integers(rng.fold(keys, t), 1, 5)[:, 0], keys)


def identity(n: int) -> Tensor:
    return torch.arange(5).expand(n, 5)


def test_hard_room_ends_on_the_goal():
    family = DarkRoomHard()
    env = BatchEnv(family, DarkTask(torch.tensor([[8, 8], [9, 8], [0, 0]]), identity(3)), rng.key(0), episodes=2)
    env.reset()
    outcome, step = env.step(torch.tensor([STAY, RIGHT, LEFT]))
    assert outcome.reward.tolist() == [1, 1, 0] and outcome.terminated.tolist() == [True, True, False]
    assert step.obs.tolist() == [[8, 8], [8, 8], [7, 8]] and step.prev_done.tolist() == [1, 1, 0]
    for _ in range(19):
        outcome, step = env.step(torch.tensor([UP, UP, LEFT]))
    assert outcome.truncated[2] and outcome.final_obs[2].tolist() == [0, 8] and not outcome.terminated[2]


def test_key_then_door():
    family, n = DarkKeyToDoor(), 1
    task = KeyDoorTask(torch.tensor([[1, 0]]), torch.tensor([[0, 0]]), identity(n))
    state, log = KeyDoorState(torch.tensor([[1, 0]]), torch.tensor([False])), []
    for action in (LEFT, DOWN, RIGHT, STAY, RIGHT, LEFT, LEFT):
        state, reward, ended = family.step(task, state, torch.tensor([action]), torch.zeros(1, dtype=torch.int64))
        log.append((float(reward), bool(state.has_key), bool(ended)))
    nothing, have = (0, False, False), (0, True, False)
    assert log == [nothing, nothing, (1, True, False), have, have, have, (1, True, True)]


def test_key_to_door_starts_are_uniform_and_have_no_key():
    state = DarkKeyToDoor().reset(None, rng.fold(rng.key(0), torch.arange(20_000)))
    index = 9 * state.position[:, 1] + state.position[:, 0]
    assert scipy.stats.chisquare(index.bincount(minlength=81).numpy()).pvalue > 0.001
    assert not state.has_key.any()


@pytest.mark.parametrize(("family", "best", "chance"), [(FAMILIES[0], 1.0, 0.0373), (FAMILIES[1], 2.0, 0.2499)])
def test_exact_values(family, best, chance):
    task = family.enumerate_tasks("all")
    assert (family.oracle(task) == best).all()
    assert float(family.random_return(task).mean()) == pytest.approx(chance, abs=1e-4)


@each_family
@pytest.mark.parametrize("split", ["all", "ood"])
def test_random_actions_earn_the_exact_return(family, split):
    task = family.sample_tasks(rng.key(0), 10_000, split)
    returns = play(family, task, random_policy(family))[:, 0]
    assert_mean(returns - family.random_return(task), 0.0, within=0.03)


def test_hitting_probabilities():
    within = hitting(3, 8)
    at = torch.eye(9)  # where a walk that stops on entering the goal may be, start by start
    goal = 4
    walk = torch.zeros(9, 9)
    for start in range(9):
        for dx, dy in MOVES:
            x, y = min(max(start % 3 + dx, 0), 2), min(max(start // 3 + dy, 0), 2)
            walk[start, 3 * y + x] += 0.2
    entered = torch.zeros(9)
    for n in range(9):
        torch.testing.assert_close(within[n, goal], entered)
        at = at @ walk
        entered, at[:, goal] = entered + at[:, goal], 0.0


@each_family
@pytest.mark.parametrize("split", ["test", "ood"])
def test_oracle_earns_the_optimum(family, split):
    """In every one of 10 000 episodes and more."""
    tasks = family.enumerate_tasks("all") if split == "test" else family.sample_tasks(rng.key(0), 3000, split)
    curve = evaluate(RoomOracle(), family, tasks=take(tasks, slice(0, 5000)), episodes=2)
    np.testing.assert_array_equal(curve.returns[0], family.oracle(take(tasks, slice(0, 5000)))[:, None].expand(-1, 2))
    with pytest.raises(ValueError, match="told the task"):
        RoomOracle().begin(1)


def test_searching_the_hard_room():
    """20 new cells in the first episode, as good as can be; every goal is found within 18, and then always."""
    family = DarkRoomHard()
    returns = evaluate(RoomSearch(17, 1), family, tasks=take(family.enumerate_tasks("all"), slice(0, None, 4))).returns[
        0
    ]
    assert (np.diff(returns, axis=1) >= 0).all(), "once found it is never lost"
    assert (returns[:, 17:] == 1).all() and 0 < returns[:, 0].mean() < 0.1


def test_searching_for_key_and_door():
    family = DarkKeyToDoor()
    returns = evaluate(RoomSearch(9, 2), family, tasks=500).returns[0]
    assert 0.7 < returns[:, 0].mean() < 0.95 and (returns[:, 3:] == 2).all()


def test_the_door_is_not_told_by_the_observation_of_the_key():
    family = DarkKeyToDoor()
    task = family.sample_tasks(rng.key(0), 10)
    position = torch.full((10, 2), 3)
    with_key, without = (KeyDoorState(position, torch.full((10,), has)) for has in (True, False))
    assert torch.equal(family.observe(task, with_key), family.observe(task, without))


@each_family
def test_pictures(family):
    task = family.sample_tasks(rng.key(0), 1, "test")
    env, act = BatchEnv(family, task, rng.key(0), episodes=2), random_policy(family)
    step: Step = env.reset()
    states = [env.state]
    for t in range(30):
        step = env.step(act(step, t))[1]
        states.append(env.final_state)
    image = family.render(task, states)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and min(image.shape[:2]) > 300
    assert not np.array_equal(image, family.render(task, states[:5]))
    assert family.render(task, []).shape == image.shape
