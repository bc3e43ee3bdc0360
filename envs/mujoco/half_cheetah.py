"""HalfCheetah with a goal: a speed, or a direction. MuJoCo's model and starts are those of Gymnasium's v5."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import unknown
from metarl.core.family import Key, Sketch
from metarl.envs.mujoco.goals import Direction, Velocity, both_ways, way
from metarl.envs.mujoco.pictures import side_view, speed_view
from metarl.envs.mujoco.robots import Robot, RobotFamily, between, effort, never, torso_place
from metarl.envs.mujoco.simulator import Physics

CONTROL_COST = 0.05
SPARSE_DISTANCE = 5.0  # metres: how far from the origin HalfCheetahDirSparse pays


def half_cheetah(frame_skip: int = 5, reading: Any = None, hidden: int = 1, shown: int = 0) -> Robot:
    """Gymnasium's HalfCheetah-v5."""
    return Robot("half_cheetah.xml", frame_skip, noise=0.1, hidden=hidden, gaussian=True, reading=reading, shown=shown)


def seeing(show_x: bool) -> Robot:
    """Gymnasium's HalfCheetah-v5; with `show_x` the place of its torso is observed, too."""
    return half_cheetah(reading=torso_place, shown=3) if show_x else half_cheetah()


def pearl_speeds() -> Tensor:
    """The 130 wanted speeds of PEARL's published code, float32 m/s: the first 100 to train on, the last 30 to test."""
    return torch.from_numpy(np.random.RandomState(1337).uniform(0.0, 3.0, 130)).float()


