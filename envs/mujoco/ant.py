"""The ant with a goal: a direction, a speed or a place. MuJoCo's model and starts are those of Gymnasium's v5."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key, Sketch
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.goals import Heading, Place, Velocity, unit_vectors
from metarl.envs.mujoco.pictures import from_above, speed_view
from metarl.envs.mujoco.robots import Robot, RobotFamily, between, effort, never
from metarl.envs.mujoco.simulator import Physics

CONTACT_COST = 0.0005


def ant(hidden: int = 2) -> Robot:
    """Gymnasium's Ant-v5; its `reading` is the torso's place (2) and the sum of squares of clipped contact forces.

    Its place in the world is not observed, unless `hidden` is 0.
    """
    return Robot("ant.xml", 5, noise=0.1, hidden=hidden, gaussian=True, reading=place_and_contact)


def place_and_contact(model: Any, data: Any) -> np.ndarray:
    """The torso's place as Gymnasium's Ant-v5 sees it, and its contact cost but for the weight."""
    return np.append(data.xpos[1, :2], np.square(np.clip(data.cfrc_ext, -1.0, 1.0)).sum())


def walked(robot: Robot, state: Physics, after: Physics) -> Tensor:
    """Mean velocity (B, 2) in m/s between two actions."""
    return ((after.reading[:, :2] - state.reading[:, :2]) / robot.dt).float()


def contact_cost(after: Physics) -> Tensor:
    """Gymnasium's contact cost (B,)."""
    return CONTACT_COST * after.reading[:, 2].float()


def fallen(after: Physics) -> Tensor:
    """True where the torso's height has left [0.2, 1] m: bool (B,)."""
    height = after.state[:, 3]
    return ~((height >= 0.2) & (height <= 1.0))  # so that a height that is no number counts, too


