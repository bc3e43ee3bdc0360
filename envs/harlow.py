"""Harlow's learning sets: which of two new objects pays?"""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from metarl import rng
from metarl.envs.checks import whole_number, within
from metarl.family import Key, TaskFamily

TAPE = 17  # cells, closed to a circle
APART = 3  # cells from the fixation cross to an object
REACH = 4  # cells that the agent sees to each side


class ObjectPair(NamedTuple):
    """The two objects of a trial, float32 ``(B, num_features)`` each: the features that they show."""

    right: Tensor  # the one that pays 1
    wrong: Tensor  # the one that costs 1


class HarlowState(NamedTuple):
    """Where a round stands. Cells are numbered from where the agent looks when the round begins."""

    gaze: Tensor  # (B,) int64: the cell that the agent looks at, 0 … 16
    cross: Tensor  # (B,) int64: the cell of the fixation cross
    side: Tensor  # (B,) int64: +1 if the right object appears at cross + 3, -1 if at cross - 3
    fixated: Tensor  # (B,) bool: the cross was reached, and the objects are there instead


class Harlow(TaskFamily):
    """Two new objects, one of which pays; find out by one choice, and be right in all later rounds.

    Description:
        The agent looks at a circular tape of 17 cells, of which it sees the cell it looks at and 4 to each side. An
        episode is one round: a fixation cross appears 1, 2 or 3 cells to the left or right; when the agent looks at
        it, it gives way to two objects, 3 cells to its left and to its right; looking at one of them chooses it. The
        objects of a trial stay the same, but on which side each appears is drawn anew in every round.

    What varies:
        The two objects and which of them pays: `ObjectPair`.

    Splits:
        - `train`, `valid`, `test`: new objects, each feature ~ U[-1, 1), in disjoint streams.
        - `ood`: objects unlike any of these, each feature of magnitude ~ U[1, 1.5) and random sign.

    Actions:
        ======  ====================
        action  meaning
        ======  ====================
        0       keep looking there
        1       look one cell left
        2       look one cell right
        ======  ====================

    Observations:
        For each of the 9 cells seen, from left to right:

        =====  ==========================================  ============  =====
        index  meaning                                     range         unit
        =====  ==========================================  ============  =====
        0      1 if the fixation cross is there            {0, 1}        none
        1 … F  features of the object there, 0 if none     [-1.5, 1.5]   none
        =====  ==========================================  ============  =====

        In train and test the features lie in [-1, 1).

    Rewards:
        1 for choosing the right object, -1 for the wrong one, 0 before.

    Endings:
        Terminated by the choice; truncated after `horizon` steps.

    Optimum:
        Known task: 1. Random: 0. Without knowing the task 0 in the mean of the first round, since nothing tells the
        objects apart, and 1 in all later ones (win stay, lose shift): 5 in the 6 rounds of a trial.

    Source:
        Harlow 1949; Wang et al. 2018, "Prefrontal cortex as a meta-reinforcement learning system", on a tape as in
        one-dimensional reproductions of it. These speak of a receptive field of 8 cells but show 9; they also pay 0.2
        for reaching the cross, which is left out here so that a return counts right choices.

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
        for name, features in zip(task._fields, task, strict=True):
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
        return state._replace(gaze=gaze, fixated=state.fixated | (offset == 0)), reward, right | wrong

    def success(self, task: ObjectPair, state: HarlowState) -> Tensor:
        return state.fixated & ((state.gaze - state.cross) % TAPE == (APART * state.side) % TAPE)

    def oracle(self, task: ObjectPair) -> Tensor:
        return task.right.new_ones(len(task.right))

    def random_return(self, task: ObjectPair) -> Tensor:
        return task.right.new_zeros(len(task.right))  # both objects are as likely to be met first

    def render(self, task: ObjectPair, states: list[HarlowState]) -> np.ndarray:
        """One line per state: the tape with the gaze in its middle, what is seen of it, the cross and the objects."""
        cell, line, left, top = 26, 16, 44, 58  # pixels
        states = states[-60:]
        image = Image.new("RGB", (left + cell * TAPE + 110, top + line * max(len(states), 1) + 10), "white")
        draw = ImageDraw.Draw(image)
        draw.text((10, 6), "green: pays 1     red: costs 1     +: fixation cross", fill="black", font_size=14)
        draw.text((10, 28), f"time     the {TAPE} cells around the gaze, grey: seen", fill="#666666", font_size=13)
        for t, state in enumerate(states):
            y = top + line * t
            draw.text((12, y), str(t), fill="#666666", font_size=12)
            gaze, cross, side = int(state.gaze[0]), int(state.cross[0]), int(state.side[0])
            for i in range(TAPE):
                x, middle = left + cell * i, TAPE // 2
                seen = abs(i - middle) <= REACH
                offset = (gaze + i - middle - cross) % TAPE
                fill = "#dee2e6" if seen else "#ffffff"
                if bool(state.fixated[0]) and offset in (APART, TAPE - APART):
                    fill = "#2f9e44" if offset == (APART * side) % TAPE else "#e03131"
                draw.rectangle((x, y, x + cell - 3, y + line - 3), fill=fill, outline="#adb5bd")
                if offset == 0 and not bool(state.fixated[0]):
                    draw.text((x + 8, y - 3), "+", fill="black", font_size=15)
                if i == middle:
                    draw.rectangle((x - 1, y - 1, x + cell - 2, y + line - 2), outline="black", width=2)
            chosen = bool(state.fixated[0]) and (gaze - cross) % TAPE in (APART, TAPE - APART)
            if chosen:
                paid = (gaze - cross) % TAPE == (APART * side) % TAPE
                draw.text((left + cell * TAPE + 10, y - 1), "+1" if paid else "-1", fill="black", font_size=13)
        return np.asarray(image)
