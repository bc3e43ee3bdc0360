"""The cart-pole with varying masses, length, motor and gravity; a task is their multipliers."""

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
from metarl.envs.control.scales import SPREAD, checked_spread, multipliers, scale_space, uniform_in
from metarl.envs.drawing.film import Curve, Film, Line, overlaid, scales


class CartPoleScales(NamedTuple):
    """Multipliers of a cart-pole's nominal parameters: float32 ``(B,)`` each, no unit."""

    gravity: Tensor  # of 9.8 m/s²
    cart_mass: Tensor  # of 1 kg
    pole_mass: Tensor  # of 0.1 kg
    half_length: Tensor  # of 0.5 m, half the pole's length
    force: Tensor  # of 10 N


class CartPoleState(NamedTuple):
    """Float32 ``(B,)`` each."""

    position: Tensor  # m
    speed: Tensor  # m/s
    angle: Tensor  # rad from upright
    angular_speed: Tensor  # rad/s


class CartPole(TaskFamily[CartPoleScales, CartPoleState]):
    """Balance a pole on a cart; masses, pole length, motor and gravity change from task to task.

    Description:
        A pole stands on a cart; push the cart left or right so that it does not fall. Each state variable starts at a
        value ~ U[-0.05, 0.05). Euler's method, 50 steps per second.

    What varies:
        Multipliers of gravity, cart mass, pole mass, pole length and force: `CartPoleScales`.

    Splits:
        - `train`, `valid`, `test`: every multiplier log-uniform in [1/1.5, 1.5], in disjoint random streams.
        - `ood`: every multiplier outside that range, log-uniform in [1/3, 1/1.5] or [1.5, 3], each side with
          probability 1/2.

        The option `spread` replaces 1.5; `ood` then reaches twice as far.

    Actions:
        ======  =====================
        action  meaning
        ======  =====================
        0       push the cart left
        1       push the cart right
        ======  =====================

    Observations:
        =====  =====================  =============  =====
        index  meaning                range          unit
        =====  =====================  =============  =====
        0      cart position          [-4.8, 4.8]    m
        1      cart velocity          unbounded      m/s
        2      pole angle             [-0.42, 0.42]  rad
        3      pole angular velocity  unbounded      rad/s
        =====  =====================  =============  =====

    Rewards:
        1 for every step, including the last.

    Endings:
        Terminated when the cart is more than 2.4 m from the centre or the pole more than 12° from upright; truncated
        after `horizon` steps.

    Optimum:
        `horizon` wherever the pole can be balanced. A linear-quadratic regulator that knows the task balances nearly
        all of them: `agents.reference.control.CartPoleRegulator`.

    Source:
        Barto, Sutton & Anderson 1983, as in Gymnasium's CartPole-v1.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    MAX_POSITION = 2.4  # m
    MAX_ANGLE = math.radians(12)
    TAU = 0.02  # s

    def __init__(self, horizon: int = 500, episodes_per_trial: int = 2, spread: float = SPREAD) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.spread = checked_spread(spread)
        high = np.array([2 * self.MAX_POSITION, np.inf, 2 * self.MAX_ANGLE, np.inf], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys: Key, split: str) -> CartPoleScales:
        return CartPoleScales(*multipliers(keys, 5, split, self.spread))

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return scale_space(CartPoleScales, self.spread)

    def check_task(self, task: CartPoleScales) -> None:
        positive(task)

    def reset(self, task: CartPoleScales, key: Key) -> CartPoleState:
        return CartPoleState(*uniform_in(key, 4, 0.05))

    def observe(self, task: CartPoleScales, state: CartPoleState) -> Tensor:
        return torch.stack(state, dim=-1)

    def step(
        self, task: CartPoleScales, state: CartPoleState, action: Tensor, key: Key
    ) -> tuple[CartPoleState, Tensor, Tensor]:
        x, speed, angle, angular_speed = state
        pole_mass, half_length = 0.1 * task.pole_mass, 0.5 * task.half_length
        total_mass = 1.0 * task.cart_mass + pole_mass
        force = 10.0 * task.force * (2 * action - 1)
        sin, cos = torch.sin(angle), torch.cos(angle)
        push = (force + pole_mass * half_length * angular_speed * angular_speed * sin) / total_mass
        inertia = half_length * (4.0 / 3.0 - pole_mass * cos * cos / total_mass)
        angular_acceleration = (9.8 * task.gravity * sin - cos * push) / inertia
        acceleration = push - pole_mass * half_length * angular_acceleration * cos / total_mass
        after = CartPoleState(
            x + self.TAU * speed,
            speed + self.TAU * acceleration,
            angle + self.TAU * angular_speed,
            angular_speed + self.TAU * angular_acceleration,
        )
        fell = (after.position.abs() > self.MAX_POSITION) | (after.angle.abs() > self.MAX_ANGLE)
        return after, torch.ones_like(x), fell

    def sketch(self, task: CartPoleScales, episodes: int = 1) -> Sketch[CartPoleState]:
        """Draw cart and pole (darker over time) between the track's limits, and position and angle over time."""
        length = float(task.half_length[0])  # nominally 1 m, twice half of it

        def pose(state: CartPoleState) -> list[Line]:
            x, angle = float(state.position[0]), float(state.angle[0])
            cart = [(x - 0.25, 0.0), (x - 0.25, 0.2), (x + 0.25, 0.2), (x + 0.25, 0.0), (x - 0.25, 0.0)]
            return [cart, [(x, 0.2), (x + length * math.sin(angle), 0.2 + length * math.cos(angle))]]

        return Film(
            (-2.7, -0.05, 2.7, max(1.4, length + 0.4)),
            [[(-2.4, 0), (2.4, 0)], [(-2.4, 0), (-2.4, 0.4)], [(2.4, 0), (2.4, 0.4)]],
            overlaid(pose),
            scales(task),
            [
                Curve("position, m", lambda before, s: float(s.position[0]), -2.4, 2.4),
                Curve("angle, degrees", lambda before, s: math.degrees(float(s.angle[0])), -12.0, 12.0),
            ],
            self.horizon,
            self.TAU,
            height=170,
            metres=True,
        )
