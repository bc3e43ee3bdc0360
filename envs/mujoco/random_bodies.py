"""Walker2d and Hopper with a new body each time. MuJoCo's models and starts are those of Gymnasium's v5."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import positive
from metarl.core.family import Key, Sketch
from metarl.core.tree import named_leaves
from metarl.envs.mujoco.pictures import side_view
from metarl.envs.mujoco.robots import Bodies, Robot, RobotFamily, effort
from metarl.envs.mujoco.simulator import Model, Physics
from metarl.envs.mujoco.walker import NEW_FEET, OLD_FEET, fallen, walker

PUBLISHED_STEP = 0.004  # seconds of a simulation step in the published rand_param_envs


class BodyScales(NamedTuple):
    """Multipliers of a robot's nominal parameters, no unit."""

    mass: Tensor  # (B, bodies) float32, of each body's mass and, so that it stays physical, its inertia
    friction: Tensor  # (B, 3 geoms) float32: sliding, torsional and rolling friction of each, the floor's first
    damping: Tensor  # (B, joints) float32, of each motor's joint


class Walker2dRandParams(RobotFamily[BodyScales]):
    """A planar walker whose masses, frictions and dampings change from task to task. Needs MuJoCo.

    Description:
        Walker2d of Gymnasium's v5, 125 actions per second. It starts as in Gymnasium: U[-0.005, 0.005) is added to
        positions and velocities. With ``published=True`` simulation steps last 0.004 s, so that there are 62.5 actions
        per second, and the nominal friction of the right foot is 0.9, as in the published rand_param_envs.

    What varies:
        Multipliers of the mass (and with it the inertia) of the 7 bodies, of three frictions of 8 geoms, and of the
        damping of 6 joints: `BodyScales`. With u drawn for each of them, mass and friction are multiplied by 1.5^u,
        damping by 1.3^u.

    Splits:
        - `train`: 40 fixed tasks, u ~ U[-3, 3) (``train_tasks=None``: unlimited fresh tasks).
        - `test`: 10 other fixed tasks (``test_tasks=None``: fresh tasks).
        - `valid`: fresh tasks from the training distribution.
        - `ood`: all u in [3, 4) or (-4, -3], each side with probability 1/2.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 5  motors: right thigh, leg, foot; left thigh, leg,   [-1, 1]     gear
               foot
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ======  ==============================================  =========  ==========
        index   meaning                                         range      unit
        ======  ==============================================  =========  ==========
        0 … 1   height of the torso, pitch                      unbounded  m, rad
        2 … 7   angles of the joints                            unbounded  rad
        8 … 16  velocities along x and z, of the pitch, of the  [-10, 10]  m/s, rad/s
                joints
        ======  ==============================================  =========  ==========

    Rewards:
        v + 1 - 0.001 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Terminated when the height leaves (0.8, 2) m or the pitch (-1, 1) rad; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ====================  ===============================  =========================================
        what                  here                             there
        ====================  ===============================  =========================================
        time between actions  0.008 s (4 steps of 0.002 s);    0.016 s (4 steps of 0.004 s)
                              an option
        friction of the feet  1.9 both, as in Gymnasium's v5;  0.9 right, 1.9 left
                              an option
        inertia               scaled with the body's mass      scaled by its own factors
        tasks                 40 and 10, always the same       50 drawn at each start, 40 and 10 of them
        ====================  ===============================  =========================================

    Source:
        Rakelly et al. 2019, "PEARL" (walker-rand-params; 40 and 10 tasks), after the published rand_param_envs.

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 40,
        test_tasks: int | None = 10,
        published: bool = False,
    ) -> None:
        self.published = published
        robot = walker(OLD_FEET, 4, PUBLISHED_STEP) if published else walker(NEW_FEET, 4)
        super().__init__(robot, horizon, episodes_per_trial, train_tasks, test_tasks)
        self.bodies = Bodies(robot.simulator, factors)

    def draw_tasks(self, keys: Key, split: str) -> BodyScales:
        return draw_scales(keys, split, self.robot.simulator.model)

    def check_task(self, task: BodyScales) -> None:
        positive(task)

    def model_of(self, task: BodyScales) -> Model:
        return self.bodies.of(task)[0]

    def step(self, task: BodyScales, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        after, reward = run(self.robot, self.bodies, task, state, action)
        return after, reward, fallen(after)

    def sketch(self, task: BodyScales, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, said(task), model=self.model_of(task))


class HopperRandParams(RobotFamily[BodyScales]):
    """A planar hopper whose masses, frictions and dampings change from task to task. Needs MuJoCo.

    Description:
        Hopper of Gymnasium's v5, 125 actions per second. It starts as in Gymnasium: U[-0.005, 0.005) is added to
        positions and velocities. With ``published=True`` simulation steps last 0.004 s, so that there are 62.5 actions
        per second, as in the published rand_param_envs.

    What varies:
        Multipliers of the mass (and with it the inertia) of the 4 bodies, of three frictions of 5 geoms, and of the
        damping of 3 joints: `BodyScales`. With u drawn for each of them, mass and friction are multiplied by 1.5^u,
        damping by 1.3^u.

    Splits:
        - `train`: 40 fixed tasks, u ~ U[-3, 3) (``train_tasks=None``: unlimited fresh tasks).
        - `test`: 10 other fixed tasks (``test_tasks=None``: fresh tasks).
        - `valid`: fresh tasks from the training distribution.
        - `ood`: all u in [3, 4) or (-4, -3], each side with probability 1/2.

    Actions:
        =====  =============================  ==========  ====
        index  meaning                        range       unit
        =====  =============================  ==========  ====
        0 … 2  motors: thigh, leg, foot       [-1, 1]     gear
        =====  =============================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ======  ==============================================  =========  ==========
        index   meaning                                         range      unit
        ======  ==============================================  =========  ==========
        0 … 1   height of the torso, pitch                      unbounded  m, rad
        2 … 4   angles of the joints                            unbounded  rad
        5 … 10  velocities along x and z, of the pitch, of the  [-10, 10]  m/s, rad/s
                joints
        ======  ==============================================  =========  ==========

    Rewards:
        v + 1 - 0.001 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Terminated when the height is not above 0.7 m, the pitch leaves (-0.2, 0.2) rad, or an angle or a speed leaves
        (-100, 100); truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ====================  =============================  ====================================================
        what                  here                           there
        ====================  =============================  ====================================================
        time between actions  0.008 s (4 steps of 0.002 s);  0.016 s (4 steps of 0.004 s)
                              an option
        inertia               scaled with the body's mass    scaled by its own factors
        tasks                 40 and 10, always the same     in PEARL's code 50 drawn at each start, 40 and 10 of
                                                             them; not in its paper
        ====================  =============================  ====================================================

    Source:
        The published rand_param_envs (hopper); the number of tasks is that of Rakelly et al. 2019 for the walker.

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 40,
        test_tasks: int | None = 10,
        published: bool = False,
    ) -> None:
        self.published = published
        step = PUBLISHED_STEP if published else None
        robot = Robot("hopper.xml", 4, noise=0.005, max_speed=10.0, timestep=step)
        super().__init__(robot, horizon, episodes_per_trial, train_tasks, test_tasks)
        self.bodies = Bodies(robot.simulator, factors)

    def draw_tasks(self, keys: Key, split: str) -> BodyScales:
        return draw_scales(keys, split, self.robot.simulator.model)

    def check_task(self, task: BodyScales) -> None:
        positive(task)

    def model_of(self, task: BodyScales) -> Model:
        return self.bodies.of(task)[0]

    def step(self, task: BodyScales, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        after, reward = run(self.robot, self.bodies, task, state, action)
        height, pitch = after.state[:, 2], after.state[:, 3]
        sane = (after.state[:, 3:].abs() < 100.0).all(dim=1)  # Gymnasium's: all but time and place
        return after, reward, ~((height > 0.7) & (pitch.abs() < 0.2) & sane)

    def sketch(self, task: BodyScales, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, said(task), model=self.model_of(task))


def run(robot: Robot, bodies: Bodies, task: BodyScales, state: Physics, action: Tensor) -> tuple[Physics, Tensor]:
    """The next state of rows with bodies of their own, and the reward."""
    action = robot.clipped(action)
    after = robot.move(state, action, bodies, task)
    return after, robot.speed(state, after) + 1.0 - 0.001 * effort(action)


def draw_scales(keys: Key, split: str, model: Model) -> BodyScales:
    """Independent multipliers for all that varies in the model."""
    sizes = [model.nbody - 1, 3 * model.ngeom, int((model.dof_damping > 0).sum())]
    u = rng.uniform(keys, 2 * sum(sizes))
    exponent = 6.0 * u[:, : sum(sizes)] - 3.0
    if split == "ood":
        outside = 3.0 + u[:, : sum(sizes)]
        exponent = torch.where(u[:, sum(sizes) :] < 0.5, outside, -outside)
    mass, friction, damping = exponent.split(sizes, dim=1)
    # exp instead of a power, whose last bit would depend on the batch's size.
    parts = [math.log(1.5) * mass, math.log(1.5) * friction, math.log(1.3) * damping]
    return BodyScales(*[torch.exp(part).contiguous() for part in parts])


def factors(row: np.ndarray, model: Model) -> dict[str, np.ndarray]:
    """The multipliers of one row of `BodyScales`, as `Simulator.changed` takes them."""
    damped = model.dof_damping > 0
    mass, friction, damping = np.split(row, np.cumsum([model.nbody - 1, 3 * model.ngeom]))
    of_bodies = np.concatenate([[1.0], mass])  # the world's body weighs nothing
    of_joints = np.ones(model.nv)
    of_joints[damped] = damping
    return {
        "body_mass": of_bodies,
        "body_inertia": of_bodies[:, None],
        "geom_friction": friction.reshape(model.ngeom, 3),
        "dof_damping": of_joints,
    }


def said(task: BodyScales) -> list[str]:
    """The texts of a row's picture: the range of its multipliers."""
    ranges = named_leaves(task).items()
    return [f"{name} x {float(part[0].min()):.2f} … {float(part[0].max()):.2f}" for name, part in ranges]


__all__ = ["BodyScales", "HopperRandParams", "Walker2dRandParams"]
