"""Dark rooms: the goal is not observed, and pays when the agent is on it (Laskin et al. 2022)."""

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
    MOVES,
    Cell,
    all_towards,
    cell_number,
    cells,
    fixed_part,
    floor,
    grid_spaces,
    hitting,
    moved,
    plan,
    random_part,
    room,
    room_in_letters,
    towards,
    with_actions,
)


class DarkTask(NamedTuple):
    """The place of the reward, and the effects of the actions."""

    goal: Tensor  # (B, 2) int64: x, y
    actions: Tensor  # (B, 5) int64: the move that each action makes; 0 … 4 but in `ood`


class DarkRoom(TaskFamily[DarkTask, Cell]):
    """A dark 9×9 room with one rewarding cell; find it, then stay on it in every later episode.

    Description:
        The agent starts in the middle (4, 4) and knows its cell, but not the goal; every step on the goal pays. Walls
        stop a move that would leave the room.

    What varies:
        The goal cell, `DarkTask.goal`, and in `ood` also what the actions do, `DarkTask.actions`.

    Splits:
        - `all`: all 81 cells, including the start.
        - `train`, `test`: a fixed partition of these into 65 and 16. The test goals are listed in TEST_GOALS.
        - `valid`: 21 of the training goals.
        - `ood`: permuted actions on the training goals, so that nothing else is new. The permutation is uniform over
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
        In `ood`, an action makes the move `actions[action]` of this list, never its own.

    Observations:
        =====  =======  ======  =====
        index  meaning  range   unit
        =====  =======  ======  =====
        0      x        0 … 8   cells
        1      y        0 … 8   cells
        =====  =======  ======  =====

        The coordinates carry the same information as the cell's index; unlike one input per cell, they let an agent
        generalise from the training goals to others.

    Rewards:
        After the move: 1 on the goal, otherwise 0.

    Endings:
        Never terminated; truncated after 20 steps.

    Optimum:
        Known task: the shortest path, exact per goal; 16.543 on average over `all`. Random: exact per goal, 0.246 on
        average over `all`. Bayes-optimal first episode over `all`: 2.593.

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
        self.observation_space, self.action_space = grid_spaces(self.size)

    def enumerate_tasks(self, split: str) -> DarkTask:
        """Return every task of the split once, for exact evaluation; in `ood` each goal with each derangement."""
        goals = fixed_part(cells(self.size), "train" if split == "ood" else split, self.TEST_GOALS)
        index, actions = with_actions(len(goals), split)
        return DarkTask(torch.tensor(goals)[index], actions)

    def check_task(self, task: DarkTask) -> None:
        check_dark(task, self.size)

    def reset(self, task: DarkTask, key: Key) -> Cell:
        return Cell(torch.full_like(task.goal, self.size // 2))

    def observe(self, task: DarkTask, state: Cell) -> Tensor:
        return state.position.to(torch.float32)

    def observation_text(self, obs: Tensor) -> str:
        return room_in_letters(self.size, obs)

    def step(self, task: DarkTask, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        position = moved(state.position, task.actions, action, self.size)
        found = (position == task.goal).all(-1)
        return Cell(position), found.to(torch.float32), torch.zeros_like(found)

    def belief(self, split: str) -> Belief:
        return Enumeration(self, split)

    def ground(self, split: str) -> Ground:
        return floor(self.size, lambda task: {"goal": task.goal})

    def success(self, task: DarkTask, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    def optimal_action(self, task: DarkTask, obs: Tensor) -> Tensor:
        move = towards(task.goal, obs.to(torch.int64))
        return (task.actions == move[:, None]).to(torch.int64).argmax(-1)  # the action that makes this move in the task

    def optimal_actions(self, task: DarkTask, obs: Tensor) -> Tensor:
        return all_towards(task.goal, obs.to(torch.int64)).gather(1, task.actions)

    # Permuting the actions changes neither their maximum nor their mean, so both returns depend only on the goal.
    def oracle(self, task: DarkTask) -> Tensor:
        return plan(task.goal, self.size, self.horizon, start=(4, 4), miss=0.0, backup=lambda q: q.amax(-1))

    def random_return(self, task: DarkTask) -> Tensor:
        return plan(task.goal, self.size, self.horizon, start=(4, 4), miss=0.0, backup=lambda q: q.mean(-1))

    def sketch(self, task: DarkTask, episodes: int = 1) -> Sketch[Cell]:
        """Draw the room with visit counts (darker: more visits), the paths (darker over time) and the goal."""
        return room(task.goal, self.size, self.horizon)


def check_dark(task: DarkTask, size: int) -> None:
    """Raise ValueError unless the goal is in the room and the actions are moves."""
    within("DarkTask.goal", task.goal, 0, size - 1)
    within("DarkTask.actions", task.actions, 0, len(MOVES) - 1)


class DarkRoomHard(TaskFamily[DarkTask, Cell]):
    """A dark 17×17 room with one goal cell that pays once; find it, then go straight there in later episodes.

    Description:
        The agent starts in the middle (8, 8) and knows its cell, but not the goal. Walls stop a move that would leave
        the room. An episode can reach any cell, but visits at most 20 of the 289.

    What varies:
        The goal cell, `DarkTask.goal`, and in `ood` also what the actions do, `DarkTask.actions`.

    Splits:
        - `all`: all 289 cells, including the start.
        - `train`, `test`: a fixed partition of these into 231 and 58: the test goals are the first 58 of
          ``rng.permutation(rng.key(17), 289)``, where cell (x, y) has the number 17 y + x.
        - `valid`: 77 of the training goals.
        - `ood`: permuted actions on the training goals, so that nothing else is new. The permutation is uniform over
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
        In `ood`, an action makes the move `actions[action]` of this list, never its own.

    Observations:
        =====  =======  ======  =====
        index  meaning  range   unit
        =====  =======  ======  =====
        0      x        0 … 16  cells
        1      y        0 … 16  cells
        =====  =======  ======  =====

    Rewards:
        After the move: 1 on the goal, otherwise 0.

    Endings:
        Terminated on the goal; truncated after 20 steps.

    Optimum:
        Known task: 1, since no cell is more than 16 steps away. Random: exact per goal, 0.0373 on average over `all`.
        First episode of an agent that visits 20 new cells: 20/289 = 0.0692 on average over `all`.

    Source:
        Laskin et al. 2022, "In-context reinforcement learning with algorithm distillation", section 4.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    random_start = False
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    size = 17

    def __init__(self, episodes_per_trial: int = 20) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 20
        self.observation_space, self.action_space = grid_spaces(self.size)

    def enumerate_tasks(self, split: str) -> DarkTask:
        """Return every task of the split once, for exact evaluation; in `ood` each goal with each derangement."""
        goals = random_part(self.size**2, 58, seed=17, split=split)
        index, actions = with_actions(len(goals), split)
        return DarkTask(torch.tensor(cells(self.size))[goals][index], actions)

    def check_task(self, task: DarkTask) -> None:
        check_dark(task, self.size)

    def reset(self, task: DarkTask, key: Key) -> Cell:
        return Cell(torch.full_like(task.goal, self.size // 2))

    def observe(self, task: DarkTask, state: Cell) -> Tensor:
        return state.position.to(torch.float32)

    def observation_text(self, obs: Tensor) -> str:
        return room_in_letters(self.size, obs)

    def step(self, task: DarkTask, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        position = moved(state.position, task.actions, action, self.size)
        found = (position == task.goal).all(-1)
        return Cell(position), found.to(torch.float32), found

    def belief(self, split: str) -> Belief:
        return Enumeration(self, split)

    def ground(self, split: str) -> Ground:
        return floor(self.size, lambda task: {"goal": task.goal})

    def success(self, task: DarkTask, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    def oracle(self, task: DarkTask) -> Tensor:
        return torch.ones(len(task.goal), device=task.goal.device)  # ≤ 16 steps; one step if it starts there

    def random_return(self, task: DarkTask) -> Tensor:
        # Permuting the actions does not change their mean.
        within = hitting(self.size, self.horizon)[-1].to(task.goal.device)
        return within[cell_number(task.goal, self.size), self.size**2 // 2]

    def sketch(self, task: DarkTask, episodes: int = 1) -> Sketch[Cell]:
        """Draw the room with visit counts (darker: more visits), the paths (darker over time) and the goal."""
        return room(task.goal, self.size, self.horizon)
