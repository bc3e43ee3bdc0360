"""Small families for the tests: what they do is known by heart."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key, TaskFamily


class Length(NamedTuple):
    length: Tensor  # (B,) int64: the corridor's length


class Walker(NamedTuple):
    place: Tensor  # (B,) int64
    mark: Tensor  # (B,) float32 in [0, 1): drawn at every reset


class Corridor(TaskFamily[Length, Walker]):
    """Episodes of various lengths: action 1 goes on, 0 stays; terminated at the task's length, truncated after 6 steps.

    Reward: the place after the move, plus noise below 0.01. Observation: place / 10 and the mark.
    """

    terminates = True
    splits = ("train", "test", "ood")

    def __init__(self, episodes_per_trial: int = 3, horizon: int = 6) -> None:
        self.horizon, self.episodes_per_trial = horizon, episodes_per_trial
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys: Key, split: str) -> Length:
        lengths = torch.tensor({"train": [1, 2, 4], "test": [3, 5], "ood": [6, 7]}[split])
        return Length(lengths[rng.integers(keys, 1, len(lengths)).squeeze(-1)])

    def reset(self, task: Length, key: Key) -> Walker:
        return Walker(torch.zeros_like(task.length), rng.uniform(key, 1).squeeze(-1))

    def observe(self, task: Length, state: Walker) -> Tensor:
        return torch.stack([state.place.to(torch.float32) / 10, state.mark], dim=-1)

    def step(self, task: Length, state: Walker, action: Tensor, key: Key) -> tuple[Walker, Tensor, Tensor]:
        place = state.place + action
        noise = 0.01 * rng.uniform(key, 1).squeeze(-1)
        return Walker(place, state.mark), place.to(torch.float32) + noise, place >= task.length


class Target(NamedTuple):
    position: Tensor  # (B, 2) float32


class Place(NamedTuple):
    position: Tensor  # (B, 2) float32


class Reach(TaskFamily[Target, Place]):
    """Continuous actions: reward minus the squared distance from the action to the task's target. 3 steps."""

    splits = ("train", "test")

    def __init__(self, episodes_per_trial: int = 2, horizon: int = 3) -> None:
        self.horizon, self.episodes_per_trial = horizon, episodes_per_trial
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Target:
        return Target(0.5 + 0.5 * rng.uniform(keys, 2))

    def reset(self, task: Target, key: Key) -> Place:
        return Place(torch.zeros_like(task.position))

    def observe(self, task: Target, state: Place) -> Tensor:
        return state.position

    def step(self, task: Target, state: Place, action: Tensor, key: Key) -> tuple[Place, Tensor, Tensor]:
        action = action.clamp(-1.0, 1.0)
        reward = -((action - task.position) ** 2).sum(-1)
        return Place(action), reward, torch.zeros(len(action), dtype=torch.bool)

    def oracle(self, task: Target) -> Tensor:
        return torch.zeros(len(task.position))


class Door(NamedTuple):
    side: Tensor  # (B,) int64: 0 or 1


class Nothing(NamedTuple):
    time: Tensor  # (B,) int64


class TwoDoors(TaskFamily[Door, Nothing]):
    """One of two doors pays 1, always the same one in a trial; an episode is one choice. Random: 0.5 per episode.

    The best: 0.5 in the first episode, then 1.
    """

    splits = ("train",)

    def __init__(self, episodes_per_trial: int = 4) -> None:
        self.horizon, self.episodes_per_trial = 1, episodes_per_trial
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys: Key, split: str) -> Door:
        return Door(rng.integers(keys, 1, 2).squeeze(-1))

    def reset(self, task: Door, key: Key) -> Nothing:
        return Nothing(torch.zeros_like(task.side))

    def observe(self, task: Door, state: Nothing) -> Tensor:
        return torch.zeros(len(task.side), 1)

    def step(self, task: Door, state: Nothing, action: Tensor, key: Key) -> tuple[Nothing, Tensor, Tensor]:
        return (
            Nothing(state.time + 1),
            (action == task.side).to(torch.float32),
            torch.zeros_like(action, dtype=torch.bool),
        )


class Start(TwoDoors):
    """`TwoDoors` for three steps, with actions that are 1 and 2; `step` insists on that."""

    def __init__(self, episodes_per_trial: int = 2, horizon: int = 3, start: int = 1) -> None:
        super().__init__(episodes_per_trial)
        self.horizon, self.start = horizon, start
        self.action_space = gymnasium.spaces.Discrete(2, start=start)

    def step(self, task: Door, state: Nothing, action: Tensor, key: Key) -> tuple[Nothing, Tensor, Tensor]:
        assert bool(((action >= self.start) & (action < self.start + 2)).all()), action.tolist()
        return super().step(task, state, action - self.start, key)


class Shade(NamedTuple):
    time: Tensor  # (B,) int64


class Images(TaskFamily[Door, Shade]):
    """Observations are small pictures, one grey for each time. The reward is the action."""

    splits = ("train",)
    horizon, episodes_per_trial = 4, 2
    observation_space = gymnasium.spaces.Box(0.0, 255.0, (12, 10, 3), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys: Key, split: str) -> Door:
        return Door(rng.integers(keys, 1, 2).squeeze(-1))

    def reset(self, task: Door, key: Key) -> Shade:
        return Shade(torch.zeros_like(task.side))

    def observe(self, task: Door, state: Shade) -> Tensor:
        return (50.0 * state.time)[:, None, None, None].expand(-1, 12, 10, 3).clone()

    def step(self, task: Door, state: Shade, action: Tensor, key: Key) -> tuple[Shade, Tensor, Tensor]:
        return Shade(state.time + 1), action.to(torch.float32), torch.zeros_like(action, dtype=torch.bool)

    def render(self, task: Door, states: list[Shade]) -> np.ndarray:
        return self.observe(task, states[-1])[0].numpy().astype(np.uint8)
