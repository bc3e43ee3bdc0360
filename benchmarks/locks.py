"""Combination locks, few of which can be opened: the family of `benchmarks.curricula_control`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key, TaskFamily
from metarl.core.registry import register

POSSIBLE = 0.05
"""Fraction of the locks that can be opened within an episode."""


class Code(NamedTuple):
    length: Tensor  # (B,) float32, the lock opens after at least so many correct actions in a row
    key: Tensor  # (B,) int64, the correct action


class Turned(NamedTuple):
    correct: Tensor  # (B,) int64, correct actions in a row


class Locks(TaskFamily[Code, Turned]):
    """Open a combination lock: repeat its key, an action, at least as often as its length says.

    Any other action resets the lock. The length is observed, the key is not. Most locks are longer than an episode, so
    nobody can open them.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    terminates = True
    shows_task = True  # its length
    ACTIONS, LONGEST = 4, 12

    def __init__(self) -> None:
        self.horizon, self.episodes_per_trial = 16, 2
        self.observation_space = gymnasium.spaces.Box(0.0, 2.1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(self.ACTIONS)

    @property
    def task_space(self) -> Mapping[str, gymnasium.Space[Any]]:
        lengths = gymnasium.spaces.Box(0.0, 2.1 * self.horizon, (), np.float32)
        return {"length": lengths, "key": gymnasium.spaces.Discrete(self.ACTIONS)}

    def draw_tasks(self, keys: Key, split: str) -> Code:
        near = self.LONGEST * rng.uniform(rng.fold(keys, 0), 1)[..., 0]
        far = self.horizon * (1.001 + rng.uniform(rng.fold(keys, 1), 1)[..., 0])
        possible = rng.uniform(rng.fold(keys, 2), 1)[..., 0] < POSSIBLE
        return Code(torch.where(possible, near, far), rng.integers(rng.fold(keys, 3), 1, self.ACTIONS)[..., 0])

    def reset(self, task: Code, key: Key) -> Turned:
        return Turned(torch.zeros_like(task.key))

    def observe(self, task: Code, state: Turned) -> Tensor:
        return torch.stack([task.length, state.correct.to(torch.float32)], dim=-1) / self.horizon

    def step(self, task: Code, state: Turned, action: Tensor, key: Key) -> tuple[Turned, Tensor, Tensor]:
        correct = torch.where(action == task.key, state.correct + 1, 0)
        opened = correct >= task.length
        return Turned(correct), opened.to(torch.float32), opened

    def success(self, task: Code, state: Turned) -> Tensor:
        return state.correct >= task.length

    def oracle(self, task: Code) -> Tensor:
        return (task.length <= self.horizon).to(torch.float32)


register("control/Locks-v0", Locks)
