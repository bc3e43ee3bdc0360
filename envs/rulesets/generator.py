"""Generation of rulesets: a goal, the rules that produce its tiles, and distractors.

The goal's tiles stand at the roots of trees. A tile of a tree either lies in the room from the beginning, or is the
product of a rule, whose tiles are then its branches. No object occurs in two places of the trees, so that a ruleset can
be solved from its initial tiles: every rule needed has inputs that no other rule uses up against one's will.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import Key
from metarl.envs.rulesets.combinations import allowed, possible
from metarl.envs.rulesets.rules import HOLD, KINDS, NEAR, TILES
from metarl.envs.rulesets.tiles import FIRST, OBJECTS, can_be_held

LARGEST = 2**63 - 1
"""Bit mask that clears the sign of a draw."""


class Preset(NamedTuple):
    """The size of rulesets, as XLand-MiniGrid's benchmarks have it."""

    depth: int  # of the trees: most rules between an initial tile and the goal
    prune: float  # probability that a branch ends earlier
    rules: int  # distractors
    tiles: int  # distractors
    trunk: bool = False  # the first tree's first branch is never pruned

    @property
    def most_rules(self) -> int:
        """Largest number of rules in a ruleset."""
        grown = self.depth if self.prune == 1.0 else 2 * (2**self.depth - 1)
        return grown + self.rules

    @property
    def most_tiles(self) -> int:
        """Largest number of initial tiles in a ruleset."""
        grown = self.depth + 2 if self.prune == 1.0 else 2 ** (self.depth + 1)
        return grown + self.tiles


PRESETS = {
    "trivial": Preset(0, 0.0, 0, 3),
    "small": Preset(1, 0.3, 2, 2),
    "medium": Preset(2, 0.1, 3, 2),
    "high": Preset(3, 0.1, 4, 1),
}
CHAIN = Preset(4, 1.0, 4, 1, trunk=True)


def out_of_distribution(preset: str) -> Preset:
    """Return the preset of `ood`: the next one with unpruned trees; after the last, a chain of four rules."""
    names = list(PRESETS)
    place = names.index(preset) + 1
    return PRESETS[names[place]]._replace(trunk=True) if place < len(names) else CHAIN


class Drawn(NamedTuple):
    """Drawn rulesets, padded with zeros."""

    goal: Tensor  # (N, 3) int64: kind, a, b
    rules: Tensor  # (N, R, 4) int64: kind, a, b, product
    tiles: Tensor  # (N, O) int64


def draw(keys: Key, preset: Preset, test: bool, most_rules: int, most_tiles: int) -> Drawn:
    """Draw one ruleset per key ``(N,)``, from the test combinations or from the others."""
    pen = _Draws(keys, allowed(test, keys.device))
    always = torch.ones_like(keys, dtype=torch.bool)
    goal = pen.condition(always)
    level, rules, initial, needed = [goal[:, 1], goal[:, 2]], [], [], [goal[:, 1], goal[:, 2]]
    for _ in range(preset.depth):
        branches = []
        for place, product in enumerate(level):
            grows = pen.chance(1.0 - preset.prune) | (preset.trunk and place == 0)
            grows = grows & (product > 0)
            initial.append(torch.where(grows, 0, product))
            if preset.prune < 1.0 or place == 0:
                made = pen.condition(grows, product)
                rules.append(torch.cat([made, torch.where(grows, product, 0)[:, None]], dim=1))
                branches += [made[:, 1], made[:, 2]]
        level = branches
        needed += branches
    initial += level
    others = [pen.object(pen.free) for _ in range(preset.tiles)]
    rules += [pen.distraction(torch.stack(needed, 1), torch.stack(others, 1)) for _ in range(preset.rules)]
    tiles = _filled(torch.stack(initial + others, 1)[..., None], most_tiles)[..., 0]
    none = torch.zeros(len(keys), 0, 4, dtype=torch.int64, device=keys.device)
    return Drawn(goal, _filled(torch.stack(rules, 1) if rules else none, most_rules), tiles)


