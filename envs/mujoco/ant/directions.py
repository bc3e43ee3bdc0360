"""The ant that must walk in a direction: forwards or backwards, or any in the plane."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Sketch
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.ant.body import ant, checked_height, contact_cost, fallen, walked
from metarl.envs.mujoco.beliefs.headings import TargetHeading
from metarl.envs.mujoco.beliefs.listed import ListedByReward, listed
from metarl.envs.mujoco.goals import Heading, along_x, unit_vectors
from metarl.envs.mujoco.pictures import from_above
from metarl.envs.mujoco.robots import RobotFamily, between, effort
from metarl.envs.mujoco.simulator import Physics


class AntDir(RobotFamily[Heading]):
    """A four-legged robot that must walk forwards or backwards; only the reward reveals which. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions per second. It starts as in Gymnasium: U[-0.1, 0.1) is added to the positions
        and 0.1 · N(0, 1) to the velocities.

    What varies:
        The direction along x: `Heading.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none can be held out;
          `AntDir2D` has held-out tasks.
        - `valid`: both directions as well.

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
        0        height of the torso                             unbounded  m
        1 … 4    its orientation, a quaternion                   unbounded  none
        5 … 12   angles of the eight joints                      unbounded  rad
        13 … 18  velocities and angular velocities of the torso  unbounded  m/s, rad/s
        19 … 26  velocities of the joints                        unbounded  rad/s
        =======  ==============================================  =========  ==========
        Those of Gymnasium's v5 without the contact forces. ``show_contacts=True`` adds these, clipped to ±1: 84
        numbers, six for each of 13 bodies and the world.

    Rewards:
        ⟨v, direction⟩ - 0.5 ‖action‖² - 0.0005 Σ clip(contact force, ±1)² + 1, with v the torso's mean velocity since
        the last action and the forces as in Gymnasium's v5.

    Endings:
        Terminated when the torso's height leaves [`min_height`, 1] m, where `min_height` is 0.2 m by default; truncated
        after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ======================  ================================================  ======================================
        what                    here                                              there
        ======================  ================================================  ======================================
        time between actions    0.05 s, as in PEARL                               MAML: 0.02 s
        velocity in the reward  of the torso, mean over the step, as in PEARL     MAML: of the whole body's centre of
                                                                                  mass, after the step
        cost of actions         0.5 ‖action‖², as in PEARL                        MAML: 0.005 ‖action‖²
        reward for staying up   1, as in PEARL                                    MAML: 0.05
        observations            27 numbers, as in PEARL                           MAML: 125, with the position and the
                                                                                  contact forces
        start                   0.75 m high, positions U[-0.1, 0.1), as in PEARL  MAML: 0.55 m high on bent legs,
                                                                                  positions 0.01 · N(0, 1)
        ======================  ================================================  ======================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (forward/backward), as in Rakelly et al. 2019, "PEARL".
        `AntDirMAML` is MAML's own. With ``min_height=0, show_contacts=True``, it is the task of Rothfuss et al. 2019,
        "ProMP" (AntRandDirec).

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")
    terminates = True

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        min_height: float = 0.2,
        show_contacts: bool = False,
    ) -> None:
        self.min_height, self.show_contacts = checked_height(min_height), show_contacts
        super().__init__(ant(show_contacts=show_contacts), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Heading:
        return along_x()

    def reward(self, task: Heading, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return along(walked(self.robot, before, after), task, after, action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after, self.min_height)

    def belief(self, split: str) -> Belief:
        return ListedByReward(self, split)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


class AntDir2D(RobotFamily[Heading]):
    """A four-legged robot that must walk in a direction of the plane that only the reward reveals. Needs MuJoCo.

    Description:
        As `AntDir`, in any direction.

    What varies:
        The direction: `Heading.direction`.

    Splits:
        - `train`, `valid`, `test`: angle ~ U[0, 2π), in disjoint random streams; with ``half_circle=True``,
          angle ~ U[0, π).
        - `ood`, only with ``half_circle=True``: angle ~ U[π, 2π).

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `AntDir`: height, orientation (quaternion) and eight joint angles, then the velocities. 27 numbers in
        m, rad, m/s and rad/s, unbounded. ``show_contacts=True`` adds the contact forces, clipped to ±1: 111 numbers.

    Rewards:
        ⟨v, direction⟩ - 0.5 ‖action‖² - 0.0005 Σ clip(contact force, ±1)² + 1, as `AntDir`.

    Endings:
        Terminated when the torso's height leaves [`min_height`, 1] m, where `min_height` is 0.2 m by default; truncated
        after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ===========================  =================================  =================================
        what                         here                               there
        ===========================  =================================  =================================
        height that ends an episode  outside [0.2, 1] m; an option      outside [0, 1] m
        observations                 27 numbers, no contact forces; an  111 numbers, 84 of them contact
                                     option                             forces
        ===========================  =================================  =================================

    Source:
        Rothfuss et al. 2019, "ProMP" (AntRandDirec2D): ``min_height=0, show_contacts=True``. Of its other families,
        SwimmerRandVel is left out, because the sign of its reward is wrong: its published code rewards the difference
        from the target speed instead of penalising it.

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    terminates = True

    def __init__(
        self,
        half_circle: bool = False,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        min_height: float = 0.2,
        show_contacts: bool = False,
    ) -> None:
        self.half_circle = half_circle
        self.min_height, self.show_contacts = checked_height(min_height), show_contacts
        if half_circle:
            self.splits = ("train", "valid", "test", "ood")  # type: ignore[misc]  # depends on the option
        super().__init__(ant(show_contacts=show_contacts), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Heading:
        if not self.half_circle:
            return Heading(unit_vectors(between(keys, 0.0, 2.0 * math.pi)))
        upper = unit_vectors(between(keys, 0.0, math.pi))
        return Heading(-upper if split == "ood" else upper)

    def reward(self, task: Heading, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return along(walked(self.robot, before, after), task, after, action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after, self.min_height)

    def belief(self, split: str) -> Belief:
        half = math.pi if self.half_circle else 2.0 * math.pi
        low = math.pi if split == "ood" else 0.0
        return listed(self, split) or TargetHeading(self, low, low + half)

    def sketch(self, task: Heading, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=xy(task.direction))


def along(velocity: Tensor, task: Heading, after: Physics, action: Tensor) -> Tensor:
    """Return the reward for a velocity (B, 2) in a direction."""
    forward = (velocity * task.direction).sum(-1)
    return forward - 0.5 * effort(action) - contact_cost(after) + 1.0
