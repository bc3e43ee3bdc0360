"""Reference players for points in the plane."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.envs.points.plane import MAX_STEP
from metarl.envs.points.windy import sail


class WindyPointOracle(FixedAgent):
    """Told the wind, it sails as near to the goal as it can."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).drift

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(sail(step.obs, memory), step), memory


class ArcMemory(NamedTuple):
    """The knowledge of an `ArcSearch`."""

    place: Tensor  # (B, 2) metres: where the last action led
    angle: Tensor  # (B,) radians: the point of the arc that it walks to
    direction: Tensor  # (B,) ±1: the way along the arc; 0 before the first step
    goal: Tensor  # (B, 2) metres: where to be, once `found`
    found: Tensor  # (B,) bool


class ArcSearch(FixedAgent):
    """Walks to an end of the unit half circle and along it until it is paid, in the next episode where it stopped.

    For SparsePointRobot, whose first payment tells the distance to the goal and hence the goal, as it can only lie
    ahead; and for SemiCircle, whose payment of 1 says "here". Three episodes of the one, or one of the other, suffice.
    """

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        zeros = torch.zeros(num_tasks, device=self.device)
        places = zeros[:, None].expand(-1, 2)
        return ArcMemory(places, zeros, zeros, places, zeros.bool())

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        place, angle, direction, goal, found = memory
        first = direction == 0  # from the nearer end of the arc
        direction = torch.where(first, torch.where(step.obs[:, 0] < 0, -1.0, 1.0), direction)
        angle = torch.where(first & (direction < 0), math.pi, angle)
        pays = (step.prev_reward > 0) & ~found
        goal = torch.where(pays[:, None], _goal_ahead(place, direction, step.prev_reward), goal)
        found = found | pays
        arrived = (place - _on_circle(angle)).norm(dim=-1) < 1e-4
        angle = torch.where(arrived, angle + MAX_STEP * direction, angle)  # the chord is a little shorter
        target = torch.where(found[:, None], goal, _on_circle(angle))
        action = (target - step.obs).clamp(-MAX_STEP, MAX_STEP)
        return scripted(action, step), ArcMemory(step.obs + action, angle, direction, goal, found)


def _on_circle(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def _goal_ahead(place: Tensor, direction: Tensor, reward: Tensor) -> Tensor:
    """The point of the unit circle ahead of `place` at the distance 1 - reward; `place` itself if that is 0."""
    radius, distance = place.norm(dim=-1).clamp_min(1e-6), 1.0 - reward
    ahead = ((1.0 + radius**2 - distance**2) / (2.0 * radius)).clamp(-1.0, 1.0).acos()  # law of cosines
    goal = _on_circle(torch.atan2(place[:, 1], place[:, 0]) + direction * ahead)
    return torch.where(distance[:, None] > 0, goal, place)


class Navigation2DOracle(FixedAgent):
    """Told the goal, it goes there by the largest steps there are, on each axis on its own: the best there is."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).position

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted((memory - step.obs).clamp(-MAX_STEP, MAX_STEP), step), memory