def _filled(rows: Tensor, size: int) -> Tensor:
    """Move nonzero entries ``(N, n, k)`` to the front, in order, and cut or pad to `size`."""
    order = (rows[..., :1] == 0).to(torch.int64).argsort(dim=1, stable=True)
    rows = rows.gather(1, order.expand(-1, -1, rows.shape[-1]))[:, :size]
    return torch.nn.functional.pad(rows, (0, 0, 0, size - rows.shape[1]))


class _Draws:
    """Successive draws of kinds and objects, objects without replacement."""

    def __init__(self, keys: Key, allowed: Tensor) -> None:
        self.keys, self.allowed, self.count = keys, allowed, 0
        self.free = torch.ones(len(keys), OBJECTS, dtype=torch.bool, device=keys.device)
        objects = torch.arange(OBJECTS, device=keys.device)
        self.carried = can_be_held(objects + FIRST)

    def chance(self, probability: float) -> Tensor:
        """Return True with this probability: bool (N,)."""
        self.count += 1
        return rng.uniform(rng.fold(self.keys, self.count), 1)[:, 0] < probability

    def _one_of(self, mask: Tensor) -> Tensor:
        """Draw a uniformly random position of a mask ``(N, n)``: int64 (N,)."""
        self.count += 1
        places = torch.arange(mask.shape[1], device=mask.device)
        bits = rng.fold(rng.fold(self.keys, self.count)[:, None], places) & LARGEST  # no ties, unlike uniform draws
        return torch.where(mask, bits, -1).argmax(1)

    def object(self, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Draw a free object where wanted, and mark it as used: int64 (N,), 0 for none."""
        drawn = self._one_of(mask)
        taken = torch.nn.functional.one_hot(drawn, OBJECTS).bool()
        if wanted is not None:
            taken = taken & wanted[:, None]
        self.free = self.free & ~taken
        return torch.where(taken.any(1), drawn + FIRST, 0)

    def _kind(self, product: Tensor | None = None) -> Tensor:
        """Draw a kind; what is made in the agent's hand must be of a shape that it can hold."""
        mask = torch.arange(len(KINDS), device=self.keys.device).expand(len(self.keys), -1) > 0
        if product is not None:
            mask = mask & ((torch.arange(len(KINDS), device=mask.device) != HOLD) | can_be_held(product)[:, None])
        return self._one_of(mask)

    def condition(self, wanted: Tensor, product: Tensor | None = None) -> Tensor:
        """Draw a condition with free objects: int64 (N, 3), kind, a and b; zeros where none is wanted."""
        kind = self._kind(product)
        fits = self.allowed[kind] & self.free[:, None] & self.free[..., None]  # (N, 70, 70)
        a = self.object(fits.any(-1), wanted)
        # With one object a condition stands on the diagonal, and `a` is not free any more.
        row = fits[torch.arange(len(a), device=a.device), (a - FIRST).clamp_min(0)] & self.free
        b = self.object(row, wanted & (kind >= TILES))
        return torch.stack([torch.where(wanted, kind, 0), a, b], dim=1)

    def distraction(self, needed: Tensor, others: Tensor) -> Tensor:
        """Draw a rule that makes something useless: int64 (N, 4).

        It takes one of the `others`, and a needed tile at most where both lie next to each other, so that nobody has to
        meet its condition.
        """
        kind, product = self._kind(), self.object(self.free)
        a = needed.gather(1, self._one_of(needed > 0)[:, None])[:, 0]
        b = others.gather(1, self._one_of(others > 0)[:, None])[:, 0]
        two = kind >= TILES
        a, b = torch.where(two, a, b), torch.where(two, b, 0)
        can = possible().to(kind.device)[kind, a - FIRST, torch.where(two, b, a) - FIRST]
        can = can & ((kind != HOLD) | can_be_held(product))
        nothing = torch.zeros_like(kind)
        near = torch.stack([nothing + NEAR, torch.where(two, b, a), nothing, product], dim=1)  # always possible
        return torch.where(can[:, None], torch.stack([kind, a, b, product], dim=1), near)
