"""HalfCheetah with a goal: a speed, or a direction. MuJoCo's model and starts are those of Gymnasium's v5."""

from metarl.envs.mujoco.goals import Direction, Velocity
from metarl.envs.mujoco.half_cheetah.body import half_cheetah
from metarl.envs.mujoco.half_cheetah.directions import HalfCheetahDir, HalfCheetahDirSparse
from metarl.envs.mujoco.half_cheetah.maml import HalfCheetahVelMAML
from metarl.envs.mujoco.half_cheetah.speeds import HalfCheetahDirVel, HalfCheetahVel

__all__ = [
    "Direction", "HalfCheetahDir", "HalfCheetahDirSparse", "HalfCheetahDirVel", "HalfCheetahVel", "HalfCheetahVelMAML",
    "Velocity", "half_cheetah",
]  # fmt: skip
