"""Acrobot with varying masses, lengths and gravity; a task is their multipliers."""

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


class AcrobotScales(NamedTuple):
    """Multipliers of the two links' nominal parameters: float32 ``(B,)`` each, no unit."""

    mass_1: Tensor  # of 1 kg
    mass_2: Tensor
    length_1: Tensor  # of 1 m
    length_2: Tensor


class AcrobotState(NamedTuple):
    """Float32 ``(B,)`` each."""

    angle_1: Tensor  # rad of the first link from hanging down, in [-π, π]
    angle_2: Tensor  # rad of the second link from the first one's direction, in [-π, π]
    speed_1: Tensor  # rad/s, in [-4π, 4π]
    speed_2: Tensor  # rad/s, in [-9π, 9π]


class Acrobot(TaskFamily[AcrobotScales, AcrobotState]):
    """Swing up two links by a motor between them; their masses and lengths change from task to task.

    Description:
        Two links hang from a fixed point, with a motor in the joint between them. Each state variable starts at a
        value ~ U[-0.1, 0.1). The equations are those of Sutton and Barto's book, with one Runge-Kutta step of 0.2 s per
        action.

    What varies:
        Multipliers of the links' masses and lengths: `AcrobotScales`. A link keeps its shape: its centre of mass stays
        in the middle and its moment of inertia is that of the nominal link times mass · length².

    Splits:
        - `train`, `valid`, `test`: every multiplier log-uniform in [1/1.5, 1.5], in disjoint random streams.
        - `ood`: every multiplier outside that range, log-uniform in [1/3, 1/1.5] or [1.5, 3], each side with
          probability 1/2.

        The option `spread` replaces 1.5; `ood` then reaches twice as far.

    Actions:
        ======  =========================
        action  meaning
        ======  =========================
        0       torque of -1 N m
        1       no torque
        2       torque of +1 N m
        ======  =========================

    Observations:
        =====  ===============================  =========  =====
        index  meaning                          range      unit
        =====  ===============================  =========  =====
        0, 1   cos and sin of the first angle   [-1, 1]    none
        2, 3   cos and sin of the second angle  [-1, 1]    none
        4      first link's velocity            [-4π, 4π]  rad/s
        5      second link's velocity           [-9π, 9π]  rad/s
        =====  ===============================  =========  =====

    Rewards:
        -1 for every step, and 0 for the one that reaches the goal.

    Endings:
        Terminated when -cos(angle 1) - cos(angle 1 + angle 2) > 1: for links of equal length, the free end is one
        length above the fixed point. As in Gymnasium, this condition ignores the lengths, so short links can meet it.
        Truncated after `horizon` steps.

    Optimum:
        Not known. A baseline pushes along the second link's velocity, whatever the task:
        `agents.reference.control.PushAlong`.

    Source:
        Sutton 1996; Sutton & Barto 2018, as in Gymnasium's Acrobot-v1.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    DT = 0.2  # s

    def __init__(self, horizon: int = 500, episodes_per_trial: int = 2, spread: float = SPREAD) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.spread = checked_spread(spread)
        high = np.array([1.0, 1.0, 1.0, 1.0, 4 * np.pi, 9 * np.pi], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def draw_tasks(self, keys: Key, split: str) -> AcrobotScales:
        return AcrobotScales(*multipliers(keys, 4, split, self.spread))

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return scale_space(AcrobotScales, self.spread)

    def check_task(self, task: AcrobotScales) -> None:
        positive(task)

    def reset(self, task: AcrobotScales, key: Key) -> AcrobotState:
        return AcrobotState(*uniform_in(key, 4, 0.1))

    def observe(self, task: AcrobotScales, state: AcrobotState) -> Tensor:
        cos_sin = [f(angle) for angle in state[:2] for f in (torch.cos, torch.sin)]
        return torch.stack([*cos_sin, state.speed_1, state.speed_2], dim=-1)

    def step(
        self, task: AcrobotScales, state: AcrobotState, action: Tensor, key: Key
    ) -> tuple[AcrobotState, Tensor, Tensor]:
        torque = (action - 1).to(torch.float32)
        k1 = accelerations(task, state, torque)
        k2 = accelerations(task, _moved(state, k1, self.DT / 2), torque)
        k3 = accelerations(task, _moved(state, k2, self.DT / 2), torque)
        k4 = accelerations(task, _moved(state, k3, self.DT), torque)
        mean = AcrobotState(*((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)))
        angle_1, angle_2, speed_1, speed_2 = _moved(state, mean, self.DT)
        speed_1, speed_2 = speed_1.clamp(-4 * math.pi, 4 * math.pi), speed_2.clamp(-9 * math.pi, 9 * math.pi)
        after = AcrobotState(wrapped(angle_1), wrapped(angle_2), speed_1, speed_2)
        up = -torch.cos(after.angle_1) - torch.cos(after.angle_2 + after.angle_1) > 1.0
        return after, torch.where(up, 0.0, -1.0), up

    def sketch(self, task: AcrobotScales, episodes: int = 1) -> Sketch[AcrobotState]:
        """Draw the links (darker over time, both 1 m long), the goal's height, and both angles over time."""

        def pose(state: AcrobotState) -> list[Line]:
            first, second = float(state.angle_1[0]), float(state.angle_1[0] + state.angle_2[0])
            x, y = math.sin(first), -math.cos(first)
            return [[(0.0, 0.0), (x, y), (x + math.sin(second), y - math.cos(second))]]

        return Film(
            (-3.2, -2.1, 3.2, 2.1),
            [[(-3.0, 1.0), (3.0, 1.0)], [(-0.08, 0.0), (0.08, 0.0)]],
            overlaid(pose),
            scales(task),
            [
                Curve("first angle, rad", lambda before, s: float(s.angle_1[0]), -math.pi, math.pi),
                Curve("second angle, rad", lambda before, s: float(s.angle_2[0]), -math.pi, math.pi),
            ],
            self.horizon,
            self.DT,
            height=280,
        )


