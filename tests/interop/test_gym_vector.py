"""Gymnasium's vector view does what Gymnasium's own `SyncVectorEnv` makes of single environments, in every mode."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from small_families import Corridor, Length, Reach, Start, TwoDoors

import metarl
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.interop.gym_env import GymEnv, GymVectorEnv

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode
FAMILIES = [Corridor(), Reach(), TwoDoors(), Start(), metarl.make("metarl/DarkKeyToDoor-v0", episodes_per_trial=2)]
ID = "metarl/GridNavi-v0"

on_families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
in_modes = pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
with_trials = pytest.mark.parametrize("trial", [False, True])


def equal(a: Any, b: Any) -> bool:
    """Of nested infos, whose arrays may hold None and arrays."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and a.dtype == object:
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))
    if a is None or b is None:
        return a is b
    return type(a) is type(b) and a.dtype.kind == b.dtype.kind and np.array_equal(a, b)


def side_by_side(family: TaskFamily, n: int, mode: AutoresetMode, trial: bool, limit: int | None = None) -> list:
    """Our vector view, and Gymnasium's over as many single ones."""

    def single() -> gymnasium.Env:
        env = GymEnv(family, trial=trial)
        return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)

    ours = GymVectorEnv(family, n, trial=trial, autoreset_mode=mode, max_episode_steps=limit)
    return [ours, SyncVectorEnv([single] * n, autoreset_mode=mode)]


@pytest.mark.parametrize("limit", [None, 4])
@with_trials
@in_modes
@on_families
def test_it_is_gymnasiums_own_vector_of_single_environments(
    family: TaskFamily, mode: AutoresetMode, trial: bool, limit: int | None
):
    """With the same seeds by row: observations, rewards, ends and infos, from reset to reset."""
    envs, n = side_by_side(family, 5, mode, trial, limit), 5
    seeds = [3, 1, 4, 1, 5]
    (ours, infos), (theirs, their_infos) = (env.reset(seed=seeds) for env in envs)
    assert np.array_equal(ours, theirs) and equal(infos, their_infos)
    actions = copy.deepcopy(envs[0].action_space)
    actions.seed(0)
    ends = 0
    for t in range(60):
        action = actions.sample()
        ours, theirs = (env.step(action) for env in envs)
        for a, b in zip(ours[:4], theirs[:4]):
            assert np.array_equal(a, b), t
        assert equal(ours[4], theirs[4]), (t, ours[4], theirs[4])
        done = ours[2] | ours[3]
        ends += int(done.sum())
        if mode is DISABLED and done.any():
            again = [env.reset(options={"reset_mask": done.copy()}) for env in envs]
            assert np.array_equal(again[0][0], again[1][0]) and equal(again[0][1], again[1][1])
    assert ends > 2 * n or limit is None


@with_trials
@on_families
def test_the_modes_play_the_same_trials(family: TaskFamily, trial: bool):
    """Rewards of trials by their number, in the order in which they began."""
    played = []
    for mode in AutoresetMode:
        envs = GymVectorEnv(family, 3, trial=trial, autoreset_mode=mode)
        envs.reset(seed=2)
        rewards: list[list[float]] = [[] for _ in range(3)]
        playing, waiting = [0, 1, 2], np.zeros(3, dtype=bool)
        action = np.stack([one(envs.single_action_space)] * 3)
        for _ in range(400):
            _, reward, terminated, truncated, _ = envs.step(action)
            for row in (~waiting).nonzero()[0]:
                rewards[playing[row]].append(float(reward[row]))
            done = terminated | truncated
            begins = waiting if mode is NEXT_STEP else done
            for row in begins.nonzero()[0]:
                playing[row] = len(rewards)
                rewards.append([])
            waiting = done if mode is NEXT_STEP else waiting & False
            if mode is DISABLED and done.any():
                envs.reset(options={"reset_mask": done})
        played.append({number: tuple(each) for number, each in enumerate(rewards) if number not in playing})
    common = set.intersection(*map(set, played))
    assert len(common) >= 6
    assert all(played[0][number] == played[1][number] == played[2][number] for number in common)


def one(space: gymnasium.Space) -> np.ndarray:
    return np.asarray(space.start + 1) if isinstance(space, gymnasium.spaces.Discrete) else 0.5 * space.high


@with_trials
def test_a_seed_for_each_row_is_a_single_environment_with_that_seed(trial: bool):
    """Row by row, its own trials 0, 1, 2 … whatever the others do; None goes on as before."""
    envs = GymVectorEnv(Corridor(), 3, trial=trial, autoreset_mode=SAME_STEP)
    obs, _ = envs.reset(seed=[8, 9, 8])
    singles = [GymEnv(Corridor(), trial=trial) for _ in range(3)]
    shown = [env.reset(seed=seed)[0] for env, seed in zip(singles, (8, 9, 8))]
    assert np.array_equal(obs, shown) and np.array_equal(obs[0], obs[2]) and not np.array_equal(obs[0], obs[1])
    for _ in range(20):
        obs, _, terminated, truncated, _ = envs.step(np.ones(3, dtype=int))
        shown = [env.step(1)[0] for env in singles]
        shown = [env.reset()[0] if end else o for env, end, o in zip(singles, terminated | truncated, shown)]
        assert np.array_equal(obs, shown)
    again, _ = envs.reset(seed=[8, None, None])
    assert np.array_equal(again[0], envs.reset(seed=(8, 9, 8))[0][0])
    assert not np.array_equal(again[2], again[0]), "a row that is given None goes on with its own next trial"
    assert np.array_equal(envs.reset(seed=5)[0], GymVectorEnv(Corridor(), 3, trial=trial).reset(seed=5)[0])


