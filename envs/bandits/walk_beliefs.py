"""The belief over arms that follow a random walk, on a grid."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.step import Step
from metarl.envs.bandits.beliefs import pulls_of
from metarl.envs.bandits.walk import Walk

CELLS = 100
"""Cells of the grid for each arm's probability."""


class WalkFilter(NamedTuple):
    """The filter's state within a trial."""

    mass: Tensor  # (B, 2, CELLS) float64: probability of the cells of each arm's probability at the next pull
    pulls: Tensor  # (B,) int64: pulls made
    pulled: Tensor  # (B, 2, n) float32: one-hot of the arm, at each pull
    reward: Tensor  # (B, n) float32: the payment of each pull
    log_evidence: Tensor  # (B,) float64: log likelihood of all payments


class WanderingArms(Belief):
    """The belief over two arms whose probabilities take reflected normal steps, for trials of one episode.

    A grid filter: p lies at the centre of one of 100 equal cells, and moves from cell to cell with the mean
    probability over the target cell. After 99 random pulls with the default steps of 0.1, the means of 200
    trials differ by at most 1.2e-4 from those on a grid of 800 cells, and the log likelihoods of all payments by at
    most 3.4e-3. The error falls with the square of the step: 1.9e-5 and 7e-4 for steps of 0.3. A task is the path of
    both arms; its density is that of all their probabilities. `features` are mean and standard deviation of both arms'
    p at the next pull, over those before anything was seen, less 1 for the mean.
    """

    size = 4

    def __init__(self, step_size: float, pulls: int, cells: int = CELLS) -> None:
        """Create the belief for trials of `pulls` pulls and steps with the standard deviation `step_size`."""
        self.step_size, self.pulls, self.cells = step_size, pulls, cells

    def prior(self, rows: int, device: torch.device | str = "cpu") -> WalkFilter:
        mass = torch.full((rows, 2, self.cells), 1.0 / self.cells, dtype=torch.float64, device=device)
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        reward = torch.zeros(rows, self.pulls, device=device)
        return WalkFilter(mass, zeros, torch.stack([reward, reward], dim=1), reward, zeros.double())

    def posterior(self, belief: WalkFilter, step: Step) -> WalkFilter:
        p = middles(self.cells, belief.mass.device)
        arm = pulls_of(step, 2)
        pulled = arm.sum(-1) > 0.0  # the first step of a trial reports no pull
        chance = torch.where(step.prev_reward[:, None] > 0.5, p, 1.0 - p)  # (B, cells)
        joint = belief.mass * torch.where(arm[..., None] > 0.5, chance[:, None], 1.0)
        total = joint.sum(-1, keepdim=True)
        moved = (joint / total) @ reflected_steps(self.step_size, self.cells, p.device)
        mass = torch.where(pulled[:, None, None], moved, belief.mass)
        now = (torch.arange(self.pulls, device=p.device) == belief.pulls[:, None]).to(torch.float32)  # (B, n)
        return WalkFilter(
            mass,
            belief.pulls + pulled,
            belief.pulled + arm[..., None] * now[:, None],
            belief.reward + step.prev_reward[:, None] * now * pulled[:, None],
            belief.log_evidence + total.log().sum((1, 2)),
        )

    def features(self, belief: WalkFilter) -> Tensor:
        mean, std = self.moments(belief)
        return torch.cat([2.0 * mean - 1.0, math.sqrt(12.0) * std], dim=-1).to(torch.float32)

    def moments(self, belief: WalkFilter) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of both arms' p at the next pull: float64 ``(B, 2)`` each."""
        p = middles(self.cells, belief.mass.device)
        mean = belief.mass @ p
        return mean, (belief.mass @ p**2 - mean**2).clamp_min(0.0).sqrt()

    def log_prob(self, belief: WalkFilter, task: Walk) -> Tensor:
        """Return the log density of a path, future pulls included; minus infinity if its step size differs."""
        probs = task.probs.double()
        before, after = probs[..., :-1, None], probs[..., 1:, None]
        images = 2.0 * torch.arange(-2 - reach(self.step_size), 3 + reach(self.step_size), device=probs.device)
        steps = torch.cat([images + after - before, images - after - before], dim=-1) / self.step_size
        log_unit = math.log(self.step_size * math.sqrt(2.0 * math.pi))
        walked = ((-0.5 * steps**2).logsumexp(-1) - log_unit).sum((1, 2))
        reward = belief.reward.double()[:, None]
        paid = torch.xlogy(reward, probs) + torch.special.xlog1py(1.0 - reward, -probs)
        density = walked + (paid * belief.pulled).sum((1, 2)) - belief.log_evidence
        other = (task.step_size - self.step_size).abs() > 1e-6
        return torch.where(other, -torch.inf, density).to(torch.float32)


def reach(step_size: float) -> int:
    """Return how many mirror images of [0, 1] on either side a step of 8 standard deviations can reach."""
    return math.ceil(4.0 * step_size)


@functools.lru_cache(maxsize=16)
def middles(cells: int, device: torch.device) -> Tensor:
    """Return the centres of equal cells of [0, 1], float64 ``(cells,)``."""
    return (torch.arange(cells, device=device, dtype=torch.float64) + 0.5) / cells


@functools.lru_cache(maxsize=16)
def reflected_steps(step_size: float, cells: int, device: torch.device) -> Tensor:
    """Return the transition probabilities from the centre of a cell into each cell, float64 ``(cells, cells)``."""
    p = middles(cells, device)
    edges = torch.arange(cells + 1, device=device, dtype=torch.float64) / cells
    images = 2.0 * torch.arange(-2 - reach(step_size), 3 + reach(step_size), device=device, dtype=torch.float64)
    below = torch.special.ndtr((images[:, None, None] + edges - p[:, None]) / step_size)  # (images, from, edges)
    mirrored = torch.special.ndtr((images[:, None, None] - edges - p[:, None]) / step_size)
    steps = (below.diff(dim=-1) - mirrored.diff(dim=-1)).sum(0)
    return steps / steps.sum(-1, keepdim=True)
