"""Pendulum with varying masses, lengths and gravity; a task is their multipliers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.checks import positive
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.control.scales import SPREAD, checked_spread, multipliers, scale_space, uniform_in, wrapped
from metarl.envs.drawing.film import Curve, Film, Line, overlaid, scales


class PendulumScales(NamedTuple):
    """Multipliers of a pendulum's nominal parameters: float32 ``(B,)`` each, no unit."""

    gravity: Tensor  # of 10 m/s²
    mass: Tensor  # of 1 kg
    length: Tensor  # of 1 m
    torque: Tensor  # of the motor's strength: the largest torque is this · 2 N m


class PendulumState(NamedTuple):
    """Float32 ``(B,)`` each."""

    angle: Tensor  # rad from upright, in [-π, π]
    speed: Tensor  # rad/s, in [-8, 8]


class Pendulum(TaskFamily[PendulumScales, PendulumState]):
    """Swing up a pendulum with a motor too weak to lift it; gravity, mass, length and motor change from task to task.

    Description:
        A rod hangs on a motor and must be swung upright and held there. At the start, angle ~ U[-π, π) and
        velocity ~ U[-1, 1). 20 steps per second, each of which updates the velocity, then the angle with the new
        velocity.

    What varies:
        Multipliers of gravity, mass, length and the motor's strength: `PendulumScales`.

    Splits:
        - `train`, `valid`, `test`: every multiplier log-uniform in [1/1.5, 1.5], in disjoint random streams.
        - `ood`: every multiplier outside that range, log-uniform in [1/3, 1/1.5] or [1.5, 3], each side with
          probability 1/2.

        The option `spread` replaces 1.5; `ood` then reaches twice as far.

    Actions:
        =====  =======  =======  ============================================
        index  meaning  range    unit
        =====  =======  =======  ============================================
        0      torque   [-2, 2]  N m of the nominal motor: the applied torque
                                 is `PendulumScales.torque` times this
        =====  =======  =======  ============================================
        An action beyond the range is clipped to it.

    Observations:
        =====  ================  =======  =====
        index  meaning           range    unit
        =====  ================  =======  =====
        0      cos of angle      [-1, 1]  none
        1      sin of angle      [-1, 1]  none
        2      angular velocity  [-8, 8]  rad/s
        =====  ================  =======  =====

    Rewards:
        -(angle² + 0.1 · velocity² + 0.001 · torque²) of the state before the step, with the applied torque.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known; below 0. An energy-shaping controller that knows the task:
        `agents.reference.control.PendulumSwingUp`.

    Source:
        Gymnasium's Pendulum-v1.

    Version history:
        v0: first version.
    """

    noisy = False

    DT = 0.05  # s

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2, spread: float = SPREAD) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.spread = checked_spread(spread)
        high = np.array([1.0, 1.0, 8.0], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> PendulumScales:
        return PendulumScales(*multipliers(keys, 4, split, self.spread))

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return scale_space(PendulumScales, self.spread)

    def check_task(self, task: PendulumScales) -> None:
        positive(task)

    def reset(self, task: PendulumScales, key: Key) -> PendulumState:
        angle, speed = uniform_in(key, 2, 1.0)
        return PendulumState(math.pi * angle, speed)

    def observe(self, task: PendulumScales, state: PendulumState) -> Tensor:
        return torch.stack([torch.cos(state.angle), torch.sin(state.angle), state.speed], dim=-1)

    def step(
        self, task: PendulumScales, state: PendulumState, action: Tensor, key: Key
    ) -> tuple[PendulumState, Tensor, Tensor]:
        angle, speed = state
        gravity, mass, length = 10.0 * task.gravity, 1.0 * task.mass, 1.0 * task.length
        torque = task.torque * action[:, 0].clamp(-2.0, 2.0)
        cost = angle * angle + 0.1 * speed * speed + 0.001 * torque * torque
        fall = 1.5 * gravity / length * torch.sin(angle)
        speed = (speed + self.DT * (fall + 3.0 * torque / (mass * length * length))).clamp(-8.0, 8.0)
        after = PendulumState(wrapped(angle + self.DT * speed), speed)
        return after, -cost, torch.zeros_like(cost, dtype=torch.bool)

    def sketch(self, task: PendulumScales, episodes: int = 1) -> Sketch[PendulumState]:
        """Draw the rod (darker over time), and its angle and speed over time."""
        length = float(task.length[0])

        def pose(state: PendulumState) -> list[Line]:
            angle = float(state.angle[0])
            return [[(0.0, 0.0), (-length * math.sin(angle), length * math.cos(angle))]]

        size = max(1.2, length + 0.1)
        return Film(
            (-1.6 * size, -size, 1.6 * size, size),
            [[(-0.08, 0.0), (0.08, 0.0)], [(0.0, length + 0.02), (0.0, length + 0.1)]],
            overlaid(pose),
            scales(task),
            [
                Curve("angle from upright, rad", lambda before, s: float(s.angle[0]), -math.pi, math.pi),
                Curve("speed, rad/s", lambda before, s: float(s.speed[0]), -8.0, 8.0),
            ],
            self.horizon,
            self.DT,
            height=280,
            metres=True,
        )
