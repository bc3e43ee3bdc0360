"""Tiles: floor, wall, and seven shapes in ten colours, each a number.

0 is floor (in a task: nothing), 1 is wall, and 2 + 10 · shape + colour is an object.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from metarl.core.errors import unknown

SHAPES = ("ball", "square", "pyramid", "key", "star", "hex", "goal")
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey", "white", "brown", "pink", "orange")
FLOOR, WALL, FIRST = 0, 1, 2
OBJECTS = len(SHAPES) * len(COLOURS)
"""Number of different objects."""
NUMBERS = FIRST + OBJECTS
"""Number of different tiles, including floor and wall."""
GOALS = FIRST + SHAPES.index("goal") * len(COLOURS)
"""First tile of the shape goal; the agent can walk over such tiles, but not pick them up."""
FEATURES = 1 + len(SHAPES) + len(COLOURS)
"""Length of the one-hot encoding of a tile."""


def tile(shape: str, colour: str) -> int:
    """Return the number of an object. Raises ValueError for an unknown shape or colour."""
    for kind, given, known in (("shape", shape, SHAPES), ("colour", colour, COLOURS)):
        if given not in known:
            raise ValueError(unknown(kind, given, known))
    return FIRST + SHAPES.index(shape) * len(COLOURS) + COLOURS.index(colour)


def tile_name(number: int) -> str:
    """Return the name of a tile: ``floor``, ``wall``, ``red ball``."""
    if number < FIRST:
        return ("floor", "wall")[number]
    shape, colour = divmod(number - FIRST, len(COLOURS))
    return f"{COLOURS[colour]} {SHAPES[shape]}"


def can_be_held(tiles: Tensor) -> Tensor:
    """Return which tiles can be picked up: all shapes but goal."""
    return (tiles >= FIRST) & (tiles < GOALS)


def can_be_walked_on(tiles: Tensor) -> Tensor:
    """Return which tiles the agent can walk on: floor and goal."""
    return (tiles == FLOOR) | (tiles >= GOALS)


@functools.cache
def pairs(device: torch.device) -> Tensor:
    """Return the tile (0 floor, 1 wall, 2 … 8 shapes) and colour (0 none, 1 … 10) of each number: float32 (72, 2)."""
    rows = [(0, 0), (1, 0)] + [(2 + shape, 1 + colour) for shape, colour in _objects()]
    return torch.tensor(rows, dtype=torch.float32, device=device)


@functools.cache
def one_hot(device: torch.device) -> Tensor:
    """Return the encoding of each number: wall, seven shapes, ten colours; floor is all zeros. float32 (72, 18)."""
    table = torch.zeros(NUMBERS, FEATURES)
    table[WALL, 0] = 1
    for number, (shape, colour) in enumerate(_objects(), start=FIRST):
        table[number, 1 + shape] = table[number, 1 + len(SHAPES) + colour] = 1
    return table.to(device)


def _objects() -> list[tuple[int, int]]:
    """Return the shape and colour of every object, in the order of their numbers."""
    return [(shape, colour) for shape in range(len(SHAPES)) for colour in range(len(COLOURS))]
