"""Points in the plane whose goal, or whose wind, is not shown."""

from __future__ import annotations

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl import rng
from metarl.envs.checks import whole_number
from metarl.envs.navigation import MAX_STEP, Goal, Point, uniform_in_ring
from metarl.envs.plane import (
    XY,
    canvas,
    disc_corner,
    draw_goal,
    draw_path,
    norms,
    over_starts,
    path_of,
    walked,
    xy,
)
from metarl.family import Key, TaskFamily

GOAL_RADIUS = 0.2  # metres: how near the goals on the half circle pay
WINDY_GOAL = (0.0, 1.0)  # metres
WINDY_RADIUS = 0.03  # metres


class Wind(NamedTuple):
    """What is added to every step."""

    drift: Tensor  # (B, 2) float32 metres per step


class PointRobot(TaskFamily):
    """A point that starts anywhere in a square and must find a goal in it by the reward alone.

    Description:
        The point starts uniformly in [-1, 1)² m and moves by up to 0.1 m per axis and step. The reward is the negative
        distance to the goal, so three rewards tell where the goal is.

    What varies:
        The goal: `Goal.position`.

    Splits:
        - `train`, `test`: goal ~ U[-1, 1)² m, in disjoint streams.
        - `ood`: goal uniform over the square ring 1 ≤ max(|x|, |y|) < 1.5 m, outside the training square.

    Actions:
        =====  ===============  ============  ======
        index  meaning          range         unit
        =====  ===============  ============  ======
        0      move along x     [-0.1, 0.1]   metres
        1      move along y     [-0.1, 0.1]   metres
        =====  ===============  ============  ======
        An action beyond the range is clipped to it.

    Observations:
        =====  ===============  ==============================  ======
        index  meaning          range                           unit
        =====  ===============  ==============================  ======
        0      x                ± (1 + 0.1 (horizon + 1))       metres
        1      y                ± (1 + 0.1 (horizon + 1))       metres
        =====  ===============  ==============================  ======

    Rewards:
        Minus the Euclidean distance to the goal after the move.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal is reached; the expectation over the starts, exact per
        goal; -5.19 in the mean of `train`.

    Source:
        Rakelly et al. 2019, "PEARL", in its published code (point-robot; 60 steps per evaluation, hence 3 episodes).

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 20, episodes_per_trial: int = 3) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        reach = 1.0 + MAX_STEP * (horizon + 1)  # one step to spare for float32's rounding
        self.observation_space = gymnasium.spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        if split == "ood":
            return Goal(uniform_in_ring(keys, inner=1.0, outer=1.5))
        return Goal(2.0 * rng.uniform(keys, 2) - 1.0)

    def reset(self, task: Goal, key: Key) -> Point:
        return Point(2.0 * rng.uniform(key, 2) - 1.0)

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = state.position + action.clamp(-MAX_STEP, MAX_STEP)
        distance = (position - task.position).norm(dim=-1)
        return Point(position), -distance, torch.zeros_like(distance, dtype=torch.bool)

    def oracle(self, task: Goal) -> Tensor:
        times = walked(self.horizon, task.position.device)

        def distances(a: Tensor, b: Tensor) -> Tensor:
            """∫∫ of the distance that is left at each time, over starts within a and b of the goal on the two axes."""
            left_a, left_b = (a - times).clamp_min(0.0), (b - times).clamp_min(0.0)
            there_a, there_b = torch.minimum(a, times), torch.minimum(b, times)
            return norms(left_a, left_b) + 0.5 * (there_a * left_b**2 + there_b * left_a**2)

        return -over_starts(task.position, (-1.0, -1.0), (1.0, 1.0), distances).sum(-1).to(torch.float32)

    def render(self, task: Goal, states: list[Point]) -> np.ndarray:
        """The paths, pale to dark in time, with their starts, the goal and the training square."""
        path, goal = path_of(states), xy(task.position)
        image, draw, pixel = canvas([(-1, -1), (1, 1), goal, *path])
        draw.rectangle((*pixel(-1, 1), *pixel(1, -1)), outline="#adb5bd")
        draw.text(pixel(-0.98, -0.9), "starts and training goals", fill="#868e96", font_size=13)
        draw_path(draw, pixel, path, MAX_STEP)
        draw_goal(draw, pixel, goal, 0.0)
        return np.asarray(image)


class SparsePointRobot(TaskFamily):
    """A point that must find a goal on a half circle and is paid only near it; search along the arc, then go there.

    Description:
        The point starts at the origin and moves by up to 0.1 m per axis and step. The goal is 1 m away, in a direction
        that is not told. An episode is too short to look everywhere.

    What varies:
        The goal: `Goal.position`, (cos θ, sin θ).

    Splits:
        - `train`, `test`: θ ~ U[0, π), in disjoint streams.
        - `ood`: the other half circle, θ ~ U[π, 2π).

    Actions:
        =====  ===============  ============  ======
        index  meaning          range         unit
        =====  ===============  ============  ======
        0      move along x     [-0.1, 0.1]   metres
        1      move along y     [-0.1, 0.1]   metres
        =====  ===============  ============  ======
        An action beyond the range is clipped to it.

    Observations:
        =====  ===============  ==============================  ======
        index  meaning          range                           unit
        =====  ===============  ==============================  ======
        0      x                ± 0.1 (horizon + 1)             metres
        1      y                ± 0.1 (horizon + 1)             metres
        =====  ===============  ==============================  ======

    Rewards:
        With d the Euclidean distance to the goal after the move: 1 - d where d ≤ 0.2 m, otherwise 0. With
        ``dense=True``: -d, which PEARL meta-trains on.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal is reached, exact per goal; 13.38 in the mean of `train`;
        dense -3.84.

    Source:
        Rakelly et al. 2019, "PEARL", section 6.3, in its published code (sparse-point-robot, 5 exploration episodes).

    Version history:
        v0: first version.
    """

    def __init__(self, dense: bool = False, horizon: int = 20, episodes_per_trial: int = 5) -> None:
        self.dense = dense
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        reach = MAX_STEP * (horizon + 1)  # one step to spare for float32's rounding
        self.observation_space = gymnasium.spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        return Goal(_on_half_circle(keys, split))

    def reset(self, task: Goal, key: Key) -> Point:
        return Point(torch.zeros_like(task.position))

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = state.position + action.clamp(-MAX_STEP, MAX_STEP)
        distance = (position - task.position).norm(dim=-1)
        return Point(position), self._reward(distance), torch.zeros_like(distance, dtype=torch.bool)

    def oracle(self, task: Goal) -> Tensor:
        # Full steps along each axis make every distance of the episode as small as it can be at its time.
        times = walked(self.horizon, task.position.device)
        left = (task.position.double().abs()[..., None] - times).clamp_min(0.0)  # (B, 2, horizon)
        return self._reward(left.norm(dim=1)).sum(-1).to(torch.float32)

    def _reward(self, distance: Tensor) -> Tensor:
        return -distance if self.dense else torch.where(distance <= GOAL_RADIUS, 1.0 - distance, 0.0)

    def render(self, task: Goal, states: list[Point]) -> np.ndarray:
        """The paths, pale to dark in time, with their starts, the half circle and the disc that pays."""
        return _arc_picture(path_of(states), xy(task.position))


class SemiCircle(TaskFamily):
    """A point that starts anywhere around a half circle and must find the goal on it, paid only near it.

    Description:
        The point starts uniformly in [-1.5, 1.5) × [-0.5, 1.5) m and moves by up to 0.1 m per axis and step. The goal
        is somewhere on the unit half circle; an episode is long enough to look everywhere.

    What varies:
        The goal: `Goal.position`, (cos θ, sin θ).

    Splits:
        - `train`, `test`: θ ~ U[0, π), in disjoint streams.
        - `ood`: the other half circle, θ ~ U[π, 2π), with the starts of training.

    Actions:
        =====  ===============  ============  ======
        index  meaning          range         unit
        =====  ===============  ============  ======
        0      move along x     [-0.1, 0.1]   metres
        1      move along y     [-0.1, 0.1]   metres
        =====  ===============  ============  ======
        An action beyond the range is clipped to it.

    Observations:
        =====  ===============  ==================================================  ======
        index  meaning          range                                               unit
        =====  ===============  ==================================================  ======
        0      x                ± (1.5 + 0.1 (horizon + 1))                         metres
        1      y                -0.5 - 0.1 (horizon + 1) … 1.5 + 0.1 (horizon + 1)  metres
        =====  ===============  ==================================================  ======

    Rewards:
        1 where the distance to the goal after the move is at most 0.2 m, otherwise 0.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal pays; the expectation over the starts, exact per goal;
        51.82 in the mean of `train`.

    Source:
        Dorfman et al. 2021, "Offline meta learning of exploration", and Ni et al. 2022, "Recurrent model-free RL can be
        a strong baseline for many POMDPs", in its published code (a start within reach of the goal is not redrawn).

    Version history:
        v0: first version.
    """

    low, high = (-1.5, -0.5), (1.5, 1.5)  # metres: where episodes start

    def __init__(self, horizon: int = 60, episodes_per_trial: int = 2) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        reach = MAX_STEP * (horizon + 1)  # one step to spare for float32's rounding
        low, high = np.subtract(self.low, reach, dtype=np.float32), np.add(self.high, reach, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        return Goal(_on_half_circle(keys, split))

    def reset(self, task: Goal, key: Key) -> Point:
        low, high = (torch.tensor(corner, device=key.device) for corner in (self.low, self.high))
        return Point(low + (high - low) * rng.uniform(key, 2))

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = state.position + action.clamp(-MAX_STEP, MAX_STEP)
        found = (position - task.position).norm(dim=-1) <= GOAL_RADIUS
        return Point(position), found.to(torch.float32), torch.zeros_like(found)

    def oracle(self, task: Goal) -> Tensor:
        times = walked(self.horizon, task.position.device)

        def paid(a: Tensor, b: Tensor) -> Tensor:
            """The area of the starts within a and b of the goal on the two axes that are paid at each time."""
            left_a, left_b = ((x - times).clamp(0.0, GOAL_RADIUS) for x in (a, b))
            there_a, there_b = torch.minimum(a, times), torch.minimum(b, times)
            return there_a * there_b + there_a * left_b + there_b * left_a + disc_corner(left_a, left_b, GOAL_RADIUS)

        return over_starts(task.position, self.low, self.high, paid).sum(-1).to(torch.float32)

    def render(self, task: Goal, states: list[Point]) -> np.ndarray:
        """The paths, pale to dark in time, with their starts, the half circle and the disc that pays."""
        return _arc_picture(path_of(states), xy(task.position), (self.low, self.high))


class WindyPoint(TaskFamily):
    """A point that must hold a small goal, always the same, in a wind that it has to find out.

    Description:
        The point starts at the origin and moves by up to 0.1 m per axis and step, and the wind moves it too. The goal
        is a disc of radius 0.03 m at (0, 1). One step tells the wind.

    What varies:
        The wind, in metres per step: `Wind.drift`.

    Splits:
        - `train`, `test`: wind ~ U[-0.08, 0.08)², in disjoint streams.
        - `ood`: stronger wind, uniform over the square ring 0.08 ≤ max(|x|, |y|) < 0.12. Beyond 0.1 the point cannot
          hold against it.

    Actions:
        =====  ===============  ============  ======
        index  meaning          range         unit
        =====  ===============  ============  ======
        0      move along x     [-0.1, 0.1]   metres
        1      move along y     [-0.1, 0.1]   metres
        =====  ===============  ============  ======
        An action beyond the range is clipped to it; then the wind is added.

    Observations:
        =====  ===============  ==============================  ======
        index  meaning          range                           unit
        =====  ===============  ==============================  ======
        0      x                ± 0.22 (horizon + 1)            metres
        1      y                ± 0.22 (horizon + 1)            metres
        =====  ===============  ==============================  ======

    Rewards:
        1 where the distance to (0, 1) after the move is at most 0.03 m, otherwise 0.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: exact per wind; 13.21 in the mean of `train`. Against more than 0.0612 m of wind per step 25 steps
        are too few to arrive: the optimum is 0 for 11.75 % of the training tasks.

    Source:
        Dorfman et al. 2021, "Offline meta learning of exploration" (Wind), and Ni et al. 2022, "Recurrent model-free RL
        can be a strong baseline for many POMDPs": trials of one episode. Ni's published configuration says 25 steps,
        its environment 75 (``horizon=75``).

    Version history:
        v0: first version.
    """

    def __init__(self, horizon: int = 25, episodes_per_trial: int = 1) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        reach = (MAX_STEP + 0.12) * (horizon + 1)  # one step to spare for float32's rounding
        self.observation_space = gymnasium.spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Wind:
        if split == "ood":
            return Wind(uniform_in_ring(keys, inner=0.08, outer=0.12))
        return Wind(0.16 * rng.uniform(keys, 2) - 0.08)

    def reset(self, task: Wind, key: Key) -> Point:
        return Point(torch.zeros_like(task.drift))

    def observe(self, task: Wind, state: Point) -> Tensor:
        return state.position

    def step(self, task: Wind, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = state.position + action.clamp(-MAX_STEP, MAX_STEP) + task.drift
        goal = torch.tensor(WINDY_GOAL, device=position.device)
        found = (position - goal).norm(dim=-1) <= WINDY_RADIUS
        return Point(position), found.to(torch.float32), torch.zeros_like(found)

    def oracle(self, task: Wind) -> Tensor:
        state, total = self.reset(task, task.drift[:, 0]), torch.zeros_like(task.drift[:, 0])
        for _ in range(self.horizon):  # nothing is random: the best policy's episode is its expectation
            state, reward, _ = self.step(task, state, sail(state.position, task.drift), total)
            total = total + reward
        return total

    def render(self, task: Wind, states: list[Point]) -> np.ndarray:
        """The paths, pale to dark in time, with the goal and, as an arrow at the start, five steps of wind."""
        path, wind = path_of(states), xy(task.drift)
        image, draw, pixel = canvas([(-0.6, -0.2), (0.6, 1.2), *path])
        tip = pixel(5 * wind[0], 5 * wind[1])
        draw.line((*pixel(0, 0), *tip), fill="#f08c00", width=4)
        draw.ellipse((tip[0] - 5, tip[1] - 5, tip[0] + 5, tip[1] + 5), fill="#f08c00")
        draw.text((tip[0] + 7, tip[1] - 7), "5 steps of wind", fill="#f08c00", font_size=13)
        draw_path(draw, pixel, path, MAX_STEP + max(abs(wind[0]), abs(wind[1])))
        draw_goal(draw, pixel, WINDY_GOAL, WINDY_RADIUS)
        return np.asarray(image)


def sail(position: Tensor, wind: Tensor) -> Tensor:
    """The best action ``(B, 2)`` of `WindyPoint` in a known wind.

    Each axis comes as near to the goal as it can at every time. A wind upwards of more than 0.1 carries the point over
    the goal whatever it does: then it aims at the disc's lower edge, to be longest on its way through it.
    """
    goal = torch.tensor(WINDY_GOAL, device=position.device)
    across = position[:, :1] + wind[:, :1]
    across = across + (goal[0] - across).clamp(-MAX_STEP, MAX_STEP)  # where x will be
    half_chord = (WINDY_RADIUS**2 - (across - goal[0]) ** 2).clamp_min(0.0).sqrt()
    lower_edge = goal[1] - 0.999 * half_chord  # not quite the edge: float32 may round it out of the disc
    up = torch.where(wind[:, 1:] > MAX_STEP, lower_edge, goal[1])
    return (torch.cat([goal[0].expand_as(up), up], dim=1) - position - wind).clamp(-MAX_STEP, MAX_STEP)


def _on_half_circle(keys: Key, split: str) -> Tensor:
    """Points (N, 2) of the upper unit half circle, of the lower one in `ood`."""
    angle = math.pi * rng.uniform(keys, 1)[:, 0]
    points = torch.stack([angle.cos(), angle.sin()], dim=-1)
    return -points if split == "ood" else points


def _arc_picture(path: list[XY], goal: XY, starts: tuple[XY, ...] = ()) -> np.ndarray:
    image, draw, pixel = canvas([(-1.25, -0.25), (1.25, 1.25), goal, *starts, *path])
    if starts:
        (left, bottom), (right, top) = starts
        draw.rectangle((*pixel(left, top), *pixel(right, bottom)), outline="#adb5bd")
        draw.text(pixel(left + 0.03, bottom + 0.14), "starts", fill="#868e96", font_size=13)
    draw.arc((*pixel(-1, 1), *pixel(1, -1)), 180, 360, fill="#adb5bd", width=2)
    x, y = pixel(-1, 0)
    draw.text((x + 5, y - 4), "training goals", fill="#868e96", font_size=13)
    draw_path(draw, pixel, path, MAX_STEP)
    draw_goal(draw, pixel, goal, GOAL_RADIUS)
    return np.asarray(image)
