"""A bandit whose arms change while it is played."""

from __future__ import annotations

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.bandits.pull import blank, blank_space
from metarl.envs.bandits.walk import Walk as Walk
from metarl.envs.bandits.walk_beliefs import WanderingArms
from metarl.envs.drawing.sheet import Sheet, pixels


class WalkState(NamedTuple):
    """The time within a trial, and its last pull."""

    pulls: Tensor  # (B,) int64: pulls made so far
    arm: Tensor  # (B,) int64: the last pull; -1 before the first
    reward: Tensor  # (B,) float32: its payment


class RestlessBandit(TaskFamily[Walk, WalkState]):
    """Two slot machines whose probabilities drift; keep learning which one is better now.

    Description:
        A trial is one episode of `horizon` pulls, unlike in the stationary bandits, where each pull is an episode: here
        the machines have a state, the time. Knowledge becomes outdated, so the agent must forget at the right rate.
        Payments do not influence the walk, so a task contains the whole walk. Further episodes of a trial repeat it.

    What varies:
        The path of the two probabilities, `Walk.probs`: p ~ U[0, 1) independently for the first pull, then one
        step ~ N(0, step_size²) before each pull, reflected at 0 and 1. At each pull, p is still uniform.

    Splits:
        - `train`, `valid`, `test`: paths with steps of `step_size`, in disjoint random streams.
        - `ood`: steps three times as large. The root mean square of a path's steps distinguishes the two: with 100
          pulls of two arms, its relative spread is about 5 %.

    Actions:
        ======  =============
        action  meaning
        ======  =============
        0, 1    pull this arm
        ======  =============

    Observations:
        =====  ===================  ======  =====
        index  meaning              range   unit
        =====  ===================  ======  =====
        0      nothing: constant 0  [0, 1]  none
        =====  ===================  ======  =====

    Rewards:
        1 with the probability that the pulled arm has at this pull, otherwise 0.

    Endings:
        Never terminated; truncated after `horizon` pulls.

    Optimum:
        Known task: the sum of max p over the path, exact per task; 66.7 (two thirds of the pulls) on average. Random:
        the sum of mean p, exact per task; 50 on average. Knowing and always pulling the arm that is better overall:
        59.4.

    Differs from the source:
        =================  ==============  =======================
        what               here            there
        =================  ==============  =======================
        steps of the walk  0.1; an option  0.025 (Daw et al. 2011)
        =================  ==============  =======================

    Source:
        Whittle 1988, "Restless bandits"; Wang et al. 2016, "Learning to reinforcement learn", section 3.1.4, for
        meta-learning. The papers' walks differ: Daw et al. 2011 take steps of 0.025, with which the better arm changes
        2.7 times in 100 pulls and forgetting does not pay. With the default of 0.1, it changes 10.5 times.

    Version history:
        v0: first version.
    """

    random_start = False

    def __init__(self, step_size: float = 0.1, horizon: int = 100, episodes_per_trial: int = 1) -> None:
        if not 0 < step_size < math.inf:
            raise ValueError(f"step_size must be a positive number, got {step_size!r}.")
        self.step_size = float(step_size)
        self.horizon = whole_number("horizon", horizon, least=2)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.observation_space = blank_space()
        self.action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys: Key, split: str) -> Walk:
        size = 3.0 * self.step_size if split == "ood" else self.step_size
        first = rng.uniform(rng.fold(keys, 0), 2)[..., None]
        steps = size * rng.normal(rng.fold(keys, 1), 2 * (self.horizon - 1)).reshape(len(keys), 2, self.horizon - 1)
        # Reflecting at every step is the same as folding the free walk into [0, 1] afterwards.
        free = torch.cat([first, first + steps.cumsum(-1)], dim=-1).remainder(2.0)
        return Walk(torch.minimum(free, 2.0 - free), torch.full_like(first[:, 0, 0], size))

    def check_task(self, task: Walk) -> None:
        within("Walk.probs", task.probs, 0, 1)
        possible(task.step_size >= 0, "Walk.step_size must be at least 0.")

    def reset(self, task: Walk, key: Key) -> WalkState:
        return WalkState(torch.zeros_like(key), torch.full_like(key, -1), task.probs.new_zeros(len(key)))

    def observe(self, task: Walk, state: WalkState) -> Tensor:
        return blank(state.reward)

    def step(self, task: Walk, state: WalkState, action: Tensor, key: Key) -> tuple[WalkState, Tensor, Tensor]:
        rows = torch.arange(len(action), device=action.device)
        probs = task.probs[rows, action, state.pulls]
        reward = (rng.uniform(key, 1)[:, 0] < probs).to(torch.float32)
        return WalkState(state.pulls + 1, action, reward), reward, torch.zeros_like(action, dtype=torch.bool)

    def belief(self, split: str) -> Belief | None:
        """Return a belief on a grid for trials of one episode and no task list (later episodes repeat the path)."""
        if self.episodes_per_trial > 1 or self.num_tasks(split) is not None:
            return None
        return WanderingArms(3.0 * self.step_size if split == "ood" else self.step_size, self.horizon)

    def oracle(self, task: Walk) -> Tensor:
        return task.probs.amax(1).sum(-1)

    def random_return(self, task: Walk) -> Tensor:
        return task.probs.mean(1).sum(-1)

    def sketch(self, task: Walk, episodes: int = 1) -> Sketch[WalkState]:
        """Draw both probabilities over time, and each pull on its arm's curve: filled if it paid, else hollow."""
        return _Paths(task.probs[0].tolist())


