"""A lower bound on the steps to a goal, given the positions of the objects; cached by the room's size.

The room is assumed to be empty: other objects are no obstacles. Every plan needs at least the counted steps.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from metarl.envs.rulesets.rules import HOLD, KINDS, NEAR, TILES, opposite

FAR = 10_000
"""A distance longer than every path."""
SIDES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # up, right, down, left: x and y, downwards


class Rooms:
    """Distances in an empty room of ``n × n`` free cells. A pose is 4 · cell + direction."""

    def __init__(self, n: int) -> None:
        self.n = n
        number = torch.arange(n * n)
        x, y = number % n, number // n
        beside = []
        for dx, dy in SIDES:
            inside = (x + dx >= 0) & (x + dx < n) & (y + dy >= 0) & (y + dy < n)
            beside.append(torch.where(inside, number + dx + n * dy, -1))
        self.beside = torch.stack(beside, 1)  # (cells, 4): the neighbour on each side, -1 for the wall
        self.moves = self._moves()
        self.facing = self._facing()

    def _moves(self) -> Tensor:
        """Return the steps from every pose to every pose: int64 (poses, poses)."""
        poses = 4 * self.n**2
        pose = torch.arange(poses)
        cell, way = pose // 4, pose % 4
        ahead = self.beside[cell, way]
        after = torch.stack([
            torch.where(ahead >= 0, 4 * ahead + way, pose), 4 * cell + (way + 1) % 4, 4 * cell + (way - 1) % 4
        ])  # fmt: skip
        distance = torch.full((poses, poses), FAR)
        distance[pose, pose] = 0
        while True:
            shorter = torch.minimum(distance, 1 + distance[after].amin(0))
            if torch.equal(shorter, distance):
                return distance
            distance = shorter

    def _facing(self) -> Tensor:
        """Return the poses that face each cell, one per direction, -1 for none: int64 (cells, 4)."""
        ways = range(4)
        from_there = torch.stack([self.beside[:, opposite(way)] for way in ways], 1)
        return torch.where(from_there >= 0, 4 * from_there + torch.arange(4), -1)

    def to_face(self) -> Tensor:
        """Return the steps from every pose until it faces a cell: int64 (poses, cells)."""
        return torch.where(self.facing >= 0, self.moves[:, self.facing], FAR).amin(-1)

    def to_face_beside(self, sides: list[int]) -> Tensor:
        """Return the steps from every pose until it faces a cell on one of these sides of a cell: (poses, cells)."""
        target = self.beside[:, sides]  # (cells, sides)
        return torch.where(target >= 0, self.to_face()[:, target], FAR).amin(-1)

    def to_stand(self, sides: list[int]) -> Tensor:
        """Return the steps from every pose until a cell lies on one of these sides of it: int64 (poses, cells)."""
        to_cell = self.moves.reshape(len(self.moves), -1, 4).amin(-1)
        place = self.beside[:, [opposite(side) for side in sides]]
        return torch.where(place >= 0, to_cell[:, place], FAR).amin(-1)

    def after_taking(self, onward: Tensor) -> Tensor:
        """Steps to take a first thing and then do with the second what `onward` ``(poses, cells)`` counts.

        int64 (poses, cells of the first, cells of the second).
        """
        best = torch.full((len(self.moves), self.n**2, self.n**2), 3 * FAR)
        for way in range(4):
            pose = self.facing[:, way]
            there = torch.where(pose >= 0, self.moves[:, pose], FAR)  # (poses, cells)
            best = torch.minimum(best, there[..., None] + 1 + onward[pose.clamp_min(0)])
        return best


def steps_needed(room: Rooms, kind: int) -> Tensor:
    """Return a bound of the steps to a goal: int64 (poses, cells of a), or with two tiles (poses, cells of a, of b)."""
    sides, take = _sides_of(kind), room.to_face() + 1
    if kind == HOLD:
        return take
    if kind < TILES:  # or it is put where it can be stood next to
        return torch.minimum(room.to_stand(sides).clamp_min(1), take + 2)
    # One of the two is brought to the other, or both are taken, one after the other, and put down.
    a_to_b = room.after_taking(room.to_face_beside([opposite(side) for side in sides]) + 1)
    b_to_a = room.after_taking(room.to_face_beside(sides) + 1)
    in_turn = room.after_taking(take) + 2
    return torch.minimum(torch.minimum(a_to_b, in_turn), torch.minimum(b_to_a, in_turn).transpose(1, 2))


@functools.cache
def fewest_steps(n: int) -> tuple[Tensor, ...]:
    """Return, per kind, the fraction of starts with a bound of 0, 1, 2 … steps, float32; positions are uniform."""
    room = Rooms(n)
    cells = torch.arange(n * n)
    apart = cells.repeat_interleave(4)[:, None] != cells  # (poses, cells): the agent never stands on an object
    both = apart[:, None] & apart[..., None] & (cells[:, None] != cells)
    shares = [torch.ones(1)]
    for kind in range(1, len(KINDS)):
        need = steps_needed(room, kind)
        need = need[apart if kind < TILES else both]
        shares.append(need.bincount().to(torch.float32) / len(need))
    return tuple(shares)


def _sides_of(kind: int) -> list[int]:
    """Return the sides that a kind checks."""
    side = (kind - NEAR if kind < TILES else kind - TILES) - 1
    return [0, 1, 2, 3] if side < 0 else [side]


@functools.cache
def most_return(n: int, horizon: int, device: torch.device) -> Tensor:
    """Return an upper bound of the expected return for each kind of goal, without rules: float32 (kinds,)."""
    bounds = []
    for shares in fewest_steps(n):
        steps = torch.arange(len(shares))
        pays = torch.where(steps <= horizon, 1.0 - 0.9 * steps / horizon, 0.0)
        bounds.append((shares * pays).sum())
    return torch.stack(bounds).to(device)
