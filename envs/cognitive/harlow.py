"""Harlow's learning sets: learn which of two new objects pays."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.checks import within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.core.tree import named_leaves
from metarl.envs.cognitive.harlow_beliefs import RightObject, Tape
from metarl.envs.drawing.sheet import BAD, GOOD, Sheet, pixels

TAPE = 17  # cells, closed to a circle


APART = 3  # cells from the fixation cross to an object


REACH = 4  # visible cells on each side


class ObjectPair(NamedTuple):
    """The features of the two objects of a trial, float32 ``(B, num_features)`` each."""

    right: Tensor  # the one that pays 1
    wrong: Tensor  # the one that costs 1


class HarlowState(NamedTuple):
    """The state of a round. Cells are numbered from the agent's gaze at the start of the round."""

    gaze: Tensor  # (B,) int64: the cell that the agent looks at, 0 … 16
    cross: Tensor  # (B,) int64: the cell of the fixation cross
    side: Tensor  # (B,) int64: +1 if the right object appears at cross + 3, -1 if at cross - 3
    fixated: Tensor  # (B,) bool: the cross was reached and replaced by the objects


class Harlow(TaskFamily[ObjectPair, HarlowState]):
    """Two new objects, one of which pays; find out which by one choice, then choose it in all later rounds.

    Description:
        The agent looks at a circular tape of 17 cells; it sees the cell it looks at and 4 on each side. An episode is
        one round: a fixation cross appears 1, 2 or 3 cells to the left or right; when the agent looks at it, two
        objects replace it, 3 cells to its left and right; looking at one of them chooses it. The objects stay the same
        throughout a trial, but their sides are redrawn in every round.

    What varies:
        The two objects and which of them pays: `ObjectPair`.

    Splits:
        - `train`, `valid`, `test`: new objects, each feature ~ U[-1, 1), in disjoint random streams.
        - `ood`: objects unlike any of these: each feature has a magnitude ~ U[1, 1.5) and a random sign.

    Actions:
        ======  ====================
        action  meaning
        ======  ====================
        0       keep looking there
        1       look one cell left
        2       look one cell right
        ======  ====================

    Observations:
        For each of the 9 visible cells, from left to right:

        =====  ==========================================  ============  =====
        index  meaning                                     range         unit
        =====  ==========================================  ============  =====
        0      1 if the fixation cross is there            {0, 1}        none
        1 … F  features of the object there, 0 if none     [-1.5, 1.5]   none
        =====  ==========================================  ============  =====

        In train and test the features lie in [-1, 1).

    Rewards:
        1 for choosing the correct object, -1 for the wrong one, 0 before.

    Endings:
        Terminated by the choice; truncated after `horizon` steps.

    Optimum:
        Known task: 1. Random: 0. Without knowledge of the task: 0 on average in the first round, since nothing tells
        the objects apart, and 1 in all later rounds (win-stay, lose-shift), so 5 in the 6 rounds of a trial.

    Differs from the source:
        ==================  =============================================  ========
        what                here                                           there
        ==================  =============================================  ========
        reaching the cross  pays nothing, so that a return counts correct  pays 0.2
                            choices
        ==================  =============================================  ========

    Source:
        Harlow 1949; Wang et al. 2018, "Prefrontal cortex as a meta-reinforcement learning system", on a tape as in
        one-dimensional reproductions of it. These speak of a receptive field of 8 cells but show 9.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False

    def __init__(self, num_features: int = 8, horizon: int = 20, episodes_per_trial: int = 6) -> None:
        self.num_features = whole_number("num_features", num_features)
        self.horizon = whole_number("horizon", horizon, least=2 * APART)  # the longest shortest way to a choice
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        size = (2 * REACH + 1) * (1 + num_features)
        self.observation_space = gymnasium.spaces.Box(-1.5, 1.5, (size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def draw_tasks(self, keys: Key, split: str) -> ObjectPair:
        u = rng.uniform(keys, 4 * self.num_features)
        features, signs = (2.0 * u - 1.0).chunk(2, dim=-1)
        if split == "ood":
            features = torch.where(signs < 0, -1.0, 1.0) * (1.0 + 0.5 * features.abs())
        right, wrong = features.chunk(2, dim=-1)
        return ObjectPair(right, wrong)

    def check_task(self, task: ObjectPair) -> None:
        for name, features in named_leaves(task).items():
            within(f"ObjectPair.{name}", features, -1.5, 1.5)

    def reset(self, task: ObjectPair, key: Key) -> HarlowState:
        draw = rng.integers(key, 1, 4 * APART)[:, 0]  # the cross's distance and side, and the side of the right object
        distance = 1 + draw % APART
        cross = torch.where(draw // APART % 2 == 0, distance, TAPE - distance)
        side = torch.where(draw // (2 * APART) == 0, 1, -1)
        return HarlowState(torch.zeros_like(draw), cross, side, torch.zeros_like(draw, dtype=torch.bool))

    def observe(self, task: ObjectPair, state: HarlowState) -> Tensor:
        seen = torch.arange(-REACH, REACH + 1, device=state.gaze.device)
        offset = (state.gaze[:, None] + seen - state.cross[:, None]) % TAPE  # (B, 9) cells right of the cross
        shown = state.fixated[:, None]
        right = (shown & (offset == (APART * state.side[:, None]) % TAPE))[..., None]
        wrong = (shown & (offset == (-APART * state.side[:, None]) % TAPE))[..., None]
        objects = torch.where(right, task.right[:, None], torch.where(wrong, task.wrong[:, None], 0.0))
        cross = (~shown & (offset == 0)).to(torch.float32)[..., None]
        return torch.cat([cross, objects], dim=-1).flatten(1)

    def step(
        self, task: ObjectPair, state: HarlowState, action: Tensor, key: Key
    ) -> tuple[HarlowState, Tensor, Tensor]:
        gaze = (state.gaze + torch.where(action == 1, -1, torch.where(action == 2, 1, 0))) % TAPE
        offset = (gaze - state.cross) % TAPE
        right = state.fixated & (offset == (APART * state.side) % TAPE)
        wrong = state.fixated & (offset == (-APART * state.side) % TAPE)
        reward = right.to(torch.float32) - wrong.to(torch.float32)
        # Not `_replace`: the compiler of torch 2.11 turns it into an empty tuple.
        return HarlowState(gaze, state.cross, state.side, state.fixated | (offset == 0)), reward, right | wrong

    def belief(self, split: str) -> Belief | None:
        """Return the belief; None for a list of tasks, whose objects would reveal at once which of them pays."""
        if self.num_tasks(split) is not None:
            return None
        low, high = (1.0, 1.5) if split == "ood" else (0.0, 1.0)
        return RightObject(Tape(TAPE, APART, REACH), self.num_features, low, high)

    def success(self, task: ObjectPair, state: HarlowState) -> Tensor:
        return state.fixated & ((state.gaze - state.cross) % TAPE == (APART * state.side) % TAPE)

    def oracle(self, task: ObjectPair) -> Tensor:
        return task.right.new_ones(len(task.right))

    def random_return(self, task: ObjectPair) -> Tensor:
        return task.right.new_zeros(len(task.right))  # either object is equally likely to be met first

    def sketch(self, task: ObjectPair, episodes: int = 1) -> Sketch[HarlowState]:
        """One column per round, and in it one line per state: the tape with the gaze in its middle."""
        return _Tapes(self.horizon, episodes)


class _Tapes(Sketch[HarlowState]):
    """Rounds side by side, `COLUMNS` of them to a page; the time of a round runs downwards."""

    COLUMNS, LINE, LEFT, TOP = 6, 15, 22, 66  # pixels, but for the first

    def __init__(self, horizon: int, rounds: int) -> None:
        self.columns = min(rounds, self.COLUMNS)
        self.cell = 20 if self.columns == 1 else 9
        self.width = self.LEFT + self.cell * TAPE + 30
        self.sheet = Sheet(max(self.width * self.columns, 400), self.TOP + self.LINE * (horizon + 1) + 6)
        ground = self.sheet.ground
        ground.text((8, 4), "blue: pays 1     red: costs 1     +: fixation cross", fill="black", font_size=14)
        said = f"the {TAPE} cells around the gaze, grey: seen; time runs downwards"
        ground.text((8, 24), said, fill="#666666", font_size=13)
        self.round, self.time, self.left = 0, 0, 0

    def add(self, state: HarlowState, first: bool = False) -> None:
        if first or not self.round:
            self._begin_round()
        gaze, cross, side = int(state.gaze[0]), int(state.cross[0]), int(state.side[0])
        fixated, pen = bool(state.fixated[0]), self.sheet.pen
        y, tape = self.TOP + self.LINE * self.time, self.left + self.LEFT
        pen.text((self.left + 6, y), str(self.time), fill="#666666", font_size=11)
        right = (APART * side) % TAPE
        for i in range(TAPE):
            x, offset = tape + self.cell * i, (gaze + i - TAPE // 2 - cross) % TAPE
            fill = "#dee2e6" if abs(i - TAPE // 2) <= REACH else "#ffffff"
            if fixated and offset in (APART, TAPE - APART):
                fill = GOOD if offset == right else BAD
            pen.rectangle((x, y, x + self.cell - 2, y + self.LINE - 3), fill=fill, outline="#adb5bd")
            if offset == 0 and not fixated:
                pen.text((x + self.cell // 2 - 1, y + 6), "+", fill="black", font_size=14, anchor="mm")
        x = tape + self.cell * (TAPE // 2)
        pen.rectangle((x - 1, y - 1, x + self.cell - 1, y + self.LINE - 2), outline="black", width=2)
        offset = (gaze - cross) % TAPE
        if fixated and offset in (APART, TAPE - APART):
            paid = "+1" if offset == right else "-1"
            pen.text((tape + self.cell * TAPE + 5, y - 1), paid, fill="black", font_size=13)
        self.time += 1

    def _begin_round(self) -> None:
        column = self.round % self.columns
        if column == 0:
            self.sheet.clear()
        self.round, self.time, self.left = self.round + 1, 0, self.width * column
        if self.columns > 1:
            self.sheet.pen.text((self.left + self.LEFT, 45), f"round {self.round}", fill="black", font_size=13)

    def image(self) -> np.ndarray:
        return pixels(self.sheet.with_marks()[0])
