"""Grids of cells: spaces, moves, parts of the cells for splits, planning, random walks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.places import Ground
from metarl.envs.drawing.cells import Cells, Frame, xy

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # stay, up, right, down, left
STEPS = MOVES[1:]  # of mazes, which have no action to stay
MOVE_NAMES = ("stay", "up", "right", "down", "left")
STEP_NAMES = MOVE_NAMES[1:]


class Cell(NamedTuple):
    """The agent's cell."""

    position: Tensor  # (B, 2) int64: x, y


def grid_spaces(size: int) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Discrete]:
    """Return the spaces of observations (x and y) and actions (indices into `MOVES`)."""
    return gymnasium.spaces.Box(0.0, size - 1.0, (2,), np.float32), gymnasium.spaces.Discrete(len(MOVES))


@functools.cache
def moves(device: torch.device) -> Tensor:
    """Return `MOVES` as a tensor ``(5, 2)``."""
    return torch.tensor(MOVES, device=device)


@functools.cache
def steps(device: torch.device) -> Tensor:
    """Return `STEPS` as a tensor ``(4, 2)``."""
    return torch.tensor(STEPS, device=device)


def cells(size: int) -> list[tuple[int, int]]:
    """Return all cells (x, y) in the order of their index size · y + x."""
    return [(x, y) for y in range(size) for x in range(size)]


def fixed_part(every: list[tuple[int, int]], split: str, test: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Return the goals of `train`, `test` or `all`."""
    return [cell for cell in every if split == "all" or (cell in test) == (split == "test")]


def plan(
    goal: Tensor, size: int, horizon: int, start: tuple[int, int], miss: float, backup: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the exact expected return from `start` (B,); `backup` maps action values to a state value."""
    every = torch.tensor(cells(size), device=goal.device)  # (S, 2)
    after = (every[:, None] + moves(goal.device)).clamp(0, size - 1)  # (S, 5, 2)
    after_index = size * after[..., 1] + after[..., 0]
    # Solve for every goal of the grid, then look up: there are fewer goals than rows.
    reward = torch.where(torch.eye(size**2, dtype=torch.bool, device=goal.device), 1.0, miss)  # (goal, S), on arrival
    value = torch.zeros_like(reward)
    for _ in range(horizon):
        value = backup((reward + value)[:, after_index])
    return value[size * goal[:, 1] + goal[:, 0], size * start[1] + start[0]]


def towards(goal: Tensor, position: Tensor) -> Tensor:
    """Return the index (B,) in `MOVES` of the next move from `position` (B, 2) to `goal`: first along x, then y."""
    right, up = (goal - position).sign().unbind(-1)
    along_x = torch.where(right > 0, 2, 4)
    along_y = torch.where(up > 0, 1, torch.where(up < 0, 3, 0))
    return torch.where(right == 0, along_y, along_x)


def all_towards(goal: Tensor, position: Tensor) -> Tensor:
    """Return which of `MOVES` lead from `position` (B, 2) towards `goal`, bool (B, 5); at the goal, only to stay."""
    right, up = (goal - position).unbind(-1)
    return torch.stack([(right == 0) & (up == 0), up > 0, right > 0, up < 0, right < 0], dim=-1)


def room(goal: Tensor, size: int, horizon: int) -> Cells[Cell]:
    """Return the picture of a square room: cells with visit counts, the paths, and a red frame around the goal."""
    return Cells(cells(size), 360 // size, horizon, position, [Frame(xy(goal), "#e03131")])


def floor(size: int, places: Callable[[Any], dict[str, Tensor]]) -> Ground:
    """Return the drawing grid of a square room."""
    return Ground((0.0, 0.0), size, size, 1.0, places)


def room_in_letters(size: int, obs: Tensor) -> str:
    """Draw a square room as text with the agent, @, at ``obs[:2]`` (x and y); y grows upwards."""
    x, y = (round(number) for number in obs[:2].tolist())
    return "\n".join(" ".join(".@"[(x, y) == (i, j)] for i in range(size)) for j in reversed(range(size)))


def view_in_letters(walls: Tensor) -> str:
    """Draw the 3 × 3 cells around the agent, @, as text from ``walls`` (9,), row by row from the top; # is wall."""
    letters = [".#"[wall] for wall in (walls > 0.5).tolist()]
    letters[4] = "@"
    return "\n".join(" ".join(letters[at : at + 3]) for at in (0, 3, 6))


def position(state: Cell) -> tuple[int, int]:
    """Return the agent's cell in one row."""
    return xy(state.position)


@functools.cache
def hitting(size: int, horizon: int) -> Tensor:
    """Return the hitting probability of random actions within 0 … horizon moves: (horizon + 1, goal, start)."""
    every = torch.tensor(cells(size))  # (S, 2)
    after = cell_number((every[:, None] + moves(every.device)).clamp(0, size - 1), size)  # (S, 5)
    goal = torch.eye(size**2, dtype=torch.bool)
    within = [torch.zeros(size**2, size**2)]
    for _ in range(horizon):
        within.append(torch.where(goal, 1.0, within[-1])[:, after].mean(-1))
    return torch.stack(within)


def cell_number(cell: Tensor, size: int) -> Tensor:
    """Return a cell's index, size · y + x, as in `cells`."""
    return size * cell[..., 1] + cell[..., 0]


def moved(position: Tensor, actions: Tensor, action: Tensor, size: int) -> Tensor:
    """Return the cell after `action`, permuted by a task's `actions` (B, 5); walls stop the move."""
    move = moves(action.device)[actions.gather(1, action[:, None])[:, 0]]
    return (position + move).clamp(0, size - 1)


@functools.cache
def random_part(count: int, held_out: int, seed: int, split: str) -> Tensor:
    """Return the sorted indices of a split's tasks among `count`; `test` has `held_out` fixed ones."""
    held = torch.zeros(count, dtype=torch.bool)
    held[rng.permutation(rng.key(seed), count)[:held_out]] = True
    kept = torch.ones_like(held) if split == "all" else held if split == "test" else ~held
    return kept.nonzero()[:, 0]


@functools.cache
def with_actions(count: int, split: str) -> tuple[Tensor, Tensor]:
    """Return the rows of `count` tasks and their action maps: in `ood` every task with every derangement."""
    orders = list(itertools.permutations(range(len(MOVES))))
    if split == "ood":
        orders = [order for order in orders if all(move != action for action, move in enumerate(order))]
    else:
        orders = orders[:1]  # the identity
    return torch.arange(count).repeat_interleave(len(orders)), torch.tensor(orders).repeat(count, 1)
