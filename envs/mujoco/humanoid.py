"""The humanoid that must walk in a direction. MuJoCo's model and starts are those of Gymnasium's v5."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.errors import short
from metarl.core.family import Key, Sketch
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.beliefs.headings import TargetHeading
from metarl.envs.mujoco.beliefs.listed import listed
from metarl.envs.mujoco.goals import Heading, along_x, unit_vectors
from metarl.envs.mujoco.pictures import from_above
from metarl.envs.mujoco.robots import Robot, RobotFamily, between, effort
from metarl.envs.mujoco.simulator import Physics

SHOWN = 130 + 78 + 17  # inertias and velocities of 13 bodies, forces of 17 motors
CONTACTS = 78  # forces and torques of contact on 13 bodies


def humanoid(show_contacts: bool = False) -> Robot:
    """Gymnasium's Humanoid-v5; its `reading` ends with the centre of mass (2) and the sum of squares of contact forces.

    The forces of contact (78) are not observed, unless asked for.
    """
    reading, shown = (inside_and_contacts, SHOWN + CONTACTS) if show_contacts else (inside, SHOWN)
    return Robot("humanoid.xml", 5, noise=0.01, hidden=2, reading=reading, shown=shown)


def inside(model: Any, data: Any) -> np.ndarray:
    """Inertias, velocities and forces that Gymnasium's Humanoid-v5 shows; its centre of mass; forces of contact."""
    return np.concatenate(
        [
            data.cinert[1:].ravel(),
            data.cvel[1:].ravel(),
            data.qfrc_actuator[6:],
            (model.body_mass @ data.xipos / model.body_mass.sum())[:2],
            [np.square(data.cfrc_ext).sum()],
        ]
    )


def inside_and_contacts(model: Any, data: Any) -> np.ndarray:
    """The numbers of `inside`, with the forces of contact on each body behind those that are shown."""
    numbers = inside(model, data)
    return np.concatenate([numbers[:SHOWN], data.cfrc_ext[1:].ravel(), numbers[SHOWN:]])


class HumanoidDir(RobotFamily[Heading]):
    """A two-legged robot that must walk in a direction that only the reward reveals. Needs MuJoCo.

    Description:
        Humanoid of Gymnasium's v5, 67 actions per second. It starts as in Gymnasium: U[-0.01, 0.01) is added to
        positions and velocities.

    What varies:
        The direction: `Heading.direction`.

    Splits:
        - `train`: 100 fixed tasks, angle ~ U[0, 2π) (``train_tasks=None``: unlimited fresh tasks).
        - `test`: 30 other fixed tasks (``test_tasks=None``: fresh tasks). There is no `ood`, since the training
          directions cover the whole circle.
        - `valid`: fresh tasks from the training distribution.

        With ``forward_backward=True`` there are only two tasks, forwards and backwards along x, so `train`, `valid` and
        `all` have both, and none can be held out.

    Actions:
        ======  =========================================================  ===========  ====
        index   meaning                                                    range        unit
        ======  =========================================================  ===========  ====
        0 … 16  motors of abdomen (3), right and left hip and knee (4      [-0.4, 0.4]  gear
                each), right and left shoulder and elbow (3 each)
        ======  =========================================================  ===========  ====
        An action beyond the range is clipped to it.

    Observations:
        =========  =====================================================  =========  ==========
        index      meaning                                                range      unit
        =========  =====================================================  =========  ==========
        0 … 4      height of the torso, its orientation (quaternion)      unbounded  m, none
        5 … 21     angles of the joints                                   unbounded  rad
        22 … 44    velocities of torso and joints                         unbounded  m/s, rad/s
        45 … 174   inertia and mass of the 13 bodies about the centre of  unbounded  kg, m
                   mass
        175 … 252  their velocities                                       unbounded  m/s, rad/s
        253 … 269  forces of the motors at the joints                     unbounded  N m
        =========  =====================================================  =========  ==========
        Those of Gymnasium's v5 without the contact forces. ``show_contacts=True`` adds these: 348 numbers.

    Rewards:
        1.25 ⟨v, direction⟩ - 0.1 ‖action‖² - min(5e-7 Σ (contact force)², 10) + 5, with v the mean velocity of the
        centre of mass since the last action.

    Endings:
        Terminated when the torso's height leaves (1, 2) m; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ============  ============================  ============================
        what          here                          there
        ============  ============================  ============================
        observations  no contact forces; an option  with the contact forces
        tasks         100 and 30, always the same   as many, drawn at each start
        ============  ============================  ============================

    Source:
        Rakelly et al. 2019, "PEARL" (humanoid-dir; 100 and 30 tasks), with the reward weights of Gymnasium's v5. With
        ``forward_backward=True, show_contacts=True``, it is the task of Rothfuss et al. 2019, "ProMP"
        (HumanoidRandDirec).

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    terminates = True

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 100,
        test_tasks: int | None = 30,
        forward_backward: bool = False,
        show_contacts: bool = False,
    ) -> None:
        self.forward_backward, self.show_contacts = forward_backward, show_contacts
        if forward_backward:
            if train_tasks not in (100, None) or test_tasks not in (30, None):
                raise ValueError(
                    "With forward_backward=True there are only two tasks: leave train_tasks and "
                    f"test_tasks out, got {short((train_tasks, test_tasks))}."
                )
            train_tasks = test_tasks = None
            self.splits = ("train", "valid", "all")  # type: ignore[misc]  # depends on the option
        super().__init__(humanoid(show_contacts), horizon, episodes_per_trial, train_tasks, test_tasks)

    def enumerate_tasks(self, split: str) -> Heading | None:
        return along_x() if self.forward_backward else None

    def draw_tasks(self, keys: Key, split: str) -> Heading:
        return Heading(unit_vectors(between(keys, 0.0, 2.0 * math.pi)))

    def reward(self, task: Heading, before: Physics, after: Physics, action: Tensor) -> Tensor:
        moved = after.reading[:, -3:-1] - before.reading[:, -3:-1]
        forward = ((moved / self.robot.dt).float() * task.direction).sum(-1)
        contact = (5e-7 * after.reading[:, -1]).clamp_max(10.0).float()
        return 1.25 * forward - 0.1 * effort(action) - contact + 5.0

    def ended(self, after: Physics) -> Tensor:
        height = after.state[:, 3]
        return ~((height > 1.0) & (height < 2.0))

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetHeading(self)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the robot and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


__all__ = ["HumanoidDir"]
