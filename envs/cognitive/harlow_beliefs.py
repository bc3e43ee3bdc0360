"""The belief over Harlow's objects: their features, which of them pays, and their current positions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.step import Step

LOOKS = 1e-5
"""Objects whose features differ by less than this are the same."""


class Tape(NamedTuple):
    """The measures of the tape, in cells."""

    cells: int  # of the circle
    apart: int  # from the cross to an object
    reach: int  # that the agent sees to each side


class Objects(NamedTuple):
    """The belief's state: the objects of the trial, and the current round."""

    offset: Tensor  # (B,) int64: cells from the fixation cross to the agent's gaze, the shorter way round
    fixated: Tensor  # (B,) bool: the cross was reached in this round
    looks: Tensor  # (B, 2, F) float32: features of the objects: of that which was on the left at first, and the other
    seen: Tensor  # (B,) bool: the objects were seen
    turned: Tensor  # (B,) bool: the first object is on the right in this round
    chance: Tensor  # (B,) float32: probability that the first object is the right one
    steps: Tensor  # (B,) int64: observed steps, including the first observation


class RightObject(Belief):
    """The belief over which of two objects is right: 1/2 for each until one was chosen, then certain.

    All else that a task holds, the objects' features, is seen at the first fixation. From then on `log_prob` is a log
    mass: that of the two tasks with these objects; before, it is the prior's log density, ``log_density(features)``.

    `features` are where the agent looks (from the cross, over half the tape), whether it has fixated, what the object
    on the right would pay in the mean (0 before the fixation), what the first object would pay, whether the objects
    were seen, and their features.
    """

    def __init__(self, tape: Tape, num_features: int, low: float, high: float) -> None:
        """Create the belief for features with magnitudes uniform in [low, high) and either sign."""
        self.tape, self.num_features, self.low, self.high = tape, num_features, low, high
        self.size = 5 + 2 * num_features

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Objects:
        steps = torch.zeros(rows, dtype=torch.int64, device=device)
        no, looks = steps > 0, torch.zeros(rows, 2, self.num_features, device=device)
        return Objects(steps, no, looks, no, no, torch.full((rows,), 0.5, device=device), steps)

    def posterior(self, belief: Objects, step: Step) -> Objects:
        first, tape = belief.steps == 0, self.tape
        starts = first | (step.prev_done > 0.5)
        moved = torch.where(step.prev_action == 1, -1, torch.where(step.prev_action == 2, 1, 0))
        offset = self._shorter(belief.offset + torch.where(first, 0, moved))
        chance = self._after_choice(belief, offset, step.prev_reward, first)
        cells = step.obs.reshape(len(offset), 2 * tape.reach + 1, -1)
        offset = torch.where(starts, tape.reach - cells[..., 0].argmax(-1), offset)
        fixated = (belief.fixated | (offset == 0)) & ~starts
        shown = fixated & ~belief.fixated
        left, right = cells[:, tape.reach - tape.apart, 1:], cells[:, tape.reach + tape.apart, 1:]
        new = (shown & ~belief.seen)[:, None, None]
        looks = torch.where(new, torch.stack([left, right], dim=1), belief.looks)
        turned = torch.where(shown, _alike(right, looks[:, 0]), belief.turned)
        return Objects(offset, fixated, looks, belief.seen | shown, turned, chance, belief.steps + 1)

    def _after_choice(self, belief: Objects, offset: Tensor, reward: Tensor, first: Tensor) -> Tensor:
        """Return the chance that the first object pays, after the reward of a choice if there was one."""
        chosen = belief.fixated & ~first & (offset.abs() == self.tape.apart) & (reward.abs() > 0.5)
        of_first = (offset > 0) == belief.turned
        return torch.where(chosen, (of_first == (reward > 0.0)).to(torch.float32), belief.chance)

    def _shorter(self, offset: Tensor) -> Tensor:
        half = self.tape.cells // 2
        return (offset + half) % self.tape.cells - half

    def features(self, belief: Objects) -> Tensor:
        first = 2.0 * belief.chance - 1.0
        right = torch.where(belief.fixated, torch.where(belief.turned, first, -first), 0.0)
        shown = [2.0 * belief.offset / self.tape.cells, belief.fixated, right, first, belief.seen]
        numbers = torch.stack([number.to(torch.float32) for number in shown], dim=1)
        return torch.cat([numbers, belief.looks.flatten(1)], dim=1)

    def log_prob(self, belief: Objects, task: Any) -> Tensor:
        one, other = belief.looks.unbind(1)
        as_seen, exchanged = (_alike(task.right, a) & _alike(task.wrong, b) for a, b in ((one, other), (other, one)))
        mass = torch.where(as_seen, belief.chance, torch.where(exchanged, 1.0 - belief.chance, 0.0)).log()
        return torch.where(belief.seen, mass, self._log_density(torch.cat([task.right, task.wrong], dim=1)))

    def _log_density(self, looks: Tensor) -> Tensor:
        inside = (looks.abs() >= self.low) & (looks.abs() <= self.high)
        density = -looks.shape[1] * math.log(2.0 * (self.high - self.low))
        return torch.where(inside.all(-1), density, -torch.inf)


def _alike(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).abs() <= LOOKS).all(-1)
