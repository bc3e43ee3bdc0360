"""Beliefs: what an ideal observer knows about the task of a trial.

An agent that sees its observations, actions, rewards and ends of episodes (RL²'s inputs) faces a partially observable
process whose hidden part is the task. Its Bayes-adaptive state (Duff 2002) is the posterior over the tasks of a split,
and for many families this posterior can be computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from metarl.core.beliefs.step import Step
from metarl.core.tree import features, num_rows, take, to_device

BeliefState = Any
"""A belief's type of state: a NamedTuple of tensors whose leading dimension is the row."""


class Belief(ABC):
    """Exact inference about the task, batched over rows, with a split's distribution of tasks as the prior.

    `TaskFamily.belief` makes it. A row is a trial: it starts from `prior`, and takes every `Step` of the trial by
    `posterior`, the first one included. Rows are independent, and nothing is modified in place. Evidence that no task
    of the split explains, such as that of an `ood` task, leaves the row's belief as it was.
    """

    size: int
    """The length of a row of `features`."""

    @abstractmethod
    def prior(self, rows: int, device: torch.device | str = "cpu") -> BeliefState:
        """Return the belief of `rows` trials before anything was seen."""

    @abstractmethod
    def posterior(self, belief: BeliefState, step: Step) -> BeliefState:
        """Return the belief after what the agent sees next.

        A trial's first step has no previous action; only its observation counts.
        """

    @abstractmethod
    def features(self, belief: BeliefState) -> Tensor:
        """Return what a policy is shown, float32 ``(B, size)``: numbers that determine the belief.

        Their spread over trials should be about 1: a network is slow to use those that hardly change.
        """

    @abstractmethod
    def log_prob(self, belief: BeliefState, task: Any) -> Tensor:
        """Return the log posterior mass of a task, of a density if the split is infinite: float32 ``(B,)``."""

    def weighted_tasks(self, belief: BeliefState) -> tuple[Any, Tensor] | None:
        """Return M tasks for each row that stand for the belief, and their masses, for pictures of it.

        The tasks have B · M rows, one row's after the other. The masses are float32 ``(B, M)``, with the sum 1 in each
        row. None if no list of tasks stands for the belief.
        """
        return None

    def task_mean(self, belief: BeliefState) -> Tensor | None:
        """Return the posterior mean of the task's numbers, float32 ``(B, D)``; None if it is not known.

        Their order is that of `metarl.core.tree.features`.
        """
        return None


class FiniteBelief(Belief):
    """A belief about finitely many tasks: a mass for each. Subclasses write `prior` and `posterior`.

    Its state has a field `log_mass`, float32 ``(B, M)``: the log posterior mass of each of the M `tasks`.
    """

    rounding: float = 1e-6
    """Tasks whose rewards differ by less than this, and a hundred-thousandth, are not told apart."""
    compared_steps: int = 60
    """Steps that `metarl.testing.check_family` compares with playing every task; fewer where that is slow."""

    def __init__(self, tasks: Any) -> None:
        """Make a belief about `tasks`, M rows on the CPU, which are equally likely before anything was seen."""
        self.tasks = tasks
        self.count = self.size = num_rows(tasks)
        self._on: dict[torch.device, Any] = {}

    def tasks_on(self, device: torch.device) -> Any:
        """Return `tasks` on a device."""
        if device not in self._on:
            self._on[device] = to_device(self.tasks, device)
        return self._on[device]

    def repeated(self, rows: int, device: torch.device) -> Any:
        """Return `tasks` once for each of `rows` rows, one row's after the other: ``(rows · M, …)``."""
        return take(self.tasks_on(device), torch.arange(self.count, device=device).repeat(rows))

    def weighted_tasks(self, belief: BeliefState) -> tuple[Any, Tensor]:
        """Return all tasks for each row, with their posterior masses."""
        return self.repeated(len(belief.log_mass), belief.log_mass.device), self.probs(belief)

    def uniform(self, rows: int, device: torch.device | str) -> Tensor:
        """Return the log masses before anything was seen, float32 ``(rows, M)``."""
        return torch.full((rows, self.count), 1.0 / self.count, device=device).log()

    def probs(self, belief: BeliefState) -> Tensor:
        """Return the posterior mass of each task, float32 ``(B, M)``; the sum of a row is 1."""
        mass: Tensor = belief.log_mass.exp()
        return mass

    def features(self, belief: BeliefState) -> Tensor:
        """Return each task's mass over that of the likeliest task, which is 1 for all that are equally likely."""
        relative: Tensor = (belief.log_mass - belief.log_mass.amax(-1, keepdim=True)).exp()
        return relative

    def task_mean(self, belief: BeliefState) -> Tensor:
        return self.probs(belief) @ features(self.tasks_on(belief.log_mass.device))

    def log_prob(self, belief: BeliefState, task: Any) -> Tensor:
        """Return the log mass of a task, minus infinity for one that is not among `tasks`.

        A task that `tasks` holds several times has the mass of all of them.
        """
        known = features(self.tasks_on(belief.log_mass.device))
        same = (features(task)[:, None] == known).all(-1)
        return torch.where(same, belief.log_mass, -torch.inf).logsumexp(-1)


class GridBelief(FiniteBelief):
    """A belief about infinitely many tasks on a grid: `tasks` are the middles of its cells.

    A cell is ruled out only if all tasks in it are. Subclasses write `log_prob`, a density.
    """


def updated(log_mass: Tensor, log_likelihood: Tensor) -> Tensor:
    """Multiply masses ``(B, M)`` by likelihoods (Bayes' rule); a row that nothing explains stays as it was."""
    joint = log_mass + log_likelihood
    evidence = joint.logsumexp(-1, keepdim=True)
    return torch.where(evidence > -torch.inf, joint - evidence, log_mass)