def test_rows_with_and_without_a_seed_of_their_own():
    """Those without share the numbers of the seed that they had; the others use none of them up."""
    envs, shared = (GymVectorEnv(Corridor(), n, trial=True, autoreset_mode=SAME_STEP) for n in (3, 2))
    envs.reset(seed=4)
    shared.reset(seed=4)
    shared.reset()
    obs, _ = envs.reset(seed=[None, 7, None])
    assert np.array_equal(obs[1], GymEnv(Corridor(), trial=True).reset(seed=7)[0])
    root, family = rng.key(4), Corridor()
    expected = family.sample_tasks(rng.fold(root, 0), 2, "train", first=3).length
    assert torch.equal(envs.get_task().length[[0, 2]], expected)


@in_modes
def test_a_mask_resets_some_rows_and_leaves_the_others_as_they_are(mode: AutoresetMode):
    """Also where no episode ends early, so that rows are no longer in step."""
    for family in (Corridor(), Reach(horizon=4)):
        envs, untouched = (GymVectorEnv(family, 4, autoreset_mode=mode) for _ in range(2))
        for env in (envs, untouched):
            env.reset(seed=[1, 2, 3, 4])
        mask, action = np.array([False, True, False, True]), np.stack([0 * one(envs.single_action_space)] * 4)
        for env in (envs, untouched):
            env.step(action)
        given = {"reset_mask": mask}
        obs, infos = envs.reset(options=given)
        assert given == {"reset_mask": mask}, "options are not modified"
        assert infos["_episode_index"].tolist() == mask.tolist()
        before = untouched.step(action)
        after = envs.step(action)
        for a, b in zip(before[:4], after[:4]):
            assert np.array_equal(a[~mask], b[~mask])
        single = GymEnv(family)
        single.reset(seed=2)
        assert np.array_equal(obs[1], single.reset()[0]), "trial 1 of its seed"
        steps = [single.step(action[1]) for _ in range(family.horizon)]
        truncated = [bool(after[3][1])] + [
            bool(envs.step(action)[3][1]) for _ in range(3 if mode is not DISABLED else 1)
        ]
        assert truncated == [step[3] for step in steps][: len(truncated)]


def test_a_row_that_was_reset_by_a_mask_is_not_reset_again():
    envs = GymVectorEnv(Corridor(), 2)
    envs.set_task([Length(torch.tensor([1])), Length(torch.tensor([9]))])
    envs.reset(seed=0)
    _, _, terminated, _, _ = envs.step(np.ones(2, dtype=int))
    assert terminated.tolist() == [True, False]
    envs.reset(options={"reset_mask": terminated})
    _, reward, terminated, _, _ = envs.step(np.ones(2, dtype=int))
    assert terminated.tolist() == [True, False] and reward[0] >= 1.0


def test_options_of_a_partial_reset_are_for_its_rows():
    envs = GymVectorEnv(Corridor(), 4, autoreset_mode=SAME_STEP)
    envs.reset(seed=0)
    mask = np.array([True, False, False, True])
    envs.reset(options={"reset_mask": mask, "split": "ood"})
    for _ in range(30):
        lengths = envs.get_task().length
        assert set(lengths[mask].tolist()) <= {6, 7} and set(lengths[~mask].tolist()) <= {1, 2, 4}
        envs.step(np.ones(4, dtype=int))
    envs.reset(options={"reset_mask": mask, "task": Length(torch.tensor([3]))})
    for _ in range(30):
        lengths = envs.get_task().length
        assert set(lengths[mask].tolist()) == {3} and set(lengths[~mask].tolist()) <= {1, 2, 4}
        envs.step(np.ones(4, dtype=int))
    envs.reset()
    assert set(envs.get_task().length.tolist()) <= {1, 2, 4}


def test_actions_of_rows_that_only_start_again_are_not_looked_at():
    envs = GymVectorEnv(Corridor(), 2)
    envs.set_task([Length(torch.tensor([1])), Length(torch.tensor([9]))])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        envs.step(np.array([99, 1]))
    envs.step(np.array([1, 1]))
    obs, reward, terminated, truncated, infos = envs.step(np.array([99, 1]))
    assert reward[0] == 0.0 and obs[0, 0] == 0.0 and not terminated.any() and not truncated.any()
    assert infos["episode_index"].tolist() == [0, 0]


