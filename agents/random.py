"""Agents that learn nothing: lower bounds for learned agents."""

from __future__ import annotations

from abc import abstractmethod

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily, made_with
from metarl.core.rollout import Acted, Agent, Memory, Rollout, TrialProtocol
from metarl.core.units import first_actions, uniform_choices


class FixedAgent(Agent):
    """Base of agents without training: `begin` and `act` define their behaviour in a trial.

    `device` is the device of the agent's memory; evaluation puts the environment there, too.
    """

    protocol = TrialProtocol()

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __repr__(self) -> str:
        return made_with(self)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return ()

    @abstractmethod
    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]: ...

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        return {}


class RandomAgent(FixedAgent):
    """An agent that draws uniformly from the action space, whatever it sees; `greedy` has no effect.

    Raises ValueError for a Box without finite bounds, which has no uniform distribution.
    """

    def __init__(self, family: TaskFamily, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        space = family.action_space
        self.num_actions = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else 0
        self.first = int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0
        self.log_prob = 0.0  # of a MultiDiscrete action, or the log-density of a Box action
        self.several = isinstance(space, gymnasium.spaces.MultiDiscrete)
        if isinstance(space, gymnasium.spaces.MultiDiscrete):
            self.firsts = first_actions(space).to(self.device)
            self.sizes = torch.as_tensor(space.nvec, dtype=torch.int64, device=self.device)
            self.log_prob = -float(np.log(space.nvec).sum())
        if isinstance(space, gymnasium.spaces.Box):
            if not space.is_bounded():
                raise ValueError(f"No uniform distribution over an action space without finite bounds: {space}.")
            self.low = torch.as_tensor(space.low, dtype=torch.float32, device=self.device)
            self.width = torch.as_tensor(space.high - space.low, dtype=torch.float32, device=self.device)
            self.log_prob = -float(np.log((space.high - space.low).astype(np.float64)).sum())

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        zeros = torch.zeros_like(step.prev_reward)
        if self.num_actions:
            action = rng.integers(key, 1, self.num_actions).squeeze(-1) + self.first
            return Acted(action, zeros - float(np.log(self.num_actions)), zeros), memory
        if self.several:
            return Acted(uniform_choices(key, self.firsts, self.sizes), zeros + self.log_prob, zeros), memory
        u = rng.uniform(key, self.low.numel()).reshape(-1, *self.low.shape)
        return Acted(self.low + self.width * u, zeros + self.log_prob, zeros), memory


def scripted(action: Tensor, step: Step) -> Acted:
    """Return `action` with log-probability and value 0, since a scripted agent does not learn."""
    zeros = torch.zeros_like(step.prev_reward)
    return Acted(action, zeros, zeros)
