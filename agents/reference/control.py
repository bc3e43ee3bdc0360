"""Reference agents for classic control: regulators, which may know the task, and pushing along the velocity."""

from __future__ import annotations

import gymnasium
import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Memory
from metarl.envs.control.acrobot import Acrobot
from metarl.envs.control.cartpole import CartPole, CartPoleScales
from metarl.envs.control.pendulum import PendulumScales


class CartPoleRegulator(FixedAgent):
    """A linear-quadratic regulator for `CartPole` (Kalman 1960), which applies the sign of the regulator's force.

    By default it plans with the task's parameters; the steps per episode on train / test / ood are 500 / 500 / 491.
    With ``told=False`` it plans for the nominal cart-pole, like a fixed policy: 499 / 498 / 273 (random: 22 / 23 / 25).
    """

    def __init__(self, told: bool = True, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.told = told

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        scales = _multipliers(task, num_tasks, CartPoleScales, self.told, self.device)
        move, push = _linear_cart_pole(scales)
        cost = torch.diag(torch.tensor([1.0, 0.1, 10.0, 0.1], dtype=torch.float64, device=self.device))
        value = cost.expand(num_tasks, 4, 4)
        for _ in range(400):  # Riccati's equation, iterated for 8 s
            weight = push.mT @ value @ push + 0.001
            gain = (push.mT @ value @ move) / weight
            value = cost + move.mT @ value @ (move - push @ gain)
        return gain[:, 0].to(torch.float32)  # (B, 4)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        force = -(memory * step.obs).sum(-1)
        return scripted((force > 0).to(torch.int64), step), memory


def _linear_cart_pole(scales: CartPoleScales) -> tuple[Tensor, Tensor]:
    """Return the linear model near upright, state' = move · state + push · force: ``(B, 4, 4)`` and ``(B, 4, 1)``."""
    gravity, cart_mass, pole_mass, half_length, force = (field.double() for field in scales)
    pole_mass, half_length = 0.1 * pole_mass, 0.5 * half_length
    total = cart_mass + pole_mass
    inertia = half_length * (4.0 / 3.0 - pole_mass / total)
    lever = pole_mass * half_length / total
    move = torch.zeros(len(total), 4, 4, dtype=torch.float64, device=total.device)
    move[:, 0, 1] = move[:, 2, 3] = 1.0
    move[:, 3, 2] = 9.8 * gravity / inertia
    move[:, 1, 2] = -lever * move[:, 3, 2]
    push = torch.zeros_like(move[:, :, :1])
    push[:, 3, 0] = -10.0 * force / total / inertia
    push[:, 1, 0] = 10.0 * force / total - lever * push[:, 3, 0]
    return torch.eye(4, dtype=torch.float64, device=total.device) + CartPole.TAU * move, CartPole.TAU * push


class PendulumSwingUp(FixedAgent):
    """Pumps a `Pendulum` to the energy of upright rest (Åström & Furuta 2000), then holds it there.

    By default it uses the task's parameters; the returns on train / test / ood are -177 / -168 / -585, and -148 on the
    nominal pendulum. With ``told=False`` it uses the nominal ones: -308 / -276 / -931 (random: -1250 / -1249 / -1360).
    """

    def __init__(self, told: bool = True, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.told = told

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return _multipliers(task, num_tasks, PendulumScales, self.told, self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        cos, sin, speed = step.obs.unbind(-1)
        angle = torch.atan2(sin, cos)
        rate = torch.sqrt(15.0 * memory.gravity / memory.length)  # rad/s: it falls from upright as exp(rate · t)
        weight = 5.0 * memory.gravity * memory.mass * memory.length  # N m: the largest torque of gravity
        # Without a torque, angle + speed / rate grows. It can be caught while gravity's torque is below the largest
        # one.
        falling = angle + speed / rate
        caught = (weight * falling.abs() < 2.0 * memory.torque) & (angle.abs() < 1.0)
        missing = 1.0 - cos - speed * speed / (2.0 * rate * rate)  # energy, as a fraction of `weight`
        pump = torch.where(speed * missing >= 0, 2.0, -2.0)
        hold = (-2.5 * weight * falling / memory.torque).clamp(-2.0, 2.0)
        return scripted(torch.where(caught, hold, pump)[:, None], step), memory


class PushAlong(FixedAgent):
    """Pushes with full force along the velocity, which adds energy in every task. It does not know the task.

    The velocity is the car's in `MountainCar` (nominal / train / test / ood return -119 / -130 / -132 / -132) and in
    `MountainCarContinuous` (89.3 / 90.6 / 90.4 / 57.2), and the second link's in `Acrobot` (-89 / -113 / -111 / -187).
    """

    def __init__(self, family: TaskFamily, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.speed = 5 if isinstance(family, Acrobot) else 1  # index of the velocity in the observation
        self.discrete = isinstance(family.action_space, gymnasium.spaces.Discrete)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        forward = step.obs[:, self.speed] >= 0
        action = torch.where(forward, 2, 0) if self.discrete else torch.where(forward, 1.0, -1.0)[:, None]
        return scripted(action, step), memory


def _multipliers(task: Task | None, num_tasks: int, scales: type, plans_for_task: bool, device: torch.device) -> Task:
    """Return the multipliers that a policy plans with: the task's, or all 1."""
    if plans_for_task:
        return told(task)
    return scales(*torch.ones(len(scales._fields), num_tasks, device=device))  # type: ignore[attr-defined]
