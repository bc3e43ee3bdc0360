"""Random solvable mazes with start and goal far apart, by rejection sampling."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.core.tree import put, take
from metarl.envs.drawing.cells import Cells, Frame, xy
from metarl.envs.grids.grid import STEP_NAMES, STEPS, Cell, position, steps, view_in_letters

SIZE = 13
"""Cells along a side, without the surrounding wall."""


WALLS = {"train": 0.3, "test": 0.3, "ood": 0.4}
"""Probability that a cell is a wall, by split."""


NEAREST, FARTHEST = 10, 60
"""Range of moves from start to goal in a drawn task; the farthest is also the length of an episode."""


FAR = 10**4
"""Distance of unreachable cells."""


STEP_COST = 0.01


class WallTask(NamedTuple):
    """The walls, and the cells of the start and the goal."""

    walls: Tensor  # (B, 15, 15) bool, by x and y; all True around the 13 × 13 cells
    start: Tensor  # (B, 2) int64: x, y
    goal: Tensor  # (B, 2) int64: x, y


class WallMaze(TaskFamily[WallTask, Cell]):
    """A random maze with a hidden goal; find it while exploring the walls, then take the shortest path.

    Description:
        13 × 13 cells surrounded by a wall; each cell is a wall at random. The agent knows its cell and sees the 3 × 3
        cells around itself. Walls stop a move. Walls, start and goal stay the same throughout a trial. Mazes differ in
        difficulty, and uniform draws rarely produce the hardest. `WallMaze.mutate` changes a maze slightly.

    What varies:
        The walls, `WallTask.walls`, the start, `WallTask.start`, and the goal, `WallTask.goal`.

    Splits:
        - `train`, `valid`, `test`, in disjoint random streams: each cell is a wall with probability 0.3; start and goal
          are uniform over the free cells; the maze is redrawn until the goal can be reached and is 10 to 60 moves away.
          In 100,000 tasks, the shortest path has 14.9 moves on average; a quarter have at least 17, 10 % at least 21,
          1 % at least 30, 0.1 % at least 37, and the longest has 48: uniform draws have a tail of hard mazes.
        - `ood`: each cell is a wall with probability 0.4; otherwise the same. There are more dead ends and narrow
          passages, but paths are hardly longer (15.2 moves on average). Half of these mazes have 65 walls or more,
          compared with 0.6 % of the training mazes (50.0 walls on average).

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
        ======  =====================================================  =======  =======
        index   meaning                                                range    unit
        ======  =====================================================  =======  =======
        0       x, scaled                                              [-1, 1]  6 cells
        1       y, scaled                                              [-1, 1]  6 cells
        2 … 10  wall (1) or free (0): the cells around the agent, row  {0, 1}   none
                by row from the upper left; number 6 is its own
        ======  =====================================================  =======  =======

    Rewards:
        1 on reaching the goal, otherwise -0.01.

    Endings:
        Terminated on the goal; truncated after 60 steps.

    Optimum:
        Known task: 1 - 0.01 (moves - 1), exact per task by breadth-first search; 0.8605 on average over `train`.
        Random: exact per task by dynamic programming, -0.588 on average over `train`. Bayes-optimal: unknown.

    Source:
        Ours. Papers on curricula use similar mazes: Dennis et al. 2020, "Emergent complexity and zero-shot transfer via
        unsupervised environment design" (PAIRED), section 5.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    random_start = False
    action_names = STEP_NAMES
    shows_task = True  # the observation shows the start and the walls around it

    def __init__(self, episodes_per_trial: int = 4) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = FARTHEST
        low, high = np.array([-1, -1] + [0] * 9, np.float32), np.ones(11, np.float32)
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(STEPS))

    def draw_tasks(self, keys: Key, split: str) -> WallTask:
        return _first_suitable(keys, lambda key, rows: _any_maze(key, WALLS[split]))

    def mutate(self, task: WallTask, key: Key) -> WallTask:
        """Change each task (B,) a little with its key (B,): the changed tasks can be solved, as those of the splits.

        With probability ½ one of the 169 cells becomes a wall, or free if it was one; otherwise the goal moves by one
        cell. A change after which the goal would be in a wall, out of reach or nearer than 10 moves is drawn again.
        Raises ValueError unless the given goals are 10 to 60 moves away.
        """
        # Other mazes may have no valid change, and the search would never end.
        possible(_suits(task), f"A maze to change must have its goal {NEAREST} to {FARTHEST} moves from the start.")
        return _first_suitable(key, lambda key, rows: _changed(take(task, rows), key))

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        sides = np.ones((SIZE + 2, SIZE + 2), np.int64)  # of the walls; the surrounding wall has a single choice
        inner = np.pad(np.ones((SIZE, SIZE), np.int64), 1)
        cell = gymnasium.spaces.MultiDiscrete([SIZE, SIZE], start=[1, 1])
        return {
            "walls": gymnasium.spaces.MultiDiscrete(sides + inner, start=sides - inner),
            "start": cell,
            "goal": cell,
        }

    def reconcile(self, task: WallTask) -> WallTask:
        """Remove walls at the start and the goal."""
        return task._replace(walls=task.walls & ~_mask(task.start) & ~_mask(task.goal))

    def check_task(self, task: WallTask) -> None:
        within("WallTask.start", task.start, 1, SIZE)
        within("WallTask.goal", task.goal, 1, SIZE)
        inside = torch.zeros_like(task.walls)
        inside[:, 1:-1, 1:-1] = True
        possible(task.walls | inside, "A WallTask must have walls all around.")
        free = ~(_at(task.walls, task.start) | _at(task.walls, task.goal))
        possible(free, "The start and the goal of a WallTask must be free of walls.")
        moves = moves_to_goal(task)
        possible((moves > 0) & (moves < FAR), "The goal of a WallTask must be another cell, which can be reached.")

    def reset(self, task: WallTask, key: Key) -> Cell:
        return Cell(task.start)

    def observe(self, task: WallTask, state: Cell) -> Tensor:
        around = state.position[:, None] + _around(task.walls.device)  # (B, 9, 2)
        walls = task.walls[_rows(task)[:, None], around[..., 0], around[..., 1]]
        middle = (SIZE + 1) // 2
        return torch.cat([(state.position - middle) / (middle - 1), walls], dim=1)

    def observation_text(self, obs: Tensor) -> str:
        return view_in_letters(obs[2:])

    def step(self, task: WallTask, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        target = state.position + steps(action.device)[action]
        position = torch.where(_at(task.walls, target)[:, None], state.position, target)
        found = (position == task.goal).all(-1)
        return Cell(position), torch.where(found, 1.0, -STEP_COST), found

    def success(self, task: WallTask, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    def oracle(self, task: WallTask) -> Tensor:
        moves = moves_to_goal(task)
        there = 1.0 - STEP_COST * (moves - 1)
        return torch.where(moves <= self.horizon, there, -STEP_COST * self.horizon).to(torch.float32)

    def random_return(self, task: WallTask) -> Tensor:
        at_goal = _mask(task.goal)
        blocked = [_inside(task.walls, move) for move in STEPS]
        value = torch.zeros(task.walls.shape, device=task.walls.device)  # of being in a cell
        for _ in range(self.horizon):
            stopped = value[:, 1:-1, 1:-1] - STEP_COST
            arriving = torch.where(at_goal, 1.0, value - STEP_COST)
            sums = torch.zeros_like(stopped)
            for wall, move in zip(blocked, STEPS, strict=True):
                sums += torch.where(wall, stopped, _inside(arriving, move))
            value = torch.nn.functional.pad(sums / len(STEPS), (1, 1, 1, 1))
        return _at(value, task.start)

    def sketch(self, task: WallTask, episodes: int = 1) -> Sketch[Cell]:
        """The maze, darker where visited more often, with the counts, the goal, and what the agent sees now."""
        free = [(x, y) for x, y in (~task.walls[0]).nonzero().tolist()]
        goal = Frame(xy(task.goal), "#e03131")
        corners = ((0, 0), (SIZE + 1, SIZE + 1))
        return Cells(free, 30, self.horizon, position, [goal], sight=1, corners=corners)


def distances(walls: Tensor, place: Tensor) -> Tensor:
    """Return the fewest moves from every cell to `place` (B, 2): int64 (B, 15, 15), `FAR` if there is no path.

    Breadth-first search of all rows at once: each step adds the free neighbours of the reached cells.
    """
    reached = _mask(place) & ~walls
    distance = torch.where(reached, 0, FAR)
    for moves in itertools.count(1):
        up, right, down, left = (_inside(reached, move) for move in STEPS)
        new = torch.nn.functional.pad(up | right | down | left, (1, 1, 1, 1)) & ~walls & ~reached
        if not bool(new.any()):
            break
        reached, distance = reached | new, torch.where(new, moves, distance)
    return distance


def moves_to_goal(task: WallTask) -> Tensor:
    """Return the length (B,) of a shortest path from start to goal, in moves; `FAR` if there is none."""
    return _at(distances(task.walls, task.goal), task.start)


def _inside(values: Tensor, move: tuple[int, int]) -> Tensor:
    """Return the values (B, 13, 13) of the cells one move away from each inner cell."""
    dx, dy = move
    return values[:, 1 + dx : SIZE + 1 + dx, 1 + dy : SIZE + 1 + dy]


def _suits(task: WallTask) -> Tensor:
    """Return a mask of the rows whose goal is `NEAREST` to `FARTHEST` moves from the start: bool (B,)."""
    moves = moves_to_goal(task)
    return (moves >= NEAREST) & (moves <= FARTHEST)


def _first_suitable(keys: Key, propose: Callable[[Key, Tensor], WallTask]) -> WallTask:
    """Return the first suitable proposal of each row, from ``propose(keys, row indices)``.

    Attempt i of a row uses the key ``fold(key, i)``, so that rows are independent.
    """
    left = torch.arange(len(keys), device=keys.device)
    found = propose(rng.fold(keys, 0), left)
    for attempt in itertools.count(1):
        left = left[~_suits(take(found, left))]
        if not len(left):
            break
        found = put(found, left, propose(rng.fold(keys[left], attempt), left))
    return found


def _any_maze(keys: Key, density: float) -> WallTask:
    """Draw walls, a start and a goal per key; there may be no path."""
    inner = rng.uniform(rng.fold(keys, 0), SIZE**2).reshape(-1, SIZE, SIZE) < density
    walls = torch.nn.functional.pad(inner, (1, 1, 1, 1), value=True)
    return WallTask(walls, *(_free_cell(rng.fold(keys, number), inner) for number in (1, 2)))


def _free_cell(keys: Key, inner: Tensor) -> Tensor:
    """Draw a cell (B, 2) uniformly from the free ones."""
    free = ~inner.flatten(1)  # (B, 169)
    pick = (rng.uniform(keys, 1) * free.sum(-1, keepdim=True)).to(torch.int64)
    number = (free.cumsum(-1) <= pick).sum(-1).clamp_max(SIZE**2 - 1)
    return torch.stack([number // SIZE, number % SIZE], dim=-1) + 1


def _changed(task: WallTask, keys: Key) -> WallTask:
    """Toggle one cell of each task, or move its goal by one cell; there may be no path afterwards."""
    toggle = rng.uniform(rng.fold(keys, 0), 1)[:, 0] < 0.5
    number = rng.integers(rng.fold(keys, 1), 1, SIZE**2)[:, 0]
    cell = torch.stack([number // SIZE, number % SIZE], dim=-1) + 1
    step = steps(keys.device)[rng.integers(rng.fold(keys, 2), 1, len(STEPS))[:, 0]]
    return WallTask(
        torch.where(toggle[:, None, None] & _mask(cell), ~task.walls, task.walls),
        task.start,
        torch.where(toggle[:, None], task.goal, task.goal + step),
    )


@functools.cache
def _around(device: torch.device) -> Tensor:
    return torch.tensor([(dx, dy) for dy in (1, 0, -1) for dx in (-1, 0, 1)], device=device)  # from the upper left


def _mask(place: Tensor) -> Tensor:
    """Return the mask of a cell (B, 2): bool (B, 15, 15)."""
    along = torch.arange(SIZE + 2, device=place.device)
    return (along == place[:, :1])[:, :, None] & (along == place[:, 1:])[:, None, :]


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Return the values (B,) of `values` (B, 15, 15) at cells (B, 2)."""
    return values[torch.arange(len(place), device=place.device), place[:, 0], place[:, 1]]


def _rows(task: WallTask) -> Tensor:
    return torch.arange(len(task.goal), device=task.goal.device)
