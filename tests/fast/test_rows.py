"""A batch of one row plays the trials that the plain environment defines, bit for bit, and so do the views of it."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from registered_families import IDS
from small_families import Corridor, Length, Reach, TwoDoors
from torch import Tensor

import metarl
from metarl.core import rng, tree
from metarl.core.batch_env import BatchEnv, make_env
from metarl.core.family import TaskFamily
from metarl.core.host.calls import on_host
from metarl.fast import twins
from metarl.fast.rows import skill as skills
from metarl.fast.rows.env import RowEnv
from metarl.fast.rows.program import as_row, learned, same_bits
from metarl.fast.rows.tape import NotRecorded
from metarl.interop.gym_env import GymEnv
from metarl.testing.contract import random_action


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch):
    """Programs are made at the third step of a family."""
    monkeypatch.setattr(skills, "PATIENCE", 2)


def same(one: Any, other: Any) -> bool:
    return same_bits(as_row(one), as_row(other))


def both(family: TaskFamily) -> tuple[BatchEnv, RowEnv]:
    task = family.sample_tasks(rng.key(3), 1)
    return BatchEnv(family, task, rng.key(1)), RowEnv(family, task, rng.key(1))


def action_at(family: TaskFamily, step: int) -> Tensor:
    return random_action(family.action_space, rng.fold(rng.key(9)[None], step))


def assert_alike(plain: BatchEnv, fast: RowEnv, steps: range) -> None:
    for number in steps:
        action = action_at(plain.family, number)
        assert same(plain.step(action), fast.step(action)), number
        if number % 5 == 0:
            assert same((plain.alive, plain.episode), (fast.alive, fast.episode))
            assert same((plain.state, plain.final_state), (fast.state, fast.final_state))


@pytest.mark.parametrize("name", [name for name in IDS if not metarl.make(name).opaque])
def test_trials_of_every_family(name: str):
    """Across the ends of episodes and of the trial, and after a restart; no family has to be played plainly."""
    family = metarl.make(name)
    plain, fast = both(family)
    assert same(plain.reset(), fast.reset())
    assert_alike(plain, fast, range(12))
    assert fast.playable and fast.why_not is None
    late = max(family.horizon - 16, 12)
    for env in (plain, fast):
        env._step += late - 12  # near the end of a long episode
    assert_alike(plain, fast, range(late, late + 8))
    again = torch.tensor([0]), plain.task, 5
    assert same(plain.restart(*again), fast.restart(*again))
    assert_alike(plain, fast, range(6))
    assert same(plain.reset(), fast.reset())
    assert_alike(plain, fast, range(4))


@pytest.mark.parametrize("family", [Corridor(), TwoDoors(), Reach(horizon=4)], ids=lambda f: type(f).__name__)
def test_whole_trials_end_where_plain_ones_do(family: TaskFamily):
    plain, fast = both(family)
    for _ in range(3):
        assert same(plain.reset(), fast.reset())
        for number in range(plain.max_steps):
            assert plain.all_done() == fast.all_done()
            assert_alike(plain, fast, range(number, number + 1))
        assert plain.all_done() and fast.all_done()
    assert fast.playable


def episodes(env: GymEnv, steps: int) -> list[Any]:
    """Everything that a user sees, with the bits of the numbers."""
    obs, info = env.reset(seed=4)
    seen: list[Any] = [(obs.tobytes(), obs.dtype, info)]
    env.action_space.seed(2)
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        seen.append((obs.tobytes(), obs.dtype, obs.shape, type(reward), reward, terminated, truncated, info))
        assert env.observation_space.contains(obs)
        if terminated or truncated:
            obs, info = env.reset()
            seen.append((obs.tobytes(), info, [leaf.tolist() for leaf in tree.leaves(env.get_task())]))
    return seen


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("id", ["CartPole", "GridNavi", "BernoulliBandit", "Pendulum", "TreasureHunt", "FewShotDigits"])
def test_gymnasiums_view_shows_the_same(id: str, trial: bool):
    with twins.plain(twins.STEPPING):
        expected = episodes(GymEnv(f"metarl/{id}-v0", trial=trial), 60)
    env = GymEnv(f"metarl/{id}-v0", trial=trial)
    assert episodes(env, 60) == expected
    assert env._stream.play(env._usual(env.action_space.sample())) is not None, "it was played without tensors"


def test_the_view_keeps_to_tasks_and_seeds_that_are_set():
    def played() -> list[Any]:
        env = GymEnv(Corridor())
        seen = episodes(env, 30)
        env.set_task(Length(torch.tensor([5])))
        seen += episodes(env, 30)
        env.set_task(None)
        env.reset(options={"split": "ood"})
        return [*seen, int(env.get_task().length), *episodes(env, 30)]

    with twins.plain(twins.STEPPING):
        expected = played()
    assert played() == expected


def test_what_a_user_keeps_is_not_changed_later():
    env = GymEnv(Reach(horizon=50))
    env.reset(seed=0)
    action, seen = np.zeros(2, np.float32), []
    for number in range(10):
        action[:] = number / 10
        obs, *_ = env.step(action)
        seen.append((obs, obs.copy()))
        obs[:] = obs
        action[:] = 99.0
    assert all((kept == before).all() for kept, before in seen)


def test_results_that_are_changed_in_place_change_nothing_else():
    plain, fast = both(metarl.make("metarl/GridNavi-v0"))
    assert same(plain.reset(), fast.reset())
    for number in range(40):
        action = action_at(plain.family, number)
        expected, found = plain.step(action), fast.step(action)
        assert same(expected, found)
        for leaf in (found[0].final_obs, found[1].obs, found[0].terminated):
            leaf += True


class Looks(Corridor):
    def step(self, task, state, action, key):
        return super().step(task, state, action + int(state.place > 100), key)


class Lists(Corridor):
    def step(self, task, state, action, key):
        return super().step(task, state, action + len(state.place.tolist()) - 1, key)


class Draws(Corridor):
    def step(self, task, state, action, key):
        return super().step(task, state, action + (torch.rand(1) > 2.0), key)


class Writes(Corridor):
    def step(self, task, state, action, key):
        both = torch.zeros(2, dtype=torch.int64)
        both[0] += action[0]
        return super().step(task, state, both[:1], key)


@pytest.mark.parametrize("kind", [Looks, Lists, Draws, Writes])
def test_what_cannot_be_recorded_is_played_plainly(kind: type[Corridor]):
    plain, fast = both(kind())
    assert same(plain.reset(), fast.reset())
    assert_alike(plain, fast, range(14))
    assert fast.why_not is not None and not fast.playable


def test_a_family_that_is_changed_is_recorded_again():
    family = Corridor()
    _, fast = both(family)
    fast.reset()
    for number in range(8):
        fast.step(action_at(family, number))
    assert fast.playable
    family.horizon = 3
    plain, fast = both(family)
    assert not fast.playable
    assert same(plain.reset(), fast.reset())
    assert_alike(plain, fast, range(9))
    assert fast.playable


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_as_the_original(clone: Callable[[Any], Any]):
    env = GymEnv("metarl/CartPole-v0", trial=True)
    episodes(env, 20)
    twin = clone(env)
    for _ in range(20):
        one, other = env.step(1), twin.step(1)
        assert one[0].tobytes() == other[0].tobytes() and one[1:] == other[1:]
        if one[2] or one[3]:
            env.reset(), twin.reset()


def test_a_state_that_somebody_sets_counts():
    plain, fast = both(Corridor(horizon=50))
    plain.reset(), fast.reset()
    assert_alike(plain, fast, range(5))
    for env in (plain, fast):
        env.state = env.state._replace(place=env.state.place - 30)
    assert_alike(plain, fast, range(5, 10))


def test_gradients_pass_through_steps():
    _, fast = both(Reach())
    fast.reset()
    for _ in range(5):
        fast.step(torch.zeros(1, 2))
    action = torch.zeros(1, 2, requires_grad=True)
    fast.step(action)[0].reward.sum().backward()
    assert action.grad is not None and bool(action.grad.any())


ODD = [0.0, -0.0, 1.5, -2.5, math.nan, math.inf, -math.inf, 1e-40, 3e38, 16777217.0]
ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sums": lambda a, b: (a + b) * 3 - b / a - 1,
    "scalars": lambda a, b: 0.1 * a + 2 * b - (1 - a),
    "clips": lambda a, b: a.clamp(-0.3, 2.0) + b.clamp_min(0.0) - a.clamp_max(0) + b.clamp(min=0.25),
    "signs of zeros": lambda a, b: 1.0 / torch.stack([a.clamp_min(0.0), b.clamp_max(0.0), -a, b.abs()]),
    "choices": lambda a, b: torch.where((a > b) | (b != b), a, torch.where(a == 0.1, 1.0, b)),
    "functions": lambda a, b: torch.sin(a) + torch.exp(-b.abs()) + a.square().sqrt() + torch.remainder(a, math.pi),
    "larger": lambda a, b: torch.maximum(a, b) + torch.minimum(a, b),
    "doubles": lambda a, b: (a.double() * 0.1 + b).float(),
    "whole numbers": lambda a, b: ((a > 0).to(torch.int64) * (2**62 + 7) * 5 ^ (b > 1)) >> 3,
    "remainders": lambda a, b: ((a > 0).to(torch.int64) - 5) % 3 + (4 - (b > 0).to(torch.int64)) // 2,
    "truths": lambda a, b: torch.stack([a > 0, ~(b <= 1), (a >= b) & (a < 3)], -1).all(-1) | (a == b),
    "shapes": lambda a, b: torch.cat([a.reshape(-1, 1), b.reshape(-1, 1)], 1).flip(0)[:, 1].unsqueeze(0),
    "places": lambda a, b: torch.stack([a, b]).gather(0, (a > b).to(torch.int64)[None]) + torch.stack([a, b])[1],
    "tables": lambda a, b: torch.arange(7.0)[((a > b).to(torch.int64) + 2)] * torch.zeros_like(b),
    "reductions": lambda a, b: (torch.stack([a, b]).sum(0) + torch.stack([a, b], 1).amax(1)).cumsum(0),
    "roots in place": lambda a, b: (a * a).sqrt_().neg_() + b,
    "on the host": lambda a, b: on_host(lambda_of_arrays, a, b)[0] * 2,
}


def lambda_of_arrays(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray]:
    return (np.where(np.isnan(a), b, a),)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_programs_have_torchs_bits(name: str):
    """For a row of one number and for several, with zeros of both signs, infinities and what is no number."""
    function = ARITHMETIC[name]
    pairs = [(torch.tensor([a]), torch.tensor([b])) for a in ODD for b in ODD]
    program = learned(function, *pairs[22:24]).copy()
    for pair in pairs:
        assert same_bits(as_row(function(*pair)), program(*as_row(pair))), pair
    many = torch.tensor(ODD), torch.tensor(ODD).roll(3)
    assert same_bits(as_row(function(*many)), learned(function, many).copy()(*as_row(many)))


def test_a_number_that_is_not_of_the_arguments_is_refused():
    numbers = iter(range(10))
    with pytest.raises(NotRecorded, match="two calls did not do the same"):
        learned(lambda a: a + next(numbers), (torch.ones(1),), (torch.ones(1),))


def test_what_is_made():
    family = Corridor()
    assert type(make_env(family, Length(torch.tensor([2])), rng.key(0))) is RowEnv
    with twins.plain():
        assert type(make_env(family, Length(torch.tensor([2])), rng.key(0))) is BatchEnv
