"""Classic control with varying dynamics: the pendulums that have to be swung up. See `classic_control`."""

from __future__ import annotations

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.envs.classic_control import multipliers, uniform_in
from metarl.envs.film import Curve, Film, Line, overlaid, scales
from metarl.errors import positive, whole_number
from metarl.family import Key, TaskFamily
from metarl.sketch import Sketch


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
    """Swing up a pendulum with a motor too weak for it, of new mass, length and strength each time.

    Description:
        A rod hangs on a motor and must be brought upright and held there. Angle ~ U[-π, π) and speed ~ U[-1, 1) at the
        start. 20 steps a second, speed first, then angle with the new speed.

    What varies:
        Multipliers of gravity, mass, length and the motor's strength: `PendulumScales`.

    Splits:
        - `train`, `valid`, `test`: every multiplier log-uniform in [1/1.5, 1.5], in disjoint streams.
        - `ood`: every multiplier outside of that, log-uniform in [1/3, 1/1.5] or [1.5, 3], either side with
          probability 1/2.

    Actions:
        =====  ===============  ========  ===============================================
        index  meaning          range     unit
        =====  ===============  ========  ===============================================
        0      torque           [-2, 2]   N m of the nominal motor: the torque that acts
                                          is `PendulumScales.torque` times this
        =====  ===============  ========  ===============================================
        An action beyond the range is clipped to it.

    Observations:
        =====  ===============  =========  ======
        index  meaning          range      unit
        =====  ===============  =========  ======
        0      cos of angle     [-1, 1]    none
        1      sin of angle     [-1, 1]    none
        2      angular speed    [-8, 8]    rad/s
        =====  ===============  =========  ======

    Rewards:
        -(angle² + 0.1 · speed² + 0.001 · torque²) of the state before the step, with the torque that acts.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known; below 0. Energy shaping that is told the task: `agents.control.PendulumSwingUp`.

    Source:
        Gymnasium's Pendulum-v1.

    Version history:
        v0: first version.
    """

    noisy = False

    DT = 0.05  # s

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        high = np.array([1.0, 1.0, 8.0], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> PendulumScales:
        return PendulumScales(*multipliers(keys, 4, split))

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
        """The rod, pale to dark in time, and its angle and speed in time."""
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
    """Swing up two links by a motor between them; their masses and lengths are new each time.

    Description:
        Two links hang from a fixed point, with a motor in the joint between them. Each state variable starts
        ~ U[-0.1, 0.1). The equations of Sutton and Barto's book, one Runge-Kutta step of 0.2 s per action.

    What varies:
        Multipliers of the links' masses and lengths: `AcrobotScales`. A link keeps its shape: its centre of mass stays
        in the middle and its moment of inertia is that of the nominal link times mass · length².

    Splits:
        - `train`, `valid`, `test`: every multiplier log-uniform in [1/1.5, 1.5], in disjoint streams.
        - `ood`: every multiplier outside of that, log-uniform in [1/3, 1/1.5] or [1.5, 3], either side with
          probability 1/2.

    Actions:
        ======  =========================
        action  meaning
        ======  =========================
        0       torque of -1 N m
        1       no torque
        2       torque of +1 N m
        ======  =========================

    Observations:
        =====  ================================  ===========  ======
        index  meaning                           range        unit
        =====  ================================  ===========  ======
        0, 1   cos and sin of the first angle    [-1, 1]      none
        2, 3   cos and sin of the second angle   [-1, 1]      none
        4      first link's speed                [-4π, 4π]    rad/s
        5      second link's speed               [-9π, 9π]    rad/s
        =====  ================================  ===========  ======

    Rewards:
        -1 for every step, and 0 for the one that reaches the goal.

    Endings:
        Terminated when -cos(angle 1) - cos(angle 1 + angle 2) > 1: for links of equal length, the free end is one
        length above the fixed point. As in Gymnasium the lengths do not count here, so that short links can reach it.
        Truncated after `horizon` steps.

    Optimum:
        Not known. Pushing along the second link's speed, whatever the task: `agents.control.PushAlong`.

    Source:
        Sutton 1996; Sutton & Barto 2018, as Gymnasium's Acrobot-v1.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    DT = 0.2  # s

    def __init__(self, horizon: int = 500, episodes_per_trial: int = 2) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        high = np.array([1.0, 1.0, 1.0, 1.0, 4 * np.pi, 9 * np.pi], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def draw_tasks(self, keys: Key, split: str) -> AcrobotScales:
        return AcrobotScales(*multipliers(keys, 4, split))

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
        """The links, pale to dark in time, both drawn 1 m long, the goal's height, and both angles in time."""

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
    """The time derivative of an acrobot's state."""
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


def wrapped(angle: Tensor) -> Tensor:
    """The same angle in [-π, π]."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
