"""The T-maze and the lattice maze: the cue is seen once, values are exact, memory is worth what it should be."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from test_envs import assert_mean, play, random_policy
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.mazes import MetaMazeOracle, MetaMazeSearch, TMazeOracle, TMazeRemember
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.family import TaskFamily
from metarl.core.tree import num_rows, take
from metarl.envs.grids.grid import Cell
from metarl.envs.grids.meta_maze import Maze, MetaMaze, lattice, neighbours, number
from metarl.envs.grids.tmaze import Corridor, TMaze
from metarl.testing import check_family

UP, RIGHT, DOWN, LEFT = range(4)
T_MAZES = [TMaze(), TMaze(active=True), TMaze(corridor_length=1), TMaze(corridor_length=2, active=True)]
each_t_maze = pytest.mark.parametrize("maze", T_MAZES, ids=lambda m: f"{m.corridor_length}{'a' if m.active else ''}")


@pytest.mark.parametrize("family", [*T_MAZES, MetaMaze()])
def test_contract(family):
    check_family(family)


def test_the_passive_cue_is_the_first_sight():
    assert TMaze().shows_task and not TMaze(active=True).shows_task and not MetaMaze().shows_task


@pytest.mark.parametrize("family", [TMaze(3), MetaMaze()])
def test_row_of_a_batch_equals_a_batch_of_one(family):
    n, act = 5, random_policy(family)
    task = family.sample_tasks(rng.key(0), n, "ood")
    actions = [act(Step(*[torch.zeros(n, 1)] * 4), t) for t in range(40)]

    def trace(index: slice) -> Tensor:
        env = BatchEnv(family, take(task, index), rng.key(2), 6, first_row=index.start)
        env.reset()
        seen = [env.step(action[index]) for action in actions]
        return torch.stack([torch.cat([step.obs, outcome.reward[:, None]], dim=1) for outcome, step in seen])

    whole = trace(slice(0, n))
    assert all(torch.equal(whole[:, i : i + 1], trace(slice(i, i + 1))) for i in range(n))


# ---- T-maze --------------------------------------------------------------------------------------------------------


def test_corridor_length_is_checked():
    with pytest.raises(ValueError, match="corridor_length must be a whole number of at least"):
        TMaze(corridor_length=0)


@each_t_maze
def test_t_maze_splits(maze):
    train, every, ood = (maze.enumerate_tasks(split) for split in ("train", "all", "ood"))
    length = maze.corridor_length
    assert train.side.tolist() == every.side.tolist() == [-1, 1] and train.length.tolist() == [length] * 2
    assert set(zip(ood.side.tolist(), ood.length.tolist(), strict=True)) == set(
        itertools.product((-1, 1), range(length + 1, 2 * length + 1))
    )
    assert "test" not in maze.splits
    with pytest.raises(ValueError, match="Unknown split"):
        maze.sample_tasks(rng.key(0), 1, "test")
    assert_mean(maze.sample_tasks(rng.key(0), 4000).side.float(), 0.0, within=0.07)


def walk(maze: TMaze, task: Corridor, actions: list[int]) -> list[tuple[list[float], float, bool]]:
    """(observation, reward, terminated) after each action, from the start."""
    zero = torch.zeros(1, dtype=torch.int64)
    state, log = maze.reset(task, zero), []
    for action in actions:
        state, reward, ended = maze.step(task, state, torch.tensor([action]), zero)
        log.append((maze.observe(task, state)[0].tolist(), float(reward), bool(ended)))
    return log


def test_the_cue_is_seen_once():
    task = Corridor(torch.tensor([-1]), torch.tensor([2]))
    passive, active, dark = TMaze(2), TMaze(2, active=True), ([0, 0], 0, False)
    zero = torch.zeros(1, dtype=torch.int64)
    assert passive.observe(task, passive.reset(task, zero)).tolist() == [[0, -1]]
    assert active.observe(task, active.reset(task, zero)).tolist() == [[0, 0]]
    junction = ([1, 0], 0, False)
    moves = [LEFT, UP, RIGHT, LEFT, RIGHT, RIGHT]
    assert walk(passive, task, [*moves, RIGHT, DOWN]) == [dark] * 5 + [junction] * 2 + [([1, -1], 1, True)]
    assert walk(passive, task, [RIGHT, RIGHT, UP]) == [dark, junction, ([1, 1], 0, True)]
    moves = [LEFT, LEFT, RIGHT, LEFT, RIGHT, RIGHT, RIGHT]
    assert walk(active, task, moves) == [([0, -1], 0, False)] + [dark] * 5 + [junction]


@each_t_maze
@pytest.mark.parametrize("split", ["all", "ood"])
@pytest.mark.parametrize("agent", [TMazeOracle(), TMazeRemember()])
def test_who_remembers_earns_the_optimum(maze, split, agent):
    task = maze.sample_tasks(rng.key(0), 10_000 // 8, split)
    curve = evaluate(agent, maze, tasks=task)
    np.testing.assert_array_equal(curve.returns[0, :, 0], maze.oracle(task))
    assert (maze.oracle(task) == 1).all()


def test_without_memory_half():
    """Every policy of the current observation alone that arrives: right in the corridor, some arm at the junction."""
    maze = TMaze()
    task = maze.sample_tasks(rng.key(0), 10_000)
    both = maze.enumerate_tasks("all")
    for arm in (UP, DOWN):
        returns = play(maze, both, lambda step, t, arm=arm: torch.where(step.obs[:, 0] > 0, arm, RIGHT))[:, 0]
        assert float(returns.mean()) == 0.5
    coin = random_policy(maze)
    returns = play(maze, task, lambda step, t: torch.where(step.obs[:, 0] > 0, 2 * (coin(step, t) // 2), RIGHT))[:, 0]
    assert_mean(returns, 0.5, within=0.03)


@pytest.mark.parametrize("maze", T_MAZES[2:])
def test_no_deterministic_memoryless_policy_earns_more_than_half(maze):
    """All 256 of them: one action for each of the four observations before the end (nothing, either cue, junction)."""
    seen = torch.tensor([[0, 0], [0, -1], [0, 1], [1, 0]])
    table = torch.tensor(list(itertools.product(range(4), repeat=4))).repeat_interleave(2, dim=0)  # (512, 4)
    task = take(maze.enumerate_tasks("all"), torch.arange(512) % 2)

    def act(step: Step, t: int) -> Tensor:
        return table.gather(1, (step.obs[:, None] == seen).all(-1).int().argmax(1, keepdim=True))[:, 0]

    returns = play(maze, task, act)[:, 0].reshape(256, 2).mean(1)
    assert float(returns.max()) == 0.5


def test_t_maze_random_actions():
    """One cell of corridor, three steps, by hand; and the default's 0.0006."""
    maze = TMaze(1)
    value = {0: 0.0, 1: 0.0}  # at the cue and at the junction
    for _ in range(3):
        value = {0: 0.75 * value[0] + 0.25 * value[1], 1: 0.25 + 0.25 * value[0] + 0.25 * value[1]}
    task = maze.sample_tasks(rng.key(0), 10_000)
    assert_mean(play(maze, task, random_policy(maze))[:, 0], value[0], within=0.02)
    torch.testing.assert_close(maze.random_return(task), torch.full((10_000,), value[0]))
    every = [(TMaze(active=active), split) for active in (False, True) for split in ("train", "ood")]
    exact = {(maze.active, split): maze.random_return(maze.enumerate_tasks(split)) for maze, split in every}
    assert exact[False, "train"].tolist() == pytest.approx([0.0006] * 2, abs=5e-5)
    assert exact[True, "train"].tolist() == pytest.approx([0.0008] * 2, abs=5e-5)
    assert (exact[False, "ood"] < 0.0006).all() and (exact[True, "ood"] < 0.0008).all()
    wandering = TMaze(3, active=True)
    task = wandering.sample_tasks(rng.key(0), 20_000, "ood")
    chance = play(wandering, task, random_policy(wandering))[:, 0]
    assert_mean(chance - wandering.random_return(task), 0.0, within=0.02)
    task = TMaze().sample_tasks(rng.key(0), 10_000)
    assert_mean(play(TMaze(), task, random_policy(TMaze()))[:, 0], 0.0006, within=0.002)


