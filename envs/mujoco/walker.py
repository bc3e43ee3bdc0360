"""Walker2d with a goal: a direction or a speed. MuJoCo's models and starts are those of Gymnasium's v5 and v4."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Sketch
from metarl.envs.mujoco.beliefs.listed import ListedByReward, listed
from metarl.envs.mujoco.beliefs.speeds import TargetSpeed
from metarl.envs.mujoco.goals import Direction, Velocity, both_ways, way
from metarl.envs.mujoco.pictures import side_view, speed_view
from metarl.envs.mujoco.robots import Robot, RobotFamily, between, effort
from metarl.envs.mujoco.simulator import Physics

OLD_FEET = "walker2d.xml"  # of Gymnasium's v4: the right foot's friction is 0.9, the left one's 1.9
NEW_FEET = "walker2d_v5.xml"  # of its v5: both are 1.9


def walker(xml: str, frame_skip: int, timestep: float | None = None) -> Robot:
    """Return Gymnasium's Walker2d-v5, with the feet of this XML."""
    return Robot(xml, frame_skip, noise=0.005, max_speed=10.0, timestep=timestep)


def fallen(after: Physics) -> Tensor:
    """Return True where the height is outside (0.8, 2) m or the pitch outside (-1, 1) rad: bool (B,)."""
    height, pitch = after.state[:, 2], after.state[:, 3]
    return ~((height > 0.8) & (height < 2.0) & (pitch.abs() < 1.0))


class Walker2dDir(RobotFamily[Direction]):
    """A planar walker that must run as fast as it can, forwards or backwards; only the reward reveals which.

    Description:
        Walker2d of Gymnasium's v5 with the feet of its v4 (friction 0.9 right, 1.9 left), 62.5 actions per second. It
        starts as in Gymnasium: U[-0.005, 0.005) is added to positions and velocities. Needs MuJoCo.

    What varies:
        The direction: `Direction.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none can be held out;
          `Walker2dVel` has held-out tasks.
        - `valid`: both directions as well.

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
        v · direction + 1 - 0.001 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Terminated when the height leaves (0.8, 2) m or the pitch (-1, 1) rad; truncated after `horizon` steps.

    Optimum:
        Not known.

    Source:
        Rothfuss et al. 2019, "ProMP" (Walker2DRandDirec), in its published code.

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")
    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(walker(OLD_FEET, 8), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Direction:
        return both_ways()

    def reward(self, task: Direction, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return task.direction * self.robot.speed(before, after) + 1.0 - 0.001 * effort(action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after)

    def belief(self, split: str) -> Belief:
        return ListedByReward(self, split)

    def sketch(self, task: Direction, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, [way(task)])


class Walker2dVel(RobotFamily[Velocity]):
    """A planar walker that must run at a target speed that only the reward reveals.

    Description:
        Walker2d of Gymnasium's v5 with the feet of its v4, 62.5 actions per second, as `Walker2dDir`. Needs MuJoCo.

    What varies:
        The target speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[0, 10) m/s, in disjoint random streams.
        - `ood`: speed ~ U[10, 13) m/s.

    Actions:
        =====  =================================================  ==========  ====
        index  meaning                                            range       unit
        =====  =================================================  ==========  ====
        0 … 5  motors: right thigh, leg, foot; left thigh, leg,   [-1, 1]     gear
               foot
        =====  =================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `Walker2dDir`: height, pitch and six joint angles, then the velocities along x and z, of the pitch and
        of the joints, clipped to [-10, 10]. 17 numbers in m, rad, m/s and rad/s.

    Rewards:
        15 - |v - target| - 0.001 ‖action‖², with v the mean speed along x since the last action. The constant 15 makes
        standing pay at every target speed.

    Endings:
        Terminated when the height leaves (0.8, 2) m or the pitch (-1, 1) rad; truncated after `horizon` steps.

    Optimum:
        Not known. At most 15 per step.

    Source:
        Rothfuss et al. 2019, "ProMP" (Walker2DRandVel), in its published code.

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(walker(OLD_FEET, 8), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        return Velocity(between(keys, 10.0, 13.0) if split == "ood" else between(keys, 0.0, 10.0))

    def reward(self, task: Velocity, before: Physics, after: Physics, action: Tensor) -> Tensor:
        off = (self.robot.speed(before, after) - task.velocity).abs()
        return 15.0 - off - 0.001 * effort(action)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after)

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetSpeed(self, (10.0, 13.0) if split == "ood" else (0.0, 10.0))

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


__all__ = ["Direction", "Velocity", "Walker2dDir", "Walker2dVel"]
