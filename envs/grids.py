"""Grids with a goal cell that is not shown."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.envs.cell_pictures import Cells, Frame, xy
from metarl.errors import whole_number, within
from metarl.family import Key, TaskFamily
from metarl.sketch import Sketch

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # stay, up, right, down, left


class GoalCell(NamedTuple):
    """Where the reward is."""

    goal: Tensor  # (B, 2) int64: x, y


class DarkTask(NamedTuple):
    """Where the reward is, and what the actions do."""

    goal: Tensor  # (B, 2) int64: x, y
    actions: Tensor  # (B, 5) int64: the move that each action makes; 0 … 4 but in `ood`


class Cell(NamedTuple):
    """Where the agent is."""

    position: Tensor  # (B, 2) int64: x, y


class GridNavi(TaskFamily[GoalCell, Cell]):
    """A 5×5 grid with one rewarding cell; search it in the first episode, go there at once in the others.

    Description:
        The agent starts in the corner (0, 0) and is not told the goal; every step on it pays. The grid's
        walls stop a move that would leave it.

    What varies:
        The goal cell: `GoalCell.goal`.

    Splits:
        - `all`: the 21 cells other than (0,0), (0,1), (1,0), (1,1), as in the paper, which trains and tests on all.
        - `train`, `test`: a fixed partition of these into 15 and 6. The test goals were drawn once and are written
          out in TEST_GOALS, so that nothing can move them.
        - `valid`: 5 of the training goals.
        - `ood`: the goals that all of these leave out, (0,1), (1,0), (1,1).

    Actions:
        ======  ============
        action  meaning
        ======  ============
        0       stay
        1       up (y + 1)
        2       right (x + 1)
        3       down (y - 1)
        4       left (x - 1)
        ======  ============

    Observations:
        =====  =======  ======  =====
        index  meaning  range   unit
        =====  =======  ======  =====
        0      x        0 … 4   cells
        1      y        0 … 4   cells
        =====  =======  ======  =====

    Rewards:
        After the move: 1 on the goal, otherwise -0.1.

    Endings:
        Never terminated; truncated after 15 steps.

    Optimum:
        Known task: the shortest path, exact per goal; 11.0714 in the mean of `all`. Random: exact per goal, -1.166 in
        the mean of `all`. Bayes-optimal over `all`, per episode: 4.000, then 11.0714 (4 episodes: 37.214). Whatever
        does better leaks the goal.

    Differs from the source:
        =====  ==============================================  ===============
        what   here                                            there
        =====  ==============================================  ===============
        tasks  parted into train and test; `all` is the        all 21 for both
               paper's
        =====  ==============================================  ===============

    Source:
        Zintgraf et al. 2020, "VariBAD", section 5.1 and its published code.

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    size = 5
    TEST_GOALS = ((3, 1), (4, 1), (2, 2), (4, 2), (2, 4), (3, 4))

    def __init__(self, episodes_per_trial: int = 4) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 15
        self.observation_space = gymnasium.spaces.Box(0.0, self.size - 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def enumerate_tasks(self, split: str) -> GoalCell:
        """Every task of the split once, for exact evaluation."""
        near = {(0, 0), (0, 1), (1, 0), (1, 1)}
        far = [cell for cell in cells(self.size) if cell not in near]
        goals = sorted(near - {(0, 0)}) if split == "ood" else _part(far, split, self.TEST_GOALS)
        return GoalCell(torch.tensor(goals))

    def check_task(self, task: GoalCell) -> None:
        within("GoalCell.goal", task.goal, 0, self.size - 1)

    def reset(self, task: GoalCell, key: Key) -> Cell:
        return Cell(torch.zeros_like(task.goal))

    def observe(self, task: GoalCell, state: Cell) -> Tensor:
        return state.position.to(torch.float32)

    def step(self, task: GoalCell, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        position = (state.position + moves(action.device)[action]).clamp(0, self.size - 1)
        found = (position == task.goal).all(-1)
        return Cell(position), torch.where(found, 1.0, -0.1), torch.zeros_like(found)

    def success(self, task: GoalCell, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    def oracle(self, task: GoalCell) -> Tensor:
        return _plan(task.goal, self.size, self.horizon, start=(0, 0), miss=-0.1, backup=lambda q: q.amax(-1))

    def random_return(self, task: GoalCell) -> Tensor:
        return _plan(task.goal, self.size, self.horizon, start=(0, 0), miss=-0.1, backup=lambda q: q.mean(-1))

    def sketch(self, task: GoalCell, episodes: int = 1) -> Sketch[Cell]:
        """The grid, darker where visited more often, with the counts, the paths (pale to dark in time) and the goal."""
        return room(task.goal, self.size, self.horizon)


class DarkRoom(TaskFamily[DarkTask, Cell]):
    """A 9×9 room in the dark with one rewarding cell; find it, then stay on it in every later episode.

    Description:
        The agent starts in the middle (4, 4), knows its cell, and is not told the goal; every step on it pays. Walls
        stop a move that would leave the room.

    What varies:
        The goal cell, `DarkTask.goal`, and in `ood` what the actions do, `DarkTask.actions`.

    Splits:
        - `all`: all 81 cells, the start among them.
        - `train`, `test`: a fixed partition of these into 65 and 16. The test goals were drawn once and are written
          out in TEST_GOALS, so that nothing can move them.
        - `valid`: 21 of the training goals.
        - `ood`: permuted actions, on the training goals so that nothing else is new. The permutation is uniform over
          the 44 derangements: no action does what it did in training.

    Actions:
        ======  =============
        action  meaning
        ======  =============
        0       stay
        1       up (y + 1)
        2       right (x + 1)
        3       down (y - 1)
        4       left (x - 1)
        ======  =============
        In `ood` an action makes the move `actions[action]` of this list, never its own.

    Observations:
        =====  =======  ======  =====
        index  meaning  range   unit
        =====  =======  ======  =====
        0      x        0 … 8   cells
        1      y        0 … 8   cells
        =====  =======  ======  =====

        The coordinates say as much as the cell's index; unlike one input per cell, they let what was learned with the
        training goals carry over to others.

    Rewards:
        After the move: 1 on the goal, otherwise 0.

    Endings:
        Never terminated; truncated after 20 steps.

    Optimum:
        Known task: the shortest path, exact per goal; 16.543 in the mean of `all`. Random: exact per goal, 0.246 in
        the mean of `all`. Bayes-optimal first episode over `all`: 2.593.

    Differs from the source:
        ============  ===============  ================
        what          here             there
        ============  ===============  ================
        observations  two coordinates  the cell's index
        ============  ===============  ================

    Source:
        Laskin et al. 2022, "In-context reinforcement learning with algorithm distillation", section 4.

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    size = 9
    TEST_GOALS = (
        *((4, 0), (5, 0), (8, 0), (4, 2), (6, 2), (4, 3), (6, 3), (1, 4)),
        *((2, 5), (4, 5), (6, 5), (7, 5), (1, 6), (2, 6), (3, 7), (1, 8)),
    )

    def __init__(self, episodes_per_trial: int = 5) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 20
        self.observation_space = gymnasium.spaces.Box(0.0, self.size - 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def enumerate_tasks(self, split: str) -> DarkTask:
        """Every task of the split once, for exact evaluation; in `ood` each goal with each derangement."""
        goals = _part(cells(self.size), "train" if split == "ood" else split, self.TEST_GOALS)
        orders = list(itertools.permutations(range(len(MOVES))))
        if split == "ood":
            orders = [order for order in orders if all(move != action for action, move in enumerate(order))]
        else:
            orders = orders[:1]  # the identity
        pairs = list(itertools.product(goals, orders))
        return DarkTask(torch.tensor([goal for goal, _ in pairs]), torch.tensor([order for _, order in pairs]))

    def check_task(self, task: DarkTask) -> None:
        check_dark(task, self.size)

    def reset(self, task: DarkTask, key: Key) -> Cell:
        return Cell(torch.full_like(task.goal, self.size // 2))

    def observe(self, task: DarkTask, state: Cell) -> Tensor:
        return state.position.to(torch.float32)

    def step(self, task: DarkTask, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        move = moves(action.device)[task.actions.gather(1, action[:, None])[:, 0]]
        position = (state.position + move).clamp(0, self.size - 1)
        found = (position == task.goal).all(-1)
        return Cell(position), found.to(torch.float32), torch.zeros_like(found)

    def success(self, task: DarkTask, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    # Renaming the actions changes neither their maximum nor their mean, so both returns depend on the goal alone.
    def oracle(self, task: DarkTask) -> Tensor:
        return _plan(task.goal, self.size, self.horizon, start=(4, 4), miss=0.0, backup=lambda q: q.amax(-1))

    def random_return(self, task: DarkTask) -> Tensor:
        return _plan(task.goal, self.size, self.horizon, start=(4, 4), miss=0.0, backup=lambda q: q.mean(-1))

    def sketch(self, task: DarkTask, episodes: int = 1) -> Sketch[Cell]:
        """The room, darker where visited more often, with the counts, the paths (pale to dark in time) and the goal."""
        return room(task.goal, self.size, self.horizon)


def check_dark(task: DarkTask, size: int) -> None:
    """Raise ValueError unless the goal is in the room and the actions are moves."""
    within("DarkTask.goal", task.goal, 0, size - 1)
    within("DarkTask.actions", task.actions, 0, len(MOVES) - 1)


@functools.cache
def moves(device: torch.device) -> Tensor:
    """`MOVES` as a tensor ``(5, 2)``."""
    return torch.tensor(MOVES, device=device)


def cells(size: int) -> list[tuple[int, int]]:
    """All cells (x, y) in the order of their index size · y + x."""
    return [(x, y) for y in range(size) for x in range(size)]


def _part(every: list[tuple[int, int]], split: str, test: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """The goals of `train`, `test` or `all`."""
    return [cell for cell in every if split == "all" or (cell in test) == (split == "test")]


def _plan(
    goal: Tensor, size: int, horizon: int, start: tuple[int, int], miss: float, backup: Callable[[Tensor], Tensor]
) -> Tensor:
    """Exact expected return from `start` (B,) by dynamic programming; `backup` turns action values into a value."""
    every = torch.tensor(cells(size), device=goal.device)  # (S, 2)
    after = (every[:, None] + moves(goal.device)).clamp(0, size - 1)  # (S, 5, 2)
    after_index = size * after[..., 1] + after[..., 0]
    # Solved for every goal of the grid, and then looked up: there are fewer of them than rows.
    reward = torch.where(torch.eye(size**2, dtype=torch.bool, device=goal.device), 1.0, miss)  # (goal, S), of arriving
    value = torch.zeros_like(reward)
    for _ in range(horizon):
        value = backup((reward + value)[:, after_index])
    return value[size * goal[:, 1] + goal[:, 0], size * start[1] + start[0]]


def room(goal: Tensor, size: int, horizon: int) -> Cells[Cell]:
    """The picture of a square room: its cells with their visits, the paths, and a red frame around the goal."""
    return Cells(cells(size), 360 // size, horizon, position, [Frame(xy(goal), "#e03131")])


def position(state: Cell) -> tuple[int, int]:
    """Where one row is."""
    return xy(state.position)
