"""HalfCheetah in the time steps of MAML's paper."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Sketch
from metarl.envs.mujoco.beliefs.listed import listed
from metarl.envs.mujoco.beliefs.speeds import TargetSpeed
from metarl.envs.mujoco.goals import Velocity
from metarl.envs.mujoco.half_cheetah.body import at_speed, half_cheetah
from metarl.envs.mujoco.pictures import speed_view
from metarl.envs.mujoco.robots import RobotFamily, between
from metarl.envs.mujoco.simulator import Physics


class HalfCheetahVelMAML(RobotFamily[Velocity]):
    """A planar cheetah that must run at a speed that only the reward reveals, with the time steps of MAML's paper.

    Description:
        As `HalfCheetahVel`, but 100 actions per second, so that an episode of 200 steps lasts 2 s, and with the speed
        of the whole body's centre of mass. It is the only cheetah here whose returns are comparable with the paper's.
        Needs MuJoCo.

    What varies:
        The target speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[0, 2) m/s, in disjoint random streams.
        - `ood`: speed ~ U[2, 3) m/s.

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
        and of the joints. 17 numbers in m, rad, m/s and rad/s, unbounded. The paper's agents also observed the torso's
        position.

    Rewards:
        -|v - target| - 0.05 ‖action‖², with v the speed along x of the whole body's centre of mass after the step.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. The paper's oracle, a policy that knows the speed, reached -54.5.

    Differs from the source:
        ============  =============================================  ==================================================
        what          here                                           there
        ============  =============================================  ==================================================
        start         positions U[-0.1, 0.1), velocities 0.1 · N(0,  positions 0.01 · N(0, 1), velocities 0.1 · N(0, 1)
                      1), as in Gymnasium's v5
        observations  17 numbers, the x position is hidden           20 numbers, with the torso's position
        ============  =============================================  ==================================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3, and its published code (rllab's HalfCheetah, where the time
        between two actions is one of the simulator's steps, 0.01 s).

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(half_cheetah(1, centre_of_mass_speed), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        return Velocity(between(keys, 2.0, 3.0) if split == "ood" else between(keys, 0.0, 2.0))

    def reward(self, task: Velocity, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return at_speed(after.reading[:, 0].float(), task, action)

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetSpeed(self, (2.0, 3.0) if split == "ood" else (0.0, 2.0))

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


def centre_of_mass_speed(model: Any, data: Any) -> np.ndarray:
    """Return the speed along x of the centre of mass, from the current positions and velocities."""
    import mujoco

    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comVel(model, data)
    mujoco.mj_subtreeVel(model, data)
    return data.subtree_linvel[1, :1].copy()