class HalfCheetahVel(RobotFamily[Velocity]):
    """A planar cheetah that must run at a speed which only the reward tells. Needs MuJoCo.

    Description:
        HalfCheetah of Gymnasium's v5, 20 actions a second. It starts as there: U[-0.1, 0.1) is added to the positions
        and 0.1 · N(0, 1) to the velocities.

    What varies:
        The wanted speed along x: `Velocity.velocity`.

    Splits:
        - `train`: 100 tasks, speed ~ U[0, 3) m/s, drawn once (``train_tasks=None``: fresh ones without end).
        - `test`: 30 others, drawn once (``test_tasks=None``: fresh ones).
        - `valid`: fresh tasks of training's distribution.
        - `ood`: speed ~ U[3, 4) m/s.

        With ``tasks="pearl"`` the lists are those of PEARL's published code, which draws them from NumPy's
        uniform(0, 3, 130) of seed 1337: `train` the first 100, `test` the last 30, and `valid` 33 of `train`.

    Actions:
        =====  ==================================================  ==========  ====
        index  meaning                                             range       unit
        =====  ==================================================  ==========  ====
        0 … 5  motors: back thigh, shin, foot; front thigh, shin,  [-1, 1]     gear
               foot
        =====  ==================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        ======  =============================================  =========  ===========
        index   meaning                                        range      unit
        ======  =============================================  =========  ===========
        0 … 1   height of the torso above its start, pitch     unbounded  m, rad
        2 … 7   angles of the six joints                       unbounded  rad
        8 … 10  speeds along x and z, of the pitch             unbounded  m/s, rad/s
        11 … 16 speeds of the six joints                       unbounded  rad/s
        ======  =============================================  =========  ===========
        With ``show_x=True`` three more: the torso's place (x, y, z) in m, 0.01 s before the step's end as in PEARL's
        code.

    Rewards:
        -|v - wanted| - 0.05 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 by what the speeding up costs.

    Differs from the source:
        ============  =================================  ===============================================================
        what          here                               there
        ============  =================================  ===============================================================
        observations  17 numbers, the place x is         20 numbers, with the torso's place
                      hidden; an option
        tasks         100 and 30 of our own; an option   the first 100 and the last 30 of NumPy's uniform(0, 3, 130) of
                                                         seed 1337 (VariBAD: fresh ones)
        ============  =================================  ===============================================================

    Source:
        Rakelly et al. 2019, "PEARL" (cheetah-vel; 100 and 30 tasks), and Zintgraf et al. 2020, "VariBAD" (fresh tasks),
        after Finn et al. 2017, whose own physics are `HalfCheetahVelMAML`.

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

    def step(self, task: Velocity, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        return run_at_speed(self.robot, task, state, action)

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class HalfCheetahDirVel(RobotFamily[Velocity]):
    """A planar cheetah that must run at a speed forwards or backwards which only the reward tells. Needs MuJoCo.

    Description:
        As `HalfCheetahVel`, with wanted speeds of both signs: a task tells the direction, too, and there are other
        tasks to test on, which `HalfCheetahDir` cannot have.

    What varies:
        The wanted speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[-3, 3) m/s, in disjoint streams.
        - `ood`: speed in [3, 4) or (-4, -3] m/s, either side with probability 1/2.

    Actions:
        =====  ==================================================  ==========  ====
        index  meaning                                             range       unit
        =====  ==================================================  ==========  ====
        0 … 5  motors: back thigh, shin, foot; front thigh, shin,  [-1, 1]     gear
               foot
        =====  ==================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `HalfCheetahVel`: height, pitch and six joint angles, then the speeds along x and z, of the pitch and
        of the joints. 17 numbers in m, rad, m/s and rad/s, unbounded.

    Rewards:
        -|v - wanted| - 0.05 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. Below 0 by what the speeding up costs.

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

    def step(self, task: Velocity, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        return run_at_speed(self.robot, task, state, action)

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class HalfCheetahVelMAML(RobotFamily[Velocity]):
    """A planar cheetah that must run at a speed which only the reward tells, in the time steps of MAML's paper.

    Description:
        As `HalfCheetahVel`, but 100 actions a second, so that an episode of 200 steps lasts 2 s, and with the speed of
        the whole body's centre of mass. The only cheetah here whose returns compare with those of the paper. Needs
        MuJoCo.

    What varies:
        The wanted speed along x: `Velocity.velocity`.

    Splits:
        - `train`, `valid`, `test`: speed ~ U[0, 2) m/s, in disjoint streams.
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
        Those of `HalfCheetahVel`: height, pitch and six joint angles, then the speeds along x and z, of the pitch and
        of the joints. 17 numbers in m, rad, m/s and rad/s, unbounded. The paper's agents also saw the torso's place.

    Rewards:
        -|v - wanted| - 0.05 ‖action‖², with v the speed along x of the whole body's centre of mass after the step.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known. The paper's oracle, a policy that is told the speed, reached -54.5.

    Differs from the source:
        ============  ==============================================  ==================================================
        what          here                                            there
        ============  ==============================================  ==================================================
        start         positions U[-0.1, 0.1), velocities 0.1 · N(0,   positions 0.01 · N(0, 1), velocities 0.1 · N(0, 1)
                      1), as Gymnasium's v5
        observations  17 numbers, the place x is hidden               20 numbers, with the torso's place
        ============  ==============================================  ==================================================

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

    def step(self, task: Velocity, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        speed = after.reading[:, 0].float()
        return after, -(speed - task.velocity).abs() - CONTROL_COST * effort(action), never(speed)

    def sketch(self, task: Velocity, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time with the wanted one."""
        return speed_view(self.robot, self.horizon, task.velocity)


class HalfCheetahDir(RobotFamily[Direction]):
    """A planar cheetah that must run as fast as it can, forwards or backwards, which only the reward tells.

    Description:
        HalfCheetah of Gymnasium's v5, 20 actions a second, as `HalfCheetahVel`. Needs MuJoCo.

    What varies:
        The direction: `Direction.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none is left to test
          on: `HalfCheetahDirVel` has held-out ones.
        - `valid`: both directions too.

    Actions:
        =====  ==================================================  ==========  ====
        index  meaning                                             range       unit
        =====  ==================================================  ==========  ====
        0 … 5  motors: back thigh, shin, foot; front thigh, shin,  [-1, 1]     gear
               foot
        =====  ==================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        Those of `HalfCheetahVel`: height, pitch and six joint angles, then the speeds along x and z, of the pitch and
        of the joints. 17 numbers in m, rad, m/s and rad/s, unbounded. With ``show_x=True`` the torso's place, too: 20.

    Rewards:
        v · direction - 0.05 ‖action‖², with v the mean speed along x since the last action.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Not known.

    Differs from the source:
        ====================  ==========================================  ==============================================
        what                  here                                        there
        ====================  ==========================================  ==============================================
        time between actions  0.05 s, as PEARL                            MAML: 0.01 s
        speed in the reward   of the torso, mean over the step, as PEARL  MAML: of the whole body's centre of mass,
                                                                          after it
        observations          17 numbers, the place x is hidden; an       20 numbers, with the torso's place
                              option
        ====================  ==========================================  ==============================================

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

    def step(self, task: Direction, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        speed = self.robot.speed(state, after)
        return after, task.direction * speed - CONTROL_COST * effort(action), never(speed)

    def sketch(self, task: Direction, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, [way(task)])


class HalfCheetahDirSparse(RobotFamily[Direction]):
    """A planar cheetah that must run far forwards or backwards, and is told which only where it is far away.

    Description:
        As `HalfCheetahDir`, but nothing is paid within 5 m of the origin: the cheetah has to run there, and back past
        the origin if it was the wrong way. Needs MuJoCo.

    What varies:
        The direction: `Direction.direction`.

    Splits:
        - `train`, `all`: both directions with probability 1/2 each. There are only two tasks, so none is left to test
          on.
        - `valid`: both directions too.

    Actions:
        =====  ==================================================  ==========  ====
        index  meaning                                             range       unit
        =====  ==================================================  ==========  ====
        0 … 5  motors: back thigh, shin, foot; front thigh, shin,  [-1, 1]     gear
               foot
        =====  ==================================================  ==========  ====
        An action beyond the range is clipped to it.

    Observations:
        =======  =============================================  =========  ===========
        index    meaning                                        range      unit
        =======  =============================================  =========  ===========
        0        place x                                        unbounded  m
        1 … 2    height of the torso above its start, pitch     unbounded  m, rad
        3 … 8    angles of the six joints                       unbounded  rad
        9 … 11   speeds along x and z, of the pitch             unbounded  m/s, rad/s
        12 … 17  speeds of the six joints                       unbounded  rad/s
        18 … 20  the torso's place 0.01 s before                unbounded  m
        =======  =============================================  =========  ===========

    Rewards:
        v · direction - 0.05 ‖action‖², with v the mean speed along x since the last action; only -0.05 ‖action‖² where
        the torso is less than 5 m from the origin, |x| < 5 m, with x of 0.01 s before the step's end as in the source.

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

    def step(self, task: Direction, state: Physics, action: Tensor, key: Key) -> tuple[Physics, Tensor, Tensor]:
        action = self.robot.clipped(action)
        after = self.robot.move(state, action)
        speed = self.robot.speed(state, after)
        paid = after.reading[:, 0].abs() >= SPARSE_DISTANCE
        forward = torch.where(paid, task.direction * speed, 0.0)
        return after, forward - CONTROL_COST * effort(action), never(speed)

    def sketch(self, task: Direction, episodes: int = 1) -> Sketch[Physics]:
        """Poses from the side, and the speed over time."""
        return side_view(self.robot, self.horizon, [f"{way(task)}, paid from {SPARSE_DISTANCE:g} m on"])


def run_at_speed(robot: Robot, task: Velocity, state: Physics, action: Tensor) -> tuple[Physics, Tensor, Tensor]:
    """A step that pays for a speed."""
    action = robot.clipped(action)
    after = robot.move(state, action)
    speed = robot.speed(state, after)
    return after, -(speed - task.velocity).abs() - CONTROL_COST * effort(action), never(speed)


def centre_of_mass_speed(model: Any, data: Any) -> np.ndarray:
    """Speed along x of the torso and all that hangs on it, for the positions and velocities of now."""
    import mujoco

    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comVel(model, data)
    mujoco.mj_subtreeVel(model, data)
    return data.subtree_linvel[1, :1].copy()


__all__ = [
    "Direction", "HalfCheetahDir", "HalfCheetahDirSparse", "HalfCheetahDirVel", "HalfCheetahVel", "HalfCheetahVelMAML",
    "Velocity",
]  # fmt: skip
