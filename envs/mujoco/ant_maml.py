"""The ants of MAML's paper: a direction, a speed or a place, with rllab's time step, rewards and observations.

MuJoCo's model and starts are those of Gymnasium's v5.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Sketch
from metarl.envs.drawing.planes import xy
from metarl.envs.mujoco.ant import CONTACTS, contact_cost, contacts, fallen
from metarl.envs.mujoco.beliefs.listed import ListedByReward, listed
from metarl.envs.mujoco.beliefs.speeds import TargetSpeed
from metarl.envs.mujoco.goals import Direction, Place, Velocity, both_ways
from metarl.envs.mujoco.pictures import from_above, speed_view
from metarl.envs.mujoco.robots import Robot, RobotFamily, between, effort
from metarl.envs.mujoco.simulator import Physics
from metarl.envs.points.plane import uniform_in_ring

AT_CENTRE = slice(CONTACTS + 9, CONTACTS + 11)  # of a reading: x and y of the centre of mass


def rllab_ant() -> Robot:
    """Gymnasium's Ant-v5 in one simulation step of 0.02 s, which shows what rllab's ant does."""
    shown = CONTACTS + 9 + 3
    return Robot("ant.xml", 1, noise=0.1, hidden=0, gaussian=True, reading=rllab_reading, shown=shown, timestep=0.02)


def rllab_reading(model: Any, data: Any) -> np.ndarray:
    """Contact forces, the torso's rotation and the centre of mass, which are shown; its speed; squares of contacts.

    All are those of the positions and velocities of now, as rllab computes them after its step.
    """
    import mujoco

    mujoco.mj_forward(model, data)
    mujoco.mj_rnePostConstraint(model, data)
    mujoco.mj_subtreeVel(model, data)
    forces = contacts(data)
    return np.concatenate(
        [
            forces.ravel(),
            data.xmat[1],
            data.subtree_com[1],
            data.subtree_linvel[1, :1],
            [np.square(forces).sum()],
        ]
    )


def speed_of_centre(after: Physics) -> Tensor:
    """Speed along x of the whole body's centre of mass: float32 (B,) m/s."""
    return after.reading[:, -2].float()


def living(after: Physics, action: Tensor) -> Tensor:
    """Return what living and moving pay: 0.05 - 0.005 ‖action‖² - cost of contact."""
    return 0.05 - 0.005 * effort(action) - contact_cost(after)