def accelerations(task: AcrobotScales, state: AcrobotState, torque: Tensor) -> AcrobotState:
    """Return the time derivative of an acrobot's state."""
    angle_1, angle_2, speed_1, speed_2 = state
    m1, m2, l1, l2 = 1.0 * task.mass_1, 1.0 * task.mass_2, 1.0 * task.length_1, 1.0 * task.length_2
    c1, c2 = 0.5 * l1, 0.5 * l2  # centres of mass
    inertia_1, inertia_2 = m1 * l1 * l1, m2 * l2 * l2  # about the centres of mass: 1 kg m² for the nominal links
    cos, sin, g = torch.cos(angle_2), torch.sin(angle_2), 9.8
    d1 = m1 * c1 * c1 + m2 * (l1 * l1 + c2 * c2 + 2 * l1 * c2 * cos) + inertia_1 + inertia_2
    d2 = m2 * (c2 * c2 + l1 * c2 * cos) + inertia_2
    phi_2 = m2 * c2 * g * torch.sin(angle_1 + angle_2)
    swing = m2 * l1 * c2 * sin
    phi_1 = phi_2 - swing * speed_2 * (speed_2 + 2 * speed_1) + (m1 * c1 + m2 * l1) * g * torch.sin(angle_1)
    rest = m2 * c2 * c2 + inertia_2 - d2 * d2 / d1
    acceleration_2 = (torque + d2 / d1 * phi_1 - swing * speed_1 * speed_1 - phi_2) / rest
    acceleration_1 = -(d2 * acceleration_2 + phi_1) / d1
    return AcrobotState(speed_1, speed_2, acceleration_1, acceleration_2)


def _moved(state: AcrobotState, rate: AcrobotState, time: float) -> AcrobotState:
    return AcrobotState(*(value + time * change for value, change in zip(state, rate, strict=True)))