@each_t_maze
def test_t_maze_endings(maze):
    env = BatchEnv(maze, maze.sample_tasks(rng.key(0), 8, "ood"), rng.key(0), episodes=1)
    env.reset()
    for t in range(maze.horizon):
        outcome, _ = env.step(torch.full((8,), RIGHT))
        assert not outcome.terminated.any() and outcome.truncated.all() == (t == maze.horizon - 1)


# ---- lattice maze --------------------------------------------------------------------------------------------------


def test_lattice():
    lines = ["".join("#" if wall else "." for wall in line) for line in lattice().T.tolist()]
    pillars, free = "#.#.#.#.#", "#.......#"
    assert lines == ["#########", free, pillars, free, "#.#...#.#", free, pillars, free, "#########"]


def goals(task: Maze) -> set[tuple[int, ...]]:
    return set(map(tuple, task.goal.tolist()))


def test_meta_maze_splits():
    family = MetaMaze()
    part = {split: family.enumerate_tasks(split) for split in family.splits}
    free = set(map(tuple, (~lattice()).nonzero().tolist())) - {(4, 4)}
    assert goals(part["all"]) == free and len(free) == 40
    assert goals(part["test"]) == set(family.TEST_GOALS) and goals(part["train"]) == free - goals(part["test"])
    assert goals(part["ood"]) == goals(part["train"])
    for split in ("train", "test", "all"):
        assert (part[split].walls == lattice()).all() and num_rows(part[split]) == len(goals(part[split]))
    mazes = part["ood"].walls.unique(dim=0)
    assert len(mazes) == 70 and num_rows(part["ood"]) == 70 * 32
    missing = lattice() & ~mazes
    assert (missing.sum((1, 2)) == 4).all() and not (mazes & ~lattice()).any() and mazes[:, 0].all()
    drawn = family.sample_tasks(rng.key(0), 20_000, "train")
    counts = number(drawn.goal).bincount(minlength=81)[[9 * x + y for x, y in goals(part["train"])]]
    assert int(counts.sum()) == 20_000 and scipy.stats.chisquare(counts.numpy()).pvalue > 0.001


