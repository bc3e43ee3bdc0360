"""Exact beliefs about the tables of random finite MDPs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, FiniteBelief, updated
from metarl.core.beliefs.step import Step
from metarl.core.tree import features
from metarl.envs.tables import Tables


class Seen(NamedTuple):
    """The moves and rewards of a trial."""

    current: Tensor  # (B, S) float32: one-hot of the last observed state; zeros before the first observation
    moves: Tensor  # (B, S, A, S) float32: counts of transitions
    tries: Tensor  # (B, S, A) float32: how often each action was taken in each state
    total: Tensor  # (B, S, A) float32: sums of the rewards
    left: Tensor  # (B,) int64: remaining actions of the episode


class Move(NamedTuple):
    """The transition that a step reports; zeros if there is none."""

    tried: Tensor  # (B, S, A) float32: one-hot of the state and the action
    moved: Tensor  # (B, S, A, S) float32: one-hot of state, action and next state; zeros where an episode ended


def move_of(current: Tensor, step: Step, num_actions: int) -> Move:
    """Return the transition that a step reports, given the one-hot previous state `current` ``(B, S)``.

    The final state of an episode is not observed.
    """
    actions = torch.arange(num_actions, device=current.device)
    action = (step.prev_action[:, None] == actions).to(torch.float32)  # "no action" equals none
    tried = current[:, :, None] * action[:, None]
    after = step.obs * (1.0 - step.prev_done[:, None])
    return Move(tried, tried[..., None] * after[:, None, None])


class DirichletTables(Belief):
    """The belief about tables with P(· | s, a) ~ Dirichlet(α, …, α) and means m(s, a) ~ N(1, 1) of rewards ~ N(m, 1).

    The posterior is Dirichlet(α + counts), and normal with the mean (1 + sum of rewards) / (1 + n) and the variance
    1 / (1 + n) after n tries. `features` are the mean probabilities, the mean rewards, and these variances; then, for
    the current state alone, mean rewards, variances and `plan` with optimism 0 and 1, which an MLP would
    not compute from the tables.
    """

    def __init__(self, num_states: int, num_actions: int, concentration: float, horizon: int) -> None:
        """Create the belief; each row has the prior Dirichlet(`concentration`, …), an episode has `horizon` steps."""
        self.num_states, self.num_actions, self.concentration = num_states, num_actions, concentration
        self.horizon = horizon
        self.size = num_states * num_actions * (num_states + 2) + 4 * num_actions

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Seen:
        S, A = self.num_states, self.num_actions
        tries = torch.zeros(rows, S, A, device=device)
        left = torch.full((rows,), self.horizon + 1, device=device)  # the first observation takes one
        return Seen(tries[..., 0], torch.zeros(rows, S, A, S, device=device), tries, tries, left)

    def posterior(self, belief: Seen, step: Step) -> Seen:
        tried, moved = move_of(belief.current, step, self.num_actions)
        reward = step.prev_reward[:, None, None]
        left = torch.where(step.prev_done > 0.5, self.horizon, belief.left - 1)
        return Seen(step.obs, belief.moves + moved, belief.tries + tried, belief.total + tried * reward, left)

    def features(self, belief: Seen) -> Tensor:
        (transition, mean), variance = self.mean_tables(belief), 1.0 / (1.0 + belief.tries)
        here = [(belief.current[..., None] * table).sum(1) for table in (mean, variance)]
        tables = [transition.flatten(1), mean.flatten(1), variance.flatten(1)]
        return torch.cat([*tables, *here, self.plan(belief), self.plan(belief, optimism=1.0)], dim=1)

    def plan(self, belief: Seen, optimism: float = 0.0) -> Tensor:
        """Return the value of each action under the posterior mean tables, ``(B, A)``, minus the mean over actions.

        This is Q(s, a) of the current state s for the remaining steps of the episode, by value iteration. With
        `optimism`, mean rewards are raised by that many posterior standard deviations.
        """
        transition, reward = self.mean_tables(belief)
        reward = reward + optimism * (1.0 + belief.tries).rsqrt()
        found, value = torch.zeros_like(reward[:, 0]), torch.zeros_like(belief.current)
        for steps in range(1, self.horizon + 1):
            worth = reward + (transition @ value[:, None, :, None])[..., 0]  # (B, S, A)
            here = (belief.current[..., None] * worth).sum(1)
            found = torch.where((belief.left == steps)[:, None], here, found)
            value = worth.amax(-1)
        return found - found.mean(-1, keepdim=True)

    def mean_tables(self, belief: Seen) -> Tables:
        """Return the posterior means of both tables."""
        weights = self.concentration + belief.moves
        reward = (1.0 + belief.total) * (1.0 / (1.0 + belief.tries))
        return Tables(weights / weights.sum(-1, keepdim=True), reward)

    def task_mean(self, belief: Seen) -> Tensor:
        return features(self.mean_tables(belief))

    def log_prob(self, belief: Seen, task: Tables) -> Tensor:
        """Return the log density of the tables; each row of probabilities has one dependent entry."""
        weights = (self.concentration + belief.moves).double()
        # In a nearly deterministic table, float32 rounds some probabilities to 0.
        log_transition = task.transition.double().clamp_min(1e-45).log()
        dirichlet = ((weights - 1.0) * log_transition - weights.lgamma()).sum(-1) + weights.sum(-1).lgamma()
        precision = 1.0 + belief.tries.double()
        error = task.reward_mean.double() - (1.0 + belief.total.double()) / precision
        normal = 0.5 * (precision / (2.0 * math.pi)).log() - 0.5 * precision * error**2
        return (dirichlet + normal).sum((1, 2)).to(torch.float32)


class Listed(NamedTuple):
    """The probabilities of finitely many tables."""

    log_mass: Tensor  # (B, M) float32
    current: Tensor  # (B, S) float32: one-hot of the last observed state; zeros before the first observation


class ListedTables(FiniteBelief):
    """The belief over a finite set of tables, such as a list of training tasks."""

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Listed:
        states = self.tasks.transition.shape[1]
        return Listed(self.uniform(rows, device), torch.zeros(rows, states, device=device))

    def posterior(self, belief: Listed, step: Step) -> Listed:
        tasks = self.tasks_on(step.obs.device)
        tried, moved = move_of(belief.current, step, tasks.reward_mean.shape[2])
        chance = torch.xlogy(moved[:, None], tasks.transition).sum((2, 3, 4))
        error = step.prev_reward[:, None, None, None] - tasks.reward_mean
        paid = -0.5 * (tried[:, None] * error**2).sum((2, 3))
        return Listed(updated(belief.log_mass, chance + paid), step.obs)
