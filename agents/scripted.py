"""Written-down agents for the families of points, rooms and mazes: oracles that are told the task, and searchers.

Oracles reach ``family.oracle(task)`` where it can be reached; searchers are not told the task and show what memory is
worth: their first episode searches, their later ones know. They expect an agent's default protocol, one row per task,
and actions that do what they do in training. (`Navigation2DOracle` also serves PointRobot, SparsePointRobot and
SemiCircle.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl import rng
from metarl.agents.baselines import FixedAgent, scripted
from metarl.batch_env import Step
from metarl.envs.grids import MOVES, Cell, DarkTask
from metarl.envs.meta_maze import Maze, MetaMaze, lattice, neighbours, number
from metarl.envs.navigation import MAX_STEP
from metarl.envs.points import sail
from metarl.family import Key, Task
from metarl.rollout import Acted, Memory


def told(task: Task | None) -> Task:
    """`task`. Raises ValueError if an oracle was not told it."""
    if task is None:
        raise ValueError("An oracle must be told the task.")
    return task


# ---- points --------------------------------------------------------------------------------------------------------


class WindyPointOracle(FixedAgent):
    """Told the wind, it sails as near to the goal as it can."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).drift

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(sail(step.obs, memory), step), memory


class ArcMemory(NamedTuple):
    """What an `ArcSearch` knows."""

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


# ---- rooms ---------------------------------------------------------------------------------------------------------


class Searched(NamedTuple):
    """What a search of a room knows. The things to find (one goal; or key, then door) are counted by n."""

    cell: Tensor  # (B, 2) int64: where the last action led
    carried: Tensor  # (B,) int64: how many things were found in this episode
    possible: Tensor  # (B, n, cells) bool: where each thing may be


class RoomOracle(FixedAgent):
    """Told where the things of a dark room are, it fetches one after the other: DarkRoomHard's goal; key, then door."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        things = [task.goal] if isinstance(task, DarkTask) else [task.key, task.door]
        carried = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return torch.stack(things, dim=1), task.actions, carried

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        things, actions, carried = memory
        carried = torch.where(step.prev_done > 0.5, 0, carried + (step.prev_reward > 0.5))
        target = things[torch.arange(len(things), device=things.device), carried]
        move = _move_towards(target, step.obs.long())
        action = (actions == move[:, None]).to(torch.int8).argmax(1)
        return scripted(action, step), (things, actions, carried)


class GoalOracle(FixedAgent):
    """Told the goal of a grid in which reaching it ends nothing (GridNavi, DarkRoom), it goes there and stays."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        return task.goal, task.actions if isinstance(task, DarkTask) else None

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        goal, actions = memory
        move = _move_towards(goal, step.obs.long())
        action = move if actions is None else (actions == move[:, None]).to(torch.int8).argmax(1)
        return scripted(action, step), memory


