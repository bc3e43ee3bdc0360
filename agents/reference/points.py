"""Reference agents for points in the plane."""

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
from metarl.envs.points.treasure_hunt import FOOT, START, moves_to_treasure
from metarl.envs.points.windy import sail


class WindyPointOracle(FixedAgent):
    """Knows the wind, and moves as close to the goal as it can."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).drift

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(sail(step.obs, memory), step), memory


class ArcMemory(NamedTuple):
    """The knowledge of an `ArcSearch`."""

    place: Tensor  # (B, 2) metres: where the last action led
    angle: Tensor  # (B,) radians: the target point on the arc
    direction: Tensor  # (B,) ±1: the direction along the arc; 0 before the first step
    goal: Tensor  # (B, 2) metres: the goal, once `found`
    found: Tensor  # (B,) bool


class ArcSearch(FixedAgent):
    """Walks to an end of the unit half circle and along it until it gets a reward; the next episode continues there.

    For SparsePointRobot, whose first reward gives the distance to the goal and hence the goal, which can only lie
    ahead; and for SemiCircle, whose reward of 1 means "here". The first takes at most three episodes, the second one.
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
    """Return the point of the unit circle ahead of `place` at distance 1 - reward; `place` itself if that is 0."""
    radius, distance = place.norm(dim=-1).clamp_min(1e-6), 1.0 - reward
    ahead = ((1.0 + radius**2 - distance**2) / (2.0 * radius)).clamp(-1.0, 1.0).acos()  # law of cosines
    goal = _on_circle(torch.atan2(place[:, 1], place[:, 0]) + direction * ahead)
    return torch.where(distance[:, None] > 0, goal, place)


class Navigation2DOracle(FixedAgent):
    """Knows the goal, and goes there with the largest possible step on each axis, which is optimal."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).position

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted((memory - step.obs).clamp(-MAX_STEP, MAX_STEP), step), memory


class TreasureWay(NamedTuple):
    """The path of a `TreasureHuntOracle`: straight to `corner`, straight to `end`, then to the treasure."""

    corner: Tensor  # (B, 2) metres
    arrival: Tensor  # (B,) int64: moves to the corner; 0 if there is none
    end: Tensor  # (B, 2) metres: within reach of the treasure
    moves: Tensor  # (B,) int64: moves to the end
    treasure: Tensor  # (B, 2) metres
    t: Tensor  # (B,) int64: steps made in this episode


class TreasureHuntOracle(FixedAgent):
    """Knows where the treasure is, and walks there around the mountain, as fast as if there were none."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        treasure = task.position
        start = torch.tensor(START, device=self.device)
        moves = moves_to_treasure(task, 100)
        reach = (MAX_STEP * moves)[:, None]
        end = start + torch.maximum(torch.minimum(treasure - start, reach), -reach)
        along = end - start
        nearest = (along[:, 0] * start[1] - along[:, 1] * start[0]).abs() / along.norm(dim=-1).clamp_min(1e-6)
        behind = (nearest < FOOT) & (end[:, 1] > 0.0)
        # This corner is reached in 10 moves, as on a straight path, since both go mostly along y.
        side = torch.where(end[:, 0] < 0.0, -0.65, 0.65)
        corner = torch.stack([side, torch.zeros_like(side)], dim=-1)
        return TreasureWay(corner, torch.where(behind, 10, 0), end, moves, treasure, torch.zeros_like(moves))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        t = torch.where(step.prev_done > 0.5, 0, memory.t)
        first, second = (t < memory.arrival)[:, None], (t < memory.moves)[:, None]
        target = torch.where(first, memory.corner, torch.where(second, memory.end, memory.treasure))
        stop = torch.where(t < memory.arrival, memory.arrival, memory.moves)
        left = (stop - t).clamp_min(1)[:, None]
        action = ((target - step.obs[:, :2]) / (left * MAX_STEP)).clamp(-1.0, 1.0)
        return scripted(action, step), memory._replace(t=t + 1)


class TreasureHuntClimb(FixedAgent):
    """Climbs the mountain until it sees the treasure, then goes there; in later episodes it goes straight there."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return torch.zeros(num_tasks, 2, device=self.device)  # the treasure, once seen; until then the summit

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        seen = (step.obs[:, 2:] != 0.0).any(-1, keepdim=True)
        target = torch.where(seen, step.obs[:, 2:], memory)
        return scripted(((target - step.obs[:, :2]) / MAX_STEP).clamp(-1.0, 1.0), step), target
