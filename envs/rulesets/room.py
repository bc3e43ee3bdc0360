"""The types of tasks and states of rulesets."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Ruleset(NamedTuple):
    """A goal, production rules, and the objects that lie in the room at the beginning.

    `metarl.envs.rulesets.tiles` has the numbers of tiles, `metarl.envs.rulesets.rules` those of kinds of conditions.
    """

    goal: Tensor  # (B, 3) int64: kind of condition, 1 … 11; its tiles a and b, 2 … 71, b 0 where it has only one
    rules: Tensor  # (B, R, 4) int64: kind, a, b, product; zeros where there is no rule
    tiles: Tensor  # (B, O) int64: tiles, 2 … 71; 0 where there is none


class Room(NamedTuple):
    """The room with its tiles, and the agent in it."""

    grid: Tensor  # (B, size · size) int64: tiles, line by line from the top
    position: Tensor  # (B,) int64: the number of the agent's cell, size · y + x
    direction: Tensor  # (B,) int64: 0 up, 1 right, 2 down, 3 left
    held: Tensor  # (B,) int64: the tile that the agent holds; 0 none
    time: Tensor  # (B,) int64: steps made
    reached: Tensor  # (B,) bool: the goal was reached with the last step
