"""A treasure on a circle around a mountain; it is visible from the top (Zintgraf et al. 2021)."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.planes import Pixel, Trail, draw_goal, xy
from metarl.envs.points.expectations import walked
from metarl.envs.points.plane import MAX_STEP, Goal, Point, constant

START = (0.0, -1.0)  # metres


SIDE = 1.5  # metres: largest coordinate


FOOT, TOP = 0.5, 0.1  # metres from the origin: edge of the mountain, and range in which the treasure is visible


GOAL_RADIUS = 0.1  # metres: radius within which the treasure pays


class TreasureHunt(TaskFamily[Goal, Point]):
    """A treasure on a circle around a mountain, visible from the top; the climb costs a little and saves a lot.

    Description:
        The point starts at (0, -1) m and moves by up to 0.1 m per axis and step. The treasure lies 1 m from the origin
        in an unknown direction. A mountain with a radius of 0.5 m stands at the origin: the higher a step on it leads,
        the more it costs, but at the top, within 0.1 m of the origin, the treasure is visible. Searching along the
        circle costs nothing extra but takes longer: nearly 60 steps for all of it.

    What varies:
        The position of the treasure: `Goal.position`, (cos θ, sin θ).

    Splits:
        - `train`, `valid`, `test`: θ ~ U[0, 2π), in disjoint random streams.
        - `ood`: nearer treasures, at a distance r ~ U[0.65, 0.85) m from the origin: out of reach of an agent that
          walks along the training circle. From the mountain's top they are still visible.

    Actions:
        =====  ======================  =======  ======
        index  meaning                 range    unit
        =====  ======================  =======  ======
        0      move along x            [-1, 1]  0.1 m
        1      move along y            [-1, 1]  0.1 m
        =====  ======================  =======  ======
        An action beyond the range is clipped to it.

    Observations:
        =====  ================================================  ===========  ======
        index  meaning                                           range        unit
        =====  ================================================  ===========  ======
        0      x                                                 [-1.5, 1.5]  metres
        1      y                                                 [-1.5, 1.5]  metres
        2      x of the treasure less than 0.1 m from the        [-1, 1]      metres
               origin, elsewhere 0
        3      y of the treasure likewise                        [-1, 1]      metres
        =====  ================================================  ===========  ======

    Rewards:
        With d the distance to the origin after the move: d - 5.5 where d ≤ 0.5 m (on the mountain); else 10 within
        0.1 m of the treasure; else -5 max(1, d).

    Endings:
        Never terminated; truncated after `horizon` steps. A trial is one episode. The point cannot leave the square of
        side 3 m around the origin.

    Optimum:
        Known task: -5 for every step before the treasure can be reached, then 10; 852.7 on average over `train`. This
        is an upper bound; a scripted oracle attains it in `train` and comes within 0.1 of it in `ood`. Climbing for the
        clue first earns 752.3 on average over `train`; Bayes-optimal: unknown. Random: -568 in `train` (Monte Carlo,
        20,000 episodes, ± 1).

    Source:
        Zintgraf et al. 2021, "Exploration in approximate hyper-state space for meta reinforcement learning" (HyperX),
        section 5, and its published code (one episode per task).

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False

    def __init__(self, horizon: int = 100, episodes_per_trial: int = 1) -> None:
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        high = np.array([SIDE, SIDE, 1.0, 1.0], np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def draw_tasks(self, keys: Key, split: str) -> Goal:
        angle, share = rng.uniform(keys, 2).unbind(1)
        angle = 2.0 * math.pi * angle
        radius = 0.65 + 0.2 * share if split == "ood" else torch.ones_like(share)
        return Goal(radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1))

    def check_task(self, task: Goal) -> None:
        within("Goal.position", task.position, -1.0, 1.0)

    def reset(self, task: Goal, key: Key) -> Point:
        return Point(constant(START, key.device).expand(len(key), 2))

    def observe(self, task: Goal, state: Point) -> Tensor:
        seen = state.position.norm(dim=-1, keepdim=True) < TOP
        return torch.cat([state.position, torch.where(seen, task.position, 0.0)], dim=-1)

    def step(self, task: Goal, state: Point, action: Tensor, key: Key) -> tuple[Point, Tensor, Tensor]:
        place = (state.position + MAX_STEP * action.clamp(-1.0, 1.0)).clamp(-SIDE, SIDE)
        away = place.norm(dim=-1)
        found = self._found(task, place)
        elsewhere = torch.where(found, 10.0, -5.0 * away.clamp_min(1.0))
        reward = torch.where(away <= FOOT, away - FOOT - 5.0, elsewhere)
        return Point(place), reward, torch.zeros_like(found)

    def _found(self, task: Goal, place: Tensor) -> Tensor:
        return (place - task.position).norm(dim=-1) <= GOAL_RADIUS

    def success(self, task: Goal, state: Point) -> Tensor:
        return self._found(task, state.position) & (state.position.norm(dim=-1) > FOOT)

    def oracle(self, task: Goal) -> Tensor:
        moves = moves_to_treasure(task, self.horizon)
        paid = (self.horizon + 1 - moves).clamp_min(0)
        return (10.0 * paid - 5.0 * (self.horizon - paid)).to(torch.float32)

    def sketch(self, task: Goal, episodes: int = 1) -> Sketch[Point]:
        """Draw the paths (darker over time), their starts, the mountain, the training circle and the treasure."""
        goal = xy(task.position)
        return Trail(
            [(-SIDE, -SIDE), (SIDE, SIDE)],
            self.horizon,
            lambda state: xy(state.position),
            _ground,
            lambda draw, pixel, state: draw_goal(draw, pixel, goal, GOAL_RADIUS),
        )


def moves_to_treasure(task: Goal, horizon: int) -> Tensor:
    """Return the fewest moves (B,) to reach the treasure: int64; horizon + 1 if it is out of reach.

    The result is at least 1, since the reward depends on the position after a move.
    """
    device = task.position.device
    ahead = (task.position - constant(START, device)).double().abs()[..., None]  # (B, 2, 1)
    left = (ahead - walked(horizon, device)).clamp_min(0.0).norm(dim=1)  # (B, horizon): after full steps on both axes
    return 1 + (left > GOAL_RADIUS + 1e-6).sum(-1)  # float32 rounds positions


def _ground(draw: ImageDraw.ImageDraw, pixel: Pixel) -> None:
    for radius, colour in ((FOOT, "#e9ecef"), (TOP, "#ced4da")):
        draw.ellipse((*pixel(-radius, radius), *pixel(radius, -radius)), fill=colour)
    draw.ellipse((*pixel(-1, 1), *pixel(1, -1)), outline="#adb5bd", width=2)
    x, y = pixel(0.0, 0.0)
    draw.text((x, y - 26), "clue", fill="#495057", font_size=13, anchor="mm")
    x, y = pixel(0.0, -1.0)
    draw.text((x, y + 14), "training goals", fill="#868e96", font_size=13, anchor="mm")
