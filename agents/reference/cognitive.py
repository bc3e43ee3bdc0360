"""Reference agents for tasks from cognitive science."""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.core.tree import take
from metarl.envs.cognitive.alchemy import EDGE, VALUES, perceived
from metarl.envs.cognitive.two_step import PAYS, SWITCH


class WinStayMemory(NamedTuple):
    """The memory of `WinStayLoseShift`; objects are float32 ``(B, num_features)``."""

    good: Tensor  # the rewarded object, once `known`
    known: Tensor  # (B,) bool
    chosen: Tensor  # the object that the agent is moving to, once objects are visible
    other: Tensor
    direction: Tensor  # (B,) int64: the action that leads there; 0 before objects are visible


class WinStayLoseShift(FixedAgent):
    """Optimal in `Harlow`: goes to the left object first, and learns from its reward which one pays (Harlow 1949).

    It uses only its observations. Its mean reward is 0 in the first round and 1 afterwards.
    """

    def __init__(self, num_features: int = 8, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_features = num_features

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        nothing = torch.zeros(num_tasks, self.num_features, device=self.device)
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return WinStayMemory(nothing, zeros.bool(), nothing, nothing, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        good, known, chosen, other, direction = memory
        ended = (step.prev_reward != 0)[:, None]
        good = torch.where(ended, torch.where(step.prev_reward[:, None] > 0, chosen, other), good)
        known = known | ended[:, 0]
        direction = torch.where(step.prev_done > 0, 0, direction)
        window = step.obs.unflatten(1, (9, 1 + self.num_features))
        cross, left, right = window[:, :, 0], window[:, 1, 1:], window[:, 7, 1:]
        at_cross = (cross.sum(1) == 0) & (direction == 0)  # the objects have just appeared, 3 cells to either side
        go_right = known & (right == good).all(-1)
        swap, new = go_right[:, None], at_cross[:, None]
        chosen = torch.where(new, torch.where(swap, right, left), chosen)
        other = torch.where(new, torch.where(swap, left, right), other)
        direction = torch.where(at_cross, torch.where(go_right, 2, 1), direction)
        to_cross = torch.where(cross[:, :4].sum(1) > 0, 1, 2)
        action = torch.where(direction == 0, to_cross, direction)
        return scripted(action, step), WinStayMemory(good, known, chosen, other, direction)


class Way(NamedTuple):
    """One way to make a stone valuable in `Alchemy`."""

    value: int
    need: tuple[int, ...]  # the number of each of the 6 latent potions
    path: tuple[int, ...]  # these potions, in order


@functools.cache
def ways(edges: tuple[bool, ...], vertex: int) -> tuple[Way, ...]:
    """Return all ways from `vertex` that no other way dominates (at least as valuable, with no more of any potion)."""
    found: list[Way] = [Way(0, (0,) * 6, ())]  # leave it
    walks: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((vertex,), ())]  # vertices and potions of a walk
    while walks:
        visited, path = walks.pop()
        if (value := VALUES[visited[-1]]) > 0:
            found.append(Way(value, tuple(path.count(p) for p in range(6)), path))
        for axis in range(3):
            after = visited[-1] ^ 1 << axis
            if after not in visited and edges[EDGE[visited[-1]][axis]]:
                walks.append(((*visited, after), (*path, 2 * axis + (after >> axis & 1))))
    found.sort(key=lambda way: (-way.value, len(way.path), way.path))
    best: list[Way] = []
    for way in found:
        if not any(all(a <= b for a, b in zip(other.need, way.need, strict=True)) for other in best):
            best.append(way)
    return tuple(best)


class AlchemyPlanner(FixedAgent):
    """Knows the chemistry and plays the best plan for the stones and potions on the table: optimal in `Alchemy`.

    An episode is deterministic, so the plan is made at its start: a search chooses one of the `ways` of each stone,
    with the highest total value for the available potions. No plan takes more than 12 + 3 of the 20 steps.
    """

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return task, torch.zeros(num_tasks, 20, dtype=torch.int64, device=self.device), zeros

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        task, plan, t = memory
        first = (step.prev_done > 0) | (step.prev_action < 0)
        if bool(first.any()):
            new = [self._plan(task, step.obs, row) if begins else [] for row, begins in enumerate(first.tolist())]
            padded = torch.tensor([actions + [0] * (20 - len(actions)) for actions in new], device=plan.device)
            plan, t = torch.where(first[:, None], padded, plan), torch.where(first, 0, t)
        return scripted(plan.gather(1, t[:, None])[:, 0], step), (task, plan, t + 1)

    def _plan(self, task: Task, obs: Tensor, row: int) -> list[int]:
        """Return the actions for a row whose episode begins."""
        stones = latent_stones(take(task, slice(row, row + 1)), obs[row : row + 1])[0].tolist()
        colours = (3 * (obs[row, 15::2] + 1)).round().long()
        potions = task.potions[row][colours].tolist()
        edges = tuple(task.edges[row].tolist())
        have = [potions.count(p) for p in range(6)]
        chosen = max(
            (
                choice
                for choice in itertools.product(*(ways(edges, stone) for stone in stones))
                if all(sum(way.need[p] for way in choice) <= have[p] for p in range(6))
            ),
            key=lambda choice: sum(way.value for way in choice),
        )
        actions = []
        for stone, way in enumerate(chosen):
            for potion in way.path:
                place = potions.index(potion)
                potions[place] = -1
                actions.append(13 * stone + place + 2)
            if way.value > 0:
                actions.append(13 * stone + 1)
        return actions


def latent_stones(task: Task, obs: Tensor) -> Tensor:
    """Return the vertices of the three unused stones in the observation, int64 ``(B, 3)``."""
    seen = obs[:, :15].unflatten(1, (3, 5))[:, :, :3]
    every = torch.arange(8, device=obs.device).expand(len(obs), 8)
    looks = perceived(task, every)[:, None]  # (B, 1, 8, 3)
    return (looks == seen[:, :, None]).all(-1).to(torch.int64).argmax(-1)


class TwoStepMemory(NamedTuple):
    """The memory of a `TwoStepPlayer`."""

    value: Tensor  # (B,) float32: the number that determines the choice
    last: Tensor  # (B,) int64: the state of the previous step: 0 the first state, 1 or 2 a second one


class TwoStepPlayer(FixedAgent):
    """An agent with a single number per row: `learn` updates it, and `chance` turns it into a choice."""

    start = 0.0

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        value = torch.full((num_tasks,), self.start, device=self.device)
        return TwoStepMemory(value, torch.zeros_like(value, dtype=torch.int64))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        number, last = memory
        state = step.obs.argmax(1)
        number = torch.where(last > 0, self.learn(number, last, step.prev_reward > 0.5), number)
        number = torch.where(step.prev_done > 0, self.start, number)
        action = (rng.uniform(key, 1)[:, 0] < self.chance(number)).long()
        action = action * (state == 0)
        return scripted(action, step), TwoStepMemory(self.remember(number, action, state), state)

    @abstractmethod
    def learn(self, number: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        """Return the number after a round that led to the state `second` (1 or 2) and was rewarded if `paid`."""

    def chance(self, number: Tensor) -> Tensor:
        """Return the probability of choosing action 1."""
        return number

    def remember(self, number: Tensor, action: Tensor, state: Tensor) -> Tensor:
        """Return the number after `action` in `state`."""
        return number


class TwoStepBayes(TwoStepPlayer):
    """Model-based and Bayes-optimal in `train` and `test`: its number is the probability that S3 is the better state.

    It knows the rules but not which second state is better, and earns 70.586 in 100 rounds. With `sharpness` None it
    chooses the likelier state; with a number it chooses S3 with probability sigmoid(sharpness · (probability - 0.5)),
    as people seem to do.
    """

    start = 0.5

    def __init__(self, sharpness: float | None = None, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.sharpness = sharpness

    def learn(self, number: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        better, other = max(PAYS), min(PAYS)
        for_third = torch.where((second == 2) == paid, better, other)
        seen = number * for_third / (number * for_third + (1 - number) * (1 - for_third))
        return (1 - SWITCH) * seen + SWITCH * (1 - seen)

    def chance(self, number: Tensor) -> Tensor:
        if self.sharpness is None:
            return (number > 0.5).float()
        return torch.sigmoid(self.sharpness * (number - 0.5))


class TwoStepWinStay(TwoStepPlayer):
    """Model-free: repeats its choice if it was rewarded and switches if not; errs with probability `noise`."""

    def __init__(self, noise: float = 0.0, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.noise = noise

    def learn(self, number: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        return torch.where(paid, number, 1 - number)

    def chance(self, number: Tensor) -> Tensor:
        return self.noise + (1 - 2 * self.noise) * number

    def remember(self, number: Tensor, action: Tensor, state: Tensor) -> Tensor:
        return torch.where(state == 0, action.float(), number)
