"""A task family small enough for tests of training: guess the hidden number, and remember it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.registry import register


class Hidden(NamedTuple):
    number: Tensor  # (B,) int64


class Nothing(NamedTuple):
    count: Tensor  # (B,) int64, steps so far


class Guess(TaskFamily[Hidden, Nothing]):
    """Reward 1 for guessing the hidden number.

    Args:
        numbers: How many numbers there are to guess from.
        broken: Give a reward that is not a number from this step of an episode on (a test of failing).
    """

    def __init__(self, numbers: int = 2, broken: int | None = None) -> None:
        if numbers < 2:
            raise ValueError(f"numbers must be at least 2, got {numbers}.")
        self.numbers, self.broken = numbers, broken
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(numbers)
        self.horizon, self.episodes_per_trial = 2, 3

    def draw_tasks(self, keys: Tensor, split: str) -> Hidden:
        return Hidden(rng.integers(keys, 1, self.numbers)[..., 0])

    def reset(self, task: Hidden, key: Tensor) -> Nothing:
        return Nothing(torch.zeros_like(task.number))

    def observe(self, task: Hidden, state: Nothing) -> Tensor:
        return state.count[:, None].float() / 2

    def step(self, task: Hidden, state: Nothing, action: Tensor, key: Tensor) -> tuple[Nothing, Tensor, Tensor]:
        reward = (action == task.number).float()
        if self.broken is not None:
            reward = torch.where(state.count >= self.broken, torch.nan, reward)
        return Nothing(state.count + 1), reward, torch.zeros_like(reward, dtype=torch.bool)

    def oracle(self, task: Hidden) -> Tensor:
        return torch.full(task.number.shape, 2.0)

    def random_return(self, task: Hidden) -> Tensor:
        return torch.full(task.number.shape, 2.0 / self.numbers)


register("toy/Guess-v0", Guess)


class NoDisplay(Guess):
    """Its pictures cannot be made."""

    def render(self, task: Hidden, states: list[Nothing]) -> np.ndarray:
        raise RuntimeError("no display")


register("toy/NoDisplay-v0", NoDisplay)

TOY = """\
family:
  name: toy/Guess-v0
  numbers: 3
agent:
  name: RL2
  meta_batch_size: 16
  hidden_size: 8
  update_epochs: 2
  num_minibatches: 2
  gamma: [[0, .9], [.5, .98]]
total_iterations: 6
eval_every: 0
eval_tasks: 20
final_eval_tasks: 0
checkpoint_every: 2
num_threads: 1
device: cpu
"""
"""A config file for it: quick, hence without evaluations."""


def write_config(run_dir: Path, text: str = TOY) -> None:
    """Write the config.yaml of a run directory, in full as a run does."""
    from metarl.training.config import parsing

    (run_dir / "toy.yaml").write_text(text)
    (run_dir / "config.yaml").write_text(parsing.parse(["--config", str(run_dir / "toy.yaml")]).text())
    (run_dir / "toy.yaml").unlink()