def test_meta_maze_shows_the_cells_around():
    family = MetaMaze()
    task = take(family.enumerate_tasks("all"), slice(0, 3))
    seen = family.observe(task, Cell(torch.tensor([[1, 1], [4, 4], [3, 2]])))
    assert seen.reshape(3, 3, 3).tolist() == [
        [[1, 0, 1], [1, 0, 0], [1, 1, 1]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 0, 1], [0, 0, 0]],
    ]


def test_meta_maze_goal_pays_and_puts_elsewhere():
    family, n = MetaMaze(), 20_000
    goal = torch.tensor([[5, 3]]).expand(n, 2)
    task = Maze(lattice().expand(n, 9, 9), goal)
    keys = rng.fold(rng.key(0), torch.arange(n))
    state, reward, ended = family.step(task, Cell(torch.tensor([[4, 3]]).expand(n, 2)), torch.full((n,), RIGHT), keys)
    assert (reward == 10).all() and not ended.any()
    others = ~lattice()
    others[5, 3] = False
    counts = number(state.position).bincount(minlength=81)
    assert (counts[~others.flatten()] == 0).all()
    assert scipy.stats.chisquare(counts[others.flatten()].numpy()).pvalue > 0.001
    for action, there in ((UP, [4, 4]), (LEFT, [3, 3]), (DOWN, [4, 3])):  # a pillar below
        state, reward, _ = family.step(take(task, [0]), Cell(torch.tensor([[4, 3]])), torch.tensor([action]), keys[:1])
        assert state.position.tolist() == [there] and float(reward) == 0


def test_meta_maze_looks_the_same_whatever_the_goal():
    """A task-blind, memory-less policy cannot beat chance before its first reward."""
    family, n = MetaMaze(), 40
    task, keys = family.enumerate_tasks("all"), rng.fold(rng.key(0), torch.arange(n))
    state, unpaid = family.reset(task, keys), torch.ones(n, dtype=torch.bool)
    for t in range(60):
        seen = family.observe(task, state)[unpaid]
        assert (seen == seen[:1]).all()
        action = rng.integers(rng.fold(rng.key(1), torch.tensor([t])), 1, 4)[:, 0].expand(n)
        state, reward, _ = family.step(task, state, action, keys)
        unpaid &= reward == 0


@pytest.mark.parametrize("split", ["all", "ood"])
def test_meta_maze_optimum_played(split):
    """Shortest ways from where it truly is earn what dynamic programming says: 10 000 episodes in the standard maze."""
    family = MetaMaze()
    task = family.enumerate_tasks(split)
    task = take(task, torch.arange(10_000) % 40) if split == "all" else take(task, slice(0, None, 4))
    n = num_rows(task)
    after = neighbours(task.walls)
    distance = torch.where(torch.arange(81) == number(task.goal)[:, None], 0.0, 99.0)
    for _ in range(16):
        distance = torch.minimum(distance, 1 + distance.gather(1, after.flatten(1)).reshape(after.shape).amin(-1))
    move = distance.gather(1, after.flatten(1)).reshape(after.shape).argmin(-1)  # (n, 81)
    env, total = BatchEnv(family, task, rng.key(0)), torch.zeros(n, dtype=torch.float64)
    env.reset()
    for _ in range(family.horizon):
        outcome, _ = env.step(move[torch.arange(n), number(env.state.position)])
        total += outcome.reward
    assert_mean(total - family.oracle(task), 0.0, within=6.0)


def test_meta_maze_exact_values():
    family = MetaMaze()
    task = family.enumerate_tasks("all")
    assert float(family.oracle(task).mean()) == pytest.approx(416.23, abs=0.05)
    assert float(family.random_return(task).mean()) == pytest.approx(14.37, abs=0.01)
    task = family.sample_tasks(rng.key(0), 3000, "all")
    returns = play(family, task, random_policy(family))[:, 0]
    assert_mean(returns - family.random_return(task), 0.0, within=1.0)


def test_meta_maze_agents():
    """To be told the goal is worth more than to look for it, and to know where one is put more still."""
    family = MetaMaze()
    task = family.enumerate_tasks("all")
    told, search = (
        evaluate(agent, family, tasks=task).returns.mean() for agent in (MetaMazeOracle(), MetaMazeSearch())
    )
    assert 330 < search < told - 10 and told < float(family.oracle(task).mean()) - 10


# ---- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [TMaze(), TMaze(active=True), MetaMaze()])
def test_pictures(family: TaskFamily):
    task = family.sample_tasks(rng.key(0), 1, "ood")
    env, act = BatchEnv(family, task, rng.key(0), episodes=2), random_policy(family)
    step = env.reset()
    states = [env.state]
    for t in range(20):
        step = env.step(act(step, t))[1]
        states.append(env.final_state)
    image = family.render(task, states)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.shape[0] > 100
    assert not np.array_equal(image, family.render(task, states[:5]))
    assert family.render(task, []).shape == image.shape
