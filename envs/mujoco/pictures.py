"""Pictures of robots: poses from the side with their speed over time, and the path from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageDraw
from torch import Tensor

from metarl.core.family import Sketch
from metarl.envs.drawing.film import Curve, Film, Pose, chosen
from metarl.envs.drawing.planes import XY, Pixel, Trail, draw_arrow, draw_goal, xy
from metarl.envs.mujoco.robots import Robot
from metarl.envs.mujoco.simulator import Model, Physics

POSES = 5


ARROW = 110  # pixels


class Part(NamedTuple):
    """A capsule of a body, or a ball, which is a short one: two ends in metres, and its radius."""

    start: np.ndarray  # (3,)
    end: np.ndarray
    radius: float


class Skeleton:
    """The places of the parts of a robot's body."""

    def __init__(self, robot: Robot, model: Model | None = None) -> None:
        self.robot, self.model = robot, robot.simulator.model if model is None else model
        self.mujoco = robot.simulator.mujoco
        self.data: Any = self.mujoco.MjData(self.model)

    def of(self, physics: Physics) -> list[Part]:
        """The parts of one row."""
        return self.at(self.robot.simulator.positions(physics)[0].cpu().numpy())

    def at(self, positions: np.ndarray) -> list[Part]:
        """The parts with the joints at these ``(nq,)`` positions."""
        model, data = self.model, self.data
        data.qpos[:] = positions
        self.mujoco.mj_kinematics(model, data)
        parts = []
        for geom in range(model.ngeom):
            if model.geom_bodyid[geom] == 0:
                continue  # the floor
            ball = model.geom_type[geom] == self.mujoco.mjtGeom.mjGEOM_SPHERE
            half = 0.0 if ball else model.geom_size[geom][1]
            axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * half
            centre = data.geom_xpos[geom]
            parts.append(Part(centre - axis, centre + axis, float(model.geom_size[geom][0])))
        return parts


def side_view(
    robot: Robot,
    horizon: int,
    says: list[str],
    wanted: float | None = None,
    model: Model | None = None,
) -> Sketch[Physics]:
    """Poses of an episode next to each other, and the speed along x over time, with the wanted one in red."""
    skeleton = Skeleton(robot, model)
    still = _sideways(skeleton.at(robot.simulator.model.qpos0), 0.0)
    width = 0.3 + 2.0 * max(abs(x) for line in still for x, _ in line)
    top = max(1.3 * max(z for line in still for _, z in line), 0.8 * width)
    width = max(width, 0.8 * top)

    def poses(states: Sequence[Physics]) -> list[Pose]:
        shown = chosen(states, POSES)
        made = []
        for i, state in enumerate(shown):
            middle = width * (i + 0.5)
            lines = _sideways(skeleton.of(state), middle)
            darkness = 0.4 + 0.6 * (i + 1) / len(shown)
            made.append(Pose(lines, darkness, f"{float(state.state[0, 0]):.2f} s", middle))
        return made

    fastest = 1.0
    while fastest <= abs(wanted or 0.0):
        fastest *= 2.0

    def speed(before: Physics | None, after: Physics) -> float | None:
        return None if before is None else float(robot.speed(before, after))

    return Film(
        (0.0, -0.05, width * POSES, top),
        [[(0.0, 0.0), (width * POSES, 0.0)]],
        poses,
        says,
        [Curve("speed along x, m/s", speed, -fastest, fastest, wanted, grows=True)],
        horizon,
        robot.dt,
        metres=True,
    )


def speed_view(robot: Robot, horizon: int, velocity: Tensor) -> Sketch[Physics]:
    """`side_view` of a robot that should run at a `velocity`, (B,) in m/s, of which the first row counts."""
    wanted = float(velocity[0])
    return side_view(robot, horizon, [f"wanted speed {wanted:.2f} m/s"], wanted)


def _sideways(parts: Sequence[Part], middle: float) -> list[list[XY]]:
    """The parts as lines in the plane of x and z, the first one at x = `middle`; a ball is a line of its radius."""
    torso = 0.5 * (parts[0].start[0] + parts[0].end[0])
    lines = []
    for start, end, radius in parts:
        around = 0.5 * radius if bool((start == end).all()) else 0.0
        lines.append(
            [
                (float(middle + start[0] - torso) - around, float(start[2])),
                (float(middle + end[0] - torso) + around, float(end[2])),
            ]
        )
    return lines


def from_above(
    robot: Robot,
    horizon: int,
    goal: XY | None = None,
    direction: XY | None = None,
    radius: float = 0.0,
) -> Sketch[Physics]:
    """The paths of the torso, pale to dark in time, the robot as it is now, and the goal or an arrow where to go.

    `radius`: metres around the goal that pay.
    """
    skeleton = Skeleton(robot)

    def under(draw: ImageDraw.ImageDraw, pixel: Pixel) -> None:
        if direction is not None:
            metres = ARROW / (pixel(1.0, 0.0)[0] - pixel(0.0, 0.0)[0])
            draw_arrow(draw, pixel, (metres * direction[0], metres * direction[1]), "wanted")

    def over(draw: ImageDraw.ImageDraw, pixel: Pixel, state: Physics | None) -> None:
        if goal is not None:
            draw_goal(draw, pixel, goal, radius)

    def body(draw: ImageDraw.ImageDraw, pixel: Pixel, state: Physics) -> None:
        draw_body(draw, pixel, skeleton.of(state))

    frame = [(-1.6, -1.6), (1.6, 1.6), *([goal] if goal else [])]
    return Trail(frame, horizon, torso, under, over, body, margin=1.0, dots=False)


def torso(state: Physics) -> XY:
    """The place of one row's torso, for a robot that moves in the plane."""
    return xy(state.state[:, 1:3])


def draw_body(draw: ImageDraw.ImageDraw, pixel: Pixel, parts: Sequence[Part]) -> None:
    """A body from above, the higher parts over the lower ones."""
    scale = pixel(1.0, 0.0)[0] - pixel(0.0, 0.0)[0]
    for start, end, radius in sorted(parts, key=lambda part: part.start[2] + part.end[2]):
        height = 0.5 * float(start[2] + end[2])
        grey = round(215 - 60 * min(max(height, 0.0), 1.5))
        colour = (grey, grey, grey + 10)
        wide = max(radius * scale, 1.5)
        (x, y), (u, v) = pixel(float(start[0]), float(start[1])), pixel(float(end[0]), float(end[1]))
        draw.line((x, y, u, v), fill=colour, width=max(2, round(2 * wide)))
        for a, b in ((x, y), (u, v)):
            draw.ellipse((a - wide, b - wide, a + wide, b + wide), fill=colour)