class AntDir(RobotFamily[Heading]):
    """A four-legged robot that must walk forwards or backwards, which only the reward tells. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second. It starts as there: U[-0.1, 0.1) is added to the positions and
        0.1 · N(0, 1) to the velocities.

    What varies:
        The direction along x: `Heading.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none is left to test
          on: `AntDir2D` has held-out ones.
        - `valid`: both directions too.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ========  =========================================  =========  ===========
        index     meaning                                    range      unit
        ========  =========================================  =========  ===========
        0         height of the torso                        unbounded  m
        1 … 4     its orientation, a quaternion              unbounded  none
        5 … 12    angles of the eight joints                 unbounded  rad
        13 … 18   speeds and angular speeds of the torso     unbounded  m/s, rad/s
        19 … 26   speeds of the joints                       unbounded  rad/s
        ========  =========================================  =========  ===========
        Those of Gymnasium's v5 without the forces of contact.

    Rewards:
        ⟨v, direction⟩ - 0.5 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)² + 1, with v the torso's mean velocity
        since the last action and the forces as in Gymnasium's v5.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ======================  =============================================  =========================================
        what                    here                                           there
        ======================  =============================================  =========================================
        time between actions    0.05 s, as PEARL                               MAML: 0.02 s
        velocity in the reward  of the torso, mean over the step, as PEARL     MAML: of the whole body's centre of mass,
                                                                               after it
        cost of actions         0.5 ‖action‖², as PEARL                        MAML: 0.005 ‖action‖²
        reward for being up     1, as PEARL                                    MAML: 0.05
        observations            27 numbers, as PEARL                           MAML: 125, with the place and the forces
                                                                               of contact
        start                   0.75 m high, positions U[-0.1, 0.1), as PEARL  MAML: 0.55 m high on bent legs, positions
                                                                               0.01 · N(0, 1)
        ======================  =============================================  =========================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (forward/backward), as in Rakelly et al. 2019, "PEARL".

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")
    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(ant(), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Heading:
        return Heading(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))

    def step(self, task: Heading, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        return walk(self.robot, task, state, action)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


class AntDir2D(RobotFamily[Heading]):
    """A four-legged robot that must walk in a direction of the plane which only the reward tells. Needs MuJoCo.

    Description:
        As `AntDir`, in any direction.

    What varies:
        The direction: `Heading.direction`.

    Splits:
        - `train`, `valid`, `test`: angle ~ U[0, 2π), in disjoint streams, and there is no `ood`. With
          ``half_circle=True`` angle ~ U[0, π), and
        - `ood`: angle ~ U[π, 2π).

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `AntDir`: height, orientation (quaternion) and eight joint angles, then the speeds. 27 numbers in m,
        rad, m/s and rad/s, unbounded.

    Rewards:
        ⟨v, direction⟩ - 0.5 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)² + 1, as `AntDir`.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ===========================  ================================  ==========================
        what                         here                              there
        ===========================  ================================  ==========================
        height that ends an episode  outside [0.2, 1] m                outside [0, 1] m
        observations                 27 numbers, no forces of contact  with the forces of contact
        ===========================  ================================  ==========================

    Source:
        Rothfuss et al. 2019, "ProMP" (AntRandDir2D).

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    terminates = True

    def __init__(self, half_circle: bool = False, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        self.half_circle = half_circle
        if half_circle:
            self.splits = ("train", "valid", "test", "ood")  # type: ignore[misc]  # what splits there are depends on the option
        super().__init__(ant(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Heading:
        if not self.half_circle:
            return Heading(unit_vectors(between(keys, 0.0, 2.0 * math.pi)))
        upper = unit_vectors(between(keys, 0.0, math.pi))
        return Heading(-upper if split == "ood" else upper)

    def step(self, task: Heading, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        return walk(self.robot, task, state, action)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


class AntVel(RobotFamily[Velocity]):
    """A four-legged robot that must walk at a speed which only the reward tells. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second, as `AntDir`.

    What varies:
        The wanted speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[0, 3) m/s, in disjoint streams.
        - `ood`: speed ~ U[3, 4) m/s.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `AntDir`: height, orientation (quaternion) and eight joint angles, then the speeds. 27 numbers in m,
        rad, m/s and rad/s, unbounded.

    Rewards:
        1 - |v - wanted| - 0.005 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)² + 0.05, with v the torso's mean speed
        along x since the last action.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known. At most 1.05 a step.

    Differs from the source:
        ====================  ===================================  ==================================================
        what                  here                                 there
        ====================  ===================================  ==================================================
        time between actions  0.05 s                               0.02 s
        speed in the reward   of the torso, mean over the step     of the whole body's centre of mass, after it
        observations          27 numbers                           125, with the place and the forces of contact
        start                 0.75 m high, positions U[-0.1, 0.1)  0.55 m high on bent legs, positions 0.01 · N(0, 1)
        ====================  ===================================  ==================================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (ant, goal velocity).

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(ant(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        return Velocity(between(keys, 3.0, 4.0) if split == "ood" else between(keys, 0.0, 3.0))

    def step(self, task: Velocity, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        speed = walked(self.robot, state, after)[:, 0]
        reward = 1.05 - (speed - task.velocity).abs() - 0.005 * effort(action) - contact_cost(after)
        return after, reward, fallen(after)

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class AntGoal(RobotFamily[Place]):
    """A four-legged robot that must walk to a place which only the reward tells. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions a second, as `AntDir`. It may fall: the episode goes on.

    What varies:
        The place: `Place.position`.

    Splits:
        - `train`: 150 tasks, uniform over the disc of radius 3 m, drawn once (``train_tasks=None``: fresh ones without
          end).
        - `test`: 30 others, drawn once (``test_tasks=None``: fresh ones).
        - `valid`: fresh tasks of training's distribution.
        - `ood`: angle uniform, radius ~ U[3, 4) m.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ========  =========================================  =========  ===========
        index     meaning                                    range      unit
        ========  =========================================  =========  ===========
        0 … 1     place of the torso                         unbounded  m
        2         height of the torso                        unbounded  m
        3 … 6     its orientation, a quaternion              unbounded  none
        7 … 14    angles of the eight joints                 unbounded  rad
        15 … 20   speeds and angular speeds of the torso     unbounded  m/s, rad/s
        21 … 28   speeds of the joints                       unbounded  rad/s
        ========  =========================================  =========  ===========
        Those of `AntDir` and the place, without which an ant could not tell where it has been paid.

    Rewards:
        -‖place - wanted‖₁ - 0.1 ‖action‖² - 0.0005 Σ clip(force of contact, ±1)², with the torso's place after the
        step.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 by what the way there costs.

    Differs from the source:
        ============  ================================  =========================================
        what          here                              there
        ============  ================================  =========================================
        observations  29 numbers, no forces of contact  113 numbers, 84 of them forces of contact
        tasks         150 and 30, always the same       as many, drawn at each start
        ============  ================================  =========================================

    Source:
        Rakelly et al. 2019, "PEARL" (ant-goal; 150 and 30 tasks).

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 150,
        test_tasks: int | None = 30,
    ) -> None:
        super().__init__(ant(hidden=0), horizon, episodes_per_trial, train_tasks, test_tasks)

    def draw_tasks(self, keys: Key, split: str) -> Place:
        u = rng.uniform(keys, 2)
        radius = 3.0 + u[:, :1] if split == "ood" else 3.0 * u[:, :1].sqrt()
        return Place(radius * unit_vectors(2.0 * math.pi * u[:, 1]))

    def step(self, task: Place, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        away = (after.reading[:, :2].float() - task.position).abs().sum(-1)
        return after, -away - 0.1 * effort(action) - contact_cost(after), never(away)

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and the wanted place."""
        return from_above(self.robot, self.horizon, goal=xy(task.position))


def walk(robot: Robot, task: Heading, state: Physics, action: Tensor) -> tuple[Physics, Tensor, Tensor]:
    """A step that pays for a direction."""
    action = robot.clipped(action)
    after = robot.move(state, action)
    forward = (walked(robot, state, after) * task.direction).sum(-1)
    return after, forward - 0.5 * effort(action) - contact_cost(after) + 1.0, fallen(after)


__all__ = ["AntDir", "AntDir2D", "AntGoal", "AntVel", "Heading", "Place"]
