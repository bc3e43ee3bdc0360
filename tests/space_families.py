"""Small families with uncommon spaces: actions of several components, images, and observations of several parts."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key, Part, TaskFamily


class Code(NamedTuple):
    dial: Tensor  # (B,) int64 in 1 … 3
    switch: Tensor  # (B,) int64: 0 or 1


class Tries(NamedTuple):
    time: Tensor  # (B,) int64


class Lock(TaskFamily[Code, Tries]):
    """A dial, 1 … 3, and a switch, 0 or 1: each pays a half where it is right, always the same in a trial.

    An episode is one try. Random: 5/12. A dial or switch out of range is an error.
    """

    splits = ("train",)
    noisy = random_start = False

    def __init__(self, episodes_per_trial: int = 6) -> None:
        self.horizon, self.episodes_per_trial = 1, episodes_per_trial
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([3, 2], start=[1, 0])

    def enumerate_tasks(self, split: str) -> Code:
        number = torch.arange(6)
        return Code(1 + number // 2, number % 2)

    def reset(self, task: Code, key: Key) -> Tries:
        return Tries(torch.zeros_like(task.dial))

    def observe(self, task: Code, state: Tries) -> Tensor:
        return torch.zeros(len(task.dial), 1)

    def step(self, task: Code, state: Tries, action: Tensor, key: Key) -> tuple[Tries, Tensor, Tensor]:
        assert action.dtype is torch.int64 and action.shape == (len(task.dial), 2)
        dial, switch = action.unbind(-1)
        assert bool(((dial >= 1) & (dial <= 3) & (switch >= 0) & (switch <= 1)).all()), action.tolist()
        reward = 0.5 * (dial == task.dial).to(torch.float32) + 0.5 * (switch == task.switch).to(torch.float32)
        return Tries(state.time + 1), reward, torch.zeros_like(dial, dtype=torch.bool)

    def oracle(self, task: Code) -> Tensor:
        return torch.ones(len(task.dial))

    def random_return(self, task: Code) -> Tensor:
        return torch.full((len(task.dial),), 5 / 12)


class Side(NamedTuple):
    side: Tensor  # (B,) int64: 0 or 1


class Lights(NamedTuple):
    light: Tensor  # (B, 3) int64: row and column of the bright cell, and the sign of the vector


class Signals(TaskFamily[Side, Lights]):
    """A bright cell in the left or right half of a 12 × 12 image of bytes; and a hidden side, the task.

    Choose both sides, 2 * seen + hidden: each pays a half where it is right. An episode is one choice. Random: 0.5.
    With `parts` the observation is also a vector, whose sign is a third thing to choose, and each pays a third.
    """

    splits = ("train",)
    noisy = False
    SHAPE = (12, 12, 1)

    def __init__(self, parts: bool = False, episodes_per_trial: int = 4) -> None:
        self.horizon, self.episodes_per_trial = 1, episodes_per_trial
        self.observation_space = gymnasium.spaces.Box(0.0, 255.0, self.SHAPE, np.float32)
        self.choices = 3 if parts else 2
        if parts:
            image = Part("image", self.observation_space)
            vector = Part("vector", gymnasium.spaces.Box(-40.0, 40.0, (2,), np.float32))
            self.observation_parts = vector, image
            low, high = (
                np.concatenate([getattr(part.space, bound).ravel() for part in self.observation_parts])
                for bound in ("low", "high")
            )
            self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(2**self.choices)

    def enumerate_tasks(self, split: str) -> Side:
        return Side(torch.arange(2))

    def reset(self, task: Side, key: Key) -> Lights:
        return Lights(torch.cat([rng.integers(key, 2, 12), rng.integers(rng.fold(key, 1), 1, 2)], dim=1))

    def observe(self, task: Side, state: Lights) -> Tensor:
        rows, columns, sign = (part[:, None, None, None] for part in state.light.unbind(-1))
        place = torch.arange(12)
        cell = (place[:, None, None] == rows) & (place[:, None] == columns)  # (B, 12, 12, 1)
        image = 40.0 + 200.0 * cell.to(torch.float32)
        if self.choices == 2:
            return image
        vector = (2.0 * sign - 1.0).flatten(1) * torch.tensor([10.0, 0.0]) + torch.tensor([0.0, 7.0])
        return torch.cat([vector, image.flatten(1)], dim=1)

    def step(self, task: Side, state: Lights, action: Tensor, key: Key) -> tuple[Lights, Tensor, Tensor]:
        seen = (state.light[:, 1] >= 6).to(torch.int64)
        right = torch.stack([task.side, seen, state.light[:, 2]][: self.choices], dim=-1)
        chosen = (action[:, None] >> torch.arange(self.choices)) & 1
        reward = (chosen == right).to(torch.float32).mean(-1)
        return state, reward, torch.zeros_like(action, dtype=torch.bool)

    def oracle(self, task: Side) -> Tensor:
        return torch.ones(len(task.side))

    def random_return(self, task: Side) -> Tensor:
        return torch.full((len(task.side),), 0.5)
