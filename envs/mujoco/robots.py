"""The robots of Gymnasium's v5 MuJoCo environments: how they start, what is seen, their bodies, and their families."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import whole_number
from metarl.core.family import Key, TaskFamily, TaskT
from metarl.core.tree import features
from metarl.envs.mujoco.simulator import Model, Physics, Reading, Simulator


class Robot:
    """A robot with its start and what an agent sees of it.

    It starts at its XML's pose with U[-noise, noise) added to the positions, and to the velocities noise · N(0, 1), or
    U[-noise, noise) again where not `gaussian`. The first `hidden` positions, its place in the world, are not shown;
    velocities are shown within ± `max_speed`, and behind them the first `shown` numbers of the simulator's `reading`.
    `timestep`: seconds of a simulation step, where not the XML's.
    """

    def __init__(
        self,
        xml: str,
        frame_skip: int,
        noise: float,
        hidden: int = 1,
        gaussian: bool = False,
        max_speed: float = math.inf,
        reading: Reading | None = None,
        shown: int = 0,
        timestep: float | None = None,
    ) -> None:
        self.simulator = Simulator(xml, frame_skip, reading, timestep)
        self.noise, self.hidden, self.gaussian, self.max_speed = noise, hidden, gaussian, max_speed
        self.shown = shown
        model = self.simulator.model
        self.dt = self.simulator.dt
        size = model.nq - hidden + model.nv + shown
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.strongest = float(high[0])

    def start(self, key: Key) -> Physics:
        """The first state of each row."""
        model = self.simulator.model
        position_key, velocity_key = rng.fold(key, 0), rng.fold(key, 1)
        pose = torch.from_numpy(model.qpos0.copy()).to(key.device)
        positions = pose + self.noise * (2.0 * rng.uniform(position_key, model.nq).double() - 1.0)
        draw = rng.normal(velocity_key, model.nv) if self.gaussian else 2.0 * rng.uniform(velocity_key, model.nv) - 1.0
        return self.simulator.start(positions, self.noise * draw.double())

    def observe(self, physics: Physics) -> Tensor:
        """The observations: float32 ``(B, O)``."""
        positions, velocities = self.simulator.positions(physics), self.simulator.velocities(physics)
        if self.max_speed < math.inf:
            velocities = velocities.clamp(-self.max_speed, self.max_speed)
        parts = [positions[:, self.hidden :], velocities, physics.reading[:, : self.shown]]
        return torch.cat(parts, dim=1).float()

    def clipped(self, action: Tensor) -> Tensor:
        """The action clipped to its range, which is the same for all motors of a robot."""
        return action.clamp(-self.strongest, self.strongest)

    def move(
        self, physics: Physics, action: Tensor, bodies: Bodies | None = None, task: tuple[Tensor, ...] = ()
    ) -> Physics:
        """The state after a (clipped) action; `bodies` and the `task` where rows have bodies of their own."""
        if bodies is None:
            return self.simulator.advance(physics, action)
        return self.simulator.advance(physics, action, bodies.described, features(task))

    def speed(self, before: Physics, after: Physics) -> Tensor:
        """Mean speed along x between two actions: float32 ``(B,)`` m/s."""
        return ((after.state[:, 1] - before.state[:, 1]) / self.dt).float()


class Bodies:
    """The models of tasks that change a robot's body: ``factors(row)`` multiplies fields of its model.

    They are made once per task. A batch goes on with the same tasks for a whole trial, so those of the last batch are
    at hand.
    """

    def __init__(self, simulator: Simulator, factors: Callable[[np.ndarray, Model], dict[str, np.ndarray]]) -> None:
        self.simulator, self.factors = simulator, factors
        self._made = functools.lru_cache(maxsize=2048)(self._make)
        self._last: tuple[np.ndarray, list[Model]] = (np.empty(0), [])

    def __reduce__(self) -> tuple[type[Bodies], tuple[Simulator, Any]]:
        return Bodies, (self.simulator, self.factors)

    def of(self, task: tuple[Tensor, ...]) -> list[Model]:
        """One model per row of a task, whose fields are float32 ``(B, …)``."""
        return self.described(features(task).cpu().numpy())

    def described(self, rows: np.ndarray) -> list[Model]:
        """One model per row of numbers, which are all those of a task: float32 ``(B, D)``."""
        known, models = self._last
        if not np.array_equal(known, rows):
            models = [self._made(row.tobytes()) for row in rows]
            self._last = rows.copy(), models
        return models

    def _make(self, row: bytes) -> Model:
        values = np.frombuffer(row, np.float32).astype(np.float64)
        return self.simulator.changed(self.factors(values, self.simulator.model))


class RobotFamily(TaskFamily[TaskT, Physics]):
    """A family of one robot. A subclass writes where its tasks come from, `reward` and `sketch`.

    A step moves the robot, and then asks for the `reward` and whether the robot is `ended`. So what was seen can be
    held against many tasks at the cost of one step (`metarl.envs.mujoco.beliefs`). Families whose tasks change the
    body write `step` themselves, and have neither.

    `train_tasks` and `test_tasks` are the lengths of the fixed lists of tasks; None: fresh tasks without end, or all
    of a finite split. Raises ValueError for a number that is not whole or below 1.
    """

    noisy = False

    def __init__(
        self,
        robot: Robot,
        horizon: int,
        episodes_per_trial: int,
        train_tasks: int | None = None,
        test_tasks: int | None = None,
    ) -> None:
        self.robot = robot
        self.observation_space, self.action_space = robot.observation_space, robot.action_space
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.train_tasks = None if train_tasks is None else whole_number("train_tasks", train_tasks)
        self.test_tasks = None if test_tasks is None else whole_number("test_tasks", test_tasks)

    def reset(self, task: TaskT, key: Key) -> Physics:
        return self.robot.start(key)

    def observe(self, task: TaskT, state: Physics) -> Tensor:
        return self.robot.observe(state)

    def step(self, task: TaskT, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        return after, self.reward(task, state, after, action), self.ended(after)

    def reward(self, task: TaskT, before: Physics, after: Physics, action: Tensor) -> Tensor:
        """Return the reward of a (clipped) action that led from `before` to `after`: float32 ``(B,)``."""
        raise NotImplementedError(f"{type(self).__name__} must implement reward(task, before, after, action), or step.")

    def ended(self, after: Physics) -> Tensor:
        """Tell in which rows the robot has fallen, bool ``(B,)``; in none, unless a family says otherwise."""
        return torch.zeros(len(after.state), dtype=torch.bool, device=after.state.device)

    def model_of(self, task: TaskT) -> Model:
        """The body of the first row: the robot's own, unless tasks change it."""
        return self.robot.simulator.model


def torso_place(model: Any, data: Any) -> np.ndarray:
    """The torso's place (3), which MuJoCo gives as it was before its last simulation step."""
    return data.xpos[1].copy()


def effort(action: Tensor) -> Tensor:
    """‖a‖²: ``(B,)``."""
    return action.square().sum(-1)


def between(keys: Key, low: float, high: float) -> Tensor:
    """One number ~ U[low, high) per key: float32."""
    return low + (high - low) * rng.uniform(keys, 1).squeeze(-1)
