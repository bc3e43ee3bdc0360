"""The ant that must walk to a place. MuJoCo's model and starts are those of Gymnasium's v5."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from metarl.core import rng
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.ant import contact_cost, place, place_and_contact, unit_vectors
from metarl.envs.mujoco.pictures import from_above
from metarl.envs.mujoco.robots import Robot, effort, length_of_list, never
from metarl.envs.mujoco.simulator import Physics


class Place(NamedTuple):
    """Where to go."""

    position: Tensor  # (B, 2) float32 metres


class AntGoal(TaskFamily[Place, Physics]):
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

    noisy = False

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 150,
        test_tasks: int | None = 30,
    ) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.train_tasks = length_of_list("train_tasks", train_tasks)
        self.test_tasks = length_of_list("test_tasks", test_tasks)
        self.robot = Robot("ant.xml", 5, noise=0.1, hidden=0, gaussian=True, reading=place_and_contact)
        self.observation_space, self.action_space = self.robot.observation_space, self.robot.action_space

    def draw_tasks(self, keys: Key, split: str) -> Place:
        u = rng.uniform(keys, 2)
        radius = 3.0 + u[:, :1] if split == "ood" else 3.0 * u[:, :1].sqrt()
        return Place(radius * unit_vectors(2.0 * math.pi * u[:, 1]))

    def reset(self, task: Place, key: Key) -> Physics:
        return self.robot.start(key)

    def observe(self, task: Place, state: Physics) -> Tensor:
        return self.robot.observe(state)

    def step(self, task: Place, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        away = (after.reading[:, :2].float() - task.position).abs().sum(-1)
        return after, -away - 0.1 * effort(action) - contact_cost(after), never(away)

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and the wanted place."""
        return from_above(self.robot, self.horizon, place, goal=xy(task.position))


__all__ = ["AntGoal", "Place"]
