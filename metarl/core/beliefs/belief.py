"""Beliefs: what an ideal observer knows about the task of a trial.

An agent that sees observations, actions, rewards and episode ends (RL²'s inputs) faces a POMDP whose hidden state is
the task. The posterior over the tasks of a split makes it a Bayes-adaptive MDP (Duff 2002), and many families can
compute this posterior.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from metarl.core.beliefs.step import Step
from metarl.core.tree import features, num_rows, take, to_device

BeliefState = Any
"""The state of a belief: a NamedTuple of tensors whose leading dimension is the row."""


class Belief(ABC):
    """Exact inference about the task, batched over rows, with the task distribution of a split as the prior.

    `TaskFamily.belief` makes it. Each row is a trial: it starts from `prior`, and `posterior` updates it with every
    `Step` of the trial, including the first. Rows are independent, and nothing is modified in place. Evidence that no
    task of the split explains, such as that of an `ood` task, leaves the row's belief unchanged.
    """

    size: int
    """The length of a row of `features`."""

    @abstractmethod
    def prior(self, rows: int, device: torch.device | str = "cpu") -> BeliefState:
        """Return the initial belief of `rows` trials."""

    @abstractmethod
    def posterior(self, belief: BeliefState, step: Step) -> BeliefState:
        """Return the belief after a step.

        The first step of a trial has no previous action; only its observation counts.
        """

    @abstractmethod
    def features(self, belief: BeliefState) -> Tensor:
        """Return the policy's input, float32 ``(B, size)``: numbers that determine the belief.

        Their spread over trials should be about 1, since a network is slow to learn from inputs that hardly vary.
        """

    @abstractmethod
    def log_prob(self, belief: BeliefState, task: Any) -> Tensor:
        """Return the log posterior probability of a task, float32 ``(B,)``; a log-density if the split is infinite."""

    def weighted_tasks(self, belief: BeliefState) -> tuple[Any, Tensor] | None:
        """Return M tasks per row that represent the belief, and their masses, for pictures of the belief.

        The tasks have B · M rows, with the M tasks of a row in succession. The masses are float32 ``(B, M)`` and sum to
        1 in each row. None if no list of tasks represents the belief.
        """
        return None

    def task_mean(self, belief: BeliefState) -> Tensor | None:
        """Return the posterior mean of the task vector, float32 ``(B, D)``; None if it is not known.

        The order of its entries is that of `metarl.core.tree.features`.
        """
        return None


class FiniteBelief(Belief):
    """A belief over finitely many tasks, with a mass for each. Subclasses implement `prior` and `posterior`.

    Its state has a field `log_mass`, float32 ``(B, M)``: the log posterior mass of each of the M `tasks`.
    """

    rounding: float = 1e-6
    """Absolute tolerance below which the rewards of two tasks count as equal; the relative tolerance is 1e-5."""
    compared_steps: int = 60
    """Steps that `metarl.testing.check_family` compares with playing every task; set fewer if that is slow."""

    def __init__(self, tasks: Any) -> None:
        """Make a belief over `tasks` (M rows on the CPU) with a uniform prior."""
        self.tasks = tasks
        self.count = self.size = num_rows(tasks)
        self._on: dict[torch.device, Any] = {}

    def tasks_on(self, device: torch.device) -> Any:
        """Return `tasks` on a device."""
        if device not in self._on:
            self._on[device] = to_device(self.tasks, device)
        return self._on[device]

    def repeated(self, rows: int, device: torch.device) -> Any:
        """Return `tasks` repeated for each of `rows` rows, ``(rows · M, …)``."""
        return take(self.tasks_on(device), torch.arange(self.count, device=device).repeat(rows))

    def weighted_tasks(self, belief: BeliefState) -> tuple[Any, Tensor]:
        """Return all tasks for each row, with their posterior masses."""
        return self.repeated(len(belief.log_mass), belief.log_mass.device), self.probs(belief)

    def uniform(self, rows: int, device: torch.device | str) -> Tensor:
        """Return the log masses of the uniform prior, float32 ``(rows, M)``."""
        return torch.full((rows, self.count), 1.0 / self.count, device=device).log()

    def probs(self, belief: BeliefState) -> Tensor:
        """Return the posterior mass of each task, float32 ``(B, M)``; each row sums to 1."""
        mass: Tensor = belief.log_mass.exp()
        return mass

    def features(self, belief: BeliefState) -> Tensor:
        """Return each task's mass divided by that of the most likely task."""
        relative: Tensor = (belief.log_mass - belief.log_mass.amax(-1, keepdim=True)).exp()
        return relative

    def task_mean(self, belief: BeliefState) -> Tensor:
        return self.probs(belief) @ features(self.tasks_on(belief.log_mass.device))

    def log_prob(self, belief: BeliefState, task: Any) -> Tensor:
        """Return the log mass of a task; minus infinity if it is not among `tasks`.

        The mass of a task that occurs several times in `tasks` is the sum over all occurrences.
        """
        known = features(self.tasks_on(belief.log_mass.device))
        same = (features(task)[:, None] == known).all(-1)
        return torch.where(same, belief.log_mass, -torch.inf).logsumexp(-1)


class GridBelief(FiniteBelief):
    """A belief over infinitely many tasks on a grid: `tasks` are the centres of its cells.

    A cell is ruled out only if all tasks in it are. Subclasses implement `log_prob` as a density.
    """


def updated(log_mass: Tensor, log_likelihood: Tensor) -> Tensor:
    """Multiply masses ``(B, M)`` by likelihoods (Bayes' rule); rows that no task explains do not change."""
    joint = log_mass + log_likelihood
    evidence = joint.logsumexp(-1, keepdim=True)
    return torch.where(evidence > -torch.inf, joint - evidence, log_mass)
