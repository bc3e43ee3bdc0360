"""RL² reads every kind of observation, and acts in every kind of action space, through the adapter.

What it has to learn is small: the observation shows a bit, and the right action, which pays 1, depends on it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.agents import RL2Config
from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.envs.adapter.gym_family import GymFamily

SEEN: dict[str, tuple[spaces.Space[Any], Any, Any]] = {
    "numbers": (spaces.Box(-10.0, 10.0, (2, 2), np.float64), np.full((2, 2), -7.0), np.full((2, 2), 7.0)),
    "image": (
        spaces.Box(0, 255, (8, 8, 1), np.uint8),
        np.kron(np.eye(2), np.full((4, 4), 255))[..., None].astype(np.uint8),
        np.kron(1 - np.eye(2), np.full((4, 4), 255))[..., None].astype(np.uint8),
    ),
    "index": (spaces.Discrete(3, start=4), 4, 6),
    "indices": (spaces.MultiDiscrete([3, 2]), np.array([2, 0]), np.array([0, 1])),
    "dictionary": (
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0.0, 1.0, (3,), np.float32)}),
        {"a": 0, "b": np.ones(3, np.float32)},
        {"a": 1, "b": np.zeros(3, np.float32)},
    ),
    "tuple": (
        spaces.Tuple([spaces.MultiBinary(2), spaces.Discrete(2)]),
        (np.array([0, 1], np.int8), 0),
        (np.array([1, 0], np.int8), 1),
    ),
}
"""Observation space, and what shows the bits 0 and 1."""
DONE: dict[str, tuple[spaces.Space[Any], Any, Any]] = {
    "index": (spaces.Discrete(2, start=3), 3, 4),
    "indices": (spaces.MultiDiscrete([2, 3], start=[1, 0]), np.array([2, 0]), np.array([1, 2])),
    "numbers": (spaces.Box(-5.0, 15.0, (1,), np.float32), np.array([10.0]), np.array([0.0])),
}
"""Action space, and the right actions for the bits 0 and 1."""


class Signal(gymnasium.Env[Any, Any]):
    """Reward 1 for the right action of the bit that is shown; of numbers, 1 less the distance in units of 10."""

    def __init__(self, seen: str = "index", done: str = "index", delay: float = 0.0) -> None:
        self.observation_space, *self.shows = SEEN[seen]
        self.action_space, *self.right = DONE[done]
        self.continuous, self.delay = done == "numbers", delay

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._next(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = self.right[self.bit]
        away = float(np.abs(action - right).max()) / 10 if self.continuous else float(np.any(action != right))
        return self._next(), 1.0 - away, False, False, {}

    def _next(self) -> Any:
        self.bit = int(self.np_random.integers(2))
        return self.shows[self.bit]


gymnasium.register("tests/Signal-v0", entry_point=Signal, max_episode_steps=8)
CASES = [*((seen, "index") for seen in SEEN), *(("index", done) for done in DONE if done != "index")]


@pytest.mark.parametrize(("seen", "done"), CASES)
def test_it_learns(seen: str, done: str):
    family = GymFamily(
        "tests/Signal-v0",
        {"delay": {"where": "attribute:delay", "train": {"uniform": [0, 1]}}},
        arguments={"seen": seen, "done": done},
        episodes_per_trial=1,
    )
    lr = 0.003 if seen == "image" else 0.02  # a convolutional network takes smaller steps
    config = RL2Config(meta_batch_size=32, hidden_size=16, lr=lr, gamma=0.0, gae_lambda=0.0, init_std=0.5)
    agent = config.build(family, 1, torch.device("cpu"))
    for iteration in range(25):
        key = rng.fold(rng.key(1), iteration)
        tasks = family.sample_tasks(rng.fold(key, 0), 32)
        trial = run_trial(agent, family, tasks, rng.fold(key, 1))
        agent.update(trial)
    assert float(trial[0].outcome.reward.mean()) > 0.9  # at random .5 with two actions, .17 with six, .66 with numbers
