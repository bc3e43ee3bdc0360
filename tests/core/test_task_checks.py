"""Tasks that users give: right ones are played, wrong and impossible ones end in one sentence, in every view."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from registered_families import IDS
from small_families import Corridor, Length, Reach, Target
from torch import Tensor

import metarl
from metarl.core import rng
from metarl.core.checks import checked_task
from metarl.core.tree import features, take
from metarl.envs.bandits.bernoulli import BernoulliArms
from metarl.envs.bandits.informative import InformativeArms
from metarl.envs.bandits.restless import Walk
from metarl.envs.cognitive.alchemy import Chemistry
from metarl.envs.cognitive.two_step import Rounds
from metarl.envs.control.mountain_car import MountainCarScales
from metarl.envs.grids.dark_room import DarkTask
from metarl.envs.grids.grid_navi import GoalCell
from metarl.envs.grids.key_to_door import KeyDoorTask
from metarl.envs.grids.meta_maze import Maze, lattice
from metarl.envs.grids.tmaze import Corridor as Lane
from metarl.envs.mdp import Tables
from metarl.envs.points.windy import Wind
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.interop.sb3_env import SB3VecEnv


@pytest.mark.parametrize("id", IDS)
def test_a_family_s_own_tasks_are_right(id: str):
    """Those of every split, one or many, also as NumPy arrays."""
    family = metarl.make(id)
    for split in family.splits:
        task = family.sample_tasks(rng.key(1), 40, split)
        checked = checked_task(family, task)
        assert type(checked) is type(task) and all(a is b for a, b in zip(checked, task))
        again = checked_task(family, type(task)(*(field.numpy() for field in take(task, slice(0, 1)))))
        assert torch.equal(features(again), features(task)[:1])
        assert [field.dtype for field in again] == [field.dtype for field in task]


def test_numpy_of_a_simpler_kind_is_converted_and_copied():
    array = np.array([[0.5, 0.25]])  # float64
    task = checked_task(Reach(), Target(array))
    array[:] = 9.0
    assert task.position.dtype == torch.float32 and task.position.tolist() == [[0.5, 0.25]]
    assert checked_task(Reach(), Target(np.array([[1, 0]]))).position.tolist() == [[1.0, 0.0]]
    for number in (np.array([3]), np.array([3], np.uint8), np.array([3, 4])[:1]):
        assert checked_task(Corridor(), Length(number)).length.tolist() == [3]
    backwards = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)[::-1]
    assert checked_task(Reach(), Target(backwards)).position.tolist() == [[2.0, 3.0], [0.0, 1.0]]


WRONG: dict[str, tuple[Any, str]] = {
    "another family's": (Length(torch.ones(2).long()), r"^A task of Reach must be a Target, got a value of Length\.$"),
    "a bare tensor": (torch.zeros(2, 2), r"^A task of Reach must be a Target, got a value of Tensor\.$"),
    "a dictionary": ({"position": 1}, r"^A task of Reach must be a Target, got a value of dict\.$"),
    "a number": (3, r"got a value of int\.$"),
    "a list in it": (Target([[0.0, 0.0]]), r"^Target.position must be .*\(N, 2\), got a value of list\.$"),
    "a missing field": (Target(None), r"^Target.position must be .*, got a value of NoneType\.$"),
    "float64": (Target(torch.zeros(2, 2).double()), r"float32 of shape \(N, 2\), got float64 of shape \(2, 2\)\.$"),
    "integers": (Target(torch.zeros(2, 2).long()), r"got int64 of shape \(2, 2\)\.$"),
    "complex NumPy": (Target(np.zeros((2, 2), complex)), r"got a NumPy array: complex128 of shape \(2, 2\)\.$"),
    "texts": (Target(np.array([["a", "b"]])), r"got a NumPy array: <U1 of shape \(1, 2\)\.$"),
    "objects": (Target(np.array([[None, 1]])), r"got a NumPy array: object of shape \(1, 2\)\.$"),
    "another shape": (Target(torch.zeros(2, 3)), r"shape \(N, 2\), got float32 of shape \(2, 3\)\.$"),
    "no rows": (Target(torch.zeros(2)), r"shape \(N, 2\), got float32 of shape \(2,\)\.$"),
    "no rows in NumPy": (Target(np.zeros(2)), r"shape \(N, 2\), got a NumPy array: float64 of shape \(2,\)\.$"),
    "zero rows": (Target(torch.zeros(0, 2)), "one row per task, got 0 rows"),
    "NaN": (Target(torch.tensor([[0.0, torch.nan]])), r"^Target.position must be finite, got nan or inf\.$"),
    "inf": (Target(torch.tensor([[0.0, -torch.inf]])), "finite"),
    "too large for float32": (Target(np.array([[0.0, 1e300]])), "finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tasks_get_one_sentence(name: str):
    task, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        checked_task(Reach(), task)
    assert "\n" not in str(caught.value)


def test_a_float_is_no_index():
    for number in (np.array([3.0]), torch.tensor([3.0])):
        with pytest.raises(ValueError, match=r"Length.length must be int64 of shape \(N,\)"):
            checked_task(Corridor(), Length(number))


class Inner(NamedTuple):
    number: Tensor


class Outer(NamedTuple):
    inner: Inner
    weight: Tensor


class Nested(Corridor):
    def draw_tasks(self, keys, split):
        return Outer(Inner(rng.integers(keys, 1, 3)), rng.uniform(keys, 1)[:, 0])


def test_fields_inside_fields_are_named():
    whole = torch.zeros(4, 1, dtype=torch.int64)
    checked_task(Nested(), Outer(Inner(whole), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"Outer.inner.number must be int64 of shape \(N, 1\)"):
        checked_task(Nested(), Outer(Inner(torch.zeros(4, 1)), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"one row per task, got 3, 4 rows"):
        checked_task(Nested(), Outer(Inner(whole), torch.zeros(3)))
    with pytest.raises(ValueError, match=r"Outer.inner must be a Inner, got float32"):
        checked_task(Nested(), Outer(torch.zeros(4), torch.zeros(4)))


def two(x: int, y: int) -> Tensor:
    return torch.tensor([[x, y]])


FIVE = torch.arange(5)[None]
OPEN, BLOCKED = lattice()[None].clone(), lattice()[None].clone()
OPEN[0, 0, 3], BLOCKED[0, 4, 4] = False, True
IMPOSSIBLE: dict[str, tuple[str, Any, str]] = {
    "a cell outside": ("GridNavi", GoalCell(two(9, 9)), r"^GoalCell.goal must be from 0 to 4, got 9\.$"),
    "a negative cell": ("GridNavi", GoalCell(two(0, -1)), "got -1"),
    "outside the room": ("DarkRoom", DarkTask(two(3, 9), FIVE), "DarkTask.goal must be from 0 to 8, got 9"),
    "outside the hard room": ("DarkRoomHard", DarkTask(two(17, 3), FIVE), "from 0 to 16, got 17"),
    "moves that there are not": ("DarkRoom", DarkTask(two(3, 3), FIVE + 1), "DarkTask.actions must be from 0 to 4"),
    "a key in the door": ("DarkKeyToDoor", KeyDoorTask(two(3, 3), two(3, 3), FIVE), "in different cells"),
    "a door outside": ("DarkKeyToDoor", KeyDoorTask(two(3, 3), two(3, 9), FIVE), "KeyDoorTask.door must be from 0"),
    "a goal in a wall": ("MetaMaze", Maze(lattice()[None], two(2, 2)), "free of walls"),
    "an open maze": ("MetaMaze", Maze(OPEN, two(1, 1)), "walls all around"),
    "a start in a wall": ("MetaMaze", Maze(BLOCKED, two(1, 1)), "free of walls"),
    "no arm": ("TMaze", Lane(torch.tensor([0]), torch.tensor([10])), "side must be 1 or -1"),
    "too long": ("TMaze", Lane(torch.tensor([1]), torch.tensor([99])), "length must be from 1 to 20, got 99"),
    "a probability": ("BernoulliBandit", BernoulliArms(torch.full((1, 5), 1.5)), "probs must be from 0 to 1, got 1.5"),
    "a dependent one": ("DependentBandit", BernoulliArms(torch.full((1, 2), -0.5)), "from 0 to 1, got -0.5"),
    "no such arm": ("InformativeBandit", InformativeArms(torch.tensor([10]), torch.ones(1)), "from 0 to 9, got 10"),
    "a restless one": ("RestlessBandit", Walk(torch.full((1, 2, 100), 2.0), torch.ones(1)), "Walk.probs"),
    "steps": ("RestlessBandit", Walk(torch.full((1, 2, 100), 0.5), -torch.ones(1)), "step_size must be at least 0"),
    "sums": ("TabularMDP", Tables(torch.zeros(1, 10, 5, 10), torch.zeros(1, 10, 5)), "must sum to 1"),
    "below 0": ("TabularMDP", Tables(-torch.ones(1, 10, 5, 10), torch.zeros(1, 10, 5)), "from 0 to 1, got -1"),
    "one state twice": ("TwoStep", Rounds(torch.zeros(1, 100), two(1, 1)), "must differ"),
    "no second state": ("TwoStep", Rounds(torch.zeros(1, 100), two(0, 1)), "from 1 to 2, got 0"),
    "a storm": ("WindyPoint", Wind(torch.tensor([[0.5, 0.0]])), "drift must be from -0.12 to 0.12, got 0.5"),
    "no weight": ("MountainCar", MountainCarScales(torch.zeros(1), torch.ones(1)), "gravity must be above 0, got 0"),
    "a colour": ("Alchemy", Chemistry(torch.ones(1, 12).bool(), torch.full((1, 6), 6), torch.ones(1, 3).long(),
                                      torch.zeros(1).long()), "potions must be from 0 to 5, got 6"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_tasks_get_one_sentence(name: str):
    id, task, message = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=message) as caught:
        checked_task(metarl.make(f"metarl/{id}-v0"), task)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["CartPole", "Pendulum", "Acrobot", "MountainCarContinuous", "HopperRandParams"])
def test_multipliers_are_above_zero(name: str):
    family = metarl.make(f"metarl/{name}-v0")
    task = family.sample_tasks(rng.key(0), 3)
    for field, values in zip(task._fields, task):
        wrong = values.clone()
        wrong[1] = -wrong[1]
        with pytest.raises(ValueError, match=f"{field} must be above 0, got -"):
            checked_task(family, task._replace(**{field: wrong}))


GIVEN = {
    "GymEnv.set_task": lambda family, task: GymEnv(family).set_task(task),
    "GymEnv.reset": lambda family, task: GymEnv(family).reset(options={"task": task}),
    "GymVectorEnv.set_task": lambda family, task: GymVectorEnv(family, 2).set_task(task),
    "GymVectorEnv.set_task, a list": lambda family, task: GymVectorEnv(family, 2).set_task([task, task]),
    "GymVectorEnv.reset": lambda family, task: GymVectorEnv(family, 2).reset(options={"task": task}),
    "SB3VecEnv.set_task": lambda family, task: SB3VecEnv(family, 2).env_method("set_task", task),
    "SB3VecEnv.set_options": lambda family, task: options_of_sb3(family, task),
}


def options_of_sb3(family, task) -> None:
    env = SB3VecEnv(family, 2)
    env.set_options({"task": task})
    env.reset()


@pytest.mark.parametrize("how", GIVEN)
@pytest.mark.parametrize("task", [GoalCell(two(9, 9)), GoalCell(np.zeros((1, 2))), GoalCell(None), 7, Length(FIVE[0])],
                         ids=["impossible", "floats", "missing", "number", "other"])  # fmt: skip
def test_every_view_refuses_them(how: str, task: Any):
    with pytest.raises(ValueError, match=r"^(A task of GridNavi|GoalCell.goal) .*\.$"):
        GIVEN[how](metarl.make("metarl/GridNavi-v0"), task)


@pytest.mark.parametrize("how", GIVEN)
def test_every_view_plays_numpy(how: str):
    GIVEN[how](metarl.make("metarl/GridNavi-v0"), GoalCell(np.array([[3, 3]])))


def test_a_refused_task_changes_nothing():
    env = GymEnv(metarl.make("metarl/GridNavi-v0"))
    env.set_task(GoalCell(two(3, 3)))
    with pytest.raises(ValueError, match="from 0 to 4"):
        env.set_task(GoalCell(two(9, 9)))
    env.reset(seed=0)
    assert env.get_task().goal.tolist() == [[3, 3]]
    envs = GymVectorEnv(env.family, 2)
    with pytest.raises(ValueError, match="at least one"):
        envs.set_task([])
    with pytest.raises(ValueError, match="one row or 2, got 3 rows"):
        envs.set_task([GoalCell(two(3, 3))] * 3)
