"""Points in the plane that search for a goal on a half circle, with sparse rewards."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.beliefs.places import Ground
from metarl.core.errors import unknown, whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.planes import XY, Pixel, Trail, draw_box, draw_goal, xy
from metarl.envs.points.beliefs import GoalOnArc
from metarl.envs.points.expectations import disc_corner, over_starts, walked
from metarl.envs.points.plane import Goal, Point, constant, ground_of_goals, moved, reach, step_space

GOAL_RADIUS = 0.2  # metres: radius within which the goal pays


def pearl_goals() -> Tensor:
    """Return the 100 goals of PEARL's published code, float32 (100, 2) metres: 80 for training, then 20 for test."""
    angle = np.linspace(0.0, np.pi, 100)
    goals = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.random.RandomState(1337).shuffle(goals)
    return torch.from_numpy(goals).float()


class SparsePointRobot(TaskFamily[Goal, Point]):
    """A point that must find a goal on a half circle and is rewarded only near it; search the arc, then go there.

    Description:
        The point starts at the origin and moves by up to 0.1 m per axis and step. The goal is 1 m away, in an unknown
        direction. An episode is too short to search everywhere.

    What varies:
        The goal: `Goal.position`, (cos θ, sin θ).

    Splits:
        - `train`, `valid`, `test`: θ ~ U[0, π), in disjoint random streams.
        - `ood`: the other half circle, θ ~ U[π, 2π).

        With ``tasks="pearl"`` the goals are those of PEARL's published code, 100 equally spaced on the arc, including
        both ends, and shuffled by NumPy with seed 1337: `train` has the first 80, `test` the last 20, and `valid` 26 of
        `train`.

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
        ``dense=True``: -d, the reward that PEARL meta-trains on.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal is reached, exact per goal; 13.38 on average over `train`;
        dense: -3.84.

    Differs from the source:
        =====  ================================  ===============================================================
        what   here                              there
        =====  ================================  ===============================================================
        tasks  unlimited fresh goals; an option  100 equally spaced goals on the arc: 80 to train on, 20 to test
                                                 on
        =====  ================================  ===============================================================

    Source:
        Rakelly et al. 2019, "PEARL", section 6.3, in its published code (sparse-point-robot, 5 exploration episodes).

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False

    def __init__(self, dense: bool = False, horizon: int = 20, episodes_per_trial: int = 5, tasks: str = "own") -> None:
        if tasks not in ("own", "pearl"):
            raise ValueError(unknown("tasks", tasks, ("own", "pearl")))
        self.dense, self.tasks = dense, tasks
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        far = reach(horizon)
        self.observation_space = gymnasium.spaces.Box(-far, far, (2,), np.float32)
        self.action_space = step_space()

    def enumerate_tasks(self, split: str) -> Goal | None:
        if self.tasks == "own" or split == "ood":
            return None
        goals = pearl_goals()
        return Goal(goals[:80] if split == "train" else goals[-20:])

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        return Goal(_on_half_circle(keys, split))

    def reset(self, task: Goal, key: Key) -> Point:
        return Point(torch.zeros_like(task.position))

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = moved(state, action)
        distance = (position - task.position).norm(dim=-1)
        return Point(position), self._reward(distance), torch.zeros_like(distance, dtype=torch.bool)

    def belief(self, split: str) -> Belief:
        """Return the belief: exact for a list of tasks, else on a grid of angles (`GoalOnArc`)."""
        if self.num_tasks(split) is not None:
            return Enumeration(self, split)
        return GoalOnArc(self._distances, side=-1.0 if split == "ood" else 1.0)

    def _distances(self, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest distance to the goal that a reward allows."""
        if self.dense:
            return -reward, -reward
        paid = reward > 0.0
        return torch.where(paid, 1.0 - reward, GOAL_RADIUS), torch.where(paid, 1.0 - reward, torch.inf)

    def ground(self, split: str) -> Ground:
        bottom, top = (-1.25, 0.25) if split == "ood" else (-0.25, 1.25)
        return ground_of_goals((-1.25, bottom), (1.25, top), GOAL_RADIUS)

    def success(self, task: Goal, state: Point) -> Tensor:
        return (state.position - task.position).norm(dim=-1) <= GOAL_RADIUS

    def oracle(self, task: Goal) -> Tensor:
        # Full steps along each axis minimise the distance at every time of the episode.
        times = walked(self.horizon, task.position.device)
        left = (task.position.double().abs()[..., None] - times).clamp_min(0.0)  # (B, 2, horizon)
        return self._reward(left.norm(dim=1)).sum(-1).to(torch.float32)

    def _reward(self, distance: Tensor) -> Tensor:
        return -distance if self.dense else torch.where(distance <= GOAL_RADIUS, 1.0 - distance, 0.0)

    def sketch(self, task: Goal, episodes: int = 1) -> Sketch[Point]:
        """Draw the paths (darker over time), their starts, the half circle and the disc that pays."""
        return _arc(xy(task.position), self.horizon)


