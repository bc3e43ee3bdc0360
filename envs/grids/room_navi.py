"""Three rooms with three goals to reach in order (Zintgraf et al. 2021)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.checks import possible
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.core.tree import take
from metarl.envs.drawing.cells import Cells, Frame, xy
from metarl.envs.grids.grid import MOVE_NAMES, MOVES, moves, random_part

FAR = (7, 1)
"""Largest |x| and |y| of a cell."""


PAYS = (1.0, 10.0, 100.0)
"""Rewards of the three goals."""


CELLS = [(x, y) for x in range(-FAR[0], FAR[0] + 1) for y in (-1, 0, 1) if not 2 <= abs(x) <= 4 or y == 0]
"""The 33 cells (x, y): rooms around x = -6, 0 and 6, and corridors along y = 0."""


class RoomGoals(NamedTuple):
    """The cells to reach, in order."""

    first: Tensor  # (B, 2) int64: x, y
    second: Tensor  # (B, 2) int64
    third: Tensor  # (B, 2) int64


class RoomState(NamedTuple):
    """The agent's cell, and its progress in this episode."""

    position: Tensor  # (B, 2) int64: x, y
    reached: Tensor  # (B,) int64: goals reached in order, 0 … 3; not observed


class RoomNavi(TaskFamily[RoomGoals, RoomState]):
    """Three rooms with three goals that pay 1, 10 and 100, each only after the one before; a test of exploration.

    Description:
        Three rooms of 3 × 3 cells in a row are joined by corridors of length 3 along y = 0. The agent starts in the
        centre of the middle room and knows its cell, but not the goals. The first goal is in a corner of the middle
        room, and indicates where the second is: a goal on the left means a corner of the left room, a goal on the right
        means a corner of the right room. The third is in another corner of the middle room. A goal that was found pays
        at every step, while the search for the next one costs 0.1 per step: an agent that does not explore stays where
        it is paid. Walls stop a move. Progress is reset at the end of an episode.

    What varies:
        The cells of the goals: `RoomGoals.first`, `RoomGoals.second`, `RoomGoals.third`.

    Splits:
        - `all`: the 4 · 4 · 3 = 48 tasks; the paper trains and tests on all of them.
        - `train`, `test`: a fixed partition of these into 36 and 12: the test tasks are the first 12 of
          ``rng.permutation(rng.key(48), 48)``, in the order of `RoomNavi.enumerate_tasks` (``"all"``).
        - `valid`: 12 of the training tasks.
        - `ood`: the third goal in a corner of the room that has no other goal: 4 · 4 · 4 = 64 tasks. In training it is
          always in the middle room.

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
        0      x        -7 … 7  cells
        1      y        -1 … 1  cells
        =====  =======  ======  =====

    Rewards:
        After the move: 1 on the first goal, at every step; 10 on the second one after the first was reached; 100 on
        the third one after the second was reached; otherwise -0.1.

    Endings:
        Never terminated; truncated after 50 steps. A trial is one episode.

    Optimum:
        Known task: exact per task by dynamic programming over cells and goals reached; 3376.6 on average over `all`.
        Random: exact per task by dynamic programming, 0.152 on average over `all`. Bayes-optimal: unknown; the scripted
        search, which goes to the nearest corner where the next goal may be, earns 2809.0 on average over `all`.

    Differs from the source:
        =====  ==============================================  ===============
        what   here                                            there
        =====  ==============================================  ===============
        tasks  split into train and test; `all` is the         all 48 for both
               paper's
        =====  ==============================================  ===============

    Source:
        Zintgraf et al. 2021, "Exploration in approximate hyper-state space for meta reinforcement learning" (HyperX),
        section 5, and its published code (multi-stage gridworld, one episode per task).

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False
    action_names = MOVE_NAMES

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")

    def __init__(self, episodes_per_trial: int = 1) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 50
        high = np.array(FAR, np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def enumerate_tasks(self, split: str) -> RoomGoals:
        """Every task of the split once, for exact evaluation."""
        goals: list[tuple[tuple[int, int], ...]] = []
        for first in _corners(0):
            side = 1 if first[0] > 0 else -1
            thirds = _corners(-6 * side) if split == "ood" else [corner for corner in _corners(0) if corner != first]
            goals += itertools.product([first], _corners(6 * side), thirds)
        every = RoomGoals(*torch.tensor(goals).unbind(1))
        return every if split == "ood" else take(every, random_part(len(goals), 12, seed=48, split=split))

    def check_task(self, task: RoomGoals) -> None:
        for name, goal in zip(task._fields, task, strict=True):
            inside = (goal[:, None] == torch.tensor(CELLS, device=goal.device)).all(-1).any(-1)
            possible(inside, f"RoomGoals.{name} must be a cell (x, y) of one of the three rooms or the corridors.")

    def reset(self, task: RoomGoals, key: Key) -> RoomState:
        position = torch.zeros_like(task.first)
        return RoomState(position, position[:, 0])

    def observe(self, task: RoomGoals, state: RoomState) -> Tensor:
        return state.position.to(torch.float32)

    def step(self, task: RoomGoals, state: RoomState, action: Tensor, key: Key) -> tuple[RoomState, Tensor, Tensor]:
        number = leads_to(action.device)[cell_number(state.position), action]
        reached, reward = _arrived(_goal_numbers(task), number, state.reached)
        after = RoomState(_cells(action.device)[number], reached)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def belief(self, split: str) -> Belief:
        # How many goals were reached is the same under all tasks that are still possible.
        return Enumeration(self, split, of_state=lambda state: state.reached[:, None] / len(PAYS))

    def success(self, task: RoomGoals, state: RoomState) -> Tensor:
        return state.reached == len(PAYS)

    def oracle(self, task: RoomGoals) -> Tensor:
        return self._from_start(task, lambda q: q.amax(-1))

    def random_return(self, task: RoomGoals) -> Tensor:
        return self._from_start(task, lambda q: q.mean(-1))

    def _from_start(self, task: RoomGoals, backup: Callable[[Tensor], Tensor]) -> Tensor:
        """Exact expected return (B,) of an episode."""
        return backup(action_values(task, self.horizon, backup))[:, 0, CELLS.index((0, 0))]

    def sketch(self, task: RoomGoals, episodes: int = 1) -> Sketch[RoomState]:
        """The rooms, darker where visited more often, with the counts, the paths (pale to dark in time) and goals."""
        colours = ("#1971c2", "#2f9e44", "#e03131")
        frames = [Frame(xy(goal), colour, f"{number + 1}") for number, (goal, colour) in enumerate(zip(task, colours))]
        return Cells(CELLS, 50, self.horizon, lambda state: xy(state.position), frames)


def action_values(task: RoomGoals, steps: int, backup: Callable[[Tensor], Tensor]) -> Tensor:
    """Expected returns of the last `steps` steps (B, 4, 33, 5), by goals reached, cell and action, exactly.

    `backup` turns the values of the actions into the value of a state: their maximum, or their mean.
    """
    device = task.first.device
    after = leads_to(device)  # (33, 5)
    cells = torch.arange(len(CELLS), device=device)
    before = torch.arange(len(PAYS) + 1, device=device)[:, None]  # (4, 1)
    goals = _goal_numbers(task)[:, :, None, None]  # (B, 3, 1, 1)
    reached, reward = _arrived(goals, cells, before)  # (B, 4, 33): of arriving in a cell
    value = torch.zeros(reached.shape, dtype=torch.float64, device=device)
    for _ in range(steps):
        arriving = reward.double() + value.gather(1, reached)
        values = arriving[..., after]  # (B, 4, 33, 5)
        value = backup(values)
    return values.to(torch.float32)


def best_moves(task: RoomGoals, steps: int) -> Tensor:
    """Actions (B, 4, 33), by goals reached and cell, that earn the most in an episode's last `steps` steps."""
    return action_values(task, steps, lambda q: q.amax(-1)).argmax(-1)


