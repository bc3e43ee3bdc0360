"""GridNavi: a grid with a hidden goal (Zintgraf et al. 2020)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.beliefs.places import Ground
from metarl.core.checks import within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.grids.grid import (
    MOVE_NAMES,
    Cell,
    all_towards,
    cells,
    fixed_part,
    floor,
    grid_spaces,
    moves,
    plan,
    room,
    room_in_letters,
    towards,
)


class GoalCell(NamedTuple):
    """The place of the reward."""

    goal: Tensor  # (B, 2) int64: x, y


class GridNavi(TaskFamily[GoalCell, Cell]):
    """A 5×5 grid with one rewarding cell; search for it in the first episode, go straight to it in the others.

    Description:
        The agent starts in the corner (0, 0) and does not know the goal; every step on the goal pays. Walls stop a move
        that would leave the grid.

    What varies:
        The goal cell: `GoalCell.goal`.

    Splits:
        - `all`: the 21 cells other than (0,0), (0,1), (1,0), (1,1), as in the paper, which trains and tests on all of
          them.
        - `train`, `test`: a fixed partition of these into 15 and 6. The test goals are listed in TEST_GOALS.
        - `valid`: 5 of the training goals.
        - `ood`: the goals that these splits leave out: (0,1), (1,0), (1,1).

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
        Known task: the shortest path, exact per goal; 11.0714 on average over `all`. Random: exact per goal, -1.166 on
        average over `all`. Bayes-optimal over `all`, per episode: 4.000, then 11.0714 (4 episodes: 37.214). A higher
        return means that the goal has leaked.

    Differs from the source:
        =====  ==============================================  ===============
        what   here                                            there
        =====  ==============================================  ===============
        tasks  split into train and test; `all` is the         all 21 for both
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
    action_names = MOVE_NAMES
    size = 5
    TEST_GOALS = ((3, 1), (4, 1), (2, 2), (4, 2), (2, 4), (3, 4))

    def __init__(self, episodes_per_trial: int = 4) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 15
        self.observation_space, self.action_space = grid_spaces(self.size)

    def enumerate_tasks(self, split: str) -> GoalCell:
        """Return every task of the split once, for exact evaluation."""
        near = {(0, 0), (0, 1), (1, 0), (1, 1)}
        far = [cell for cell in cells(self.size) if cell not in near]
        goals = sorted(near - {(0, 0)}) if split == "ood" else fixed_part(far, split, self.TEST_GOALS)
        return GoalCell(torch.tensor(goals))

    def check_task(self, task: GoalCell) -> None:
        within("GoalCell.goal", task.goal, 0, self.size - 1)

    def reset(self, task: GoalCell, key: Key) -> Cell:
        return Cell(torch.zeros_like(task.goal))

    def observe(self, task: GoalCell, state: Cell) -> Tensor:
        return state.position.to(torch.float32)

    def observation_text(self, obs: Tensor) -> str:
        return room_in_letters(self.size, obs)

    def step(self, task: GoalCell, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        position = (state.position + moves(action.device)[action]).clamp(0, self.size - 1)
        found = (position == task.goal).all(-1)
        return Cell(position), torch.where(found, 1.0, -0.1), torch.zeros_like(found)

    def belief(self, split: str) -> Belief:
        return Enumeration(self, split)

    def ground(self, split: str) -> Ground:
        return floor(self.size, lambda task: {"goal": task.goal})

    def success(self, task: GoalCell, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    def optimal_action(self, task: GoalCell, obs: Tensor) -> Tensor:
        return towards(task.goal, obs.to(torch.int64))

    def optimal_actions(self, task: GoalCell, obs: Tensor) -> Tensor:
        return all_towards(task.goal, obs.to(torch.int64))

    def oracle(self, task: GoalCell) -> Tensor:
        return plan(task.goal, self.size, self.horizon, start=(0, 0), miss=-0.1, backup=lambda q: q.amax(-1))

    def random_return(self, task: GoalCell) -> Tensor:
        return plan(task.goal, self.size, self.horizon, start=(0, 0), miss=-0.1, backup=lambda q: q.mean(-1))

    def sketch(self, task: GoalCell, episodes: int = 1) -> Sketch[Cell]:
        """Draw the grid with visit counts (darker: more visits), the paths (darker over time) and the goal."""
        return room(task.goal, self.size, self.horizon)
