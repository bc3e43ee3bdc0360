"""HalfCheetah that must run forwards or backwards."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.family import Sketch
from metarl.envs.mujoco.beliefs.listed import ListedByReward
from metarl.envs.mujoco.goals import Direction, both_ways, way
from metarl.envs.mujoco.half_cheetah.body import CONTROL_COST, half_cheetah, seeing
from metarl.envs.mujoco.pictures import side_view
from metarl.envs.mujoco.robots import RobotFamily, effort, torso_place
from metarl.envs.mujoco.simulator import Physics

SPARSE_DISTANCE = 5.0  # metres: distance from the origin beyond which HalfCheetahDirSparse pays


class HalfCheetahDir(RobotFamily[Direction]):
    """A planar cheetah that must run as fast as it can, forwards or backwards; only the reward reveals which.

    Description:
        HalfCheetah of Gymnasium's v5, 20 actions per second, as `HalfCheetahVel`. Needs MuJoCo.

    What varies:
        The direction: `Direction.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none can be held out;
          `HalfCheetahDirVel` has held-out tasks.
        - `valid`: both directions as well.

    Actions:
        =====  ==================================================  ==========  ====
        index  meaning                                             range       unit
        =====  ==================================================  ==========  ====
        0 … 5  motors: back thigh, shin, foot; front thigh, shin,  [-1, 1]     gear
               foot
        =====  ==================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `HalfCheetahVel`: height, pitch and six joint angles, then the velocities along x and z, of the pitch
        and of the joints. 17 numbers in m, rad, m/s and rad/s, unbounded. With ``show_x=True``, also the torso's
        position: 20 numbers.

    Rewards:
        v · direction - 0.05 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ====================  =============================================  =========================================
        what                  here                                           there
        ====================  =============================================  =========================================
        time between actions  0.05 s, as in PEARL                            MAML: 0.01 s
        speed in the reward   of the torso, mean over the step, as in PEARL  MAML: of the whole body's centre of mass,
                                                                             after the step
        observations          17 numbers, the x position is hidden; an       20 numbers, with the torso's position
                              option
        ====================  =============================================  =========================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (forward/backward), with the time steps of Rakelly et al. 2019.

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2, show_x: bool = False) -> None:
        self.show_x = show_x
        super().__init__(seeing(show_x), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Direction:
        return both_ways()

    def reward(self, task: Direction, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return task.direction * self.robot.speed(before, after) - CONTROL_COST * effort(action)

    def belief(self, split: str) -> Belief:
        return ListedByReward(self, split)

    def sketch(self, task: Direction, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, [way(task)])


class HalfCheetahDirSparse(RobotFamily[Direction]):
    """A planar cheetah that must run far, forwards or backwards; only far from the origin does the reward reveal which.

    Description:
        As `HalfCheetahDir`, but the direction has no effect on the reward within 5 m of the origin: the cheetah must
        run that far, and back past the origin if it chose the wrong direction. Needs MuJoCo.

    What varies:
        The direction: `Direction.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none can be held out.
        - `valid`: both directions as well.

    Actions:
        =====  ==================================================  ==========  ====
        index  meaning                                             range       unit
        =====  ==================================================  ==========  ====
        0 … 5  motors: back thigh, shin, foot; front thigh, shin,  [-1, 1]     gear
               foot
        =====  ==================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        =======  ==========================================  =========  ==========
        index    meaning                                     range      unit
        =======  ==========================================  =========  ==========
        0        x position                                  unbounded  m
        1 … 2    height of the torso above its start, pitch  unbounded  m, rad
        3 … 8    angles of the six joints                    unbounded  rad
        9 … 11   velocities along x and z, of the pitch      unbounded  m/s, rad/s
        12 … 17  velocities of the six joints                unbounded  rad/s
        18 … 20  the torso's position 0.01 s earlier         unbounded  m
        =======  ==========================================  =========  ==========

    Rewards:
        v · direction - 0.05 ‖action‖², with v the mean speed along x since the last action; only -0.05 ‖action‖² where
        the torso is less than 5 m from the origin, |x| < 5 m, with x taken 0.01 s before the end of the step, as in the
        source.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known.

    Source:
        Zintgraf et al. 2021, "HyperX" (sparse HalfCheetahDir), in its published code.

    Version history:
        v0: first version.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(half_cheetah(reading=torso_place, hidden=0, shown=3), horizon, episodes_per_trial)

    def enumerate_tasks(self, split: str) -> Direction:
        return both_ways()

    def reward(self, task: Direction, before: Physics, after: Physics, action: Tensor) -> Tensor:
        paid = after.reading[:, 0].abs() >= SPARSE_DISTANCE
        forward = torch.where(paid, task.direction * self.robot.speed(before, after), 0.0)
        return forward - CONTROL_COST * effort(action)

    def belief(self, split: str) -> Belief:
        return ListedByReward(self, split)

    def sketch(self, task: Direction, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, [f"{way(task)}, paid from {SPARSE_DISTANCE:g} m on"])
