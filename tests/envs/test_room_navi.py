"""RoomNavi: its rooms and tasks, goals that pay only in order, and returns that are exact."""

import functools
import itertools

import pytest
import torch
from test_envs import assert_mean, play, random_policy
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.mazes import RoomNaviOracle, RoomNaviSearch
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.checks import checked_task
from metarl.core.tree import num_rows, take
from metarl.envs.grids.grid import MOVES
from metarl.envs.grids.room_navi import CELLS, RoomGoals, RoomNavi, RoomState, action_values, cell_number
from metarl.testing import check_family

STAY, UP, RIGHT, DOWN, LEFT = range(5)
PLAN = """\
...###...###...
...............
...###...###..."""
FREE = {(x - 7, 1 - y) for y, line in enumerate(PLAN.splitlines()) for x, cell in enumerate(line) if cell == "."}
KEY = torch.zeros(1, dtype=torch.int64)

Place = tuple[int, int]


def goals(*places: Place) -> RoomGoals:
    return RoomGoals(*(torch.tensor([place]) for place in places))


def rows(task: RoomGoals) -> list[tuple[Place, ...]]:
    return [tuple(tuple(goal.tolist()) for goal in row) for row in zip(*task, strict=True)]


def moved(place: Place, action: int) -> Place:
    there = place[0] + MOVES[action][0], place[1] + MOVES[action][1]
    return there if there in FREE else place


def paid(task: tuple[Place, ...], place: Place, reached: int) -> tuple[int, float]:
    """The rules in plain Python: goals reached, and the reward."""
    if place == task[0]:
        return max(reached, 1), 1.0
    if reached >= 1 and place == task[1]:
        return max(reached, 2), 10.0
    if reached >= 2 and place == task[2]:
        return 3, 100.0
    return reached, -0.1


def test_contract():
    check_family(RoomNavi())
    check_family(RoomNavi(episodes_per_trial=2))
    with pytest.raises(ValueError, match="episodes_per_trial must be a whole number of at least 1"):
        RoomNavi(episodes_per_trial=0)


def test_rooms_and_corridors():
    assert set(CELLS) == FREE and len(CELLS) == 33
    assert cell_number(torch.tensor(CELLS)).tolist() == list(range(33))
    family, task = RoomNavi(), goals((1, 1), (5, 1), (-1, 1))
    for place, action in itertools.product(CELLS, range(5)):
        state = RoomState(torch.tensor([place]), torch.zeros(1, dtype=torch.int64))
        after, _, _ = family.step(task, state, torch.tensor([action]), KEY)
        assert tuple(after.position[0].tolist()) == moved(place, action), (place, action)


def test_tasks():
    """By the published rules: goal 2 on the side of goal 1, goal 3 in another corner of the middle room."""
    around = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    every = {
        (first, (6 * first[0] + dx, dy), third)
        for first, (dx, dy), third in itertools.product(around, around, around)
        if third != first
    }
    part = {split: rows(RoomNavi().enumerate_tasks(split)) for split in ("all", "train", "test", "ood")}
    assert set(part["all"]) == every and len(part["all"]) == 48
    assert set(part["train"]) | set(part["test"]) == every and not set(part["train"]) & set(part["test"])
    assert (len(part["train"]), len(part["test"]), RoomNavi().num_tasks("valid")) == (36, 12, 12)
    assert len(set(part["ood"])) == 64 and not set(part["ood"]) & every
    assert all(third[0] * first[0] < -4 and second[0] * first[0] > 4 for first, second, third in part["ood"])


def test_the_test_tasks_stay_what_they_are():
    """The partition is the library's own generator's: these first rows pin it."""
    first, second = rows(RoomNavi().enumerate_tasks("test"))[:2]
    assert first == ((-1, -1), (-7, -1), (1, 1)) and second == ((-1, -1), (-5, -1), (1, -1))


def walk(task: RoomGoals, actions: list[int], place: Place = (0, 0), reached: int = 0) -> list[tuple[float, int, bool]]:
    """Reward, goals reached and success after each action."""
    family, log = RoomNavi(), []
    state = RoomState(torch.tensor([place]), torch.tensor([reached]))
    for action in actions:
        state, reward, ended = family.step(task, state, torch.tensor([action]), KEY)
        assert not ended.any()
        log.append((round(float(reward), 3), int(state.reached), bool(family.success(task, state))))
    return log


