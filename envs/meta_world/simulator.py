"""One environment of Meta-World as a simulator, which plays any task of that environment."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.envs.adapter.simulator import Simulator, Stepped, TaskRow
from metarl.envs.meta_world.library import environments, library, padded, published

CAMERA = "corner2"


HEIGHT, WIDTH = 240, 320


def no_gl() -> str:
    """Return advice about missing OpenGL, as the end of a sentence; empty if MuJoCo can render.

    MuJoCo ends the process if it finds no display.
    """
    display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    without = os.environ.get("MUJOCO_GL", "") in ("egl", "osmesa")
    return "" if display or without or sys.platform != "linux" else "Set MUJOCO_GL=egl to draw without a display."


class MetaWorldSimulator(Simulator):
    """An environment of Meta-World, by its name.

    `exact` has, by the bytes of a layout in float32, what it was in float64: some things that roll or slide end up
    centimetres away after 500 steps if they start 1e-8 m away. Resets of a task are deterministic: Meta-World ignores
    the seed. An environment that played other tasks before gives the same episode, bit for bit, as a new one.
    """

    def __init__(self, name: str, goal_seen: bool = False, exact: dict[bytes, np.ndarray] | None = None) -> None:
        self.name, self.goal_seen, self.exact = name, goal_seen, exact or {}
        self.cls = environments()[name]
        self.env: Any = self.cls()
        self.numbers = int(self.env._random_reset_space.shape[0])
        self._renderer: Any = None

    def reset(self, task: TaskRow, seed: int) -> np.ndarray:
        """Begin an episode of the task whose field `layout` is given; return the observation, float32 ``(39,)``."""
        self.env.set_task(self._task(task["layout"]))
        obs, _ = self.env.reset()
        return np.asarray(obs, np.float32)

    def step(self, action: np.ndarray) -> Stepped:
        """Take an action, float32 ``(4,)``, clipped to ±1; the 500th step truncates."""
        action = np.clip(action, -1.0, 1.0)
        obs, reward, _, truncated, info = self.env.step(action)
        return Stepped(np.asarray(obs, np.float32), float(reward), False, bool(truncated), bool(info["success"]))

    def goal(self, layout: np.ndarray) -> np.ndarray:
        """Return the position of a task's goal, float64 ``(3,)`` metres, which the observation hides."""
        self.reset({"layout": layout}, 0)
        return np.array(self.env._target_pos, np.float64)

    def render(self) -> np.ndarray:
        """Render the scene from a corner: uint8 ``(240, 320, 3)``. Raises RuntimeError if MuJoCo has no OpenGL."""
        if no_gl():
            raise RuntimeError(f"Nothing can be drawn: {no_gl()}")
        if self._renderer is None:
            import mujoco

            self._renderer = mujoco.Renderer(self.env.model, HEIGHT, WIDTH)
        self._renderer.update_scene(self.env.data, camera=CAMERA)
        return np.array(self._renderer.render())

    def close(self) -> None:
        """Free the environment and its renderer."""
        if self._renderer is not None:
            self._renderer.close()
        self.env.close()

    def _task(self, layout: np.ndarray) -> Any:
        """Return Meta-World's own task; a published layout with all its digits."""
        layout = np.asarray(layout, np.float32)
        vector = self.exact.get(layout.tobytes())
        if vector is None:
            vector = layout[: self.numbers].astype(np.float64)
        data = {"rand_vec": vector, "env_cls": self.cls, "partially_observable": not self.goal_seen}
        return library().Task(env_name=self.name, data=pickle.dumps(data))


@dataclass
class MakeMetaWorld:
    """Makes the simulators of a benchmark; worker processes get it with all published layouts."""

    benchmark: str
    env: str | None
    goal_seed: int
    goal_seen: bool = False
    exact: dict[str, dict[bytes, np.ndarray]] | None = None

    def __call__(self, kind: str) -> MetaWorldSimulator:
        return MetaWorldSimulator(kind, self.goal_seen, self.layouts().get(kind))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"exact": self.layouts()}

    def layouts(self) -> dict[str, dict[bytes, np.ndarray]]:
        """Return the published layouts in float64, by the environment's name and by their bytes in float32."""
        if self.exact is None:
            self.exact = {}
            tasks = published(self.benchmark, self.env, self.goal_seed)
            for name, vector in (*tasks.train, *tasks.test):
                self.exact.setdefault(name, {})[padded(vector).tobytes()] = vector
        return self.exact
