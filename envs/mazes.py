"""Mazes: a corridor whose end depends on what was seen at its start, and a lattice to get to know."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from metarl import rng
from metarl.envs.checks import whole_number
from metarl.envs.grids import Cell
from metarl.family import Key, TaskFamily

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # up, right, down, left


class Corridor(NamedTuple):
    """Which arm pays at the end of how long a corridor."""

    side: Tensor  # (B,) int64: +1 the upper arm, -1 the lower one
    length: Tensor  # (B,) int64: cells from the cue (or, if active, from the start) to the junction


class CorridorState(NamedTuple):
    """Where the agent is."""

    x: Tensor  # (B,) int64: cells from the cue
    y: Tensor  # (B,) int64: ±1 in an arm, else 0
    cue_seen: Tensor  # (B,) bool: an earlier observation was that of the cue


class Maze(NamedTuple):
    """Walls and what they hide."""

    walls: Tensor  # (B, 9, 9) bool, by x and y
    goal: Tensor  # (B, 2) int64: x, y


class TMaze(TaskFamily):
    """A corridor with a cue at its start that says which way to turn at its end: a test of memory.

    Description:
        The cue is seen once, the first time that the agent is at x = 0; then nothing tells the side any more, nor
        the place in the corridor. ``active=False`` starts on the cue; ``active=True`` starts one cell right of it, so
        that the agent must first go back to look. Walls stop a move.

    What varies:
        The arm that pays, `Corridor.side`, and in `ood` the corridor's length, `Corridor.length`.

    Splits:
        - `train`, `all`: both sides, with the corridor of `corridor_length` cells. These are all the tasks there are,
          so there is no `test`: a side that was held out would not be a new task but the untrained answer.
        - `ood`: both sides, with longer corridors of corridor_length + 1 … 2 · corridor_length cells.

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
        =====  ==============================================  ==========  =====
        index  meaning                                         range       unit
        =====  ==============================================  ==========  =====
        0      whether at the junction or in an arm            {0, 1}      none
        1      the side, at the cue the first time; y in arms  {-1, 0, 1}  none
        =====  ==============================================  ==========  =====

    Rewards:
        1 on entering the arm of the task's side, otherwise 0.

    Endings:
        Terminated in either arm; truncated after 2 · corridor_length + 1 steps (active: + 3), just enough for the
        longest corridor of `ood`.

    Optimum:
        Known task: 1. Who remembers the cue: 1. Without memory: at most 0.5.
        Random: 0.0006 for the default corridor (active: 0.0008), so rewards are rare at first.

    Source:
        Bakker 2001; Ni et al. 2023, "When do transformers shine in RL?", section 4 and its published code. There the
        episode ends with the first step in which the arm can be entered, and the reward asks where the agent is then;
        here the choice ends it, so that one horizon serves corridors of all lengths. No penalty for tarrying.

    Version history:
        v0: first version.
    """

    terminates = True
    splits: ClassVar[tuple[str, ...]] = ("train", "ood", "all")

    def __init__(self, corridor_length: int = 10, active: bool = False) -> None:
        self.corridor_length = whole_number("corridor_length", corridor_length)
        self.active = active
        self.episodes_per_trial = 1
        self.horizon = 2 * corridor_length + (3 if active else 1)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(STEPS))

    def enumerate_tasks(self, split: str) -> Corridor:
        """Every task of the split once, for exact evaluation."""
        short = self.corridor_length
        lengths = range(short + 1, 2 * short + 1) if split == "ood" else range(short, short + 1)
        pairs = torch.tensor(list(itertools.product((-1, 1), lengths)))
        return Corridor(pairs[:, 0], pairs[:, 1])

    def draw_tasks(self, keys: Key, split: str) -> Corridor:
        every = self.enumerate_tasks(split)
        index = rng.integers(keys, 1, len(every.side))[:, 0]
        return Corridor(every.side.to(keys.device)[index], every.length.to(keys.device)[index])

    def reset(self, task: Corridor, key: Key) -> CorridorState:
        y = torch.zeros_like(task.side)
        return CorridorState(y + int(self.active), y, torch.zeros_like(y, dtype=torch.bool))

    def observe(self, task: Corridor, state: CorridorState) -> Tensor:
        shown = torch.where((state.x == 0) & ~state.cue_seen, task.side, state.y)
        return torch.stack([state.x == self._junction(task), shown], dim=-1).to(torch.float32)

    def step(
        self, task: Corridor, state: CorridorState, action: Tensor, key: Key
    ) -> tuple[CorridorState, Tensor, Tensor]:
        dx, dy = _steps(action.device)[action].unbind(-1)
        junction = self._junction(task)
        y = torch.where(state.x == junction, (state.y + dy).clamp(-1, 1), 0)
        along = (state.x + dx).clamp_min(0)
        x = torch.where(state.y == 0, torch.minimum(along, junction), state.x)  # an arm has walls on both sides
        after = CorridorState(x, y, state.cue_seen | (state.x == 0))
        return after, (y == task.side).to(torch.float32), y != 0

    def oracle(self, task: Corridor) -> Tensor:
        return torch.ones(len(task.side), device=task.side.device)

    def _junction(self, task: Corridor) -> Tensor:
        """The junction's x (B,)."""
        return task.length + int(self.active)

    def render(self, task: Corridor, states: list[CorridorState]) -> np.ndarray:
        """The maze, darker where visited more often, with the counts; a green frame around the arm that pays."""
        junction, side = int(self._junction(task)[0]), int(task.side[0])
        path = [(int(state.x[0]), int(state.y[0])) for state in states]
        cells = [(x, 0) for x in range(junction + 1)] + [(junction, 1), (junction, -1)]
        names = {
            (0, 0): "cue",
            (int(self.active), 0): "start" if self.active else "start, cue",
            (junction, side): "pays",
        }
        cell = max(34, min(60, 900 // (junction + 1)))  # pixels
        image = Image.new("RGB", (cell * (junction + 1) + 1, 3 * cell + 1), "#868e96")
        draw = ImageDraw.Draw(image)
        most = max([path.count(place) for place in set(path)], default=1)
        for place in cells:
            x, y = cell * place[0], cell * (1 - place[1])
            visits = path.count(place)
            fade = round(255 - 90 * visits / most)
            paying = place == (junction, side)
            draw.rectangle((x, y, x + cell, y + cell), fill=(fade, fade, 255), outline="#ced4da")
            if paying:
                draw.rectangle((x + 2, y + 2, x + cell - 2, y + cell - 2), outline="#2f9e44", width=3)
            if visits:
                draw.text((x + 5, y + 3), str(visits), fill="black", font_size=13)
            if place in names:
                below = (x + 5, y + cell - 18) if paying else (x + 2, y + cell + 3)
                draw.text(below, names[place], fill="#2f9e44" if paying else "white", font_size=12)
        return np.asarray(image)


class MetaMaze(TaskFamily):
    """A maze with a goal that is not shown and pays again and again; the agent sees nothing but the cells around it.

    Description:
        A 9×9 maze: walls around it, and a pillar in every second cell of every second line but for the centre, where
        the agent starts. It sees the 3 × 3 cells around itself, but not the goal. On the goal it is paid and put on a
        free cell at random, from where it has to come back: where am I is a question of its own.

    What varies:
        The goal cell, `Maze.goal`, and in `ood` the pillars, `Maze.walls`.

    Splits:
        - `all`: the 40 free cells other than the centre, in the standard maze.
        - `train`, `test`: a fixed partition of these into 32 and 8. The test goals were drawn once and are written
          out in TEST_GOALS, so that nothing can move them.
        - `ood`: the training goals in mazes of which half the pillars, 4 of 8, are missing: uniform over the 70 mazes.

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
        =====  ======================================================  ======  =====
        index  meaning                                                 range   unit
        =====  ======================================================  ======  =====
        0 … 8  wall (1) or free (0): the cells around the agent, line  {0, 1}  none
               by line from the upper left; number 4 is its own
        =====  ======================================================  ======  =====

    Rewards:
        10 on reaching the goal, otherwise 0. With the reward the agent is put on a cell uniform over the free ones
        other than the goal, and the observation is that of the new cell.

    Endings:
        Never terminated; truncated after 200 steps. A trial is one episode.

    Optimum:
        Known task and position: exact per goal by dynamic programming, 416.2 in the mean of `all`. This is a bound:
        an agent that is told the task still has to find out where it was put. Random: exact per goal, 14.37 in the
        mean.

    Source:
        Miconi et al. 2019, "Backpropamine", section 4.2, and its published code (maze, start, goals, teleport).

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test", "ood", "all")
    size = 9
    TEST_GOALS = ((1, 7), (2, 5), (4, 5), (5, 2), (5, 7), (6, 1), (6, 3), (7, 1))

    def __init__(self) -> None:
        self.horizon = 200
        self.episodes_per_trial = 1
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (9,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(STEPS))

    def enumerate_tasks(self, split: str) -> Maze:
        """Every task of the split once, for exact evaluation; in `ood` each maze with each goal."""
        free = [place for place in itertools.product(range(self.size), repeat=2) if not lattice()[place]]
        free.remove((4, 4))
        goals = [goal for goal in free if split == "all" or (goal in self.TEST_GOALS) == (split == "test")]
        missing = list(itertools.combinations(lattice()[1:-1, 1:-1].nonzero().tolist(), 4)) if split == "ood" else [()]
        walls = lattice().repeat(len(missing), 1, 1)
        for maze, pillars in zip(walls, missing, strict=True):
            for x, y in pillars:
                maze[1 + x, 1 + y] = False
        each = len(goals)
        return Maze(walls.repeat_interleave(each, dim=0), torch.tensor(goals).repeat(len(missing), 1))

    def draw_tasks(self, keys: Key, split: str) -> Maze:
        every = self.enumerate_tasks(split)
        index = rng.integers(keys, 1, len(every.goal))[:, 0]
        return Maze(every.walls.to(keys.device)[index], every.goal.to(keys.device)[index])

    def reset(self, task: Maze, key: Key) -> Cell:
        return Cell(torch.full_like(task.goal, self.size // 2))

    def observe(self, task: Maze, state: Cell) -> Tensor:
        around = state.position[:, None] + _around(task.walls.device)  # (B, 9, 2)
        return task.walls[_rows(task)[:, None], around[..., 0], around[..., 1]].to(torch.float32)

    def step(self, task: Maze, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        target = state.position + _steps(action.device)[action]
        blocked = task.walls[_rows(task), target[:, 0], target[:, 1]]
        position = torch.where(blocked[:, None], state.position, target)
        found = (position == task.goal).all(-1)
        others = _others(task)  # (B, 81)
        pick = (rng.uniform(key, 1) * others.sum(-1, keepdim=True)).to(torch.int64)
        put = (others.cumsum(-1) <= pick).sum(-1)  # the number of the picked one of them
        landing = torch.stack([put // self.size, put % self.size], dim=-1)
        return (
            Cell(torch.where(found[:, None], landing, position)),
            torch.where(found, 10.0, 0.0),
            torch.zeros_like(found),
        )

    def oracle(self, task: Maze) -> Tensor:
        return self._plan(task, lambda q: q.amax(-1))

    def random_return(self, task: Maze) -> Tensor:
        return self._plan(task, lambda q: q.mean(-1))

    def _plan(self, task: Maze, backup: Callable[[Tensor], Tensor]) -> Tensor:
        """Exact expected return (B,) of an agent that knows where it is; `backup` turns action values into a value."""
        after = neighbours(task.walls)  # (B, 81, 4)
        at_goal = torch.arange(self.size**2, device=after.device) == number(task.goal)[:, None]
        others = _others(task).to(torch.float32)
        value = torch.zeros_like(others)  # (B, 81)
        for _ in range(self.horizon):
            put = (value * others).sum(-1, keepdim=True) / others.sum(-1, keepdim=True)
            arrived = torch.where(at_goal, 10.0 + put, value)
            value = backup(arrived.gather(1, after.flatten(1)).reshape(after.shape))
        return value[:, number(torch.tensor([4, 4]))]

    def render(self, task: Maze, states: list[Cell]) -> np.ndarray:
        """The maze, darker where visited more often, with the counts, the goal, and what is seen in the end."""
        cell, path = 44, [tuple(state.position[0].tolist()) for state in states]
        image = Image.new("RGB", (cell * self.size + 1, cell * self.size + 1), "white")
        draw = ImageDraw.Draw(image)

        def corner(x: int, y: int) -> tuple[int, int]:
            return cell * x, cell * (self.size - 1 - y)  # y points up

        most = max([path.count(place) for place in set(path)], default=1)
        for place in itertools.product(range(self.size), repeat=2):
            x, y = corner(*place)
            visits, fade = path.count(place), round(255 - 120 * path.count(place) / most)
            fill = "#495057" if task.walls[0, place[0], place[1]] else (fade, fade, 255)
            draw.rectangle((x, y, x + cell, y + cell), fill=fill, outline="#ced4da")
            if list(place) == task.goal[0].tolist():
                draw.rectangle((x + 2, y + 2, x + cell - 2, y + cell - 2), outline="#e03131", width=3)
                draw.text((x + 7, y + cell - 20), "goal", fill="#e03131", font_size=13)
            if visits:
                draw.text((x + 5, y + 3), str(visits), fill="black", font_size=12)
        if path:
            x, y = corner(path[-1][0], path[-1][1])
            draw.rectangle((x - cell, y - cell, x + 2 * cell, y + 2 * cell), outline="#f08c00", width=3)
            draw.ellipse((x + 15, y + 15, x + cell - 15, y + cell - 15), fill="#f08c00")
        return np.asarray(image)


@functools.cache
def _steps(device: torch.device) -> Tensor:
    return torch.tensor(STEPS, device=device)


@functools.cache
def _around(device: torch.device) -> Tensor:
    return torch.tensor([(dx, dy) for dy in (1, 0, -1) for dx in (-1, 0, 1)], device=device)  # from the upper left


def lattice() -> Tensor:
    """The standard maze: bool (9, 9) by x and y, True where there is a wall."""
    place = torch.arange(9)
    even, rim = place % 2 == 0, (place == 0) | (place == 8)
    walls = (even[:, None] & even) | rim[:, None] | rim
    walls[4, 4] = False
    return walls


def neighbours(walls: Tensor) -> Tensor:
    """Where the four actions lead from every cell: int64 (B, 81, 4). Walls stop a move."""
    cells = torch.cartesian_prod(torch.arange(9), torch.arange(9)).to(walls.device)  # (81, 2)
    target = number((cells[:, None] + _steps(walls.device)).clamp(0, 8))  # (81, 4)
    return torch.where(walls.flatten(1)[:, target], number(cells)[:, None], target)


def number(cell: Tensor) -> Tensor:
    """A cell's number, 9 x + y."""
    return 9 * cell[..., 0] + cell[..., 1]


def _rows(task: Maze) -> Tensor:
    return torch.arange(len(task.goal), device=task.goal.device)


def _others(task: Maze) -> Tensor:
    """The free cells other than the goal: bool (B, 81)."""
    goal = torch.arange(81, device=task.goal.device) == number(task.goal)[:, None]
    return ~task.walls.flatten(1) & ~goal