def test_goals_pay_in_order():
    task = goals((1, 1), (5, 1), (-1, 1))
    nothing, one, two = (-0.1, 0, False), (-0.1, 1, False), (-0.1, 2, False)
    assert walk(task, [LEFT, UP]) == [nothing] * 2, "the third goal pays nothing yet"
    assert walk(task, [RIGHT] * 5 + [UP]) == [nothing] * 6, "nor does the second one"
    to_first = walk(task, [RIGHT, UP, STAY, UP])
    assert to_first == [nothing, (1.0, 1, False), (1.0, 1, False), (1.0, 1, False)]
    assert walk(task, [LEFT, LEFT, UP], (1, 1), 1) == [one] * 2 + [one], "the third one pays only after the second"
    to_second = walk(task, [DOWN, RIGHT, RIGHT, RIGHT, RIGHT, UP, STAY], (1, 1), 1)
    assert to_second == [one] * 5 + [(10.0, 2, False)] * 2
    back = walk(task, [DOWN, LEFT, LEFT, LEFT, LEFT, UP, LEFT, LEFT, STAY, RIGHT], (5, 1), 2)
    assert back == [two] * 5 + [(1.0, 2, False), two, (100.0, 3, True), (100.0, 3, True), (-0.1, 3, True)]


def test_what_was_reached_is_forgotten_at_the_end_of_an_episode():
    family, task = RoomNavi(), goals((1, 1), (5, 1), (-1, 1))
    env = BatchEnv(family, task, rng.key(0), episodes=2)
    env.reset()
    way = [UP, RIGHT] + [STAY] * 48
    for number, action in enumerate(way):
        outcome, step = env.step(torch.tensor([action]))
        assert bool(outcome.truncated) == (number == 49)
    assert env.final_state.reached.tolist() == [1] and env.state.reached.tolist() == [0]
    assert step.obs.tolist() == [[0, 0]]


def test_the_world_looks_the_same_whatever_the_goals():
    """A task-blind, memory-less policy cannot beat chance: what it sees follows from its actions alone."""
    family = RoomNavi()
    task = family.enumerate_tasks("all")
    state = family.reset(task, torch.zeros(48, dtype=torch.int64))
    for t in range(family.horizon):
        seen = family.observe(task, state)
        assert (seen == seen[:1]).all()
        action = rng.integers(rng.fold(rng.key(0), t), 1, 5).expand(48)
        state, _, _ = family.step(task, state, action, torch.zeros(48, dtype=torch.int64))


# ---- exact values --------------------------------------------------------------------------------------------------

NEAR = [((1, 0), (1, 1), (0, 1)), ((-1, 0), (0, 1), (0, -1)), ((0, 0), (2, 0), (0, 0)), ((1, 0), (1, 0), (0, 1))]


@pytest.mark.parametrize("places", NEAR)
def test_values_are_those_of_all_sequences_of_actions(places: tuple[Place, ...]):
    """Goals so near that six steps show everything: the maximum and the mean over all 15,625 sequences."""
    family, steps = RoomNavi(), 6
    actions = torch.cartesian_prod(*[torch.arange(5)] * steps)
    n = len(actions)
    task = take(goals(*places), torch.zeros(n, dtype=torch.int64))
    state = family.reset(task, torch.zeros(n, dtype=torch.int64))
    total = torch.zeros(n, dtype=torch.float64)
    for t in range(steps):
        state, reward, _ = family.step(task, state, actions[:, t], torch.zeros(n, dtype=torch.int64))
        total += reward.double()
    family.horizon = steps
    assert float(family.oracle(goals(*places))) == pytest.approx(float(total.max()), abs=1e-4)
    assert float(family.random_return(goals(*places))) == pytest.approx(float(total.mean()), abs=1e-4)


