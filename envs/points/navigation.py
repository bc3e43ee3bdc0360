"""Navigation in the plane to a hidden goal."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.beliefs.places import Ground
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.planes import Pixel, Trail, draw_box, draw_goal, xy
from metarl.envs.points.goal_beliefs import GoalByDistance, Region
from metarl.envs.points.plane import MAX_STEP, Goal, Point, ground_of_goals, moved, reach, step_space, uniform_in_ring

REACHED = 0.01  # metres per axis


class Navigation2D(TaskFamily[Goal, Point]):
    """A point in the plane that must find a hidden goal, guided only by the reward.

    Description:
        The point starts at the origin and moves by up to 0.1 m per axis and step. The reward is the negative distance
        to the goal, so three rewards determine where the goal is.

    What varies:
        The goal: `Goal.position`.

    Splits:
        - `train`, `valid`, `test`: goal ~ U[-0.5, 0.5)² m, in disjoint random streams.
        - `ood`: goal uniform over the square ring 0.5 ≤ max(|x|, |y|) < 0.8 m, outside the training square.

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
        The negative Euclidean distance to the goal after the move.

    Endings:
        Terminated when |dx| and |dy| are both below 0.01 m after the move; truncated after `horizon` steps.

    Optimum:
        Known task: full steps along each axis until the goal is reached, exact per goal; -0.506 on average over
        `train`. Standing still: -38.26 on average.

    Source:
        Finn et al. 2017, "MAML", section 5.3 (2D navigation), in its published code.

    Version history:
        v0: first version.
    """

    terminates = True
    noisy = False
    random_start = False

    def __init__(self, horizon: int = 100, episodes_per_trial: int = 2) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        far = reach(horizon)
        self.observation_space = gymnasium.spaces.Box(-far, far, (2,), np.float32)
        self.action_space = step_space()

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        if split == "ood":
            return Goal(uniform_in_ring(keys, inner=0.5, outer=0.8))
        return Goal(rng.uniform(keys, 2) - 0.5)

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return {"position": gymnasium.spaces.Box(-0.5, 0.5, (2,), np.float32)}

    def reset(self, task: Goal, key: Key) -> Point:
        return Point(torch.zeros_like(task.position))

    def observe(self, task: Goal, state: Point) -> Tensor:
        return state.position

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        position = moved(state, action)
        offset = position - task.position
        x, y = (offset * offset).unbind(-1)  # twice as fast as torch.hypot, which guards against overflow
        return Point(position), (x + y).sqrt_().neg_(), torch.maximum(x, y) < REACHED**2

    def belief(self, split: str) -> Belief:
        """Return the belief: exact for a list of tasks, else up to the width of an arc (`GoalByDistance`)."""
        if self.num_tasks(split) is not None:
            return Enumeration(self, split)
        return GoalByDistance(Region(0.8, 0.5) if split == "ood" else Region(0.5))

    def ground(self, split: str) -> Ground:
        far = 0.9 if split == "ood" else 0.6
        return ground_of_goals((-far, -far), (far, far))

    def success(self, task: Goal, state: Point) -> Tensor:
        return ((state.position - task.position) ** 2).amax(-1) < REACHED**2  # bitwise as in `step`

    def oracle(self, task: Goal) -> Tensor:
        # Full steps along each axis minimise the distance at every time of the episode; the episode
        # ends no later than under any other policy, and the terms after its end are zero.
        walked = MAX_STEP * torch.arange(1, self.horizon + 1, device=task.position.device)
        left = (task.position.abs()[:, None, :] - walked[:, None]).clamp_min(0.0)  # (B, horizon, 2)
        return -left.norm(dim=-1).sum(-1)

    def sketch(self, task: Goal, episodes: int = 1) -> Sketch[Point]:
        """Draw the paths (darker over time), the goal, the start, the training square and the reach of one step."""
        goal = xy(task.position)

        def over(draw: ImageDraw.ImageDraw, pixel: Pixel, state: Point | None) -> None:
            x, y = (0.0, 0.0) if state is None else xy(state.position)
            draw.rectangle(
                (*pixel(x - MAX_STEP, y + MAX_STEP), *pixel(x + MAX_STEP, y - MAX_STEP)), outline="#74c0fc", width=2
            )
            draw_goal(draw, pixel, goal, 0.0)

        return Trail(
            [(-0.6, -0.6), (0.6, 0.6), goal],
            self.horizon,
            lambda state: xy(state.position),
            under=lambda draw, pixel: draw_box(draw, pixel, (-0.5, -0.5), (0.5, 0.5), "training goals"),
            over=over,
        )
