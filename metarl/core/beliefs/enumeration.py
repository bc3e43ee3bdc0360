"""Beliefs by enumeration: simulate every task of a finite split alongside the agent, and rule it out once it differs.

This is exact for families whose physics are deterministic given the task, with a fixed or observed start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import torch
from torch import Tensor

from metarl.core.beliefs.belief import FiniteBelief, updated
from metarl.core.beliefs.step import Step
from metarl.core.family import AnyFamily
from metarl.core.tree import tree_map, where


class Candidates(NamedTuple):
    """The masses of the tasks, and the state that the trial would have under each of them."""

    log_mass: Tensor  # (B, M) float32
    state: Any  # (B, M, …) the family's state under each task
    steps: Tensor  # (B,) int64: steps seen in the trial, including the first observation
    since: Tensor  # (B,) int64: actions taken in the episode


class Enumeration(FiniteBelief):
    """The belief over the tasks of a finite split, for families with ``noisy = False``.

    An update plays one step of each of the M tasks in each row, which costs B · M rows of `TaskFamily.step`. A task
    whose reward, episode end or observation differs from the observed one by more than float32 rounding loses its mass.

    `features` are the masses by default. If ``of_task(tasks)`` returns numbers ``(M, S)``, such as one-hot places, they
    are the posterior means of these numbers, for families with too many tasks for a network's input. If
    ``of_state(state)`` returns numbers ``(N, H)``, their posterior means are appended, for families whose state is
    partly hidden.
    """

    def __init__(
        self,
        family: AnyFamily,
        split: str,
        of_task: Callable[[Any], Tensor] | None = None,
        of_state: Callable[[Any], Tensor] | None = None,
    ) -> None:
        """Make the belief. Raises ValueError for an infinite split and for a family with random steps."""
        tasks = family.tasks_of(split)
        if tasks is None or family.noisy:
            raise ValueError(
                f"The tasks of {type(family).__name__} in {split!r} must be finitely many and deterministic."
            )
        super().__init__(tasks)
        self.family, self.of_task, self.of_state = family, of_task, of_state
        space = family.action_space
        self.any_action = int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else None
        self.size = self.features(self.prior(1)).shape[1]

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Candidates:
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        tasks = self.repeated(rows, zeros.device)
        state = self.family.reset(tasks, zeros.repeat_interleave(self.count))
        return Candidates(self.uniform(rows, device), self._rows_first(state, rows), zeros, zeros)

    def posterior(self, belief: Candidates, step: Step) -> Candidates:
        family, rows, each = self.family, len(step.obs), self.count
        tasks = self.repeated(rows, step.obs.device)
        first, ended = belief.steps == 0, step.prev_done > 0.5
        action = step.prev_action  # "no action" at the start of a trial, which the physics may not accept
        if self.any_action is not None:
            action = torch.where(first, self.any_action, action)
        state = tree_map(lambda leaf: leaf.flatten(0, 1), belief.state)
        keys = torch.zeros(rows * each, dtype=torch.int64, device=step.obs.device)
        state, reward, terminated = family.step(tasks, state, action.repeat_interleave(each, 0), keys)
        late = belief.since + 1 >= family.horizon
        ends = terminated.reshape(rows, each) | late[:, None]
        paid = _alike(reward.reshape(rows, each), step.prev_reward[:, None])
        possible = paid & (ends == ended[:, None])
        obs = step.obs.repeat_interleave(each, 0)
        starts = first | ended
        state = where(starts.repeat_interleave(each), family.first_state(tasks, obs), state)
        seen = _alike(family.observe(tasks, state), obs).flatten(1).all(-1).reshape(rows, each)
        possible = (possible | first[:, None]) & seen
        log_mass = updated(belief.log_mass, torch.where(possible, 0.0, -torch.inf))
        since = torch.where(starts, 0, belief.since + 1)
        return Candidates(log_mass, self._rows_first(state, rows), belief.steps + 1, since)

    def features(self, belief: Candidates) -> Tensor:
        shown = super().features(belief)
        if self.of_task is not None:
            shown = self.probs(belief) @ self.of_task(self.tasks_on(belief.log_mass.device))
        if self.of_state is not None:
            numbers = self.of_state(tree_map(lambda leaf: leaf.flatten(0, 1), belief.state))
            numbers = numbers.reshape(len(belief.steps), self.count, -1)
            shown = torch.cat([shown, (self.probs(belief)[:, None] @ numbers)[:, 0]], dim=1)
        return shown

    def _rows_first(self, state: Any, rows: int) -> Any:
        return tree_map(lambda leaf: leaf.reshape(rows, self.count, *leaf.shape[1:]), state)


def _alike(a: Tensor, b: Tensor) -> Tensor:
    """Return where numbers are equal up to rounding, since compiled environments round in another order."""
    return torch.isclose(a, b, rtol=1e-5, atol=1e-6)
