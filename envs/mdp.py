"""Finite Markov decision processes with random tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from metarl import rng
from metarl.envs.checks import possible, whole_number, within
from metarl.family import Key, TaskFamily


class Tables(NamedTuple):
    """A finite MDP."""

    transition: Tensor  # (B, S, A, S) float32: P(next | state, action)
    reward_mean: Tensor  # (B, S, A) float32


class MDPState(NamedTuple):
    """Where an episode stands."""

    current: Tensor  # (B,) int64: the state's number


class TabularMDP(TaskFamily):
    """Random finite MDPs; learn within a trial where the reward is and how to get there.

    Description:
        `num_states` states and `num_actions` actions with random transition probabilities and random mean rewards.
        Every episode starts in state 0 and lasts `horizon` steps.

    What varies:
        The tables P(s' | s, a) and m(s, a): `Tables`. m(s, a) ~ N(1, 1) in every split.

    Splits:
        - `train`, `valid`, `test`: P(· | s, a) ~ Dirichlet(1, …, 1), in disjoint streams.
        - `ood`: P(· | s, a) ~ Dirichlet(0.05, …, 0.05), nearly deterministic: the likeliest next state has mean
          probability 0.78 instead of 0.29. For 10 states and 5 actions the mean over all (s, a) of that probability
          lies below 0.4 in training and above 0.6 here, each but for less than one task in a million.

    Actions:
        ========  =====================================================
        action    meaning
        ========  =====================================================
        0 … A-1   this action; what it does is for the agent to find out
        ========  =====================================================

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
        Known task: finite-horizon dynamic programming, exact per task; 21.858 in the mean for the defaults. Random:
        exact per task, 10.0 in the mean.

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
            log_weights = log_gamma_variates(transition_keys, S * A * S, concentration=0.05)
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
        """One step of dynamic programming: (B, S, A) from the values (B, S) of the states one step later."""
        return task.reward_mean + (task.transition * value[:, None, None, :]).sum(-1)

    def render(self, task: Tables, states: list[MDPState]) -> np.ndarray:
        """One line per state: P(next | state, action) in grey, the mean rewards in colour, the visits in time."""
        S, A, cell, top = self.num_states, self.num_actions, 14, 50  # pixels
        block = cell * S + 8
        rewards = 40 + block * A + 16
        visits = rewards + cell * A + 24
        width = max(3, min(cell, 600 // max(len(states), 1)))  # of one visit
        image = Image.new("RGB", (visits + max(width * len(states), 160) + 10, top + cell * S + 10), "white")
        draw = ImageDraw.Draw(image)

        def square(x: int, line: int, fill: str | tuple[int, int, int]) -> None:
            draw.rectangle((x, top + cell * line, x + cell - 2, top + cell * (line + 1) - 2), fill=fill)

        draw.text((40, 8), "P(next state | state, action)", fill="black", font_size=14)
        draw.text((rewards - 8, 8), "mean reward", fill="black", font_size=14)
        draw.text((visits + 16, 8), "visited states in time", fill="black", font_size=14)
        for a in range(A):
            draw.text((40 + block * a, 28), f"action {a}", fill="#666666", font_size=12)
            draw.text((rewards + cell * a + 3, 28), str(a), fill="#666666", font_size=12)
        path = [int(state.current[0]) for state in states]
        for s in range(S):
            draw.text((14, top + cell * s - 1), str(s), fill="black", font_size=12)
            y = top + cell * s + cell // 2
            draw.line((visits, y, image.width - 10, y), fill="#dddddd")
            for a in range(A):
                for next_state, p in enumerate(task.transition[0, s, a].tolist()):
                    grey = round(240 * (1 - math.sqrt(p)))
                    square(40 + block * a + cell * next_state, s, (grey, grey, grey))
                mean = float(task.reward_mean[0, s, a])
                fade = round(255 * (1 - min(abs(mean) / 3.0, 1.0)))
                square(rewards + cell * a, s, (fade, 255 - (255 - fade) // 3, fade) if mean > 0 else (255, fade, fade))
        for t, s in enumerate(path):
            x, y = visits + width * t, top + cell * s
            draw.rectangle((x, y, x + width - 2, y + cell - 2), fill="#1971c2")
        return np.asarray(image)


def log_gamma_variates(key: Key, n: int, concentration: float, proposals: int = 6) -> Tensor:
    """Logarithms of Gamma(concentration, 1) draws, ``key.shape + (n,)``; their softmax is a Dirichlet draw.

    Gamma(a) = Gamma(a + 1) · U^(1/a), in logarithms since U^(1/a) underflows for small a. Gamma(a + 1) is the first
    accepted of a fixed number of proposals of Marsaglia & Tsang (2000), so that each draw keeps its own address. A
    proposal is refused with probability below 0.05, all six about once in 10^8 draws; the first one counts then.
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
