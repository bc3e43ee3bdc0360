"""Mountain cars with varying gravity and motor; a task is their multipliers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import positive
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.control.scales import SPREAD, checked_spread, multipliers, scale_space
from metarl.envs.drawing.film import Curve, Film, Line, overlaid, scales


class MountainCarScales(NamedTuple):
    """Multipliers of the car's nominal parameters: float32 ``(B,)`` each, no unit."""

    gravity: Tensor  # of 0.0025 per step²
    force: Tensor  # of the motor's 0.001 (MountainCarContinuous: 0.0015) per step²


class MountainCarState(NamedTuple):
    """Float32 ``(B,)`` each."""

    position: Tensor  # -1.2 … 0.6
    speed: Tensor  # per step, -0.07 … 0.07


class MountainCar(TaskFamily[MountainCarScales, MountainCarState]):
    """Drive a car out of a valley with a motor too weak for it; gravity and motor change from task to task.

    Description:
        The car starts at rest in the valley, at a position ~ U[-0.6, -0.4), and must swing back and forth to climb the
        right hill.

    What varies:
        Multipliers of gravity and of the motor's force: `MountainCarScales`.

    Splits:
        - `train`, `valid`, `test`: both multipliers log-uniform in [1/1.5, 1.5], in disjoint random streams.
        - `ood`: both outside that range, log-uniform in [1/3, 1/1.5] or [1.5, 3], each side with probability 1/2. With
          a weak motor under strong gravity the hill cannot be climbed in 200 steps.

        The option `spread` replaces 1.5; `ood` then reaches twice as far.

    Actions:
        ======  =================
        action  meaning
        ======  =================
        0       push left
        1       do nothing
        2       push right
        ======  =================

    Observations:
        =====  ========  =============  ========
        index  meaning   range          unit
        =====  ========  =============  ========
        0      position  [-1.2, 0.6]    none
        1      velocity  [-0.07, 0.07]  per step
        =====  ========  =============  ========

    Rewards:
        -1 for every step, including the last.

    Endings:
        Terminated at a position of 0.5 or more, moving right or at rest; truncated after `horizon` steps.

    Optimum:
        Not known. A baseline pushes along the velocity, whatever the task: `agents.reference.control.PushAlong`.

    Source:
        Moore 1990, as in Gymnasium's MountainCar-v0.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    GOAL = 0.5

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2, spread: float = SPREAD) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.spread = checked_spread(spread)
        self.observation_space = _road_space()
        self.action_space = gymnasium.spaces.Discrete(3)

    def draw_tasks(self, keys: Key, split: str) -> MountainCarScales:
        return MountainCarScales(*multipliers(keys, 2, split, self.spread))

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return scale_space(MountainCarScales, self.spread)

    def check_task(self, task: MountainCarScales) -> None:
        positive(task)

    def reset(self, task: MountainCarScales, key: Key) -> MountainCarState:
        return _in_the_valley(key)

    def observe(self, task: MountainCarScales, state: MountainCarState) -> Tensor:
        return torch.stack(state, dim=-1)

    def step(
        self, task: MountainCarScales, state: MountainCarState, action: Tensor, key: Key
    ) -> tuple[MountainCarState, Tensor, Tensor]:
        after = _roll(task, state, 0.001 * task.force * (action - 1))
        arrived = _arrived(after, self.GOAL)
        return after, -torch.ones_like(state.speed), arrived

    def success(self, task: MountainCarScales, state: MountainCarState) -> Tensor:
        return _arrived(state, self.GOAL)

    def sketch(self, task: MountainCarScales, episodes: int = 1) -> Sketch[MountainCarState]:
        """Draw the car in its valley (darker over time), the flag, and the position over time."""
        return _valley(task, self.GOAL, self.horizon)


class MountainCarContinuous(TaskFamily[MountainCarScales, MountainCarState]):
    """The mountain car with continuous pushes that cost energy; gravity and motor change from task to task.

    Description:
        The car starts at rest in the valley, at a position ~ U[-0.6, -0.4), and must swing back and forth to climb the
        right hill.

    What varies:
        Multipliers of gravity and of the motor's force: `MountainCarScales`.

    Splits:
        - `train`, `valid`, `test`: both multipliers log-uniform in [1/1.5, 1.5], in disjoint random streams.
        - `ood`: both outside that range, log-uniform in [1/3, 1/1.5] or [1.5, 3], each side with probability 1/2.

        The option `spread` replaces 1.5; `ood` then reaches twice as far.

    Actions:
        =====  ===============  ========  ===========================
        index  meaning          range     unit
        =====  ===============  ========  ===========================
        0      push             [-1, 1]   share of the motor's force
        =====  ===============  ========  ===========================
        The push is clipped to the range; as in Gymnasium, the reward charges for the unclipped action.

    Observations:
        =====  ========  =============  ========
        index  meaning   range          unit
        =====  ========  =============  ========
        0      position  [-1.2, 0.6]    none
        1      velocity  [-0.07, 0.07]  per step
        =====  ========  =============  ========

    Rewards:
        -0.1 · action² for every step, and 100 on arrival.

    Endings:
        Terminated at a position of 0.45 or more, moving right or at rest; truncated after `horizon` steps.

    Optimum:
        Not known; below 100. A baseline pushes along the velocity, whatever the task:
        `agents.reference.control.PushAlong`.

    Source:
        Moore 1990, as in Gymnasium's MountainCarContinuous-v0.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    GOAL = 0.45

    def __init__(self, horizon: int = 999, episodes_per_trial: int = 2, spread: float = SPREAD) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.spread = checked_spread(spread)
        self.observation_space = _road_space()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> MountainCarScales:
        return MountainCarScales(*multipliers(keys, 2, split, self.spread))

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return scale_space(MountainCarScales, self.spread)

    def check_task(self, task: MountainCarScales) -> None:
        positive(task)

    def reset(self, task: MountainCarScales, key: Key) -> MountainCarState:
        return _in_the_valley(key)

    def observe(self, task: MountainCarScales, state: MountainCarState) -> Tensor:
        return torch.stack(state, dim=-1)

    def step(
        self, task: MountainCarScales, state: MountainCarState, action: Tensor, key: Key
    ) -> tuple[MountainCarState, Tensor, Tensor]:
        action = action[:, 0]
        after = _roll(task, state, 0.0015 * task.force * action.clamp(-1.0, 1.0))
        arrived = _arrived(after, self.GOAL)
        return after, torch.where(arrived, 100.0, 0.0) - 0.1 * action * action, arrived

    def success(self, task: MountainCarScales, state: MountainCarState) -> Tensor:
        return _arrived(state, self.GOAL)

    def sketch(self, task: MountainCarScales, episodes: int = 1) -> Sketch[MountainCarState]:
        """Draw the car in its valley (darker over time), the flag, and the position over time."""
        return _valley(task, self.GOAL, self.horizon)


