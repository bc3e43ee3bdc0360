"""The ant that must walk at a speed."""

from __future__ import annotations

from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Sketch
from metarl.envs.mujoco.ant.body import ant, contact_cost, fallen, walked
from metarl.envs.mujoco.beliefs.listed import listed
from metarl.envs.mujoco.beliefs.speeds import TargetSpeed
from metarl.envs.mujoco.goals import Velocity
from metarl.envs.mujoco.pictures import speed_view
from metarl.envs.mujoco.robots import RobotFamily, between, effort
from metarl.envs.mujoco.simulator import Physics


class AntVel(RobotFamily[Velocity]):
    """A four-legged robot that must walk at a target speed that only the reward reveals. Needs MuJoCo.

    Description:
        Ant of Gymnasium's v5, 20 actions per second, as `AntDir`.

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
        Those of `AntDir`: height, orientation (quaternion) and eight joint angles, then the velocities. 27 numbers in
        m, rad, m/s and rad/s, unbounded.

    Rewards:
        1 - |v - target| - 0.005 ‖action‖² - 0.0005 Σ clip(contact force, ±1)² + 0.05, with v the torso's mean speed
        along x since the last action.

    Endings:
        Terminated when the torso's height leaves [0.2, 1] m; truncated after `horizon` steps.

    Optimum:
        Not known. At most 1.05 per step.

    Differs from the source:
        ====================  ===================================  ==================================================
        what                  here                                 there
        ====================  ===================================  ==================================================
        time between actions  0.05 s                               0.02 s
        speed in the reward   of the torso, mean over the step     of the whole body's centre of mass, after the step
        observations          27 numbers                           125, with the position and the contact forces
        start                 0.75 m high, positions U[-0.1, 0.1)  0.55 m high on bent legs, positions 0.01 · N(0, 1)
        ====================  ===================================  ==================================================

    Source:
        Finn, Abbeel & Levine 2017, "MAML", section 5.3 (ant, goal velocity), whose own time steps are those of
        `AntVelMAML`.

    Version history:
        v0: first version.
    """

    terminates = True

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(ant(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        return Velocity(between(keys, 3.0, 4.0) if split == "ood" else between(keys, 0.0, 3.0))

    def reward(self, task: Velocity, before: Physics, after: Physics, action: Tensor) -> Tensor:
        speed = walked(self.robot, before, after)[:, 0]
        return 1.05 - (speed - task.velocity).abs() - 0.005 * effort(action) - contact_cost(after)

    def ended(self, after: Physics) -> Tensor:
        return fallen(after)

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetSpeed(self, (3.0, 4.0) if split == "ood" else (0.0, 3.0))

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)
