"""Combinations of a condition's kind and its tiles, with a fixed split into training and test."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from metarl.core import rng
from metarl.envs.rulesets.rules import HOLD, KINDS, NEAR, TILES
from metarl.envs.rulesets.tiles import FIRST, OBJECTS, can_be_held

HELD_OUT = 0.2
"""Fraction of combinations that are reserved for `test`."""
SEED = 2023


def group(kind: int) -> int:
    """Return the group of a kind; kinds that are equal with exchanged tiles (up/down, right/left) share one."""
    return kind if kind <= TILES + 2 else kind - 2


@functools.cache
def held_out() -> Tensor:
    """Return which combinations of a kind and two objects are reserved for `test`: bool (kinds, 70, 70), symmetric.

    A combination is a kind's `group` with an unordered pair of objects, or with one object, which stands on the
    diagonal. It is held out if its own draw says so.
    """
    objects = torch.arange(OBJECTS)
    low, high = torch.minimum(objects[:, None], objects), torch.maximum(objects[:, None], objects)
    groups = torch.tensor([group(kind) for kind in range(len(KINDS))])
    address = (groups[:, None, None] * OBJECTS + low) * OBJECTS + high
    return rng.uniform(rng.fold(rng.key(SEED), address), 1)[..., 0] < HELD_OUT


@functools.cache
def possible() -> Tensor:
    """Return which objects a condition can have so that it can always be met: bool (kinds, 70, 70).

    Kinds with one object have it on the diagonal, those with two never. What has to lie on a certain side, next to a
    wall perhaps, must be of a shape that can be carried away; of two tiles without a side one of them is enough.
    """
    carried = can_be_held(torch.arange(OBJECTS) + FIRST)
    one = torch.eye(OBJECTS, dtype=torch.bool)
    table = torch.zeros(len(KINDS), OBJECTS, OBJECTS, dtype=torch.bool)
    table[HOLD : NEAR + 5] = one & carried
    table[NEAR] = one
    table[TILES:] = ~one & carried & carried[:, None]
    table[TILES] = ~one & (carried | carried[:, None])
    return table


@functools.cache
def allowed(test: bool, device: torch.device) -> Tensor:
    """Return the combinations of `test`, or of the other splits: bool (kinds, 70, 70) by kind, a and b."""
    return (possible() & (held_out() == test)).to(device)