class AntVelMAML(RobotFamily[Velocity]):
    """A four-legged robot that must walk at a speed that only the reward reveals, with the time steps of MAML's paper.

    Description:
        Ant of Gymnasium's v5, 50 actions per second, each one simulation step of 0.02 s, so that an episode of 200
        steps lasts 4 s. Needs MuJoCo.

    What varies:
        The target speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[0, 3) m/s, in disjoint random streams.
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
        =========  ==============================================  =========  ==========
        index      meaning                                         range      unit
        =========  ==============================================  =========  ==========
        0 … 1      position of the torso                           unbounded  m
        2          height of the torso                             unbounded  m
        3 … 6      its orientation, a quaternion                   unbounded  none
        7 … 14     angles of the eight joints                      unbounded  rad
        15 … 20    velocities and angular velocities of the torso  unbounded  m/s, rad/s
        21 … 28    velocities of the joints                        unbounded  rad/s
        29 … 112   contact forces and torques on the world and     [-1, 1]    N, N m
                   13 bodies, clipped
        113 … 121  rotation of the torso, a matrix                 [-1, 1]    none
        122 … 124  centre of mass                                  unbounded  m
        =========  ==============================================  =========  ==========

    Rewards:
        1 - |v - target| - 0.005 ‖action‖² - 0.0005 Σ clip(contact force, ±1)² + 0.05, with v the speed along x of the
        whole body's centre of mass after the step.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known. At most 1.05 per step.

    Differs from the source:
        ====================  ==============================================  ========================================
        what                  here                                            there
        ====================  ==============================================  ========================================
        start                 0.75 m high, positions U[-0.1, 0.1),            0.55 m high on bent legs, positions
                              velocities 0.1 · N(0, 1), as in Gymnasium's v5  0.01 · N(0, 1), velocities 0.1 · N(0, 1)
        softness of contacts  that of Gymnasium's v5                          solimp .8 .8 .01
        ====================  ==============================================  ========================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (ant, goal velocity), and its published code.

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(rllab_ant(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        return Velocity(between(keys, 3.0, 4.0) if split == "ood" else between(keys, 0.0, 3.0))

    def reward(self, task: Velocity, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return 1.0 - (speed_of_centre(after) - task.velocity).abs() + living(after, action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after)

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetSpeed(self, (3.0, 4.0) if split == "ood" else (0.0, 3.0))

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class AntDirMAML(RobotFamily[Direction]):
    """A four-legged robot that must walk forwards or backwards, with the time steps of MAML's paper.

    Description:
        Ant of Gymnasium's v5, 50 actions per second, as `AntVelMAML`. Only the reward reveals the direction. Needs
        MuJoCo.

    What varies:
        The direction along x: `Direction.direction`.

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
        Those of `AntVelMAML`: position, height, orientation (quaternion) and eight joint angles, then the velocities,
        the clipped contact forces, the torso's rotation and the centre of mass. 125 numbers.

    Rewards:
        v · direction - 0.005 ‖action‖² - 0.0005 Σ clip(contact force, ±1)² + 0.05, with v the speed along x of the
        whole body's centre of mass after the step.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ====================  ==============================================  ========================================
        what                  here                                            there
        ====================  ==============================================  ========================================
        start                 0.75 m high, positions U[-0.1, 0.1),            0.55 m high on bent legs, positions
                              velocities 0.1 · N(0, 1), as in Gymnasium's v5  0.01 · N(0, 1), velocities 0.1 · N(0, 1)
        softness of contacts  that of Gymnasium's v5                          solimp .8 .8 .01
        ====================  ==============================================  ========================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (ant, forward/backward), and its published code.

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")
    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(rllab_ant(), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Direction:
        return both_ways()

    def reward(self, task: Direction, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return task.direction * speed_of_centre(after) + living(after, action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after)

    def belief(self, split: str) -> Belief:
        return ListedByReward(self, split)

    def sketch(self, task: Direction, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and an arrow in the wanted direction."""
        return from_above(self.robot, self.horizon, direction=(float(task.direction[0]), 0.0))


class AntPos(RobotFamily[Place]):
    """A four-legged robot that must walk to a position that only the reward reveals, as in the code of MAML's paper.

    Description:
        Ant of Gymnasium's v5, 50 actions per second, as `AntVelMAML`. Unlike in `AntGoal`, an episode ends when the ant
        falls. Needs MuJoCo.

    What varies:
        The target position: `Place.position`.

    Splits:
        - `train`, `valid`, `test`: uniform over the square [-3, 3)² m, in disjoint random streams.
        - `ood`: uniform over the square ring 3 ≤ max(|x|, |y|) < 4 m.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 7  motors of hip and ankle of each leg: back right,   [-1, 1]     gear
               front left, front right, back left
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `AntVelMAML`: position, height, orientation (quaternion) and eight joint angles, then the velocities,
        the clipped contact forces, the torso's rotation and the centre of mass. 125 numbers.

    Rewards:
        4 - ‖centre of mass - target‖₁ - 0.005 ‖action‖² - 0.0005 Σ clip(contact force, ±1)² + 0.05, with the whole
        body's centre of mass after the step. The constant 4 makes survival pay wherever the target is not far away.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known. At most 4.05 per step.

    Differs from the source:
        ====================  ==============================================  ========================================
        what                  here                                            there
        ====================  ==============================================  ========================================
        start                 0.75 m high, positions U[-0.1, 0.1),            0.55 m high on bent legs, positions
                              velocities 0.1 · N(0, 1), as in Gymnasium's v5  0.01 · N(0, 1), velocities 0.1 · N(0, 1)
        softness of contacts  that of Gymnasium's v5                          solimp .8 .8 .01
        ====================  ==============================================  ========================================

    Source:
        The published code of Finn, Abbeel & Levine 2017, "MAML" (ant, goal position; the paper does not use it).

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(rllab_ant(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Place:
        if split == "ood":
            return Place(uniform_in_ring(keys, inner=3.0, outer=4.0))
        return Place(6.0 * rng.uniform(keys, 2) - 3.0)

    def reward(self, task: Place, before: Physics, after: Physics, action: Tensor) -> Tensor:
        away = (after.reading[:, AT_CENTRE].float() - task.position).abs().sum(-1)
        return 4.0 - away + living(after, action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after)

    def sketch(self, task: Place, episodes: int = 1) -> Sketch[Physics]:
        """The path from above, with the ant and the wanted place."""
        return from_above(self.robot, self.horizon, goal=xy(task.position))


__all__ = ["AntDirMAML", "AntPos", "AntVelMAML", "Direction", "Place", "Velocity"]
