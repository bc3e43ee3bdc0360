"""Reference agents for grids and rooms: sweeps, searches, posterior sampling, and agents that know the goal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.beliefs.belief import BeliefState, FiniteBelief
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.core.tree import take
from metarl.envs.grids.dark_room import DarkTask
from metarl.envs.grids.grid import MOVES


class Searched(NamedTuple):
    """The knowledge of a search for n things (a goal; or a key, then a door)."""

    cell: Tensor  # (B, 2) int64: where the last action led
    carried: Tensor  # (B,) int64: number of things found in this episode
    possible: Tensor  # (B, n, cells) bool: where each thing may be


class RoomOracle(FixedAgent):
    """Knows where the things of a dark room are, and fetches them in order: DarkRoomHard's goal; or key, then door."""

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
    """Knows the goal of a grid where reaching it ends nothing (GridNavi, DarkRoom), goes there and stays."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        return task.goal, task.actions if isinstance(task, DarkTask) else None

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        goal, actions = memory
        move = _move_towards(goal, step.obs.long())
        action = move if actions is None else (actions == move[:, None]).to(torch.int8).argmax(1)
        return scripted(action, step), memory


class RoomSearch(FixedAgent):
    """Goes to the nearest cell where the next thing may be; ties are broken in the order of a sweep.

    The room has `size` × `size` cells and `things` to find: 1 in DarkRoomHard (17), 2 in DarkKeyToDoor (9), where the
    door gives no reward until the key is found. A reward reveals where a thing is, a step without one where it is not.
    """

    def __init__(self, size: int, things: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.size, self.things = size, things
        self.cells = torch.cartesian_prod(torch.arange(size), torch.arange(size)).to(self.device)  # (cells, 2)
        x, y = self.cells.unbind(1)
        self.order = size * x + torch.where(x % 2 == 0, y, size - 1 - y)  # a sweep: up one column, down the next

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        cell = torch.full((num_tasks, 2), -1, device=self.device)  # nowhere yet
        possible = torch.ones(num_tasks, self.things, len(self.cells), dtype=torch.bool, device=self.device)
        return Searched(cell, cell[:, 0] + 1, possible)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        cell, carried, possible = memory
        here = (self.cells == cell[:, None]).all(-1)  # (B, cells); none before the first step
        sought = torch.nn.functional.one_hot(carried, self.things).bool()[..., None]  # (B, things, 1)
        pays = (step.prev_reward > 0.5)[:, None, None]
        # With a reward, the thing sought is here and the others are not; without one, it is not here.
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
    """Return the next move of a shortest path (0 stay, 1 up, 2 right, 3 down, 4 left), first along x."""
    dx, dy = (target - cell).unbind(-1)
    along_y = torch.where(dy > 0, 1, torch.where(dy < 0, 3, 0))
    return torch.where(dx > 0, 2, torch.where(dx < 0, 4, along_y))


class SweepMemory(NamedTuple):
    """The progress of a sweep; all int64 except `found`."""

    cell: Tensor  # (B, 2) the last cell seen
    goal: Tensor  # (B, 2) the rewarding cell, once `found`
    found: Tensor  # (B,) bool
    t: Tensor  # (B,) cells of the path reached in this episode
    episode: Tensor  # (B,)


class Sweep(FixedAgent):
    """Walks `path` until a cell gives a reward, then goes straight there in every episode.

    `path` ``(episodes, horizon, 2)`` holds the cells to visit in order, each next to the one before; longer trials
    repeat its last episode. An agent that is led off the path, such as a teacher whose student acts, returns to it.
    Actions: 0 stay, 1 (y + 1), 2 (x + 1), 3 (y - 1), 4 (x - 1).
    """

    def __init__(self, path: Tensor, start: tuple[int, int], device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.path, self.start = path.to(self.device), torch.tensor(start, device=self.device)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        start = self.start.expand(num_tasks, 2)
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return SweepMemory(start, start, zeros.bool(), zeros, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        before, goal, found, t, episode = memory
        now, done = step.obs.long(), step.prev_done > 0.5
        moves = torch.tensor(MOVES, device=now.device)
        # After an episode's end, the observation is the start of the next one, so compute where the last action led.
        landed = torch.where(done[:, None], before + moves[step.prev_action.clamp_min(0)], now)
        pays = step.prev_reward > 0.5
        goal = torch.where((pays & ~found)[:, None], landed, goal)
        found = found | pays
        t = t + ((step.prev_action >= 0) & (landed == self._planned(episode, t)).all(-1))
        t, episode = torch.where(done, 0, t), episode + done
        move = _move_towards(torch.where(found[:, None], goal, self._planned(episode, t)), now)
        return scripted(move, step), SweepMemory(now, goal, found, t, episode)

    def _planned(self, episode: Tensor, t: Tensor) -> Tensor:
        episodes, horizon = self.path.shape[:2]
        return self.path[episode.clamp_max(episodes - 1), t.clamp_max(horizon - 1)]


def _cells(digits: str) -> list[tuple[int, int]]:
    """Parse a path written as "10 20 …", with the digits x and y of each cell."""
    return [(int(cell[0]), int(cell[1])) for cell in digits.split()]


class GridNaviSweep(Sweep):
    """Bayes-optimal on GridNavi's 21 goals (5 × 5, horizon 15): 4.000 in episode 1, then the optimum of a known task.

    Episode 1 visits the 14 goals that are not on the path up the left edge and along the top. The other seven are all
    on this shortest path to the far corner, so searching them in episode 2 costs nothing.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        first = _cells("10 20 30 40 41 31 21 22 12 13 23 33 43 42 32")
        second = _cells("01 02 03 04 14 24 34 44") + [(4, 4)] * 7
        super().__init__(torch.tensor([first, second]), (0, 0), device)