class RoomSearch(FixedAgent):
    """Goes to the nearest cell where the thing that it looks for may be, among equally near ones in a sweep's order.

    `things` to find in the room of `size` × `size` cells: 1 in DarkRoomHard (17), 2 in DarkKeyToDoor (9), whose door
    shows nothing until the key was found. A reward tells where a thing is, a step without one where it is not.
    """

    def __init__(self, size: int, things: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.size, self.things = size, things
        self.cells = torch.cartesian_prod(torch.arange(size), torch.arange(size)).to(self.device)  # (cells, 2)
        x, y = self.cells.unbind(1)
        self.order = size * x + torch.where(x % 2 == 0, y, size - 1 - y)  # of a sweep: up one column, down the next

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        cell = torch.full((num_tasks, 2), -1, device=self.device)  # nowhere yet
        possible = torch.ones(num_tasks, self.things, len(self.cells), dtype=torch.bool, device=self.device)
        return Searched(cell, cell[:, 0] + 1, possible)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        cell, carried, possible = memory
        here = (self.cells == cell[:, None]).all(-1)  # (B, cells); none before the first step
        sought = torch.nn.functional.one_hot(carried, self.things).bool()[..., None]  # (B, things, 1)
        pays = (step.prev_reward > 0.5)[:, None, None]
        # Where it pays, the thing sought is here and the others are not; otherwise it is not.
        found = torch.where(sought, here[:, None], ~here[:, None])
        possible = possible & torch.where(pays, found, ~(sought & here[:, None]))
        carried = torch.where(step.prev_done > 0.5, 0, carried + pays[:, 0, 0])
        now = step.obs.long()
        wanted = possible[torch.arange(len(now), device=now.device), carried]  # (B, cells)
        distance = (self.cells - now[:, None]).abs().sum(-1)
        rank = torch.where(wanted, distance * len(self.cells) + self.order, 10**9)
        move = _move_towards(self.cells[rank.argmin(1)], now)
        moves = torch.tensor(MOVES, device=now.device)
        return scripted(move, step), Searched((now + moves[move]).clamp(0, self.size - 1), carried, possible)


def _move_towards(target: Tensor, cell: Tensor) -> Tensor:
    """The move of a shortest way (0 stay, 1 up, 2 right, 3 down, 4 left), first along x."""
    dx, dy = (target - cell).unbind(-1)
    along_y = torch.where(dy > 0, 1, torch.where(dy < 0, 3, 0))
    return torch.where(dx > 0, 2, torch.where(dx < 0, 4, along_y))


# ---- mazes ---------------------------------------------------------------------------------------------------------


class TMazeMemory(NamedTuple):
    """What is remembered of the cue."""

    side: Tensor  # (B,) float32: ±1; 0 before it was seen
    at_start: Tensor  # (B,) bool: no step was made


class TMazeOracle(FixedAgent):
    """Told the side, it never looks at the cue: right to the junction, and into the arm."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).side

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(_turn(memory, step), step), memory


class TMazeRemember(FixedAgent):
    """Looks at the cue, stepping back for it if it does not stand on it, remembers it and turns as it says."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        zeros = torch.zeros(num_tasks, device=self.device)
        return TMazeMemory(zeros, torch.ones_like(zeros, dtype=torch.bool))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        side = torch.where(memory.side == 0, step.obs[:, 1], memory.side)
        look = memory.at_start & (side == 0)
        action = torch.where(look, 3, _turn(side, step))
        return scripted(action, step), TMazeMemory(side, torch.zeros_like(look))


def _turn(side: Tensor, step: Step) -> Tensor:
    return torch.where(step.obs[:, 0] > 0.5, torch.where(side > 0, 0, 2), 1)


class Located(NamedTuple):
    """What a `MetaMazeSearch` knows. Cells are numbered 9 x + y."""

    here: Tensor  # (B, 81) bool: where it may be
    goals: Tensor  # (B, 81) bool: where the goal may be


class MetaMazeSearch(FixedAgent):
    """Knows the standard maze (`train`, `test`, `all`): looks for the goal where it was not yet, then returns to it.

    It keeps the cells where it may be, given its moves and what it saw: one until it is put elsewhere, fewer with every
    step after that. It goes where the nearest possible goal is, summed over these cells, any of equals.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        walls = lattice()[None].to(self.device)
        self.after = neighbours(walls)[0]  # (81, 4)
        self.free = ~walls.flatten()
        self.centre = torch.arange(81, device=self.device) == number(torch.tensor([4, 4], device=self.device))
        cells = self.free.nonzero()[:, 0]
        task = Maze(walls.expand(len(cells), -1, -1), torch.zeros(len(cells), 2, dtype=torch.int64, device=self.device))
        self.views = torch.full((81, 9), -1.0, device=self.device)
        self.views[cells] = MetaMaze().observe(task, Cell(torch.stack([cells // 9, cells % 9], dim=1)))
        self.distance = torch.where(torch.eye(81, dtype=torch.bool, device=self.device), 0.0, 99.0)  # (from, to)
        for _ in range(20):  # no way is longer
            self.distance = torch.minimum(self.distance, 1.0 + self.distance[self.after].amin(1))

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return Located(self.centre.expand(num_tasks, -1), (self.free & ~self.centre).expand(num_tasks, -1))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        here, goals = self._learn(memory, step)
        to_goal = torch.where(goals[:, None], self.distance, 99.0).amin(-1)  # (B, 81)
        cost = (to_goal[:, self.after] * here[..., None]).sum(1)  # (B, 4)
        best = cost == cost.amin(1, keepdim=True)
        action = torch.where(best, rng.uniform(key, 4), -1.0).argmax(1)
        moved = torch.zeros(here.shape, device=here.device)
        moved = moved.scatter_add(1, self.after.T[action], here.to(torch.float32)) > 0
        return scripted(action, step), Located(moved, goals)

    def _learn(self, memory: Located, step: Step) -> Located:
        """What the last step's reward and the observation say."""
        here, goals = memory
        paid = (step.prev_reward > 0)[:, None]
        sure = here.sum(1, keepdim=True) == 1
        known = goals.sum(1, keepdim=True) == 1
        first = (step.prev_action < 0)[:, None] | (step.prev_done > 0.5)[:, None]
        goals = torch.where(paid & ~known & sure, here, torch.where(~paid & sure & ~known, goals & ~here, goals))
        # Put elsewhere, it may be in any free cell but the goal's; not paid, it is not on the goal.
        known = goals.sum(1, keepdim=True) == 1
        here = torch.where(paid, self.free, here) & ~(goals & known)
        here = torch.where(first, self.centre, here)
        return Located(here & (self.views == step.obs[:, None]).all(-1), goals)


class MetaMazeOracle(MetaMazeSearch):
    """Told the goal (in the standard maze), but not where it is put after it was there."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        at = torch.arange(81, device=self.device) == number(told(task).goal)[:, None]
        return Located(super().begin(num_tasks).here, at)