class _Paths(Sketch[WalkState]):
    """Both paths with their pulls; earlier episodes are paler."""

    LEFT, TOP, HIGH, COLOURS = 44, 40, 260, ("#1971c2", "#e8590c")  # pixels

    def __init__(self, probs: list[list[float]]) -> None:
        self.probs, pulls = probs, len(probs[0])
        self.width = max(4, min(24, 900 // pulls))  # of one pull
        self.sheet = Sheet(self.LEFT + max(self.width * pulls, 380) + 16, self.TOP + self.HIGH + 34)
        ground = self.sheet.ground
        for p in (0.0, 0.5, 1.0):
            y = self._place(0, p)[1]
            ground.line((self.LEFT, y, self.sheet.width - 10, y), fill="#dddddd")
            ground.text((10, y - 8), f"{p:.1f}", fill="#666666", font_size=13)
        ground.text((self.LEFT, 8), "pays with p:", fill="black", font_size=14)
        for arm, path in enumerate(probs):
            ground.text((self.LEFT + 95 + 60 * arm, 8), f"arm {arm}", fill=self.COLOURS[arm], font_size=14)
            ground.line([self._place(t, p) for t, p in enumerate(path)], fill=self.COLOURS[arm], width=1)
        ground.text((self.LEFT, self.TOP + self.HIGH + 10), f"time: {pulls} pulls", fill="#666666", font_size=13)
        self.pulls, self.won = 0, 0.0

    def add(self, state: WalkState, first: bool = False) -> None:
        if first:
            self.sheet.fade()
            self.pulls, self.won = 0, 0.0
        arm = int(state.arm[0])
        if arm < 0:
            return
        t, paid = int(state.pulls[0]) - 1, float(state.reward[0])
        self.pulls, self.won = self.pulls + 1, self.won + paid
        x, y = self._place(t, self.probs[arm][t])
        colour = self.COLOURS[arm]
        self.sheet.pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour if paid else "white", outline=colour)

    def image(self) -> np.ndarray:
        image, draw = self.sheet.with_marks()
        draw.text((self.LEFT + 230, 8), f"{self.pulls} pulls, {self.won:.0f} paid", fill="black", font_size=14)
        return pixels(image)

    def _place(self, t: int, p: float) -> tuple[float, float]:
        return self.LEFT + self.width * (t + 0.5), self.TOP + self.HIGH * (1.0 - p)
