"""The ant that must walk to a position, with dense or sparse rewards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Sketch
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.ant.body import CONTACTS, ant, contact_cost, place, torso_and_contacts
from metarl.envs.mujoco.beliefs.listed import listed
from metarl.envs.mujoco.beliefs.places import TargetPlace
from metarl.envs.mujoco.goals import Place, unit_vectors
from metarl.envs.mujoco.pictures import from_above
from metarl.envs.mujoco.robots import Robot, RobotFamily, effort
from metarl.envs.mujoco.simulator import Physics

GOAL_RADIUS = 0.75  # metres: radius within which AntGoalSparse pays


class AntGoal(RobotFamily[Place]):
    """A four-legged robot that must walk to a position that only the reward reveals. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions per second, as `AntDir`. If it falls, the episode continues.

    What varies:
        The target position: `Place.position`.

    Splits:
        - `train`: 150 fixed tasks, uniform over the disc of radius 3 m (``train_tasks=None``: unlimited fresh tasks).
        - `test`: 30 other fixed tasks (``test_tasks=None``: fresh tasks).
        - `valid`: fresh tasks from the training distribution.
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
        =======  ==============================================  =========  ==========
        index    meaning                                         range      unit
        =======  ==============================================  =========  ==========
        0 … 1    position of the torso                           unbounded  m
        2        height of the torso                             unbounded  m
        3 … 6    its orientation, a quaternion                   unbounded  none
        7 … 14   angles of the eight joints                      unbounded  rad
        15 … 20  velocities and angular velocities of the torso  unbounded  m/s, rad/s
        21 … 28  velocities of the joints                        unbounded  rad/s
        =======  ==============================================  =========  ==========
        Those of `AntDir` and the position, without which the ant could not tell where it was rewarded.
        ``show_contacts=True`` adds the contact forces, clipped to ±1: 113 numbers.

    Rewards:
        -‖position - target‖₁ - 0.1 ‖action‖² - 0.0005 Σ clip(contact force, ±1)², with the torso's position after the
        step.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 because of the cost of getting there.

    Differs from the source:
        ============  =================================  ======================================
        what          here                               there
        ============  =================================  ======================================
        observations  29 numbers, no contact forces; an  113 numbers, 84 of them contact forces
                      option
        tasks         150 and 30, always the same        as many, drawn at each start
        ============  =================================  ======================================

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
        show_contacts: bool = False,
    ) -> None:
        self.show_contacts = show_contacts
        super().__init__(ant(0, show_contacts), horizon, episodes_per_trial, train_tasks, test_tasks)

    def draw_tasks(self, keys: Key, split: str) -> Place:
        return around(keys, split)

    def reward(self, task: Place, before: Physics, after: Physics, action: Tensor) -> Tensor:
        away = (place(after).float() - task.position).abs().sum(-1)
        return -away - 0.1 * effort(action) - contact_cost(after)

    def belief(self, split: str) -> Belief | None:
        return listed(self, split)

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and the wanted place."""
        return from_above(self.robot, self.horizon, goal=xy(task.position))


class AntGoalSparse(RobotFamily[Place]):
    """A four-legged robot that must find a position and is rewarded only near it. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions per second, as `AntGoal`, but the reward reveals the distance to the target
        only within 0.75 m of it. If the ant falls, the episode continues.

    What varies:
        The target position: `Place.position`.

    Splits:
        - `train`, `valid`, `test`: uniform over the disc of radius 3 m, in disjoint random streams.
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
        ========  ==================================================  =========  =========
        index     meaning                                             range      unit
        ========  ==================================================  =========  =========
        0 … 28    those of `AntGoal`: position, height, orientation,  unbounded  m, none,
                  joint angles, velocities                                       rad, m/s,
                                                                                 rad/s
        29 … 31   the torso's position 0.01 s earlier                 unbounded  m
        32 … 115  contact forces and torques on the world and         [-1, 1]    N, N m
                  13 bodies, clipped
        ========  ==================================================  =========  =========

    Rewards:
        With d the Euclidean distance of the torso from the target after the step: 1 - d where d ≤ 0.75 m, otherwise
        -0.75; then -0.01 ‖action‖² - 0.0005 Σ clip(contact force, ±1)².

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 1 per step.

    Source:
        Zintgraf et al. 2021, "HyperX" (sparse AntGoal), in its published code.

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        robot = Robot("ant.xml", 5, noise=0.1, hidden=0, gaussian=True, reading=torso_and_contacts, shown=3 + CONTACTS)
        super().__init__(robot, horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Place:
        return around(keys, split)

    def reward(self, task: Place, before: Physics, after: Physics, action: Tensor) -> Tensor:
        away = distance(task, after)
        near = torch.where(away <= GOAL_RADIUS, 1.0 - away, -GOAL_RADIUS)
        return near - 0.01 * effort(action) - contact_cost(after)

    def belief(self, split: str) -> Belief:
        listed_tasks = listed(self, split)
        if listed_tasks is not None:
            return listed_tasks
        if split == "ood":
            return TargetPlace(self, place, GOAL_RADIUS, lambda u: 3.0 + u, lambda r: -(2.0 * math.pi * r).log())
        density = math.log(1.0 / (9.0 * math.pi))
        return TargetPlace(self, place, GOAL_RADIUS, lambda u: 3.0 * u.sqrt(), lambda r: torch.full_like(r, density))

    def success(self, task: Place, state: Physics) -> Tensor:
        return distance(task, state) <= GOAL_RADIUS

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """Draw the path from above, with the ant, the target position and the disc that pays."""
        return from_above(self.robot, self.horizon, goal=xy(task.position), radius=GOAL_RADIUS)


def around(keys: Key, split: str) -> Place:
    """Draw positions uniformly over the disc of radius 3 m; in `ood` angle uniform and radius ~ U[3, 4) m."""
    u = rng.uniform(keys, 2)
    radius = 3.0 + u[:, :1] if split == "ood" else 3.0 * u[:, :1].sqrt()
    return Place(radius * unit_vectors(2.0 * math.pi * u[:, 1]))


def distance(task: Place, physics: Physics) -> Tensor:
    """Return the distance (B,) in metres from the torso to the target position."""
    return (place(physics).float() - task.position).norm(dim=-1)
