"""Dark rooms that end when all is found: one goal in a large room, or a key and its door."""

from __future__ import annotations

import functools
import itertools
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl import rng
from metarl.envs.cell_pictures import Cells, Frame, xy
from metarl.envs.grids import MOVES, Cell, DarkTask, cells, check_dark, moves, room
from metarl.errors import possible, whole_number, within
from metarl.family import Key, TaskFamily
from metarl.sketch import Sketch


class KeyDoorTask(NamedTuple):
    """Where the key and its door are, and what the actions do."""

    key: Tensor  # (B, 2) int64: x, y
    door: Tensor  # (B, 2) int64: x, y; never the key's cell
    actions: Tensor  # (B, 5) int64: the move that each action makes; 0 … 4 but in `ood`


class KeyDoorState(NamedTuple):
    """Where the agent is and what it has."""

    position: Tensor  # (B, 2) int64: x, y
    has_key: Tensor  # (B,) bool; not observed


class DarkRoomHard(TaskFamily[DarkTask, Cell]):
    """A 17×17 room in the dark with one goal cell that pays once; find it, then go straight there in later episodes.

    Description:
        The agent starts in the middle (8, 8), knows its cell, and is not told the goal. Walls stop a move that would
        leave the room. An episode reaches any cell, but visits 20 of the 289 at most.

    What varies:
        The goal cell, `DarkTask.goal`, and in `ood` what the actions do, `DarkTask.actions`.

    Splits:
        - `all`: all 289 cells, the start among them.
        - `train`, `test`: a partition of these into 231 and 58, which the library's generator fixes: the test goals are
          the first 58 of ``rng.permutation(rng.key(17), 289)``, cells counted as 17 y + x.
        - `valid`: 77 of the training goals.
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
        0      x        0 … 16  cells
        1      y        0 … 16  cells
        =====  =======  ======  =====

    Rewards:
        After the move: 1 on the goal, otherwise 0.

    Endings:
        Terminated on the goal; truncated after 20 steps.

    Optimum:
        Known task: 1, since no cell is more than 16 steps away. Random: exact per goal, 0.0373 in the mean of `all`.
        First episode of an agent that visits 20 new cells: 20/289 = 0.0692 in the mean of `all`.

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
        self.observation_space = gymnasium.spaces.Box(0.0, self.size - 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def enumerate_tasks(self, split: str) -> DarkTask:
        """Every task of the split once, for exact evaluation; in `ood` each goal with each derangement."""
        goals = _part(self.size**2, 58, seed=17, split=split)
        index, actions = _with_actions(len(goals), split)
        return DarkTask(torch.tensor(cells(self.size))[goals][index], actions)

    def check_task(self, task: DarkTask) -> None:
        check_dark(task, self.size)

    def reset(self, task: DarkTask, key: Key) -> Cell:
        return Cell(torch.full_like(task.goal, self.size // 2))

    def observe(self, task: DarkTask, state: Cell) -> Tensor:
        return state.position.to(torch.float32)

    def step(self, task: DarkTask, state: Cell, action: Tensor, key: Key) -> tuple[Cell, Tensor, Tensor]:
        position = _moved(state.position, task.actions, action, self.size)
        found = (position == task.goal).all(-1)
        return Cell(position), found.to(torch.float32), found

    def success(self, task: DarkTask, state: Cell) -> Tensor:
        return (state.position == task.goal).all(-1)

    def oracle(self, task: DarkTask) -> Tensor:
        return torch.ones(len(task.goal), device=task.goal.device)  # ≤ 16 steps, and one to arrive where it starts

    def random_return(self, task: DarkTask) -> Tensor:
        # Renaming the actions does not change their mean.
        within = hitting(self.size, self.horizon)[-1].to(task.goal.device)
        return within[_index(task.goal, self.size), self.size**2 // 2]

    def sketch(self, task: DarkTask, episodes: int = 1) -> Sketch[Cell]:
        """The room, darker where visited more often, with the counts, the paths (pale to dark in time) and the goal."""
        return room(task.goal, self.size, self.horizon)


class DarkKeyToDoor(TaskFamily[KeyDoorTask, KeyDoorState]):
    """A 9×9 room in the dark with a key and a door that opens with it; find both, then fetch one and go to the other.

    Description:
        The agent starts anywhere, knows its cell, and is told neither where the key and the door are nor whether it
        has the key: it has to remember its rewards. Walls stop a move that would leave the room. Without the key the
        door shows nothing.

    What varies:
        The cells of the key and of the door, `KeyDoorTask.key` and `KeyDoorTask.door`, and in `ood` what the actions
        do, `KeyDoorTask.actions`.

    Splits:
        - `all`: all 6480 pairs of different cells.
        - `train`, `test`: a partition of these into 5184 and 1296, which the library's generator fixes: the test pairs
          are the first 1296 of ``rng.permutation(rng.key(9), 6480)``, pairs counted as 80 · key + door among the 80
          other cells, cells as 9 y + x.
        - `valid`: 1728 of the training pairs.
        - `ood`: permuted actions, on the training pairs so that nothing else is new. The permutation is uniform over
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

    Rewards:
        After the move: 1 on the key the first time in an episode, 1 on the door with the key, otherwise 0.

    Endings:
        Terminated on the door with the key; truncated after 50 steps.

    Optimum:
        Known task: 2, since the key is at most 16 steps away from any start, and the door 16 from the key. Random:
        exact per task, 0.250 in the mean of `all`.

    Source:
        Laskin et al. 2022, "In-context reinforcement learning with algorithm distillation", section 4 (which also has
        the 81 pairs whose key lies at its door).

    Version history:
        v0: first version.
    """

    terminates = True
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    size = 9

    def __init__(self, episodes_per_trial: int = 5) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 50
        self.observation_space = gymnasium.spaces.Box(0.0, self.size - 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def enumerate_tasks(self, split: str) -> KeyDoorTask:
        """Every task of the split once, for exact evaluation; in `ood` each pair with each derangement (228 096)."""
        every = torch.tensor(cells(self.size))
        count = len(every)
        pairs = _part(count * (count - 1), 1296, seed=9, split=split)
        key, other = pairs // (count - 1), pairs % (count - 1)
        index, actions = _with_actions(len(pairs), split)
        return KeyDoorTask(every[key][index], every[other + (other >= key)][index], actions)

    def check_task(self, task: KeyDoorTask) -> None:
        within("KeyDoorTask.key", task.key, 0, self.size - 1)
        within("KeyDoorTask.door", task.door, 0, self.size - 1)
        within("KeyDoorTask.actions", task.actions, 0, len(MOVES) - 1)
        possible((task.key != task.door).any(-1), "The key and the door of a KeyDoorTask must be in different cells.")

    def reset(self, task: KeyDoorTask, key: Key) -> KeyDoorState:
        return KeyDoorState(rng.integers(key, 2, self.size), torch.zeros_like(key, dtype=torch.bool))

    def observe(self, task: KeyDoorTask, state: KeyDoorState) -> Tensor:
        return state.position.to(torch.float32)

    def step(
        self, task: KeyDoorTask, state: KeyDoorState, action: Tensor, key: Key
    ) -> tuple[KeyDoorState, Tensor, Tensor]:
        position = _moved(state.position, task.actions, action, self.size)
        taken = (position == task.key).all(-1) & ~state.has_key
        opened = (position == task.door).all(-1) & state.has_key
        return KeyDoorState(position, state.has_key | taken), (taken | opened).to(torch.float32), opened

    def success(self, task: KeyDoorTask, state: KeyDoorState) -> Tensor:
        return (state.position == task.door).all(-1) & state.has_key

    def oracle(self, task: KeyDoorTask) -> Tensor:
        return torch.full((len(task.key),), 2.0, device=task.key.device)

    def random_return(self, task: KeyDoorTask) -> Tensor:
        # Renaming the actions does not change their mean. The time of taking the key, and then the way to the door:
        within = hitting(self.size, self.horizon).to(task.key.device)  # (horizon + 1, goal, start)
        key, door = _index(task.key, self.size), _index(task.door, self.size)
        taken = within[:, key].mean(-1)  # (horizon + 1, B): over the starts
        opened = within[:, door, key]  # (horizon + 1, B): within so many steps from the key
        return taken[-1] + (taken.diff(dim=0) * opened[:-1].flip(0)).sum(0)

    def sketch(self, task: KeyDoorTask, episodes: int = 1) -> Sketch[KeyDoorState]:
        """The room, darker where visited more often, with the paths (pale to dark in time), the key and the door."""
        frames = [Frame(xy(task.key), "#e03131", "key"), Frame(xy(task.door), "#2f9e44", "door")]
        return Cells(cells(self.size), 360 // self.size, self.horizon, lambda state: xy(state.position), frames)


@functools.cache
def hitting(size: int, horizon: int) -> Tensor:
    """How likely random actions are to enter a cell: float32 (horizon + 1, goal, start), within 0 … horizon moves."""
    every = torch.tensor(cells(size))  # (S, 2)
    after = _index((every[:, None] + moves(every.device)).clamp(0, size - 1), size)  # (S, 5)
    goal = torch.eye(size**2, dtype=torch.bool)
    within = [torch.zeros(size**2, size**2)]
    for _ in range(horizon):
        within.append(torch.where(goal, 1.0, within[-1])[:, after].mean(-1))
    return torch.stack(within)


def _index(cell: Tensor, size: int) -> Tensor:
    """A cell's number, size · y + x, as in `cells`."""
    return size * cell[..., 1] + cell[..., 0]


