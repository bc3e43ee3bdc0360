"""Finite Markov decision processes with random tables."""

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
from metarl.envs.drawing.sheet import Sheet, pixels
from metarl.envs.mdp_beliefs import DirichletTables, ListedTables
from metarl.envs.tables import Tables as Tables

SPARSE = 0.05  # concentration of the transition probabilities of `ood`


class MDPState(NamedTuple):
    """The current state of the process."""

    current: Tensor  # (B,) int64: the state's number


class TabularMDP(TaskFamily[Tables, MDPState]):
    """Random finite MDPs; learn within a trial where the reward is and how to get there.

    Description:
        `num_states` states and `num_actions` actions with random transition probabilities and random mean rewards.
        Every episode starts in state 0 and lasts `horizon` steps.

    What varies:
        The tables P(s' | s, a) and m(s, a): `Tables`. m(s, a) ~ N(1, 1) in every split.

    Splits:
        - `train`, `valid`, `test`: P(· | s, a) ~ Dirichlet(1, …, 1), in disjoint random streams.
        - `ood`: P(· | s, a) ~ Dirichlet(0.05, …, 0.05), nearly deterministic: the likeliest next state has mean
          probability 0.78 instead of 0.29. For 10 states and 5 actions, the mean of that probability over all (s, a) is
          below 0.4 in training and above 0.6 here, each with fewer than one exception in a million tasks.

    Actions:
        =======  ===============================================
        action   meaning
        =======  ===============================================
        0 … A-1  this action; its effect is unknown to the agent
        =======  ===============================================

    Observations:
        =======  ======================  ======  =====
        index    meaning                 range   unit
        =======  ======================  ======  =====
        0 … S-1  one-hot of the state    {0, 1}  none
        =======  ======================  ======  =====

    Rewards:
        ~ N(m(s, a), 1) for the state s before the move.

    Endings:
        Never terminated; truncated after `horizon` steps.

    Optimum:
        Known task: finite-horizon dynamic programming, exact per task; 21.83 on average for the defaults. Random: exact
        per task, 10.0 on average.

    Source:
        Duan et al. 2016, "RL²", section 3.2 (trials of 10, 25, 50, 75, 100 episodes); Osband et al. 2013.

    Version history:
        v0: first version.
    """

    random_start = False

    def __init__(
        self, num_states: int = 10, num_actions: int = 5, horizon: int = 10, episodes_per_trial: int = 10
    ) -> None:
        self.num_states = whole_number("num_states", num_states, least=2)
        self.num_actions = whole_number("num_actions", num_actions, least=2)
        self.horizon = whole_number("horizon", horizon)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (num_states,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(num_actions)

    def draw_tasks(self, keys: Key, split: str) -> Tables:
        S, A = self.num_states, self.num_actions
        transition_keys, reward_keys = rng.fold(keys, 0), rng.fold(keys, 1)
        if split == "ood":
            log_weights = log_gamma_variates(transition_keys, S * A * S, concentration=SPARSE)
            transition = log_weights.reshape(-1, S, A, S).softmax(-1)
        else:
            weights = rng.exponential(transition_keys, S * A * S).reshape(-1, S, A, S)
            transition = weights / weights.sum(-1, keepdim=True)
        return Tables(transition, 1.0 + rng.normal(reward_keys, S * A).reshape(-1, S, A))

    def check_task(self, task: Tables) -> None:
        within("Tables.transition", task.transition, 0, 1)
        sums = task.transition.sum(-1)
        possible(
            (sums - 1.0).abs() < 1e-3, "The probabilities of the next state, Tables.transition[…, :], must sum to 1."
        )

    def reset(self, task: Tables, key: Key) -> MDPState:
        return MDPState(torch.zeros_like(key))

    def observe(self, task: Tables, state: MDPState) -> Tensor:
        return (state.current[:, None] == torch.arange(self.num_states, device=state.current.device)).to(torch.float32)

    def step(self, task: Tables, state: MDPState, action: Tensor, key: Key) -> tuple[MDPState, Tensor, Tensor]:
        rows = torch.arange(len(action), device=action.device)
        reward = task.reward_mean[rows, state.current, action] + rng.normal(rng.fold(key, 0), 1)[:, 0]
        index = rng.choice(rng.fold(key, 1), task.transition[rows, state.current, action])
        return MDPState(index), reward, torch.zeros_like(action, dtype=torch.bool)

    def belief(self, split: str) -> Belief:
        listed = self.tasks_of(split)
        if listed is not None:
            return ListedTables(listed)
        return DirichletTables(self.num_states, self.num_actions, SPARSE if split == "ood" else 1.0, self.horizon)

    def oracle(self, task: Tables) -> Tensor:
        value = torch.zeros_like(task.reward_mean[..., 0])  # (B, S)
        for _ in range(self.horizon):
            value = self._action_values(task, value).amax(-1)
        return value[:, 0]

    def random_return(self, task: Tables) -> Tensor:
        value = torch.zeros_like(task.reward_mean[..., 0])
        for _ in range(self.horizon):
            value = self._action_values(task, value).mean(-1)
        return value[:, 0]

    def _action_values(self, task: Tables, value: Tensor) -> Tensor:
        """Do one Bellman backup: action values (B, S, A) from the state values (B, S) one step later."""
        return task.reward_mean + (task.transition * value[:, None, None, :]).sum(-1)

    def sketch(self, task: Tables, episodes: int = 1) -> Sketch[MDPState]:
        """Draw one line per state: P(next | state, action) in grey, mean rewards in colour, visits over time."""
        return _TablesAndVisits(task, self.horizon, episodes)


class _TablesAndVisits(Sketch[MDPState]):
    """The tables, with the visits in columns next to them; a grey line marks the start of an episode.

    A new page begins if the next episode does not fit.
    """

    CELL, LEFT, TOP = 14, 40, 50  # pixels

    def __init__(self, task: Tables, horizon: int, episodes: int) -> None:
        states, actions = task.reward_mean.shape[1:]
        cell = self.CELL
        columns = (horizon + 1) * episodes + 1
        self.rewards = self.LEFT + (cell * states + 8) * actions + 16
        self.visits = self.rewards + cell * actions + 24
        self.width = max(3, min(cell, 600 // columns))  # of one visit
        self.columns = min(columns, 1200 // self.width)
        self.episode = horizon + 1  # columns
        self.sheet = Sheet(self.visits + max(self.width * self.columns, 180) + 10, self.TOP + cell * states + 10)
        self.count = 0
        ground = self.sheet.ground
        for text, x in (
            ("P(next state | state, action)", self.LEFT),
            ("mean reward", self.rewards - 8),
            ("visited states in time", self.visits + 16),
        ):
            ground.text((x, 8), text, fill="black", font_size=14)
        for a in range(actions):
            ground.text((self.LEFT + (cell * states + 8) * a, 28), f"action {a}", fill="#666666", font_size=12)
            ground.text((self.rewards + cell * a + 3, 28), str(a), fill="#666666", font_size=12)
        for s in range(states):
            ground.text((14, self.TOP + cell * s - 1), str(s), fill="black", font_size=12)
            y = self.TOP + cell * s + cell // 2
            ground.line((self.visits, y, self.sheet.width - 10, y), fill="#dddddd")
        self._draw_tables(task.transition[0].tolist(), task.reward_mean[0].tolist())

    def _draw_tables(self, transition: list[list[list[float]]], reward_mean: list[list[float]]) -> None:
        cell = self.CELL
        block = cell * len(transition) + 8
        for s, (moves, means) in enumerate(zip(transition, reward_mean, strict=True)):
            for a, (chances, mean) in enumerate(zip(moves, means, strict=True)):
                for after, p in enumerate(chances):
                    grey = round(240 * (1 - math.sqrt(p)))
                    self._square(self.LEFT + block * a + cell * after, s, (grey, grey, grey))
                fade = round(255 * (1 - min(abs(mean) / 3.0, 1.0)))
                blue, red = (fade, (255 + fade) // 2, 255), (255, fade, fade)
                self._square(self.rewards + cell * a, s, blue if mean > 0 else red)

    def _square(self, x: int, line: int, fill: tuple[int, int, int]) -> None:
        y = self.TOP + self.CELL * line
        self.sheet.ground.rectangle((x, y, x + self.CELL - 2, y + self.CELL - 2), fill=fill)

    def add(self, state: MDPState, first: bool = False) -> None:
        if self.count >= self.columns or (first and self.count + self.episode > self.columns):
            self.sheet.clear()
            self.count = 0
        x, y = self.visits + self.width * self.count, self.TOP + self.CELL * int(state.current[0])
        if first and self.count:
            border = (x - 1, self.TOP - 4, x - 1, self.sheet.height - 8)
            self.sheet.pen.line(border, fill="#495057")
        self.sheet.pen.rectangle((x, y, x + self.width - 2, y + self.CELL - 2), fill="#1971c2")
        self.count += 1

    def image(self) -> np.ndarray:
        return pixels(self.sheet.with_marks()[0])


def log_gamma_variates(key: Key, n: int, concentration: float, proposals: int = 6) -> Tensor:
    """Logarithms of Gamma(concentration, 1) draws, ``key.shape + (n,)``; their softmax is a Dirichlet draw.

    Gamma(a) = Gamma(a + 1) · U^(1/a), in logarithms since U^(1/a) underflows for small a. Gamma(a + 1) is the first
    accepted of a fixed number of proposals of Marsaglia & Tsang (2000), so that each draw has fixed RNG counters. A
    proposal is rejected with probability below 0.05, all six about once in 10^8 draws; then the first one is used.
    """
    d = concentration + 1.0 - 1.0 / 3.0
    shape = (*key.shape, n, proposals)
    x = rng.normal(rng.fold(key, 0), n * proposals).reshape(shape)
    log_u = -rng.exponential(rng.fold(key, 1), n * proposals).reshape(shape)
    root = 1.0 + x / math.sqrt(9.0 * d)
    v = root.clamp_min(1e-6) ** 3
    accepted = (root > 0) & (log_u < 0.5 * x * x + d - d * v + d * v.log())
    first = accepted.to(torch.int8).argmax(-1, keepdim=True)
    return math.log(d) + v.gather(-1, first)[..., 0].log() - rng.exponential(rng.fold(key, 2), n) / concentration
