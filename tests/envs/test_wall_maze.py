"""WallMaze: mazes that can be solved, breadth-first search against a plain one, exact returns, small changes."""

import collections
import itertools

import pytest
import torch
from test_envs import assert_mean, play, random_policy
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.mazes import WallMazeOracle
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.checks import checked_task
from metarl.core.tree import num_rows, take
from metarl.envs.grids.grid import STEPS, Cell
from metarl.envs.grids.wall_maze import (
    FAR,
    NEAREST,
    WallMaze,
    WallTask,
    _any_maze,
    distances,
    moves_to_goal,
)
from metarl.testing import check_family

UP, RIGHT, DOWN, LEFT = range(4)
KEY = torch.zeros(1, dtype=torch.int64)


def keys(n: int, seed: int = 0) -> Tensor:
    return rng.fold(rng.key(seed), torch.arange(n))


def maze(start: tuple[int, int], goal: tuple[int, int], walls: set[tuple[int, int]]) -> WallTask:
    """A maze of one row with these walls besides those around it."""
    where = torch.ones(1, 15, 15, dtype=torch.bool)
    where[:, 1:-1, 1:-1] = False
    for x, y in walls:
        where[0, x, y] = True
    return WallTask(where, torch.tensor([start]), torch.tensor([goal]))