def _moved(position: Tensor, actions: Tensor, action: Tensor, size: int) -> Tensor:
    """The cell after `action`, renamed by a task's `actions` (B, 5); walls stop it."""
    move = moves(action.device)[actions.gather(1, action[:, None])[:, 0]]
    return (position + move).clamp(0, size - 1)


@functools.cache
def _part(count: int, held_out: int, seed: int, split: str) -> Tensor:
    """Which of `count` numbered tasks belong to a split, in order: `held_out` fixed ones are those of `test`."""
    held = torch.zeros(count, dtype=torch.bool)
    held[rng.permutation(rng.key(seed), count)[:held_out]] = True
    kept = torch.ones_like(held) if split == "all" else held if split == "test" else ~held
    return kept.nonzero()[:, 0]


@functools.cache
def _with_actions(count: int, split: str) -> tuple[Tensor, Tensor]:
    """Rows of `count` tasks, and what the actions do in each: in `ood` every task comes with every derangement."""
    orders = list(itertools.permutations(range(len(MOVES))))
    if split == "ood":
        orders = [order for order in orders if all(move != action for action, move in enumerate(order))]
    else:
        orders = orders[:1]  # the identity
    return torch.arange(count).repeat_interleave(len(orders)), torch.tensor(orders).repeat(count, 1)
