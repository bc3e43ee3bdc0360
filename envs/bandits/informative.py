"""Bandits with an arm that tells which of the others pays (Wang et al. 2016)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import gymnasium
import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.enumeration import Enumeration
from metarl.core.checks import within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.bandits.pictures import Arms, Line, Mark
from metarl.envs.bandits.pull import Pull, blank, blank_space, no_pull
from metarl.envs.drawing.sheet import BAD, GOOD


class InformativeArms(NamedTuple):
    """The target arm, and the clue that the last arm pays."""

    target: Tensor  # (B,) int64: the arm that pays 5, from 0 to 9
    clue: Tensor  # (B,) float32: payment of the last arm


class InformativeBandit(TaskFamily[InformativeArms, Pull]):
    """Eleven slot machines, one of which reveals the best of the others: pay for information.

    Description:
        An episode is one pull (horizon 1); a trial is `episodes_per_trial` pulls of the same machines. One of the arms
        0 … 9 is the target. Arm 10 never pays more than the others, but its payment encodes the target, so it is best
        to pull it first and the target from then on. Nothing is random.

    What varies:
        The target, `InformativeArms.target`, and with it the payment of arm 10, `InformativeArms.clue`.

    Splits:
        - `all`: the ten targets, as in the paper, which trains and tests on all of them.
        - `train`, `test`: a fixed partition of these into 8 and 2. The test targets are listed in TEST_TARGETS.
        - `valid`: 2 of the training targets.
        - `ood`: another code, on the training targets, so that nothing else is new: arm 10 pays (10 - target) / 10
          instead of (target + 1) / 10. No target has the same number in both codes.

    Actions:
        ========  ===============================
        action    meaning
        ========  ===============================
        0 … 9     pull this arm, maybe the target
        10        pull the informative arm
        ========  ===============================

    Observations:
        =====  ===================  ======  =====
        index  meaning              range   unit
        =====  ===================  ======  =====
        0      nothing: constant 0  [0, 1]  none
        =====  ===================  ======  =====

    Rewards:
        5 for the target, 1 for the other nine; arm 10 pays 0.1 for target 0 up to 1.0 for target 9 (the paper counts
        from 1: a tenth of the target's number).

    Endings:
        Never terminated; truncated after one step.

    Optimum:
        Known task: 5. Random: (14 + clue) / 11, 1.323 on average over `all`. Bayes-optimal over `all`, 5 pulls: 20.55
        per trial (0.55, then 5 each time); 11.00 for an agent that never pulls arm 10.

    Source:
        Wang et al. 2016, "Learning to reinforcement learn", section 3.1.3 (trials of 5 pulls).

    Version history:
        v0: first version.
    """

    noisy = False
    random_start = False

    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "ood", "all")
    TEST_TARGETS = (0, 7)
    INFORMATIVE = 10

    def __init__(self, episodes_per_trial: int = 5) -> None:
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 1
        self.observation_space = blank_space()
        self.action_space = gymnasium.spaces.Discrete(self.INFORMATIVE + 1)

    def enumerate_tasks(self, split: str) -> InformativeArms:
        """Return every task of the split once, for exact evaluation."""
        held_out = [target in self.TEST_TARGETS for target in range(self.INFORMATIVE)]
        keep = [target for target, held in enumerate(held_out) if split == "all" or held == (split == "test")]
        target = torch.tensor(keep)
        return InformativeArms(target, (10 - target if split == "ood" else target + 1) / 10)

    def check_task(self, task: InformativeArms) -> None:
        within("InformativeArms.target", task.target, 0, self.INFORMATIVE - 1)

    def reset(self, task: InformativeArms, key: Key) -> Pull:
        return no_pull(key)

    def observe(self, task: InformativeArms, state: Pull) -> Tensor:
        return blank(state.reward)

    def step(self, task: InformativeArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        reward = torch.where(action == task.target, 5.0, torch.where(action == self.INFORMATIVE, task.clue, 1.0))
        return Pull(action, reward), reward, torch.zeros_like(action, dtype=torch.bool)

    def belief(self, split: str) -> Belief:
        return Enumeration(self, split)

    def oracle(self, task: InformativeArms) -> Tensor:
        return torch.full_like(task.clue, 5.0)

    def random_return(self, task: InformativeArms) -> Tensor:
        return (14.0 + task.clue) / 11.0

    def sketch(self, task: InformativeArms, episodes: int = 1) -> Sketch[Pull]:
        """Draw one line per arm: its payment as a bar, then its pulls over time with their payments."""
        target, clue = int(task.target[0]), float(task.clue[0])
        pays = [5.0 if arm == target else 1.0 for arm in range(self.INFORMATIVE)] + [clue]
        colours = {target: GOOD, self.INFORMATIVE: "#868e96"}
        return Arms(
            "pays",
            [Line(f"{arm}   {paid:.1f}", paid / 5.0, arm == target) for arm, paid in enumerate(pays)],
            episodes,
            lambda arm, paid: Mark(colours.get(arm, BAD), f"{paid:.1f}"),
            lambda count, total: f"{count} pulls paid {total:.1f}",
            wide=True,
        )
