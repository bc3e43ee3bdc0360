"""MuJoCo's rendering of a robot, if OpenGL is available."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import cache
from typing import Any

import numpy as np

from metarl.core.family import Task, TaskFamily
from metarl.envs.mujoco.robots import Robot, RobotFamily
from metarl.envs.mujoco.simulator import Model, Physics


@cache
def robots_are_drawn() -> bool:
    """Return whether MuJoCo can render here, which needs OpenGL.

    A separate process tries it once, since MuJoCo aborts a process that requests missing OpenGL twice.
    """
    attempt = "import gymnasium as g; e = g.make('Hopper-v5', render_mode='rgb_array'); e.reset(); e.render()"
    try:
        done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class RobotScene:
    """A camera that follows the robot. Raises RuntimeError where no GL can be had.

    ``MUJOCO_GL=egl`` in the environment has MuJoCo draw without a display.
    """

    def __init__(self, robot: Robot, model: Model, size: int) -> None:
        mujoco = robot.simulator.mujoco
        self.robot, self.model, self.mujoco = robot, model, mujoco
        self.data: Any = mujoco.MjData(model)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # glfw's, of a missing display
                self.renderer: Any = mujoco.Renderer(model, size * 3 // 4, size)
        except (mujoco.FatalError, RuntimeError, ImportError, OSError) as error:
            raise RuntimeError(f"MuJoCo has no OpenGL to draw with: {error}") from error
        self.camera: Any = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self.camera)
        self.camera.distance, self.camera.elevation = 4.0, -15.0

    def image(self, physics: Physics) -> np.ndarray:
        """Render one row's state: uint8 ``(height, width, 3)``."""
        self.data.qpos[:] = self.robot.simulator.positions(physics)[0].cpu().numpy()
        self.mujoco.mj_forward(self.model, self.data)
        self.camera.lookat[:] = self.data.subtree_com[1]
        self.renderer.update_scene(self.data, self.camera)
        drawn: np.ndarray = self.renderer.render()
        return drawn

    def close(self) -> None:
        """Free the OpenGL context."""
        self.renderer.close()


def robot_scene(family: TaskFamily, task: Task, size: int) -> RobotScene | None:
    """The scene of a family of robots for one task, `size` pixels wide; None for other families, or without a GL."""
    if not isinstance(family, RobotFamily) or not robots_are_drawn():
        return None
    try:
        return RobotScene(family.robot, family.model_of(task), size)
    except RuntimeError:
        return None
