"""Conditions over tiles: they are goals, and trigger production rules, which turn tiles into another.

A condition is a kind with one or two tiles, `a` and `b`. It is checked after the action that can fulfil it:

- AgentHold(a): `a` was just picked up.
- AgentNear(a): after the action forward (also where something is in the way), `a` is next to the agent.
- TileNear(a, b): one of them was just put down, and the other is next to it.

With a direction, `a` must lie on that side of the agent, or `b` on that side of `a`: AgentNearUp(a) has `a` above the
agent, TileNearUp(a, b) has `b` above `a`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.envs.rulesets.tiles import FLOOR, tile_name

SIDES = ("Up", "Right", "Down", "Left")
"""Directions, in the order in which the agent turns right."""
KINDS = (
    "none", "AgentHold",
    "AgentNear", *(f"AgentNear{side}" for side in SIDES),
    "TileNear", *(f"TileNear{side}" for side in SIDES),
)  # fmt: skip
"""Kinds of conditions, by their number; 0 is never met."""
HOLD, NEAR, TILES = KINDS.index("AgentHold"), KINDS.index("AgentNear"), KINDS.index("TileNear")


class Scene(NamedTuple):
    """The tiles that conditions check after an action, and the effect of the action."""

    held: Tensor  # (B,) int64: the tile that the agent holds; 0 none
    here: Tensor  # (B,) int64: the tile that was just put down; -1 if none was
    around: Tensor  # (B, 4) int64: the tiles around it, or around the agent where none was put down; as in SIDES
    taken: Tensor  # (B,) bool: a tile was picked up
    forward: Tensor  # (B,) bool: the action was forward


def kind_number(name: str) -> int:
    """Return the index of a kind."""
    return KINDS.index(name)


def condition_name(kind: int, a: int, b: int) -> str:
    """Format a condition: ``AgentHold(red ball)``, ``TileNearUp(red ball, blue key)``."""
    return f"{KINDS[kind]}({', '.join(tile_name(each) for each in ((a, b) if kind >= TILES else (a,)))})"


def opposite(side: int) -> int:
    """Return the opposite side."""
    return (side + 2) % 4


@functools.cache
def _sides(device: torch.device) -> Tensor:
    """Return the sides on which a kind checks for a tile: bool (2, kinds, 4).

    The first table is for a kind's `b` around `a`, and for the tile around the agent; the second for `a` around `b`.
    """
    table = torch.zeros(2, len(KINDS), 4, dtype=torch.bool)
    table[:, NEAR] = table[:, TILES] = True
    for side in range(4):
        table[:, NEAR + 1 + side, side] = True
        table[0, TILES + 1 + side, side] = table[1, TILES + 1 + side, opposite(side)] = True
    return table.to(device)


def met(kind: Tensor, a: Tensor, b: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
    """Return which conditions ``(B, R)`` are met: by the held tile, (B, R), and by those around, (B, R, 4), bool."""
    is_a, is_b = scene.here[:, None] == a, scene.here[:, None] == b
    agents, tiles = (kind >= NEAR) & (kind < TILES), kind >= TILES
    sought = torch.where(tiles & is_a, b, a)
    sides = _sides(kind.device)[(~is_a).to(torch.int64), kind]
    able = (agents & scene.forward[:, None]) | (tiles & (is_a | is_b))
    around = (scene.around[:, None] == sought[..., None]) & sides & able[..., None]
    return (kind == HOLD) & scene.taken[:, None] & (scene.held[:, None] == a), around


def is_met(goal: Tensor, scene: Scene) -> Tensor:
    """Return in which rows a goal ``(B, 3)`` of kind, a and b is met: bool (B,)."""
    held, around = met(goal[:, :1], goal[:, 1:2], goal[:, 2:], scene)
    return (held | around.any(-1))[:, 0]


def produce(rules: Tensor, scene: Scene) -> Scene:
    """Apply the first of the rules ``(B, R, 4)``, of kind, a, b and product, whose condition is met.

    A tile that the agent holds, or that is near it, becomes the product. Of two tiles, the one that was put down
    becomes the product and the other one floor. If several tiles match, the first side in order is used.
    """
    kind, a, b, product = rules.unbind(-1)
    held, around = met(kind, a, b, scene)
    first = (held | around.any(-1)).to(torch.int64).argmax(-1, keepdim=True)  # (B, 1): 0 where none is
    kind, product, held = kind.gather(1, first), product.gather(1, first), held.gather(1, first)[:, 0]
    around = around.gather(1, first[..., None].expand(-1, -1, 4))[:, 0]
    around = around & (around.cumsum(-1) == 1)
    tiles = kind >= TILES  # (B, 1)
    return Scene(
        torch.where(held, product[:, 0], scene.held),
        torch.where(around.any(-1) & tiles[:, 0], product[:, 0], scene.here),
        torch.where(around, torch.where(tiles, FLOOR, product), scene.around),
        scene.taken,
        scene.forward,
    )