def planned(task: tuple[Place, ...], steps: int, mean: bool) -> float:
    """Dynamic programming of its own, in plain Python."""

    @functools.cache
    def value(place: Place, reached: int, left: int) -> float:
        if not left:
            return 0.0
        arrived = []
        for action in range(5):
            there = moved(place, action)
            now, reward = paid(task, there, reached)
            arrived.append(reward + value(there, now, left - 1))
        return sum(arrived) / 5 if mean else max(arrived)

    return value((0, 0), 0, steps)


@pytest.mark.parametrize("split", ["all", "ood"])
def test_values_are_those_of_another_program(split: str):
    family = RoomNavi()
    task = take(family.enumerate_tasks(split), slice(0, None, 9))
    for number, places in enumerate(rows(task)):
        one = take(task, [number])
        assert float(family.oracle(one)) == pytest.approx(planned(places, 50, mean=False), abs=1e-3)
        assert float(family.random_return(one)) == pytest.approx(planned(places, 50, mean=True), abs=1e-4)


def test_means_are_those_of_the_docstring():
    family = RoomNavi()
    task = family.enumerate_tasks("all")
    assert float(family.oracle(task).mean()) == pytest.approx(3376.6, abs=0.05)
    assert float(family.random_return(task).mean()) == pytest.approx(0.152, abs=5e-4)
    assert float(evaluate(RoomNaviSearch(), family, tasks=task).returns.mean()) == pytest.approx(2809.0, abs=0.05)


def test_values_of_actions_have_a_row_for_each_task():
    task = RoomNavi().enumerate_tasks("all")
    whole = action_values(task, 20, lambda q: q.amax(-1))
    assert whole.shape == (48, 4, 33, 5)
    for number in (0, 17, 47):
        assert torch.equal(action_values(take(task, [number]), 20, lambda q: q.amax(-1))[0], whole[number])


@pytest.mark.parametrize("split", ["all", "ood"])
def test_the_oracle_earns_the_optimum_and_random_actions_what_is_said(split: str):
    family = RoomNavi(episodes_per_trial=2)
    task = family.enumerate_tasks(split)
    returns = torch.from_numpy(evaluate(RoomNaviOracle(50), family, tasks=task).returns[0])
    torch.testing.assert_close(
        returns, family.oracle(task)[:, None].expand(-1, 2), rtol=1e-6, atol=0, check_dtype=False
    )
    often = torch.arange(20_000) % num_rows(task)
    returns = play(family, take(task, often), random_policy(family))[:, 0]
    assert_mean(returns - family.random_return(task)[often], 0.0, within=2.0)


def test_a_search_finds_all_goals_and_goes_straight_to_them_in_the_next_episode():
    family = RoomNavi(episodes_per_trial=3)
    task = family.enumerate_tasks("all")
    returns = torch.from_numpy(evaluate(RoomNaviSearch(), family, tasks=task).returns[0])
    assert (returns[:, 0] > 1900).all(), "each of the 48 tasks is solved in the first episode"
    optimum = family.oracle(task).double()
    assert ((optimum - returns[:, 1]) < 5).all() and torch.equal(returns[:, 1], returns[:, 2])


@pytest.mark.parametrize("place", [(3, 1), (8, 0), (0, 2), (-9, 0)])
def test_goals_in_a_wall_are_refused(place: Place):
    with pytest.raises(ValueError, match=r"^RoomGoals\.second must be a cell .*\.$"):
        checked_task(RoomNavi(), goals((1, 1), place, (-1, 1)))


def test_a_row_of_a_batch_equals_a_batch_of_one():
    family, n = RoomNavi(), 6
    task = take(family.enumerate_tasks("all"), slice(0, 48, 8))
    actions = [random_policy(family)(BatchEnv(family, task, rng.key(0)).reset(), t) for t in range(50)]

    def trace(index: slice) -> Tensor:
        env = BatchEnv(family, take(task, index), rng.key(2), 1, first_row=index.start)
        env.reset()
        seen = [env.step(action[index]) for action in actions]
        return torch.stack([torch.cat([step.obs, outcome.reward[:, None]], dim=1) for outcome, step in seen])

    whole = trace(slice(0, n))
    assert all(torch.equal(whole[:, i : i + 1], trace(slice(i, i + 1))) for i in range(n))