class DarkRoomSweep(Sweep):
    """Optimal on DarkRoom's 81 goals (9 × 9 from the centre, horizon 20): 210/81 in episode 1.

    The 80 cells around the start form four blocks of 4 × 5, each turned by a right angle from the one before. Each
    episode visits the 20 cells of one block without a detour; if all four are empty, the start itself is the goal.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        block = torch.tensor([(x, y if x % 2 else 4 - y) for x in range(1, 5) for y in range(5)])
        episodes = [block]
        for _ in range(3):
            x, y = episodes[-1].unbind(1)
            episodes.append(torch.stack([-y, x], dim=1))
        episodes.append(torch.zeros_like(block))
        super().__init__(torch.stack(episodes) + 4, (4, 4), device)


class Sampled(NamedTuple):
    """The memory of posterior sampling: the belief, what it is sampled from, and the sampled task."""

    belief: BeliefState
    probs: Tensor  # (B, M): the probabilities of the tasks in the belief's list, from which it samples
    number: Tensor  # (B,) int64: the sampled task's index in the list


class PosteriorSampling(FixedAgent):
    """Draws a task from the exact posterior and takes an optimal action in it.

    With ``kept="nothing"`` it draws at every step, as a perfect decision-pretrained transformer does when it samples
    (Lee et al. 2023). With ``kept="belief"`` it also draws at every step, but from the posterior at the start of the
    episode, as this transformer does when its context grows by whole episodes. Both draw one of the optimal actions of
    the task (`TaskFamily.optimal_actions`). With ``kept="task"`` it draws once per episode (PSRL, Osband et al. 2013),
    or when the task is ruled out, and so follows a plan to its end. If greedy, it takes the action that is best under
    the largest posterior mass.
    """

    def __init__(self, family: AnyFamily, kept: str = "nothing", device: torch.device | str = "cpu") -> None:
        """Make the agent for a family with finitely many tasks; its prior is uniform over all of them (`all`)."""
        super().__init__(device)
        belief = family.belief("all")
        assert isinstance(belief, FiniteBelief), "it is registered for families with a list of tasks"
        assert kept in ("nothing", "belief", "task")
        self.family, self.inference, self.kept = family, belief, kept

    def begin(self, num_tasks: int, task: Task | None = None) -> Sampled:
        belief = self.inference.prior(num_tasks, self.device)
        nothing = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return Sampled(belief, self.inference.probs(belief), nothing)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        belief = self.inference.posterior(memory.belief, step)
        now = self.inference.probs(belief)
        first = (step.prev_done > 0.5) | (belief.steps == 1)
        probs = torch.where(first[:, None], now, memory.probs) if self.kept == "belief" else now
        number = rng.choice(rng.fold(key, 0), probs)
        if self.kept == "task":
            possible = now.gather(1, memory.number[:, None])[:, 0] > 0.0  # not yet ruled out
            number = torch.where(first | ~possible, number, memory.number)
        action = self._action(step.obs, probs, number, rng.fold(key, 1), greedy)
        return scripted(action, step), Sampled(belief, probs, number)

    def _action(self, obs: Tensor, probs: Tensor, number: Tensor, key: Key, greedy: bool) -> Tensor:
        if self.kept == "task" and not greedy:
            action = self.family.optimal_action(take(self.inference.repeated(1, obs.device), number), obs)
            assert action is not None, "it is registered for families that know it"
            return action
        best = self.best_actions(obs)
        if greedy:
            return (best * probs[..., None]).sum(1).argmax(-1)
        return rng.choice(key, best[torch.arange(len(number), device=number.device), number])

    def best_actions(self, obs: Tensor) -> Tensor:
        """Return the probability of each action if one of the optimal ones is drawn, in each of the M tasks.

        The result is float32 ``(B, M, A)``.
        """
        seen, row = obs.unique(dim=0, return_inverse=True)  # few different ones
        tasks = self.inference.repeated(len(seen), obs.device)
        best = self.family.optimal_actions(tasks, seen.repeat_interleave(self.inference.count, 0))
        assert best is not None, "it is registered for families that know them"
        best = best / best.sum(-1, keepdim=True)
        return best.reshape(len(seen), self.inference.count, -1)[row]
