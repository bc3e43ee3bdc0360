"""Pictures of robots: poses from the side with their speed over time, and the path from above."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metarl.envs.classic_control import Line, film
from metarl.envs.plane import XY, canvas, draw_goal
from metarl.envs.robots import Robot
from metarl.envs.simulator import Model, Physics

POSES = 6


def side_view(
    robot: Robot, states: Sequence[Physics], says: list[str], wanted: float | None = None, model: Model | None = None
) -> np.ndarray:
    """Poses of one row's states next to each other, and its speed along x over time, with the wanted one in red."""
    model = robot.simulator.model if model is None else model
    count = min(len(states), POSES)
    chosen = [states[round(i * (len(states) - 1) / max(count - 1, 1))] for i in range(count)]
    poses = [_pose(robot, model, state) for state in chosen]
    width = 0.2 + max(abs(x) for pose in poses for line in pose for x, _ in line) * 2
    top = 0.1 + max(z for pose in poses for line in pose for _, z in line)
    placed = [[[(x + width * (i + 0.5), z) for x, z in line] for line in pose] for i, pose in enumerate(poses)]
    speeds = [float(robot.speed(a, b)) for a, b in steps(states)] or [0.0]
    seen = [*speeds, 0.0, wanted or 0.0]
    name = "speed, m/s"
    ground: list[Line] = [[(0.0, 0.0), (width * count, 0.0)]]
    return film(
        (0.0, min(0.0, top - 1.0), max(width * count, 2.0 * top), top),
        ground,
        placed,
        says,
        {name: (speeds, min(seen), max(seen) + 1e-3)},
        {} if wanted is None else {name: wanted},
    )


def steps(states: Sequence[Physics]) -> list[tuple[Physics, Physics]]:
    """States before and after each step, without the jump to another episode's start."""
    return [(a, b) for a, b in itertools.pairwise(states) if float(b.state[0, 0]) > float(a.state[0, 0])]


def from_above(
    states: Sequence[Physics],
    place: Callable[[Physics], XY],
    goal: XY | None = None,
    direction: XY | None = None,
) -> np.ndarray:
    """The paths, pale to dark in time, with their starts and the goal, or an arrow in the wanted direction."""
    path = [place(state) for state in states]
    reach = max(1.0, *(max(abs(x), abs(y)) for x, y in path))
    tip = None if direction is None else (0.8 * reach * direction[0], 0.8 * reach * direction[1])
    image, draw, pixel = canvas([(-0.5, -0.5), (0.5, 0.5), *path, *([goal] if goal else []), *([tip] if tip else [])])
    if tip is not None:
        x, y = pixel(*tip)
        draw.line((*pixel(0.0, 0.0), x, y), fill="#f08c00", width=4)
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill="#f08c00")
        above = y + (18 if y < 40 else -18)
        draw.text((min(max(x, 30), image.width - 30), above), "wanted", fill="#f08c00", font_size=13, anchor="mm")
    for t, (end, state) in enumerate(zip(path, states, strict=True)):
        x, y = pixel(*end)
        if t == 0 or float(state.state[0, 0]) <= float(states[t - 1].state[0, 0]):
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill="black")
            continue
        fade = round(200 * (1 - (t + 1) / len(path)))
        draw.line((*pixel(*path[t - 1]), x, y), fill=(fade, fade, 255), width=2)
    if goal is not None:
        draw_goal(draw, pixel, goal, 0.0)
    return np.asarray(image)


def _pose(robot: Robot, model: Model, physics: Physics) -> list[Line]:
    """A robot's capsules and balls as lines in the plane of x and z, its torso at x = 0."""
    mujoco = robot.simulator.mujoco
    data: Any = mujoco.MjData(model)
    data.qpos[:] = robot.simulator.positions(physics)[0].cpu().numpy()
    mujoco.mj_kinematics(model, data)
    lines: list[Line] = []
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == 0:
            continue  # the floor
        ball = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE
        half = model.geom_size[geom][0] * 0.5 if ball else model.geom_size[geom][1]
        axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * half
        centre = data.geom_xpos[geom]
        ends = (centre - axis, centre + axis)
        lines.append([(float(end[0] - data.xpos[1][0]), float(end[2])) for end in ends])
    return lines
