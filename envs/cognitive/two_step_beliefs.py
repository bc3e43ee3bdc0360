"""The exact belief over the two-step task: a filter over the currently better second state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, FiniteBelief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.cognitive.two_step_rules import PAYS, SWITCH, Rounds, better_states


class Filter(NamedTuple):
    """The filter's state within a trial."""

    better: Tensor  # (B, 2) float64: probability of each second state to be the better one in this round
    second: Tensor  # (B, 2) float64: one-hot of the second state that the agent is in; zeros elsewhere
    round: Tensor  # (B,) int64: rounds finished
    evidence: Tensor  # (B, n, 2) float64: log likelihood of each round's payment, for either better state
    log_evidence: Tensor  # (B,) float64: log likelihood of all payments


class BetterState(Belief):
    """The belief over which second state is better, for trials of one episode: a filter with two states.

    A payment of one second state tells as much as that of the other, and a transition tells nothing, since where the
    actions lead is the same in all tasks of a split. A task is the luck of all rounds, whose density is the likelihood
    of the payments over their probability. `features` are the two probabilities.
    """

    size = 2

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Filter:
        half = torch.full((rows, 2), 0.5, dtype=torch.float64, device=device)
        evidence = torch.zeros(rows, self.rounds, 2, dtype=torch.float64, device=device)
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        return Filter(half, torch.zeros_like(half), zeros, evidence, zeros.double())

    def posterior(self, belief: Filter, step: Step) -> Filter:
        paid = belief.second.sum(-1) > 0.0  # the last action was in a second state
        likelihood = torch.where(paid[:, None], payment(belief.second, step.prev_reward), 1.0)
        joint = belief.better * likelihood
        total = joint.sum(-1, keepdim=True)
        better = joint / total
        better = torch.where(paid[:, None], better * (1.0 - SWITCH) + better.flip(-1) * SWITCH, better)
        here = torch.arange(self.rounds, device=paid.device) == belief.round[:, None]
        evidence = belief.evidence + here[..., None] * likelihood.log()[:, None]
        second = step.obs[:, 1:].double()
        log_evidence = belief.log_evidence + total[:, 0].log()
        return Filter(better, second, belief.round + paid, evidence, log_evidence)

    def features(self, belief: Filter) -> Tensor:
        return belief.better.to(torch.float32)

    def log_prob(self, belief: Filter, task: Rounds) -> Tensor:
        """Return the log density of the luck of all rounds, future rounds included."""
        better = better_states(task)[..., None] - 1  # (B, n, 1)
        likelihood = belief.evidence.gather(2, better).sum((1, 2))
        return (likelihood - belief.log_evidence).to(torch.float32)


class Masses(NamedTuple):
    """The probabilities of finitely many tasks, and the position in the trial."""

    log_mass: Tensor  # (B, M) float32
    second: Tensor  # (B, 2) float64: as in `Filter`
    round: Tensor  # (B,) int64: rounds finished in this episode


class ListedRounds(FiniteBelief):
    """The belief over finitely many tasks, such as a list of training tasks, all with the same common transitions.

    `features` are the probabilities of the second states to be the better one in this round.
    """

    def __init__(self, tasks: Rounds) -> None:
        super().__init__(tasks)
        self.size = 2
        self.better = torch.nn.functional.one_hot(better_states(tasks) - 1, 2).double()  # (M, n, 2)

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Masses:
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        return Masses(self.uniform(rows, device), torch.zeros(rows, 2, dtype=torch.float64, device=device), zeros)

    def posterior(self, belief: Masses, step: Step) -> Masses:
        paid = belief.second.sum(-1) > 0.0
        chance = (self._better(belief.round) * payment(belief.second, step.prev_reward)[:, None]).sum(-1)  # (B, M)
        log_likelihood = torch.where(paid[:, None], chance.log(), 0.0).to(torch.float32)
        round = torch.where(step.prev_done > 0.5, 0, belief.round + paid)
        return Masses(updated(belief.log_mass, log_likelihood), step.obs[:, 1:].double(), round)

    def features(self, belief: Masses) -> Tensor:
        return (self.probs(belief)[..., None] * self._better(belief.round)).sum(1).to(torch.float32)

    def _better(self, round: Tensor) -> Tensor:
        """Return the better second state of a round under each task, one-hot: ``(B, M, 2)``."""
        path = self.better.to(round.device)
        return path[:, round.clamp_max(path.shape[1] - 1)].transpose(0, 1)


def payment(second: Tensor, reward: Tensor) -> Tensor:
    """Return the likelihood of a payment in a second state ``(B, 2)``, one-hot, if either is the better: ``(B, 2)``."""
    pays = PAYS[0] + (PAYS[1] - PAYS[0]) * second  # probability of a reward if this state is the better one
    return torch.where(reward[:, None] > 0.5, pays, 1.0 - pays)
