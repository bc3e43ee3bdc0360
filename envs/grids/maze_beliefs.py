"""The belief over MetaMaze's goal and the agent's position."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import FiniteBelief, updated
from metarl.core.beliefs.step import Step
from metarl.core.tree import to_device

PAID = 5.0
"""A reward above this threshold is that of the goal."""


class Whereabouts(NamedTuple):
    """The probabilities of the goals, and of the agent's cell given each goal."""

    log_mass: Tensor  # (B, M) float32
    place: Tensor  # (B, M, C) float32: probability of each of the C free cells, given the goal
    steps: Tensor  # (B,) int64: observed steps, including the first observation


class Plan(NamedTuple):
    """One maze, with its C free cells numbered."""

    after: Tensor  # (4, C, C) float32: transitions of each action, 0 or 1
    look: Tensor  # (C, 9) float32: observation in each cell
    start: Tensor  # (C,) float32: 1 at the start
    others: Tensor  # (M, C) float32: uniform distribution of the cell after reaching the goal
    goal: Tensor  # (M, C) float32: 1 at the goal


class GoalInMaze(FiniteBelief):
    """The joint belief over the goal, among M, and the agent's cell in one known maze: a filter over pairs.

    Before the goal is found the cell is known, since the start is fixed and moves are deterministic. At the goal the
    agent moves to a random cell, which observations narrow down. `features` are each goal's mass over the largest one
    and the probability of each cell; as either goal or cell is always known, they determine the belief.
    """

    def __init__(self, tasks: Any, plan: Plan) -> None:
        super().__init__(tasks)
        self.plan, self.size = plan, self.count + len(plan.start)
        self._plans: dict[torch.device, Plan] = {}

    def _plan(self, device: torch.device) -> Plan:
        if device not in self._plans:
            self._plans[device] = to_device(self.plan, device)
        return self._plans[device]

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Whereabouts:
        steps = torch.zeros(rows, dtype=torch.int64, device=device)
        place = self._plan(steps.device).start.expand(rows, self.count, -1).clone()
        return Whereabouts(self.uniform(rows, device), place, steps)

    def posterior(self, belief: Whereabouts, step: Step) -> Whereabouts:
        plan, first = self._plan(step.obs.device), belief.steps == 0
        action = torch.where(first, 0, step.prev_action)  # a trial starts with "no action", which does not move
        arrived = belief.place @ plan.after[action]
        paid = (step.prev_reward > PAID)[:, None]
        at_goal = (arrived * plan.goal).sum(-1)  # (B, M)
        chance = torch.where(paid, at_goal, 1.0 - at_goal).clamp_min(0.0)
        place = torch.where(paid[..., None], plan.others, _normalised(arrived * (1.0 - plan.goal)))
        chance = torch.where(first[:, None], 1.0, chance)
        starts = (first | (step.prev_done > 0.5))[:, None, None]
        place = torch.where(starts, plan.start, place)
        seen = (step.obs[:, None] == plan.look).all(-1)[:, None].to(torch.float32)  # (B, 1, C)
        log_mass = updated(belief.log_mass, (chance * (place * seen).sum(-1)).log())
        return Whereabouts(log_mass, _normalised(place * seen, place), belief.steps + 1)

    def features(self, belief: Whereabouts) -> Tensor:
        place = (self.probs(belief)[:, None] @ belief.place)[:, 0]
        return torch.cat([super().features(belief), place], dim=1)


def _normalised(weight: Tensor, otherwise: Tensor | None = None) -> Tensor:
    """Normalise weights ``(…, C)`` to sum to 1; return `otherwise` where all are 0."""
    total = weight.sum(-1, keepdim=True)
    scaled = weight / torch.where(total > 0.0, total, 1.0)
    return scaled if otherwise is None else torch.where(total > 0.0, scaled, otherwise)
