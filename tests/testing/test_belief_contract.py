"""The contract of beliefs finds what it should: each belief here breaks one rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.core.batch_env import Step
from metarl.core.beliefs.enumeration import Candidates, Enumeration
from metarl.envs.grids.grid_navi import GridNavi
from metarl.testing.beliefs import check_beliefs
from metarl.testing.contract import Broken


class Gullible(Enumeration):
    """It never rules a task out."""

    def posterior(self, belief: Candidates, step: Step) -> Candidates:
        return super().posterior(belief, step)._replace(log_mass=belief.log_mass)


class Wrong(Enumeration):
    """It rules out what is right, once something is known."""

    def posterior(self, belief: Candidates, step: Step) -> Candidates:
        after = super().posterior(belief, step)
        left = (after.log_mass > -torch.inf) & (after.log_mass < after.log_mass.amax() + 1.0)
        known = left.sum(-1, keepdim=True) < self.count
        opposite = torch.where(left, -torch.inf, 0.0).log_softmax(-1)
        return after._replace(log_mass=torch.where(known, opposite, after.log_mass))


class TooMuch(Enumeration):
    """Its masses sum to 2."""

    def probs(self, belief: Candidates) -> Tensor:
        return 2.0 * super().probs(belief)


class Prejudiced(Enumeration):
    """It begins with a favourite."""

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Candidates:
        belief = super().prior(rows, device)
        favourite = torch.arange(self.count) == 0
        return belief._replace(log_mass=(belief.log_mass + favourite).log_softmax(-1))


class Sociable(Enumeration):
    """Rows learn from each other."""

    def posterior(self, belief: Candidates, step: Step) -> Candidates:
        after = super().posterior(belief, step)
        return after._replace(log_mass=after.log_mass.logsumexp(0).log_softmax(-1).expand_as(after.log_mass))


class InPlace(Enumeration):
    """It changes the belief that it is given."""

    def posterior(self, belief: Candidates, step: Step) -> Candidates:
        after = super().posterior(belief, step)
        belief.since.add_(1)
        return after


class Fickle(Enumeration):
    """What it shows has another length than it says."""

    def features(self, belief: Candidates) -> Tensor:
        return super().features(belief)[:, 1:] if hasattr(self, "ready") else super().features(belief)


class Grid(GridNavi):
    """`GridNavi` with another belief."""

    kind: Any = Enumeration

    def belief(self, split: str) -> Any:
        belief = self.kind(self, split)
        belief.ready = True
        return belief


FAULTS = {
    Gullible: "after step [0-9]+ the masses are not those of playing every task separately",
    Wrong: "the true task is ruled out",
    TooMuch: "do not sum to 1",
    Prejudiced: "equally likely at first",
    Sociable: "a row of a batch differs from a batch of only that row",
    InPlace: "modifies a belief in place",
    Fickle: "features must be finite float32 of shape",
}


def test_the_right_belief_passes():
    check_beliefs(Grid())


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_wrong_belief_is_found(kind: type):
    family = Grid()
    family.kind = kind
    with pytest.raises(Broken, match=FAULTS[kind]):
        check_beliefs(family)


def test_a_belief_is_a_belief():
    family = Grid()
    family.kind = lambda family, split: torch.nn.Linear(1, 1)
    with pytest.raises(Broken, match=r"^Grid\.belief\('train'\) must be a Belief or None, got Linear\.$"):
        check_beliefs(family)
