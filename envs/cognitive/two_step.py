"""The two-step decision task, which distinguishes model-based planning from repeating rewarded actions."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.cognitive.two_step_beliefs import BetterState, ListedRounds
from metarl.envs.cognitive.two_step_rules import COMMON
from metarl.envs.cognitive.two_step_rules import PAYS as PAYS
from metarl.envs.cognitive.two_step_rules import SWITCH as SWITCH
from metarl.envs.cognitive.two_step_rules import Rounds as Rounds
from metarl.envs.cognitive.two_step_rules import better_states as better_states
from metarl.envs.drawing.sheet import Sheet, pixels


class RoundState(NamedTuple):
    """The state of a trial."""

    current: Tensor  # (B,) int64: 0 first state, 1 or 2 second states
    better: Tensor  # (B,) int64: the better second state, 1 or 2, in this round
    round: Tensor  # (B,) int64: rounds finished
    action: Tensor  # (B,) int64: the choice in the first state of this round or, there, of the last; -1 before
    reward: Tensor  # (B,) float32: the last reward


class TwoStep(TaskFamily[Rounds, RoundState]):
    """Choose between two actions, each of which usually leads to its own state; the better state changes over time.

    Description:
        A round has two steps. In the first state S1 the agent chooses; its choice leads to S2 or S3. The step there
        pays or does not, whatever the action, and leads back to S1. Which of the two states pays more often switches
        occasionally. After a reward that followed an uncommon transition, an agent that plans changes its choice, and
        one that repeats what paid does not: `stay_probabilities` shows which. A trial is one episode of `rounds` rounds
        (2 · rounds steps), since the better state carries over from round to round; further episodes of a trial repeat
        the rounds.

    What varies:
        Which second state is better in each round: either one at first, then a switch before each round with
        probability 0.025. `Rounds.luck` determines it (`better_states` returns the states): no two tasks are equal, but
        8 % of them never switch in 100 rounds. In `ood`, also where the actions lead, `Rounds.common`.

    Splits:
        - `train`, `valid`, `test`: action 0 commonly leads to S2, action 1 to S3; in disjoint random streams.
        - `ood`: the actions are swapped: action 0 commonly leads to S3, action 1 to S2.

    Actions:
        ======  ======================================  ==========
        action  meaning in S1                           in S2, S3
        ======  ======================================  ==========
        0       to S2 with probability 0.8, else to S3  no meaning
        1       to S3 with probability 0.8, else to S2  no meaning
        ======  ======================================  ==========

    Observations:
        =====  ==========================  ======  =====
        index  meaning                     range   unit
        =====  ==========================  ======  =====
        0 … 2  one-hot of S1, S2, S3       {0, 1}  none
        =====  ==========================  ======  =====

    Rewards:
        For the step in S2 or S3: 1 with probability 0.9 in the better state and 0.1 in the other, otherwise 0. For the
        step in S1: 0.

    Endings:
        Never terminated; truncated after 2 · rounds steps.

    Optimum:
        Known task (the better state of every round): 0.74 per round, 74 for 100. Random: 0.5 per round, 50.
        Bayes-optimal for an agent that knows the rules: 70.586 for 100 rounds; both second states are equally
        informative about which is better, so it always acts greedily on its belief.

    Source:
        Daw et al. 2011, "Model-based influences on humans' choices and striatal prediction errors"; Wang et al. 2016,
        "Learning to reinforcement learn", section 3.2.1, whose version this is: no choice in the second states, and
        payments that switch instead of drifting.

    Version history:
        v0: first version.
    """

    random_start = False

    def __init__(self, rounds: int = 100, episodes_per_trial: int = 1) -> None:
        self.rounds = whole_number("rounds", rounds)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 2 * rounds
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys: Key, split: str) -> Rounds:
        common = torch.tensor([2, 1] if split == "ood" else [1, 2], device=keys.device)
        return Rounds(rng.uniform(keys, self.rounds), common.expand(len(keys), 2))

    def check_task(self, task: Rounds) -> None:
        within("Rounds.luck", task.luck, 0, 1)
        within("Rounds.common", task.common, 1, 2)
        possible(task.common[:, 0] != task.common[:, 1], "The two states of Rounds.common must differ.")

    def reset(self, task: Rounds, key: Key) -> RoundState:
        zeros = torch.zeros_like(key)
        return RoundState(zeros, better_states(task)[:, 0], zeros, zeros - 1, zeros.to(torch.float32))

    def observe(self, task: Rounds, state: RoundState) -> Tensor:
        return (state.current[:, None] == torch.arange(3, device=state.current.device)).to(torch.float32)

    def step(self, task: Rounds, state: RoundState, action: Tensor, key: Key) -> tuple[RoundState, Tensor, Tensor]:
        rows = torch.arange(len(action), device=action.device)
        choosing = state.current == 0
        u = rng.uniform(key, 1)[:, 0]  # a step has one chance event: the transition or the reward
        common = task.common[rows, action]
        second = torch.where(u < COMMON, common, 3 - common)
        pays = torch.where(state.current == state.better, PAYS[1], PAYS[0])
        reward = (~choosing & (u < pays)).to(torch.float32)
        finished = state.round + (~choosing)
        switches = ~choosing & (task.luck[rows, finished.clamp_max(self.rounds - 1)] < SWITCH)
        better = torch.where(switches, 3 - state.better, state.better)
        choice = torch.where(choosing, action, state.action)
        current = torch.where(choosing, second, 0)
        return RoundState(current, better, finished, choice, reward), reward, torch.zeros_like(choosing)

    def belief(self, split: str) -> Belief | None:
        """Return the exact belief, for a list of tasks or one episode per trial (later ones repeat the rounds)."""
        listed = self.tasks_of(split)
        if listed is not None:
            return ListedRounds(listed)
        return BetterState(self.rounds) if self.episodes_per_trial == 1 else None

    def oracle(self, task: Rounds) -> Tensor:
        best = COMMON * PAYS[1] + (1.0 - COMMON) * PAYS[0]
        return torch.full(task.luck.shape[:1], best * self.rounds, device=task.luck.device)

    def random_return(self, task: Rounds) -> Tensor:
        return torch.full(task.luck.shape[:1], 0.5 * sum(PAYS) * self.rounds, device=task.luck.device)

    def sketch(self, task: Rounds, episodes: int = 1) -> Sketch[RoundState]:
        """Draw the rounds over time: better state, choice, second state (pale: uncommon transition), and reward."""
        return _Columns(better_states(task)[0].tolist(), task.common[0].tolist())


class _Columns(Sketch[RoundState]):
    """One column per round; those of earlier episodes are paler until they are drawn over."""

    LEFT, TOP, LINE = 130, 40, 30  # pixels
    COLOURS, PALE = {1: "#1971c2", 2: "#e8590c"}, {1: "#a5d8ff", 2: "#ffd8a8"}
    PAID, UNPAID = "#343a40", "#dee2e6"

    def __init__(self, better: list[int], common: list[int]) -> None:
        self.common, rounds = common, len(better)
        self.width = max(6, min(24, 900 // rounds))  # of one round
        self.sheet = Sheet(self.LEFT + max(self.width * rounds, 380) + 16, self.TOP + 4 * self.LINE + 40)
        ground = self.sheet.ground
        for row, text in enumerate(("better state", "choice is for", "led to", "paid")):
            ground.text((10, self.TOP + self.LINE * row + 6), text, fill="black", font_size=14)
        for t, state in enumerate(better):
            self._mark(ground, t, 0, self.COLOURS[state])
        ground.text((self.LEFT, self.TOP + 4 * self.LINE + 8), f"time: {rounds} rounds", fill="#666666", font_size=13)
        self.paid, self.chose = 0.0, False

    def add(self, state: RoundState, first: bool = False) -> None:
        if first:
            self.sheet.fade()
            self.paid, self.chose = 0.0, False
        at, choice, now = int(state.round[0]), int(state.action[0]), int(state.current[0])
        pen, reward = self.sheet.pen, float(state.reward[0])
        if now:
            usual = now == self.common[choice]
            self._mark(pen, at, 1, self.COLOURS[self.common[choice]])
            self._mark(pen, at, 2, (self.COLOURS if usual else self.PALE)[now])
        elif self.chose:
            self.paid += reward
            self._mark(pen, at - 1, 3, self.PAID if reward else self.UNPAID)
        self.chose = bool(now)

    def image(self) -> np.ndarray:
        image, draw = self.sheet.with_marks()
        legend = f"S2 blue, S3 orange; pale: by an uncommon transition. Paid (black) {self.paid:.0f} times."
        draw.text((10, 10), legend, fill="black", font_size=14)
        return pixels(image)

    def _mark(self, draw: ImageDraw.ImageDraw, t: int, row: int, fill: str) -> None:
        x, y = self.LEFT + self.width * t, self.TOP + self.LINE * row
        draw.rectangle((x, y + 5, x + self.width - 2, y + self.LINE - 5), fill=fill)


def stay_probabilities(obs: Tensor, action: Tensor, reward: Tensor, common: tuple[int, int] = (1, 2)) -> Tensor:
    """Return the stay probabilities: float32 ``(2, 2)``, indexed by [rewarded?, common transition?].

    `obs` (2n, B, 3), `action` and `reward` (2n, B) are an episode of `TwoStep`, time first, as a rollout holds them;
    all its pairs of rounds and all rows count together. `common` are the second states that the actions commonly lead
    to ((2, 1) in `ood`). A cell without rounds is NaN. Raises ValueError for another number of steps.

    An agent that repeats rewarded actions shows a main effect of the reward: both rows are constant. A model-based
    agent shows an interaction: it stays after a rewarded common or an unrewarded uncommon round (Daw et al. 2011).
    """
    if len(action) % 2 or obs.shape != (*action.shape, 3) or reward.shape != action.shape:
        raise ValueError("An episode of TwoStep has two steps per round, and the three arrays belong together.")
    choice, second, paid = action[0::2], obs[1::2].argmax(-1), reward[1::2] > 0.5  # (n, B)
    was_common = second == torch.tensor(common, device=second.device)[choice]
    stayed = (choice[1:] == choice[:-1]).to(torch.float32)
    cell = (2 * paid + was_common.to(torch.int64))[:-1]  # (n - 1, B)
    return torch.stack([stayed[cell == number].mean() for number in range(4)]).reshape(2, 2)
