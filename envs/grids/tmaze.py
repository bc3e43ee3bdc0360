"""A corridor: a cue at its start tells which way to turn at its end."""

from __future__ import annotations

import itertools
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.cells import Cells, Frame
from metarl.envs.grids.grid import STEP_NAMES, STEPS, steps


class Corridor(NamedTuple):
    """The arm that pays, and the length of the corridor."""

    side: Tensor  # (B,) int64: +1 upper arm, -1 lower arm
    length: Tensor  # (B,) int64: cells from the cue (or, if active, from the start) to the junction


class CorridorState(NamedTuple):
    """The agent's position, and whether it has seen the cue."""

    x: Tensor  # (B,) int64: cells from the cue
    y: Tensor  # (B,) int64: ±1 in an arm, else 0
    cue_seen: Tensor  # (B,) bool: an earlier observation showed the cue


class TMaze(TaskFamily[Corridor, CorridorState]):
    """A corridor with a cue at its start that says which way to turn at its end: a test of memory.

    Description:
        The cue is visible once, the first time that the agent is at x = 0. After that, nothing reveals the side or the
        position in the corridor. With ``active=False``, the agent starts on the cue; with ``active=True``, one cell to
        its right, so that it must first go back to look. Walls stop a move.

    What varies:
        The arm that pays, `Corridor.side`, and in `ood` the corridor's length, `Corridor.length`.

    Splits:
        - `train`, `all`: both sides, with the corridor of `corridor_length` cells. These are all the tasks, so there is
          no `test`: a held-out side would not be a new task but the untrained answer.
        - `valid`: both sides as well.
        - `ood`: both sides, in longer corridors of corridor_length + 1 … 2 · corridor_length cells.

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
        Known task: 1. With a perfect memory: 1. Without memory: at most 0.5. Random: 0.0006 for the default corridor
        (active: 0.0008), so rewards are rare at first.

    Differs from the source:
        =================  ====================  =====================================================================
        what               here                  there
        =================  ====================  =====================================================================
        end of an episode  the choice of an arm  the first step in which an arm can be entered; the reward depends on
                                                 where the agent is then
        waiting            costs nothing         is penalised
        =================  ====================  =====================================================================

    Source:
        Bakker 2001; Ni et al. 2023, "When do transformers shine in RL?", section 4 and its published code. Here the
        choice of an arm ends the episode, so that one horizon serves corridors of all lengths.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    random_start = False
    action_names = STEP_NAMES
    shows_task = True  # the first observation is the cue, unless `active`
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "ood", "all")

    def __init__(self, corridor_length: int = 10, active: bool = False) -> None:
        self.corridor_length = whole_number("corridor_length", corridor_length)
        self.active = active
        if active:
            self.shows_task = False  # type: ignore[misc]  # depends on the option
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

    def check_task(self, task: Corridor) -> None:
        possible(task.side.abs() == 1, "Corridor.side must be 1 or -1.")
        within("Corridor.length", task.length, 1, 2 * self.corridor_length)

    def reset(self, task: Corridor, key: Key) -> CorridorState:
        y = torch.zeros_like(task.side)
        return CorridorState(y + int(self.active), y, torch.zeros_like(y, dtype=torch.bool))

    def observe(self, task: Corridor, state: CorridorState) -> Tensor:
        shown = torch.where((state.x == 0) & ~state.cue_seen, task.side, state.y)
        return torch.stack([state.x == self._junction(task), shown], dim=-1).to(torch.float32)

    def step(
        self, task: Corridor, state: CorridorState, action: Tensor, key: Key
    ) -> tuple[CorridorState, Tensor, Tensor]:
        dx, dy = steps(action.device)[action].unbind(-1)
        junction = self._junction(task)
        y = torch.where(state.x == junction, (state.y + dy).clamp(-1, 1), 0)
        along = (state.x + dx).clamp_min(0)
        x = torch.where(state.y == 0, torch.minimum(along, junction), state.x)  # an arm has walls on both sides
        after = CorridorState(x, y, state.cue_seen | (state.x == 0))
        return after, (y == task.side).to(torch.float32), y != 0

    def belief(self, split: str) -> Belief:
        return Enumeration(self, split)

    def success(self, task: Corridor, state: CorridorState) -> Tensor:
        return state.y == task.side

    def oracle(self, task: Corridor) -> Tensor:
        return torch.ones(len(task.side), device=task.side.device)

    def random_return(self, task: Corridor) -> Tensor:
        # A bounded random walk; at the junction, one action in four enters the paying arm, one the other arm.
        places = torch.arange(2 * self.corridor_length + 2, device=task.side.device)
        at_junction = places == self._junction(task)[:, None]  # (B, places)
        value = torch.zeros(at_junction.shape, device=task.side.device)
        for _ in range(self.horizon):
            left, right = value[:, (places - 1).clamp_min(0)], value.roll(-1, dims=1)
            value = 0.25 * torch.where(at_junction, left + value + 1.0, left + right + 2.0 * value)
        return value[:, int(self.active)]

    def _junction(self, task: Corridor) -> Tensor:
        """Return the junction's x (B,)."""
        return task.length + int(self.active)

    def sketch(self, task: Corridor, episodes: int = 1) -> Sketch[CorridorState]:
        """Draw the maze with visit counts (darker: more visits), and a green frame around the arm that pays."""
        junction, side = int(self._junction(task)[0]), int(task.side[0])
        longest = 2 * self.corridor_length + int(self.active)  # of `ood`, so that all pictures have one size
        return Cells(
            [(x, 0) for x in range(junction + 1)] + [(junction, 1), (junction, -1)],
            max(34, min(60, 900 // (longest + 1))),
            self.horizon,
            lambda state: (int(state.x[0]), int(state.y[0])),
            [Frame((0, 0), "#1971c2", "cue"), Frame((junction, side), "#2f9e44", "pays")],
            corners=((0, -1), (longest, 1)),
        )