def cell_number(cell: Tensor) -> Tensor:
    """The numbers in `CELLS` of cells (…, 2)."""
    return _numbers(cell.device)[cell[..., 0] + FAR[0], cell[..., 1] + FAR[1]]


def _arrived(goals: Tensor, cell: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Goals reached after entering a cell, and the reward; `goals` (B, 3, …) and `cell` are numbers of cells."""
    first, second, third = goals.unbind(1)
    # An earlier goal hides a later one in the same cell, which only tasks of a user's own have.
    at_first = cell == first
    at_second = (cell == second) & (reached >= 1) & ~at_first
    at_third = (cell == third) & (reached >= 2) & ~at_first & ~at_second
    now = torch.maximum(reached, at_first + 2 * at_second + 3 * at_third)
    one, ten, hundred = PAYS
    return now, torch.where(at_first, one, torch.where(at_second, ten, torch.where(at_third, hundred, -0.1)))


def _corners(middle: int) -> list[tuple[int, int]]:
    """Return the corners of the room around x = `middle`."""
    return [(middle + x, y) for x in (-1, 1) for y in (-1, 1)]


def _goal_numbers(task: RoomGoals) -> Tensor:
    """Return the indices (B, 3) of the goals' cells."""
    return cell_number(torch.stack(tuple(task), dim=1))


@functools.cache
def _cells(device: torch.device) -> Tensor:
    return torch.tensor(CELLS, device=device)  # (33, 2)


@functools.cache
def _numbers(device: torch.device) -> Tensor:
    """Return the index of the cell (x - 7, y - 1), int64 (15, 3); -1 for walls."""
    xs, ys = range(-FAR[0], FAR[0] + 1), range(-FAR[1], FAR[1] + 1)
    rows = [[CELLS.index((x, y)) if (x, y) in CELLS else -1 for y in ys] for x in xs]
    return torch.tensor(rows, device=device)


@functools.cache
def leads_to(device: torch.device) -> Tensor:
    """Return the index of the next cell of each cell and action, int64 (33, 5). Walls stop a move."""
    cells = torch.tensor(CELLS, device=device)
    far = torch.tensor(FAR, device=device)
    target = cell_number((cells[:, None] + moves(device)).clamp(-far, far))
    return torch.where(target < 0, torch.arange(len(cells), device=device)[:, None], target)
