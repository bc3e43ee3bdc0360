"""A key and its door in a dark room (Laskin et al. 2022)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.beliefs.places import Ground
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.cells import Cells, Frame, xy
from metarl.envs.grids.grid import (
    MOVES,
    cell_number,
    cells,
    floor,
    grid_spaces,
    hitting,
    moved,
    random_part,
    room_in_letters,
    with_actions,
)


class KeyDoorTask(NamedTuple):
    """The cells of the key and its door, and the effects of the actions."""

    key: Tensor  # (B, 2) int64: x, y
    door: Tensor  # (B, 2) int64: x, y; never the key's cell
    actions: Tensor  # (B, 5) int64: the move that each action makes; 0 … 4 but in `ood`


class KeyDoorState(NamedTuple):
    """The agent's cell, and whether it has the key."""

    position: Tensor  # (B, 2) int64: x, y
    has_key: Tensor  # (B,) bool; not observed


class DarkKeyToDoor(TaskFamily[KeyDoorTask, KeyDoorState]):
    """A dark 9×9 room with a key and the door that it opens; find both, then fetch the key and go to the door.

    Description:
        The agent starts anywhere and knows its cell, but neither where the key and the door are nor whether it has the
        key: it must remember its rewards. Walls stop a move that would leave the room. Without the key, nothing reveals
        the door.

    What varies:
        The cells of the key and of the door, `KeyDoorTask.key` and `KeyDoorTask.door`, and in `ood` also what the
        actions do, `KeyDoorTask.actions`.

    Splits:
        - `all`: all 6480 pairs of different cells.
        - `train`, `test`: a fixed partition of these into 5184 and 1296: the test pairs are the first 1296 of
          ``rng.permutation(rng.key(9), 6480)``. A pair has the number 80 · key + door, with the door counted among the
          80 other cells, and cell (x, y) the number 9 y + x.
        - `valid`: 1728 of the training pairs.
        - `ood`: permuted actions on the training pairs, so that nothing else is new. The permutation is uniform over
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

    Rewards:
        After the move: 1 on the key the first time in an episode, 1 on the door with the key, otherwise 0.

    Endings:
        Terminated on the door with the key; truncated after 50 steps.

    Optimum:
        Known task: 2, since the key is at most 16 steps away from any start, and the door 16 from the key. Random:
        exact per task, 0.250 on average over `all`.

    Source:
        Laskin et al. 2022, "In-context reinforcement learning with algorithm distillation", section 4 (which also has
        the 81 pairs whose key lies at the door).

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    size = 9

    def __init__(self, episodes_per_trial: int = 5) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 50
        self.observation_space, self.action_space = grid_spaces(self.size)

    def enumerate_tasks(self, split: str) -> KeyDoorTask:
        """Return every task of the split once; in `ood` each pair with each derangement (228 096)."""
        every = torch.tensor(cells(self.size))
        count = len(every)
        pairs = random_part(count * (count - 1), 1296, seed=9, split=split)
        key, other = pairs // (count - 1), pairs % (count - 1)
        index, actions = with_actions(len(pairs), split)
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

    def observation_text(self, obs: Tensor) -> str:
        return room_in_letters(self.size, obs)

    def step(
        self, task: KeyDoorTask, state: KeyDoorState, action: Tensor, key: Key
    ) -> tuple[KeyDoorState, Tensor, Tensor]:
        position = moved(state.position, task.actions, action, self.size)
        taken = (position == task.key).all(-1) & ~state.has_key
        opened = (position == task.door).all(-1) & state.has_key
        return KeyDoorState(position, state.has_key | taken), (taken | opened).to(torch.float32), opened

    def belief(self, split: str) -> Belief | None:
        """Return the exact belief; None for `ood`, whose 228 096 tasks are too many to track for every row."""
        if split == "ood":
            return None
        return Enumeration(self, split, of_task=self._places, of_state=lambda state: state.has_key[:, None].float())

    def first_state(self, task: KeyDoorTask, obs: Tensor) -> KeyDoorState:
        return KeyDoorState(obs.to(torch.int64), torch.zeros(len(obs), dtype=torch.bool, device=obs.device))

    def _places(self, task: KeyDoorTask) -> Tensor:
        """Return the cells of key and door, one-hot: float32 (N, 162)."""
        numbers = cell_number(torch.stack([task.key, task.door], dim=1), self.size)
        return torch.nn.functional.one_hot(numbers, self.size**2).flatten(1).to(torch.float32)

    def ground(self, split: str) -> Ground:
        return floor(self.size, lambda task: {"key": task.key, "door": task.door})

    def success(self, task: KeyDoorTask, state: KeyDoorState) -> Tensor:
        return (state.position == task.door).all(-1) & state.has_key

    def oracle(self, task: KeyDoorTask) -> Tensor:
        return torch.full((len(task.key),), 2.0, device=task.key.device)

    def random_return(self, task: KeyDoorTask) -> Tensor:
        # Permuting the actions does not change their mean. Sum over the time of taking the key, then reach the door:
        within = hitting(self.size, self.horizon).to(task.key.device)  # (horizon + 1, goal, start)
        key, door = cell_number(task.key, self.size), cell_number(task.door, self.size)
        taken = within[:, key].mean(-1)  # (horizon + 1, B): mean over the starts
        opened = within[:, door, key]  # (horizon + 1, B): within this many steps from the key
        return taken[-1] + (taken.diff(dim=0) * opened[:-1].flip(0)).sum(0)

    def sketch(self, task: KeyDoorTask, episodes: int = 1) -> Sketch[KeyDoorState]:
        """Draw the room (darker: more visits), the paths (darker over time), the key and the door."""
        frames = [Frame(xy(task.key), "#e03131", "key"), Frame(xy(task.door), "#2f9e44", "door")]
        return Cells(cells(self.size), 360 // self.size, self.horizon, lambda state: xy(state.position), frames)
