"""An agent that knows the ruleset but not where objects are: it explores, and pursues the next condition."""

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
from metarl.envs.rulesets import tiles
from metarl.envs.rulesets.family import (
    FORWARD,
    OWN,
    PICK_UP,
    PUT_DOWN,
    TURN_LEFT,
    TURN_RIGHT,
    VIEW,
    Rulesets,
)
from metarl.envs.rulesets.rules import NEAR, TILES

UNKNOWN = -1
FAR = 1000
WHIM = 0.02
"""Probability of a random step."""
DEEPEST = 4
"""Largest number of rules on the way to a goal."""


class Known(NamedTuple):
    """The knowledge of a `RulesetOracle`: a map centred on its start, and its position."""

    goal: Tensor  # (B, 3) int64
    rules: Tensor  # (B, R, 4) int64
    tiles: Tensor  # (B, width · width) int64: the map; -1 for cells not seen yet
    cell: Tensor  # (B,) int64: the agent's cell on the map


class RulesetOracle(FixedAgent):
    """Knows the goal and the rules; brings about the next condition, and searches for missing tiles.

    The next condition is that of the goal. If one of its tiles has to be made first, it is the condition of the rule
    that makes this tile, and so on. Raises ValueError for observations that do not contain the agent's direction.
    """

    def __init__(self, family: Rulesets, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        if not family.one_hot:
            raise ValueError("The oracle of Rulesets needs observations with one_hot=True.")
        self.width = 2 * (family.size + VIEW) - 1  # covers everything in view, from every start
        self.beside = torch.tensor([-self.width, 1, self.width, -1], device=self.device)
        self.views = self._views()
        self.most_moves = 3 * family.size  # paths in a room are hardly ever longer

    def _views(self) -> Tensor:
        """Return the offsets from the agent's cell to each cell of the view, by direction: int64 (4, 25)."""
        number = torch.arange(VIEW * VIEW, device=self.device)
        ahead, right = VIEW - 1 - number // VIEW, number % VIEW - VIEW // 2
        return self.beside[:, None] * ahead + self.beside.roll(-1)[:, None] * right

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        goal, rules, _ = told(task)
        blank = torch.full((num_tasks, self.width**2), UNKNOWN, device=self.device)
        return Known(goal, rules, blank, torch.full((num_tasks,), self.width**2 // 2, device=self.device))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        seen, way = self._read(step.obs)
        known, held = self._look(memory, step, seen, way), seen[:, OWN]
        aims, deed = self._plan(known, held)
        action = self._towards(known, way, aims, deed, key)
        ahead = known.cell + self.beside[way]
        free = tiles.can_be_walked_on(known.tiles.gather(1, ahead[:, None])[:, 0])
        cell = torch.where((action == FORWARD) & free, ahead, known.cell)
        return scripted(action, step), known._replace(cell=cell)

    def _read(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tiles in view, int64 (B, 25), and the direction, int64 (B,)."""
        cells = obs[:, :-4].reshape(len(obs), VIEW * VIEW, tiles.FEATURES)
        seen = (cells @ tiles.one_hot(obs.device).T - cells.sum(-1, keepdim=True)).abs()
        # A wall has one feature that is 1, an object has two: the right tile is the one that shares all of them.
        right = (seen == 0) & (tiles.one_hot(obs.device).sum(-1) == cells.sum(-1, keepdim=True))
        return right.to(torch.int64).argmax(-1), obs[:, -4:].argmax(-1)

    def _look(self, known: Known, step: Step, seen: Tensor, way: Tensor) -> Known:
        """Add the view to the map, which is blank at the start of an episode."""
        done = step.prev_done > 0.5
        cell = torch.where(done, self.width**2 // 2, known.cell)
        there = torch.where(done[:, None], UNKNOWN, known.tiles)
        own = there.gather(1, cell[:, None])[:, 0].clamp_min(tiles.FLOOR)  # the agent's own cell is not in view
        seen = torch.cat([seen[:, :OWN], own[:, None], seen[:, OWN + 1 :]], dim=1)
        there = there.scatter(1, cell[:, None] + self.views[way], seen)
        # A rule may just have changed the tile behind the agent, which is out of sight.
        behind = (cell - self.beside[way])[:, None]
        tile = there.gather(1, behind)
        changes = (known.rules[..., 0] >= NEAR) & (known.rules[..., 0] < TILES) & (known.rules[..., 1] == tile)
        tile = torch.where(changes.any(1, keepdim=True), UNKNOWN, tile)
        return known._replace(tiles=there.scatter(1, behind, tile), cell=cell)

    def _next(self, known: Known, held: Tensor) -> Tensor:
        """Return the next condition, int64 (B, 3)."""
        there = self._is_there(known, held)  # (B, tiles)
        current = known.goal
        for _ in range(DEEPEST):
            for place in (1, 2):
                tile = current[:, place : place + 1]
                makes = (known.rules[..., 3] == tile) & (known.rules[..., 0] > 0)  # (B, R)
                first = makes.to(torch.int64).argmax(1)
                rule = known.rules[torch.arange(len(tile), device=tile.device), first, :3]
                lacks = ~there.gather(1, tile)[:, 0] & (tile[:, 0] > 0) & makes.any(1)
                current = torch.where(lacks[:, None], rule, current)
        return current

    def _is_there(self, known: Known, held: Tensor) -> Tensor:
        """Return which tiles are on the map or in the agent's hand, bool (B, 72)."""
        there = torch.zeros(len(held), tiles.NUMBERS, dtype=torch.bool, device=held.device)
        return there.scatter(1, torch.cat([known.tiles, held[:, None]], 1).clamp_min(0), True)

    def _plan(self, known: Known, held: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target cells, bool (B, width · width), and the action to take when facing one, int64 (B,)."""
        kind, a, b = self._next(known, held).unbind(-1)
        there = self._is_there(known, held)
        where_a, where_b = known.tiles == a[:, None], (known.tiles == b[:, None]) & (b > 0)[:, None]
        floor, unknown = known.tiles == tiles.FLOOR, known.tiles == UNKNOWN
        side = torch.where(kind >= TILES, kind - TILES, kind - NEAR) - 1  # -1: any
        apart = floor & ~(self._sides(~floor, side * 0 - 1))  # floor with nothing next to it
        put_a, put_b = self._sides(where_b, side) & floor, self._sides(where_a, side, back=True) & floor
        stand = self._sides(where_a, side) & tiles.can_be_walked_on(known.tiles)

        pair = kind >= TILES
        carries_a, carries_b = pair & (held == a), pair & (held == b)
        place = torch.where(carries_a[:, None], put_a, put_b & carries_b[:, None])
        # For a pair, fetch a tile that can be put next to the other one, if there is any; a single tile is just moved.
        can_a = tiles.can_be_held(a)[:, None] & where_a & (put_a.any(1) | ~pair)[:, None]
        can_b = tiles.can_be_held(b)[:, None] & where_b & put_b.any(1)[:, None]
        fetch = can_a | (can_b & pair[:, None])
        fetch = torch.where(fetch.any(1)[:, None], fetch, (where_a & tiles.can_be_held(a)[:, None]) | where_b)
        lacks = ~there.gather(1, a[:, None])[:, 0] | (pair & ~there.gather(1, b[:, None])[:, 0])

        aims, deed = fetch, torch.full_like(kind, PICK_UP)
        near = (kind >= NEAR) & ~pair & stand.any(1)
        aims, deed = _choose(near, stand, FORWARD, aims, deed)
        aims, deed = _choose(lacks, unknown, FORWARD, aims, deed)
        away = (held > 0) & ~((carries_a | carries_b) & (lacks | place.any(1)))
        aims, deed = _choose(away, torch.where(apart.any(1)[:, None], apart, floor), PUT_DOWN, aims, deed)
        return _choose((held > 0) & place.any(1), place, PUT_DOWN, aims, deed)

    def _sides(self, cells: Tensor, side: Tensor, back: bool = False) -> Tensor:
        """Return the cells with one of `cells` on a side (-1: any); with `back`, the cells on that side of them."""
        found = torch.zeros_like(cells)
        for each in range(4):
            shift = int(self.beside[each])
            moved = cells.roll(shift if back else -shift, dims=1)
            found = found | (moved & ((side < 0) | (side == each))[:, None])
        return found

    def _towards(self, known: Known, way: Tensor, aims: Tensor, deed: Tensor, key: Key) -> Tensor:
        """Return an action on a short path to the nearest target, or the `deed` if the agent faces one."""
        passable = tiles.can_be_walked_on(known.tiles) | (known.tiles == UNKNOWN)
        distance = self._distance(aims, passable)
        beside = known.cell[:, None] + self.beside  # (B, 4)
        turns = torch.tensor([0, 1, 2, 1], device=way.device)[(torch.arange(4, device=way.device) - way[:, None]) % 4]
        cost = distance.gather(1, beside) + turns
        best, direction = cost.min(1)
        turn = (direction - way) % 4
        there = aims.gather(1, beside.gather(1, direction[:, None]))[:, 0]
        ahead = torch.where(there, deed, FORWARD)
        action = torch.where(turn == 0, ahead, torch.where(turn == 3, TURN_LEFT, TURN_RIGHT))
        on_it = aims.gather(1, known.cell[:, None])[:, 0] & (deed == FORWARD)
        action = torch.where(on_it, FORWARD, action)
        # Take a random step if there is no path, and occasionally, so that no arrangement blocks the agent for ever.
        lost = ((best >= FAR) & ~on_it) | (rng.uniform(rng.fold(key, 0), 1)[:, 0] < WHIM)
        return torch.where(lost, rng.integers(rng.fold(key, 1), 1, TURN_RIGHT + 1)[:, 0], action)

    def _distance(self, aims: Tensor, passable: Tensor) -> Tensor:
        """Return the moves from each cell to the nearest target through passable cells, int64 (B, width · width)."""
        distance = torch.where(aims, 0, FAR).to(torch.int16)
        cost = torch.where(passable, 1, FAR).to(torch.int16)
        for _ in range(self.most_moves):
            for shift in (1, self.width):
                low, high = distance[:, :-shift], distance[:, shift:]
                torch.minimum(high, low + cost[:, shift:], out=high)
                torch.minimum(low, high + cost[:, :-shift], out=low)
        return distance.to(torch.int64)


def _choose(rows: Tensor, aims: Tensor, deed: int, other_aims: Tensor, other_deed: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the targets and the deed in the given rows."""
    return torch.where(rows[:, None], aims, other_aims), torch.where(rows, deed, other_deed)