def _road_space() -> gymnasium.spaces.Box:
    """Return the observation space: position and speed."""
    low, high = np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


def _arrived(state: MountainCarState, goal: float) -> Tensor:
    """Return True where the car is at the goal or beyond, moving right or at rest: bool ``(B,)``."""
    return (state.position >= goal) & (state.speed >= 0)


def _in_the_valley(key: Key) -> MountainCarState:
    position = rng.uniform(key, 1)[:, 0] * 0.2 - 0.6
    return MountainCarState(position, torch.zeros_like(position))


def _roll(task: MountainCarScales, state: MountainCarState, push: Tensor) -> MountainCarState:
    """Move the car by one step; `push` is a change of speed. The left wall stops the car."""
    speed = state.speed + push - 0.0025 * task.gravity * torch.cos(3.0 * state.position)
    speed = speed.clamp(-0.07, 0.07)
    position = (state.position + speed).clamp(-1.2, 0.6)
    stopped = (position <= -1.2) & (speed < 0)
    return MountainCarState(position, torch.where(stopped, 0.0, speed))


def _valley(task: MountainCarScales, goal: float, horizon: int) -> Sketch[MountainCarState]:
    def height(x: float) -> float:
        return 0.45 * math.sin(3 * x) + 0.55

    def pose(state: MountainCarState) -> list[Line]:
        x = float(state.position[0])
        y = height(x) + 0.02
        car = [(x - 0.06, y), (x - 0.06, y + 0.05), (x + 0.06, y + 0.05), (x + 0.06, y), (x - 0.06, y)]
        return [car]

    hill = [(x / 50, height(x / 50)) for x in range(-60, 31)]
    flag = [(goal, height(goal)), (goal, height(goal) + 0.2), (goal + 0.08, height(goal) + 0.17)]
    position = Curve[MountainCarState]("position", lambda before, state: float(state.position[0]), -1.2, 0.6)
    world = (-1.25, 0.0, 0.65, 1.35)
    return Film(world, [hill, flag], overlaid(pose), scales(task), [position], horizon, height=280)
