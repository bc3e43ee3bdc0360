"""Written-down players of the two-step task: one that plans with a model of the world, one that repeats what paid."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from metarl import rng
from metarl.agents.baselines import FixedAgent, scripted
from metarl.batch_env import Step
from metarl.envs.two_step import PAYS, SWITCH
from metarl.family import Key, Task
from metarl.rollout import Acted, Memory


class Thought(NamedTuple):
    """What a player carries on."""

    value: Tensor  # (B,) float32: what it thinks
    last: Tensor  # (B,) int64: the state of the step before, 0 the first one, 1 or 2 a second one


class TwoStepPlayer(FixedAgent):
    """What it thinks, a number per row, is changed by `learn` after a round and makes the choice by `chance`."""

    start = 0.0

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        value = torch.full((num_tasks,), self.start, device=self.device)
        return Thought(value, torch.zeros_like(value, dtype=torch.int64))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        thought, last = memory
        state = step.obs.argmax(1)
        thought = torch.where(last > 0, self.learn(thought, last, step.prev_reward > 0.5), thought)
        thought = torch.where(step.prev_done > 0, self.start, thought)
        action = (rng.uniform(key, 1)[:, 0] < self.chance(thought)).long()
        action = action * (state == 0)
        return scripted(action, step), Thought(self.remember(thought, action, state), state)

    @abstractmethod
    def learn(self, thought: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        """After a round that led to the state `second` (1 or 2) and paid or not."""

    def chance(self, thought: Tensor) -> Tensor:
        """The probability of choosing action 1."""
        return thought

    def remember(self, thought: Tensor, action: Tensor, state: Tensor) -> Tensor:
        """After `action` in `state`."""
        return thought


class TwoStepBayes(TwoStepPlayer):
    """Model-based and Bayes-optimal in `train` and `test`: thinks of the exact probability that S3 is the better state.

    It knows the rules but not which second state is better: 70.586 in 100 rounds. `sharpness`: None chooses for the
    likelier state; a number chooses with probability sigmoid(sharpness · (probability - 0.5)), as people seem to.
    """

    start = 0.5

    def __init__(self, sharpness: float | None = None, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.sharpness = sharpness

    def learn(self, thought: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        better, other = max(PAYS), min(PAYS)
        for_third = torch.where((second == 2) == paid, better, other)
        seen = thought * for_third / (thought * for_third + (1 - thought) * (1 - for_third))
        return (1 - SWITCH) * seen + SWITCH * (1 - seen)

    def chance(self, thought: Tensor) -> Tensor:
        if self.sharpness is None:
            return (thought > 0.5).float()
        return torch.sigmoid(self.sharpness * (thought - 0.5))


class TwoStepWinStay(TwoStepPlayer):
    """Model-free: keeps its choice if it paid and changes it if not, wherever it led; errs with probability `noise`."""

    def __init__(self, noise: float = 0.0, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.noise = noise

    def learn(self, thought: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        return torch.where(paid, thought, 1 - thought)

    def chance(self, thought: Tensor) -> Tensor:
        return self.noise + (1 - 2 * self.noise) * thought

    def remember(self, thought: Tensor, action: Tensor, state: Tensor) -> Tensor:
        return torch.where(state == 0, action.float(), thought)
