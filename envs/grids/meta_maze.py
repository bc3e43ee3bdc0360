"""A maze with a hidden goal, of which the agent sees the cells around itself."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.checks import possible, within
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.cells import Cells, Frame, xy
from metarl.envs.grids.grid import STEP_NAMES, STEPS, Cell, fixed_part, position, steps, view_in_letters
from metarl.envs.grids.maze_beliefs import GoalInMaze, Plan


class Maze(NamedTuple):
    """The walls, and the goal among them."""

    walls: Tensor  # (B, 9, 9) bool, by x and y
    goal: Tensor  # (B, 2) int64: x, y


class MetaMaze(TaskFamily[Maze, Cell]):
    """A maze with a hidden goal that pays repeatedly; the agent sees only the cells around it.

    Description:
        A 9×9 maze, with walls around it and a pillar in every second cell of every second row, except the centre, where
        the agent starts. The agent sees the 3 × 3 cells around itself, but not the goal. On the goal it is rewarded and
        moved to a random free cell, from where it must come back, so it must also localise itself.

    What varies:
        The goal cell, `Maze.goal`, and in `ood` the pillars, `Maze.walls`.

    Splits:
        - `all`: the 40 free cells other than the centre, in the standard maze.
        - `train`, `test`: a fixed partition of these into 32 and 8. The test goals are listed in TEST_GOALS.
        - `valid`: 10 of the training goals.
        - `ood`: the training goals in mazes that lack half of the pillars, 4 of 8: uniform over the 70 mazes.

    Actions:
        ======  =============
        action  meaning
        ======  =============
        0       up (y + 1)
        1       right (x + 1)
        2       down (y - 1)
        3       left (x - 1)
        ======  =============

    Observations:
        =====  =====================================================  ======  ====
        index  meaning                                                range   unit
        =====  =====================================================  ======  ====
        0 … 8  wall (1) or free (0): the cells around the agent, row  {0, 1}  none
               by row from the upper left; number 4 is its own
        =====  =====================================================  ======  ====

    Rewards:
        10 on reaching the goal, otherwise 0. With the reward, the agent is moved to a cell drawn uniformly from the
        free cells other than the goal, and the observation is that of the new cell.

    Endings:
        Never terminated; truncated after 200 steps. A trial is one episode.

    Optimum:
        Known task and position: exact per goal by dynamic programming, 416.2 on average over `all`. This is a bound: an
        agent that knows the task must still find out where it was moved. Random: exact per goal, 14.37 on average.

    Source:
        Miconi et al. 2019, "Backpropamine", section 4.2, and its published code (maze, start, goals, teleport).

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    action_names = STEP_NAMES
    size = 9
    TEST_GOALS = ((1, 7), (2, 5), (4, 5), (5, 2), (5, 7), (6, 1), (6, 3), (7, 1))
    random_start = False

    def __init__(self) -> None:
        self.horizon = 200
        self.episodes_per_trial = 1
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (9,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(STEPS))

    def enumerate_tasks(self, split: str) -> Maze:
        """Return every task of the split once, for exact evaluation; in `ood` each maze with each goal."""
        free = [(x, y) for x in range(self.size) for y in range(self.size) if not lattice()[x, y]]
        free.remove((4, 4))
        goals = fixed_part(free, split, self.TEST_GOALS)
        missing = list(itertools.combinations(lattice()[1:-1, 1:-1].nonzero().tolist(), 4)) if split == "ood" else [()]
        walls = lattice().repeat(len(missing), 1, 1)
        for maze, pillars in zip(walls, missing, strict=True):
            for x, y in pillars:
                maze[1 + x, 1 + y] = False
        each = len(goals)
        return Maze(walls.repeat_interleave(each, dim=0), torch.tensor(goals).repeat(len(missing), 1))

    def check_task(self, task: Maze) -> None:
        within("Maze.goal", task.goal, 0, self.size - 1)
        possible(task.walls | ~_rim(task.walls.device), "A Maze must have walls all around.")
        at_start, at_goal = task.walls[:, 4, 4], task.walls[_rows(task), task.goal[:, 0], task.goal[:, 1]]
        possible(~(at_start | at_goal), "The centre and the goal of a Maze must be free of walls.")

    def reset(self, task: Maze, key: Key) -> Cell:
        return Cell(torch.full_like(task.goal, self.size // 2))

    def observe(self, task: Maze, state: Cell) -> Tensor:
        around = state.position[:, None] + _around(task.walls.device)  # (B, 9, 2)
        return task.walls[_rows(task)[:, None], around[..., 0], around[..., 1]].to(torch.float32)

    def observation_text(self, obs: Tensor) -> str:
        return view_in_letters(obs)

    def step(self, task: Maze, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        target = state.position + steps(action.device)[action]
        blocked = task.walls[_rows(task), target[:, 0], target[:, 1]]
        position = torch.where(blocked[:, None], state.position, target)
        found = (position == task.goal).all(-1)
        others = _others(task)  # (B, 81)
        pick = (rng.uniform(key, 1) * others.sum(-1, keepdim=True)).to(torch.int64)
        put = (others.cumsum(-1) <= pick).sum(-1)  # index of the picked cell
        landing = torch.stack([put // self.size, put % self.size], dim=-1)
        return (
            Cell(torch.where(found[:, None], landing, position)),
            torch.where(found, 10.0, 0.0),
            torch.zeros_like(found),
        )

    def belief(self, split: str) -> Belief | None:
        """Return the exact belief; None for `ood`, whose 2240 tasks have 70 mazes."""
        tasks = self.tasks_of(split)
        assert tasks is not None
        return None if split == "ood" else GoalInMaze(tasks, self._standard(tasks.goal))

    def _standard(self, goals: Tensor) -> Plan:
        """Return the standard maze as a `Plan`, with these goals (M, 2)."""
        cells = (~lattice()).nonzero()  # (C, 2)
        maze = Maze(lattice().expand(len(cells), -1, -1), cells)
        after = neighbours(lattice()[None])[0, number(cells)].T  # (4, C): cell indices
        goal = (goals[:, None] == cells).all(-1).to(torch.float32)
        return Plan(
            after=(after[..., None] == number(cells)).to(torch.float32),
            look=self.observe(maze, Cell(cells)),
            start=(cells == self.size // 2).all(-1).to(torch.float32),
            others=(1.0 - goal) / (len(cells) - 1),
            goal=goal,
        )

    def oracle(self, task: Maze) -> Tensor:
        return self._plan(task, lambda q: q.amax(-1))

    def random_return(self, task: Maze) -> Tensor:
        return self._plan(task, lambda q: q.mean(-1))

    def _plan(self, task: Maze, backup: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the exact expected return (B,) with known position; `backup` maps action values to a state value."""
        after = neighbours(task.walls)  # (B, 81, 4)
        at_goal = torch.arange(self.size**2, device=after.device) == number(task.goal)[:, None]
        others = _others(task).to(torch.float32)
        value = torch.zeros_like(others)  # (B, 81)
        for _ in range(self.horizon):
            put = (value * others).sum(-1, keepdim=True) / others.sum(-1, keepdim=True)
            arrived = torch.where(at_goal, 10.0 + put, value)
            value = backup(arrived.gather(1, after.flatten(1)).reshape(after.shape))
        return value[:, number(torch.tensor([4, 4]))]

    def sketch(self, task: Maze, episodes: int = 1) -> Sketch[Cell]:
        """Draw the maze with visit counts (darker: more visits), the goal, and the agent's current view."""
        free = [(x, y) for x, y in (~task.walls[0]).nonzero().tolist()]
        goal = Frame(xy(task.goal), "#e03131", "goal")
        return Cells(free, 44, self.horizon, position, [goal], sight=1)


@functools.cache
def _around(device: torch.device) -> Tensor:
    return torch.tensor([(dx, dy) for dy in (1, 0, -1) for dx in (-1, 0, 1)], device=device)  # from the upper left


@functools.cache
def _rim(device: torch.device) -> Tensor:
    """Return the cells at the edge: bool (9, 9)."""
    rim = torch.ones(9, 9, dtype=torch.bool, device=device)
    rim[1:-1, 1:-1] = False
    return rim


def lattice() -> Tensor:
    """Return the standard maze: bool (9, 9) by x and y, True for walls."""
    place = torch.arange(9)
    even, rim = place % 2 == 0, (place == 0) | (place == 8)
    walls = (even[:, None] & even) | rim[:, None] | rim
    walls[4, 4] = False
    return walls


def neighbours(walls: Tensor) -> Tensor:
    """Return the next cell of each cell and action: int64 (B, 81, 4). Walls stop a move."""
    cells = torch.cartesian_prod(torch.arange(9), torch.arange(9)).to(walls.device)  # (81, 2)
    target = number((cells[:, None] + steps(walls.device)).clamp(0, 8))  # (81, 4)
    return torch.where(walls.flatten(1)[:, target], number(cells)[:, None], target)


def number(cell: Tensor) -> Tensor:
    """Return a cell's index, 9 x + y."""
    return 9 * cell[..., 0] + cell[..., 1]


def _rows(task: Maze) -> Tensor:
    return torch.arange(len(task.goal), device=task.goal.device)


def _others(task: Maze) -> Tensor:
    """Return the free cells other than the goal: bool (B, 81)."""
    goal = torch.arange(81, device=task.goal.device) == number(task.goal)[:, None]
    return ~task.walls.flatten(1) & ~goal