def searched(walls: list[list[bool]], place: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Breadth-first search with a queue, cell by cell."""
    found, queue = {place: 0}, collections.deque([place])
    while queue:
        x, y = queue.popleft()
        for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            near = (x + dx, y + dy)
            if not walls[near[0]][near[1]] and near not in found:
                found[near] = found[(x, y)] + 1
                queue.append(near)
    return found


def test_contract():
    check_family(WallMaze())
    with pytest.raises(ValueError, match="episodes_per_trial must be a whole number of at least 1"):
        WallMaze(episodes_per_trial=0)


# ---- tasks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.0, 0.3, 0.4, 0.6])
def test_distances_are_those_of_a_plain_search(density: float):
    """Every cell of 60 mazes, those among them that no way leads to."""
    task = _any_maze(keys(60), density)
    free = ~task.walls[torch.arange(60), task.goal[:, 0], task.goal[:, 1]]
    assert free.all()
    batched, lonely = distances(task.walls, task.goal), 0
    for row in range(60):
        found = searched(task.walls[row].tolist(), tuple(task.goal[row].tolist()))
        for x, y in itertools.product(range(15), repeat=2):
            assert int(batched[row, x, y]) == found.get((x, y), FAR)
        assert int(moves_to_goal(take(task, [row]))) == found.get(tuple(task.start[row].tolist()), FAR)
        lonely += len(found) < int((~task.walls[row]).sum())
    assert lonely == 0 if density == 0 else lonely > 5


def test_a_goal_in_a_wall_has_no_way():
    assert (distances(maze((1, 1), (5, 5), {(5, 5)}).walls, torch.tensor([[5, 5]])) == FAR).all()


@pytest.mark.parametrize("split", ["train", "ood"])
def test_drawn_mazes_can_be_solved(split: str):
    """All of 10,000, by the batched search, and 300 of them by the plain one; start and goal are far apart."""
    family = WallMaze()
    task = family.sample_tasks(rng.key(0), 10_000, split)
    moves = moves_to_goal(task)
    assert int(moves.min()) == NEAREST and int(moves.max()) <= family.horizon
    for row in range(300):
        found = searched(task.walls[row].tolist(), tuple(task.goal[row].tolist()))
        assert found[tuple(task.start[row].tolist())] == int(moves[row])
    rim = task.walls.clone()
    rim[:, 1:-1, 1:-1] = True
    assert rim.all() and checked_task(family, take(task, slice(0, 100))) is not None


def test_lengths_of_ways_are_those_of_the_docstring():
    moves = moves_to_goal(WallMaze().sample_tasks(rng.key(3), 10_000)).double()
    assert_mean(moves, 14.9, within=0.2)
    for least, share in ((17, 0.29), (21, 0.11), (30, 0.0105), (37, 0.0013)):
        assert_mean((moves >= least).double(), share, within=0.3 * share + 0.004)
    assert float(moves.quantile(0.75)) == 17 and float(moves.quantile(0.9)) == 21


def test_walls_have_their_probability_before_mazes_are_chosen():
    for density in (0.3, 0.4):
        task = _any_maze(keys(2000), density)
        assert_mean(task.walls[:, 1:-1, 1:-1].double().mean((1, 2)), density, within=0.005)
        for place in (task.start, task.goal):
            assert place.min() == 1 and place.max() == 13
            assert_mean(place.double().mean(1), 7.0, within=0.3)


def test_mazes_out_of_training_are_rare_in_training():
    """FAMILIES with full support: `ood` is what training almost never shows."""
    count = {s: WallMaze().sample_tasks(rng.key(0), 4000, s).walls.sum((1, 2)) - 56 for s in ("train", "ood")}
    assert int(count["ood"].median()) == 65
    assert float((count["train"] >= 65).double().mean()) < 0.01


def test_splits_are_disjoint():
    drawn = {split: WallMaze().sample_tasks(rng.key(0), 2000, split).walls for split in WallMaze.splits}
    sets = {split: {row.numpy().tobytes() for row in walls} for split, walls in drawn.items()}
    for one, other in itertools.combinations(sets, 2):
        assert not sets[one] & sets[other]


def test_a_drawn_task_depends_on_its_key_only():
    """Rows that need several attempts, too: other rows do not count."""
    family = WallMaze()
    several = moves_to_goal(_any_maze(rng.fold(keys(40), 0), 0.3))
    assert int(((several < NEAREST) | (several == FAR)).sum()) > 10, "some need several attempts"
    whole = family.draw_tasks(keys(40), "train")
    for row in range(40):
        one = family.draw_tasks(keys(40)[row : row + 1], "train")
        assert all(torch.equal(a, b[row : row + 1]) for a, b in zip(one, whole, strict=True))
    back = family.draw_tasks(keys(40).flip(0), "train")
    assert all(torch.equal(a.flip(0), b) for a, b in zip(back, whole, strict=True))


def test_mutate_changes_a_little():
    family = WallMaze()
    task = family.sample_tasks(rng.key(0), 1000)
    before = [field.clone() for field in task]
    changed = family.mutate(task, keys(1000, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(before, task, strict=True)), "the given task stays as it is"
    toggled = (changed.walls != task.walls).sum((1, 2))
    walked = (changed.goal - task.goal).abs().sum(1)
    assert torch.equal(toggled + walked, torch.ones(1000, dtype=torch.int64))
    assert 500 < int(toggled.sum()) < 800, "half of the proposals, but more of them can be solved"
    assert torch.equal(changed.start, task.start)
    moves = moves_to_goal(changed)
    assert int(moves.min()) >= NEAREST and int(moves.max()) <= family.horizon
    for row in (0, 1, 500, 999):
        alone = family.mutate(take(task, [row]), keys(1000, seed=1)[row : row + 1])
        assert all(torch.equal(a, b[row : row + 1]) for a, b in zip(alone, changed, strict=True))


def test_many_changes_lead_far_and_stay_solvable():
    family = WallMaze()
    first = task = family.sample_tasks(rng.key(0), 50)
    for number in range(60):
        task = family.mutate(task, keys(50, seed=number))
    moves = moves_to_goal(task)
    assert int(moves.min()) >= NEAREST and int(moves.max()) <= family.horizon
    assert int((task.walls != first.walls).sum((1, 2)).min()) > 10 and (task.goal != first.goal).any(1).sum() > 40


def test_a_maze_that_no_small_change_makes_long_enough_is_not_changed():
    family, near = WallMaze(), maze((1, 1), (3, 3), set())
    with pytest.raises(ValueError, match=r"goal 10 to 60 moves from the start\.$"):
        family.mutate(near, keys(1))


def test_mazes_do_not_depend_on_the_length_of_episodes():
    """An environment may cut episodes short, and draws mazes all the same."""
    family, short = WallMaze(), WallMaze()
    short.horizon = 5
    drawn, same = (one.sample_tasks(rng.key(0), 20) for one in (family, short))
    assert all(torch.equal(a, b) for a, b in zip(drawn, same, strict=True))
    assert short.oracle(same).tolist() == pytest.approx([-0.05] * 20)


WRONG = {
    "open": (maze((1, 1), (5, 5), set())._replace(walls=torch.zeros(1, 15, 15, dtype=torch.bool)), "walls all around"),
    "a wall at the start": (maze((1, 1), (5, 5), {(1, 1)}), "must be free of walls"),
    "a wall at the goal": (maze((1, 1), (5, 5), {(5, 5)}), "must be free of walls"),
    "outside": (maze((0, 1), (5, 5), set()), "WallTask.start must be from 1 to 13, got 0"),
    "the same cell": (maze((5, 5), (5, 5), set()), "which can be reached"),
    "closed in": (maze((1, 1), (5, 5), {(1, 2), (2, 1)}), "which can be reached"),
}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_mazes_are_refused(name: str):
    task, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence) as caught:
        checked_task(WallMaze(), task)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


# ---- physics and values --------------------------------------------------------------------------------------------


def test_moves_by_hand():
    family, task = WallMaze(), maze((1, 1), (3, 2), {(2, 1), (1, 3)})
    state, log = family.reset(task, KEY), []
    for action in (LEFT, RIGHT, UP, UP, RIGHT, RIGHT):
        state, reward, ended = family.step(task, state, torch.tensor([action]), KEY)
        log.append((tuple(state.position[0].tolist()), round(float(reward), 3), bool(ended)))
    on = [((1, 1), -0.01, False)] * 2 + [((1, 2), -0.01, False)] * 2 + [((2, 2), -0.01, False)]
    assert log == [*on, ((3, 2), 1.0, True)] and bool(family.success(task, state))


def test_it_sees_its_place_and_the_walls_around():
    family, task = WallMaze(), maze((1, 1), (3, 2), {(2, 1), (1, 3)})
    seen = family.observe(take(task, [0, 0, 0]), Cell(torch.tensor([[1, 1], [1, 2], [13, 7]])))
    assert seen[:, :2].tolist() == [[-1, -1], [-1, pytest.approx(-5 / 6)], [1, 0]]
    assert seen[:, 2:].reshape(3, 3, 3).tolist() == [
        [[1, 0, 0], [1, 0, 1], [1, 1, 1]],
        [[1, 1, 0], [1, 0, 0], [1, 0, 1]],
        [[0, 0, 1], [0, 0, 1], [0, 0, 1]],
    ]


def test_start_walls_and_goal_stay_through_a_trial():
    family = WallMaze()
    task = family.sample_tasks(rng.key(0), 30)
    env, act = BatchEnv(family, task, rng.key(0)), random_policy(family)
    step = first = env.reset()
    starts = 0
    while not env.all_done():
        step = env.step(act(step, env._step))[1]
        begins = step.prev_done > 0.5
        assert torch.equal(step.obs[begins], first.obs[begins])
        starts += int(begins.sum())
    assert starts >= 30 * family.episodes_per_trial


def all_sequences(family: WallMaze, task: WallTask, steps: int) -> Tensor:
    """The returns of all sequences of actions."""
    actions = torch.cartesian_prod(*[torch.arange(4)] * steps)
    n = len(actions)
    rows, zeros = take(task, torch.zeros(n, dtype=torch.int64)), torch.zeros(n, dtype=torch.int64)
    state, total, alive = family.reset(rows, zeros), torch.zeros(n).double(), torch.ones(n, dtype=torch.bool)
    for t in range(steps):
        state, reward, ended = family.step(rows, state, actions[:, t], zeros)
        total += torch.where(alive, reward, 0.0).double()
        alive &= ~ended
    return total


@pytest.mark.parametrize(
    "task",
    [
        maze((1, 1), (3, 2), {(2, 1), (1, 3)}),
        maze((7, 7), (7, 9), {(7, 8)}),
        maze((2, 2), (2, 3), set()),
        maze((2, 2), (9, 9), set()),  # out of reach in so few steps
    ],
    ids=["corner", "around", "next", "far"],
)
def test_values_are_those_of_all_sequences_of_actions(task: WallTask):
    family, steps = WallMaze(), 7
    returns = all_sequences(family, task, steps)
    family.horizon = steps
    assert float(family.oracle(task)) == pytest.approx(float(returns.max()), abs=1e-6)
    assert float(family.random_return(task)) == pytest.approx(float(returns.mean()), abs=1e-6)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_the_oracle_earns_the_optimum_and_random_actions_what_is_said(split: str):
    family = WallMaze(episodes_per_trial=2)
    task = family.sample_tasks(rng.key(0), 1000, split)
    returns = torch.from_numpy(evaluate(WallMazeOracle(), family, tasks=task).returns[0])
    torch.testing.assert_close(returns, family.oracle(task)[:, None].double().expand(-1, 2), check_dtype=False)
    often = torch.arange(10_000) % num_rows(task)
    returns = play(family, take(task, often), random_policy(family))[:, 0]
    assert_mean(returns - family.random_return(task)[often], 0.0, within=0.01)


def test_means_are_those_of_the_docstring():
    family = WallMaze()
    task = family.sample_tasks(rng.key(5), 2000)
    assert_mean(family.oracle(task), 0.8605, within=0.005)
    assert_mean(family.random_return(task), -0.588, within=0.003)


def test_the_steps_are_the_tables():
    """Every action everywhere in a maze, against its walls."""
    family = WallMaze()
    task = family.sample_tasks(rng.key(0), 1)
    walls = task.walls[0].tolist()
    for x, y in (~task.walls[0]).nonzero().tolist():
        for action, (dx, dy) in enumerate(STEPS):
            state, _, _ = family.step(task, Cell(torch.tensor([[x, y]])), torch.tensor([action]), KEY)
            assert state.position[0].tolist() == ([x, y] if walls[x + dx][y + dy] else [x + dx, y + dy])