def test_the_mode_is_an_option_and_stands_where_others_look_for_it():
    for mode in AutoresetMode:
        for given in (mode, mode.value):
            envs = gymnasium.make_vec(ID, num_envs=2, autoreset_mode=given)
            assert envs.metadata["autoreset_mode"] is envs.autoreset_mode is mode
    assert gymnasium.make_vec(ID).metadata["autoreset_mode"] is NEXT_STEP
    assert GymVectorEnv.metadata["autoreset_mode"] is NEXT_STEP
    with pytest.raises(
        ValueError, match=r"autoreset_mode must be one of AutoresetMode.NEXT_STEP .*, got 'sometimes'\.$"
    ):
        gymnasium.make_vec(ID, autoreset_mode="sometimes")
    again = gymnasium.make_vec(gymnasium.make_vec(ID, num_envs=2, trial=True, autoreset_mode=SAME_STEP).spec)
    assert again.num_envs == 2 and again.autoreset_mode is SAME_STEP


@pytest.mark.parametrize("trial", ["yes", 1, None])
def test_trial_is_true_or_false(trial: object):
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(ValueError, match="trial must be True or False, got"):
            make(ID, trial=trial)


@with_trials
def test_max_episode_steps(trial: bool):
    """As `gymnasium.make` does with `TimeLimit`; a limit beyond the end of a trial changes nothing."""
    envs = gymnasium.make_vec(ID, num_envs=2, max_episode_steps=3, trial=trial)
    envs.reset(seed=0)
    ends = [envs.step(np.zeros(2, dtype=np.int64))[3].tolist() for _ in range(7)]
    assert ends == [[n in (2, 6)] * 2 for n in range(7)]
    assert not envs.step(np.zeros(2, dtype=np.int64))[2].any()
    for limit in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="max_episode_steps must be a whole number of at least one"):
            gymnasium.make_vec(ID, max_episode_steps=limit)
    long, free = (GymVectorEnv(Corridor(), 2, max_episode_steps=n, trial=True) for n in (1000, None))
    long.reset(seed=0), free.reset(seed=0)
    for _ in range(40):
        a, b = long.step(np.ones(2, dtype=int)), free.step(np.ones(2, dtype=int))
        assert all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4]))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda envs: envs.reset(seed=[1, 2]), ValueError, "one for each of the 3 rows, got 2"),
    (lambda envs: envs.reset(seed=[1, 2, -3]), ValueError, "seed must be a whole number of at least 0, got -3"),
    (lambda envs: envs.reset(seed="x"), ValueError, "seed must be a whole number of at least 0, got 'x'"),
    (lambda envs: envs.reset(seed=1.5), ValueError, "seed must be a whole number of at least 0, got 1.5"),
    (lambda envs: envs.reset(options={"reset_mask": [1, 0, 1]}), ValueError, r"bool array of shape \(3,\)"),
    (lambda envs: envs.reset(options={"reset_mask": np.zeros(3, bool)}), ValueError, "True somewhere"),
    (lambda envs: envs.reset(options={"reset_mask": np.ones(2, bool)}), ValueError, r"bool array of shape \(3,\)"),
    (lambda envs: envs.reset(options={"mask": 1}), ValueError, "Did you mean"),
    (lambda envs: envs.step([1, 1, 1]) and envs.step([1, 1, 1]), gymnasium.error.ResetNeeded, "reset_mask.*: 0, 2"),
    (lambda envs: GymVectorEnv(Corridor(), 2).step([1, 1]), ValueError, "reset"),
    (lambda envs: GymVectorEnv(Corridor(), 2).reset(options={"reset_mask": np.array([True, False])}), ValueError,
     "first reset must reset all rows"),
])  # fmt: skip
def test_mistakes_are_one_sentence(call, error: type, message: str):
    envs = GymVectorEnv(Corridor(), 3, autoreset_mode=DISABLED)
    envs.set_task([Length(torch.tensor([n])) for n in (1, 9, 1)])
    envs.reset(seed=0)
    with pytest.raises(error, match=message) as caught:
        call(envs)
    assert "\n" not in str(caught.value)


@in_modes
def test_a_copy_goes_on_alike(mode: AutoresetMode):
    envs = GymVectorEnv(Corridor(), 3, trial=True, autoreset_mode=mode, max_episode_steps=5)
    envs.set_task(Length(torch.tensor([2])))
    envs.reset(seed=[1, None, 2])
    envs.step(np.ones(3, dtype=int))
    twin = copy.deepcopy(envs)
    if mode is DISABLED:
        for env in (envs, twin):
            env.reset(options={"reset_mask": np.array([True, False, True])})
    for _ in range(1 if mode is DISABLED else 8):
        a, b = envs.step(np.ones(3, dtype=int)), twin.step(np.ones(3, dtype=int))
        assert all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4])) and equal(a[4], b[4])


def test_nothing_returned_is_shared():
    envs = GymVectorEnv(Corridor(), 2)
    obs, infos = envs.reset(seed=0)
    kept = obs.copy()
    obs[:], infos["episode_index"][:] = -1, 99
    again, _ = envs.reset(options={"reset_mask": np.array([True, False])})
    assert np.array_equal(again[1], kept[1])
    infos = envs.step(np.ones(2, dtype=int))[4]
    assert infos["episode_index"].tolist() == [0, 0]
