"""HalfCheetah: Gymnasium's HalfCheetah-v5, and rewards for target speeds."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from metarl.envs.mujoco.goals import Velocity
from metarl.envs.mujoco.robots import Robot, effort, torso_place

CONTROL_COST = 0.05


def half_cheetah(frame_skip: int = 5, reading: Any = None, hidden: int = 1, shown: int = 0) -> Robot:
    """Return Gymnasium's HalfCheetah-v5."""
    return Robot("half_cheetah.xml", frame_skip, noise=0.1, hidden=hidden, gaussian=True, reading=reading, shown=shown)


def seeing(show_x: bool) -> Robot:
    """Return Gymnasium's HalfCheetah-v5; with `show_x` the torso's position is also observed."""
    return half_cheetah(reading=torso_place, shown=3) if show_x else half_cheetah()


def at_speed(speed: Tensor, task: Velocity, action: Tensor) -> Tensor:
    """Return the reward for a speed."""
    return -(speed - task.velocity).abs() - CONTROL_COST * effort(action)
