"""Reference agents for mazes."""

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

    side: Tensor  # (B,) float32: the cue, ±1; 0 before it is seen
    at_start: Tensor  # (B,) bool: no step has been made


class TMazeOracle(FixedAgent):
    """Knows the side and ignores the cue: goes right to the junction, and into the arm."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task).side

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(_turn(memory, step), step), memory


class TMazeRemember(FixedAgent):
    """Looks at the cue, stepping back to it if necessary, remembers it, and turns accordingly."""

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

    here: Tensor  # (B, 81) bool: where the agent may be
    goals: Tensor  # (B, 81) bool: where the goal may be


class MetaMazeSearch(FixedAgent):
    """Knows the standard maze (`train`, `test`, `all`): searches unvisited cells for the goal, then returns to it.

    It tracks the cells where it may be, given its moves and observations: a single one until it is moved, and fewer
    with every step after that. It moves towards the nearest possible goal, by the distance summed over these cells,
    with random ties.
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
        for _ in range(20):  # no path is longer
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
        """Update the knowledge by the last step's reward and the observation."""
        here, goals = memory
        paid = (step.prev_reward > 0)[:, None]
        sure = here.sum(1, keepdim=True) == 1
        known = goals.sum(1, keepdim=True) == 1
        first = (step.prev_action < 0)[:, None] | (step.prev_done > 0.5)[:, None]
        goals = torch.where(paid & ~known & sure, here, torch.where(~paid & sure & ~known, goals & ~here, goals))
        # After a reward the agent is moved to any free cell except the goal; without one it is not on the goal.
        known = goals.sum(1, keepdim=True) == 1
        here = torch.where(paid, self.free, here) & ~(goals & known)
        here = torch.where(first, self.centre, here)
        return Located(here & (self.views == step.obs[:, None]).all(-1), goals)


class MetaMazeOracle(MetaMazeSearch):
    """Knows the goal (in the standard maze), but not where the agent is moved after reaching it."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        at = torch.arange(81, device=self.device) == number(told(task).goal)[:, None]
        return Located(super().begin(num_tasks).here, at)


class WallMazeOracle(FixedAgent):
    """Knows the walls and the goal of a WallMaze, and follows a shortest path."""

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
    """Knows the goals of RoomNavi, and acts by dynamic programming over the `steps` of an episode."""

    def __init__(self, steps: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.steps = steps

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        # The plan of the first step holds for all steps: with fewer steps left, the third goal is still the best
        # target.
        return best_moves(told(task), self.steps), torch.zeros(num_tasks, dtype=torch.int64, device=self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        moves, reached = memory
        reached = _reached(reached, step)
        rows = torch.arange(len(reached), device=reached.device)
        return scripted(moves[rows, reached, cell_number(step.obs.long())], step), (moves, reached)


class RoomKnowledge(NamedTuple):
    """The knowledge of a `RoomNaviSearch`. Cells are numbered as in `metarl.envs.grids.room_navi.CELLS`."""

    cell: Tensor  # (B,) int64: where the last action led; -1 before the first action
    reached: Tensor  # (B,) int64: goals reached in this episode
    possible: Tensor  # (B, 3, 33) bool: where each goal may be


class RoomNaviSearch(FixedAgent):
    """Goes to the nearest corner where the next goal may be (`train`, `test`, `all`), and stays on the third goal.

    It knows that the first goal reveals the room of the second one, and that the third one is in another corner.
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
        """Keep the tasks that are consistent with the last reward; return where each goal may be, (B, 3, 33)."""
        cells = torch.arange(len(self.after), device=self.device)
        here = (cells == memory.cell[:, None])[:, None]  # (B, 1, 33); nowhere before the first step
        number = torch.arange(1, len(PAYS) + 1, device=self.device)
        paid = (_paid(step) == number.expand(len(here), -1).T).T[..., None]  # (B, 3, 1)
        sought = (memory.reached[:, None] >= number - 1)[..., None]  # (B, 3, 1): what would have paid
        possible = memory.possible & torch.where(paid, here, ~(sought & here))
        # A task is kept if all its goals are at possible places.
        left = (self.tasks & possible[:, None]).any(-1).all(-1)  # (B, 48)
        return (left[..., None, None] & self.tasks).any(1)


def _paid(step: Step) -> Tensor:
    """Return the number (B,) of the goal that RoomNavi's last reward was for; 0: none."""
    return sum(((step.prev_reward > 0.5 * pay).long() for pay in PAYS), torch.zeros_like(step.prev_done).long())


def _reached(reached: Tensor, step: Step) -> Tensor:
    """Return the number (B,) of goals reached in this episode, given the number before the last step."""
    return torch.where(step.prev_done > 0.5, 0, torch.maximum(reached, _paid(step)))
