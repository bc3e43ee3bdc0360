"""Reference players for mazes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.envs.grids.grid import STEPS, Cell
from metarl.envs.grids.meta_maze import Maze, MetaMaze, lattice, neighbours, number
from metarl.envs.grids.room_navi import PAYS, RoomNavi, best_moves, cell_number, leads_to
from metarl.envs.grids.wall_maze import SIZE, distances


class TMazeMemory(NamedTuple):
    """The memory of a `TMazeRemember`."""

    side: Tensor  # (B,) float32: what the cue said, ±1; 0 before it was seen
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
    """The knowledge of a `MetaMazeSearch`. Cells are numbered 9 x + y."""

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
        """Take in what the last step's reward and the observation say."""
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


class WallMazeOracle(FixedAgent):
    """Told the walls and the goal of a WallMaze, it goes a shortest way."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        return distances(task.walls, task.goal)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        middle = (SIZE + 1) // 2
        here = (step.obs[:, :2] * (middle - 1)).round().long() + middle
        near = here[:, None] + torch.tensor(STEPS, device=here.device)  # (B, 4, 2)
        rows = torch.arange(len(here), device=here.device)[:, None]
        return scripted(memory[rows, near[..., 0], near[..., 1]].argmin(1), step), memory


class RoomNaviOracle(FixedAgent):
    """Told the goals of RoomNavi, it acts as dynamic programming over the `steps` of an episode says."""

    def __init__(self, steps: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.steps = steps

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        # The first step's plan is everybody's: with fewer steps left, the third goal is still what to go for.
        return best_moves(told(task), self.steps), torch.zeros(num_tasks, dtype=torch.int64, device=self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        moves, reached = memory
        reached = _reached(reached, step)
        rows = torch.arange(len(reached), device=reached.device)
        return scripted(moves[rows, reached, cell_number(step.obs.long())], step), (moves, reached)


class RoomKnowledge(NamedTuple):
    """The knowledge of a `RoomNaviSearch`. Cells are numbered as in `metarl.envs.grids.room_navi.CELLS`."""

    cell: Tensor  # (B,) int64: where the last action led; -1 before the first one
    reached: Tensor  # (B,) int64: goals reached in this episode
    possible: Tensor  # (B, 3, 33) bool: where each goal may be


class RoomNaviSearch(FixedAgent):
    """Goes to the nearest corner where the next goal may be (`train`, `test`, `all`), and stays on the third goal.

    It knows that the first goal says in which room the second one is, and that the third one is in another corner.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.after = leads_to(self.device)  # (33, 5)
        cells = len(self.after)
        self.distance = torch.where(torch.eye(cells, dtype=torch.bool, device=self.device), 0, cells)  # (from, to)
        for _ in range(cells):
            self.distance = torch.minimum(self.distance, 1 + self.distance[self.after].amin(1))
        goals = cell_number(torch.stack(tuple(RoomNavi().enumerate_tasks("all")), dim=1)).to(self.device)  # (48, 3)
        self.tasks = torch.nn.functional.one_hot(goals, cells).bool()  # (48, 3, 33)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        nowhere = torch.full((num_tasks,), -1, device=self.device)
        return RoomKnowledge(nowhere, nowhere + 1, self.tasks.any(0).expand(num_tasks, -1, -1))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        possible = self._learn(memory, step)
        reached = _reached(memory.reached, step)
        now = cell_number(step.obs.long())
        rows = torch.arange(len(now), device=now.device)
        wanted = possible[rows, reached.clamp_max(len(PAYS) - 1)]  # (B, 33)
        target = torch.where(wanted, self.distance[now], len(self.after) + 1).argmin(1)
        action = self.distance[self.after[now], target[:, None]].argmin(1)
        return scripted(action, step), RoomKnowledge(self.after[now, action], reached, possible)

    def _learn(self, memory: RoomKnowledge, step: Step) -> Tensor:
        """Leave the tasks that agree with the last reward, and return where each goal may be: (B, 3, 33)."""
        cells = torch.arange(len(self.after), device=self.device)
        here = (cells == memory.cell[:, None])[:, None]  # (B, 1, 33); nowhere before the first step
        number = torch.arange(1, len(PAYS) + 1, device=self.device)
        paid = (_paid(step) == number.expand(len(here), -1).T).T[..., None]  # (B, 3, 1)
        sought = (memory.reached[:, None] >= number - 1)[..., None]  # (B, 3, 1): what would have paid
        possible = memory.possible & torch.where(paid, here, ~(sought & here))
        # A task is left if all its goals are at possible places.
        left = (self.tasks & possible[:, None]).any(-1).all(-1)  # (B, 48)
        return (left[..., None, None] & self.tasks).any(1)


def _paid(step: Step) -> Tensor:
    """The number (B,) of the goal that RoomNavi's last reward was for; 0: none."""
    return sum(((step.prev_reward > 0.5 * pay).long() for pay in PAYS), torch.zeros_like(step.prev_done).long())


def _reached(reached: Tensor, step: Step) -> Tensor:
    """The number (B,) of goals reached in this episode, from that before the last step."""
    return torch.where(step.prev_done > 0.5, 0, torch.maximum(reached, _paid(step)))
