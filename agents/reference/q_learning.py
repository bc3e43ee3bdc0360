"""Tabular Q-learning from scratch on each task: slow, but it visibly improves over its episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.bandits import any_best
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory


class Table(NamedTuple):
    """The learned values of S states and A actions, and the last step."""

    values: Tensor  # (B, S, A) float32
    state: Tensor  # (B,) int64: the state before the last action


class QLearning(FixedAgent):
    """Q-learning with a table, epsilon-greedy (Watkins & Dayan 1992).

    `state_of` maps observations ``(B, *O)`` to state indices, int64 ``(B,)``. All values start at `optimism`, so that
    untried actions look good and the agent explores all states. Nothing is learned from the last step of an episode,
    since the agent sees the next start instead of the state that followed.
    """

    def __init__(
        self,
        num_states: int,
        num_actions: int,
        state_of: Callable[[Tensor], Tensor],
        lr: float = 0.5,
        gamma: float = 0.9,
        epsilon: float = 0.05,
        optimism: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        self.num_states, self.num_actions, self.state_of = num_states, num_actions, state_of
        self.lr, self.gamma, self.epsilon, self.optimism = lr, gamma, epsilon, optimism

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        shape = num_tasks, self.num_states, self.num_actions
        state = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return Table(torch.full(shape, self.optimism, device=self.device), state)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        state = self.state_of(step.obs)
        values = self._learn(memory, step, state)
        of_state = values[torch.arange(len(state), device=state.device), state]
        explores = rng.uniform(rng.fold(key, 0), 1)[:, 0] < self.epsilon
        anywhere = rng.integers(rng.fold(key, 1), 1, self.num_actions)[:, 0]
        action = torch.where(explores & (not greedy), anywhere, any_best(of_state, rng.fold(key, 2)))
        return scripted(action, step), Table(values, state)

    def _learn(self, memory: Table, step: Step, state: Tensor) -> Tensor:
        """Return the values after the step from the memory's state to `state`."""
        rows, action = torch.arange(len(state), device=state.device), step.prev_action.clamp_min(0)
        known = (step.prev_action >= 0) & (step.prev_done < 0.5)
        before = memory.values[rows, memory.state, action]
        target = step.prev_reward + self.gamma * memory.values[rows, state].amax(-1)
        after = torch.where(known, before + self.lr * (target - before), before)
        return memory.values.index_put((rows, memory.state, action), after)