class SemiCircle(TaskFamily[Goal, Point]):
    """A point that starts anywhere around a half circle and must find the goal on it, rewarded only near it.

    Description:
        The point starts uniformly in [-1.5, 1.5) × [-0.5, 1.5) m and moves by up to 0.1 m per axis and step. The goal
        is somewhere on the unit half circle; an episode is long enough to search everywhere.

    What varies:
        The goal: `Goal.position`, (cos θ, sin θ).

    Splits:
        - `train`, `valid`, `test`: θ ~ U[0, π), in disjoint random streams.
        - `ood`: the other half circle, θ ~ U[π, 2π), with the starting positions of training.

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
        1 if the distance to the goal after the move is at most 0.2 m, otherwise 0.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal pays; the expectation over the starts, exact per goal;
        51.82 on average over `train`.

    Source:
        Dorfman et al. 2021, "Offline meta learning of exploration", and Ni et al. 2022, "Recurrent model-free RL can be
        a strong baseline for many POMDPs", in its published code (a start within reach of the goal is not redrawn).

    Version history:
        v0: first version.
    """

    noisy = False

    low, high = (-1.5, -0.5), (1.5, 1.5)  # metres: range of the starts

    def __init__(self, horizon: int = 60, episodes_per_trial: int = 2) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        far = reach(horizon)
        low, high = np.subtract(self.low, far, dtype=np.float32), np.add(self.high, far, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = step_space()

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        return Goal(_on_half_circle(keys, split))

    def reset(self, task: Goal, key: Key) -> Point:
        low, high = constant(self.low, key.device), constant(self.high, key.device)
        return Point(low + (high - low) * rng.uniform(key, 2))

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = moved(state, action)
        found = (position - task.position).norm(dim=-1) <= GOAL_RADIUS
        return Point(position), found.to(torch.float32), torch.zeros_like(found)

    def belief(self, split: str) -> Belief:
        """Return the belief: exact for a list of tasks, else on a grid of angles (`GoalOnArc`)."""
        if self.num_tasks(split) is not None:
            return Enumeration(self, split)
        return GoalOnArc(_within, side=-1.0 if split == "ood" else 1.0)

    def first_state(self, task: Goal, obs: Tensor) -> Point:
        return Point(obs)

    def ground(self, split: str) -> Ground:
        (left, bottom), (right, top) = self.low, self.high
        return ground_of_goals((left, -1.25 if split == "ood" else bottom), (right, top), GOAL_RADIUS)

    def success(self, task: Goal, state: Point) -> Tensor:
        return (state.position - task.position).norm(dim=-1) <= GOAL_RADIUS

    def oracle(self, task: Goal) -> Tensor:
        times = walked(self.horizon, task.position.device)

        def paid(a: Tensor, b: Tensor) -> Tensor:
            """Return, for each time, the area of the paid starts within a and b of the goal on the two axes."""
            left_a, left_b = ((x - times).clamp(0.0, GOAL_RADIUS) for x in (a, b))
            there_a, there_b = torch.minimum(a, times), torch.minimum(b, times)
            return there_a * there_b + there_a * left_b + there_b * left_a + disc_corner(left_a, left_b, GOAL_RADIUS)

        return over_starts(task.position, self.low, self.high, paid).sum(-1).to(torch.float32)

    def sketch(self, task: Goal, episodes: int = 1) -> Sketch[Point]:
        """Draw the paths (darker over time), their starts, the half circle and the disc that pays."""
        return _arc(xy(task.position), self.horizon, (self.low, self.high))


def _within(reward: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest distance to the goal that a reward of 1 or 0 allows."""
    paid = reward > 0.5
    return torch.where(paid, 0.0, GOAL_RADIUS), torch.where(paid, GOAL_RADIUS, torch.inf)


def _on_half_circle(keys: Key, split: str) -> Tensor:
    """Return points (N, 2) of the upper unit half circle; in `ood`, of the lower one."""
    angle = math.pi * rng.uniform(keys, 1)[:, 0]
    points = torch.stack([angle.cos(), angle.sin()], dim=-1)
    return -points if split == "ood" else points


def _arc(goal: XY, steps: int, starts: tuple[XY, XY] | None = None) -> Sketch[Point]:
    def under(draw: ImageDraw.ImageDraw, pixel: Pixel) -> None:
        if starts is not None:
            draw_box(draw, pixel, *starts, "starts")
        draw.arc((*pixel(-1, 1), *pixel(1, -1)), 180, 360, fill="#adb5bd", width=2)
        x, y = pixel(-1, 0)
        draw.text((x + 5, y - 4), "training goals", fill="#868e96", font_size=13)

    return Trail(
        [(-1.25, -0.25), (1.25, 1.25), goal, *(starts or ())],
        steps,
        lambda state: xy(state.position),
        under,
        lambda draw, pixel, state: draw_goal(draw, pixel, goal, GOAL_RADIUS),
    )
