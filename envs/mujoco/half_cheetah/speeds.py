"""HalfCheetah that must run at a speed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.errors import unknown
from metarl.core.family import Key, Sketch
from metarl.envs.mujoco.beliefs.listed import listed
from metarl.envs.mujoco.beliefs.speeds import TargetSpeed
from metarl.envs.mujoco.goals import Velocity
from metarl.envs.mujoco.half_cheetah.body import at_speed, half_cheetah, seeing
from metarl.envs.mujoco.pictures import speed_view
from metarl.envs.mujoco.robots import RobotFamily, between
from metarl.envs.mujoco.simulator import Physics


def pearl_speeds() -> Tensor:
    """Return the 130 target speeds of PEARL's published code, float32 m/s: 100 for training, then 30 for test."""
    return torch.from_numpy(np.random.RandomState(1337).uniform(0.0, 3.0, 130)).float()


class HalfCheetahVel(RobotFamily[Velocity]):
    """A planar cheetah that must run at a target speed that only the reward reveals. Needs MuJoCo.

    Description:
        HalfCheetah of Gymnasium's v5, 20 actions per second. It starts as in Gymnasium: U[-0.1, 0.1) is added to the
        positions and 0.1 · N(0, 1) to the velocities.

    What varies:
        The target speed along x: `Velocity.velocity`.

    Splits:
        - `train`: 100 fixed tasks, speed ~ U[0, 3) m/s (``train_tasks=None``: unlimited fresh tasks).
        - `test`: 30 other fixed tasks (``test_tasks=None``: fresh tasks).
        - `valid`: fresh tasks from the training distribution.
        - `ood`: speed ~ U[3, 4) m/s.

        With ``tasks="pearl"`` the lists are those of PEARL's published code, which draws them from NumPy's
        uniform(0, 3, 130) with seed 1337: `train` has the first 100, `test` the last 30, and `valid` 33 of `train`.

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
        0 … 1    height of the torso above its start, pitch  unbounded  m, rad
        2 … 7    angles of the six joints                    unbounded  rad
        8 … 10   velocities along x and z, of the pitch      unbounded  m/s, rad/s
        11 … 16  velocities of the six joints                unbounded  rad/s
        =======  ==========================================  =========  ==========
        ``show_x=True`` adds three: the torso's position (x, y, z) in m, 0.01 s before the end of the step, as in
        PEARL's code.

    Rewards:
        -|v - target| - 0.05 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 because of the cost of accelerating.

    Differs from the source:
        ============  ================================  ==============================================================
        what          here                              there
        ============  ================================  ==============================================================
        observations  17 numbers, the x position is     20 numbers, with the torso's position
                      hidden; an option
        tasks         100 and 30 of our own; an option  the first 100 and the last 30 of NumPy's uniform(0, 3, 130) of
                                                        seed 1337 (VariBAD: fresh ones)
        ============  ================================  ==============================================================

    Source:
        Rakelly et al. 2019, "PEARL" (cheetah-vel; 100 and 30 tasks), and Zintgraf et al. 2020, "VariBAD" (fresh tasks),
        after Finn et al. 2017, whose own physics are those of `HalfCheetahVelMAML`.

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        horizon: int = 200,
        episodes_per_trial: int = 2,
        train_tasks: int | None = 100,
        test_tasks: int | None = 30,
        tasks: str = "own",
        show_x: bool = False,
    ) -> None:
        if tasks not in ("own", "pearl"):
            raise ValueError(unknown("tasks", tasks, ("own", "pearl")))
        self.tasks, self.show_x = tasks, show_x
        super().__init__(seeing(show_x), horizon, episodes_per_trial, train_tasks, test_tasks)

    def enumerate_tasks(self, split: str) -> Velocity | None:
        if self.tasks == "own" or split == "ood":
            return None
        speeds = pearl_speeds()
        return Velocity(speeds[:100] if split == "train" else speeds[-30:])

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        if split == "ood":
            return Velocity(between(keys, 3.0, 4.0))
        return Velocity(between(keys, 0.0, 3.0))

    def reward(self, task: Velocity, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return at_speed(self.robot.speed(before, after), task, action)

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetSpeed(self, (3.0, 4.0) if split == "ood" else (0.0, 3.0))

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class HalfCheetahDirVel(RobotFamily[Velocity]):
    """A planar cheetah with a target speed, forwards or backwards, that only the reward reveals. Needs MuJoCo.

    Description:
        As `HalfCheetahVel`, with target speeds of both signs: a task also sets the direction, and there are held-out
        tasks, which `HalfCheetahDir` cannot have.

    What varies:
        The target speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[-3, 3) m/s, in disjoint random streams.
        - `ood`: speed in [3, 4) or (-4, -3] m/s, each side with probability 1/2.

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
        and of the joints. 17 numbers in m, rad, m/s and rad/s, unbounded.

    Rewards:
        -|v - target| - 0.05 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 because of the cost of accelerating.

    Source:
        `HalfCheetahVel` (Rakelly et al. 2019), extended to both directions.

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 200, episodes_per_trial: int = 2) -> None:
        super().__init__(half_cheetah(), horizon, episodes_per_trial)

    def draw_tasks(self, keys: Key, split: str) -> Velocity:
        if split == "ood":
            u = rng.uniform(keys, 2)
            return Velocity((3.0 + u[:, 0]) * (2.0 * (u[:, 1] < 0.5) - 1.0))
        return Velocity(between(keys, -3.0, 3.0))

    def reward(self, task: Velocity, before: Physics, after: Physics, action: Tensor) -> Tensor:
        return at_speed(self.robot.speed(before, after), task, action)

    def belief(self, split: str) -> Belief:
        return listed(self, split) or TargetSpeed(
            self, *([(-4.0, -3.0), (3.0, 4.0)] if split == "ood" else [(-3.0, 3.0)])
        )

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)
