"""Exact beliefs about the arms of bandits: sufficient statistics and conjugate priors."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, FiniteBelief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.bandits.arms import BernoulliArms, GaussianArms


class Counts(NamedTuple):
    """Counts of the payments of Bernoulli arms."""

    wins: Tensor  # (B, k) float32
    losses: Tensor  # (B, k) float32


class BetaArms(Belief):
    """The belief over k independent Bernoulli arms with p ~ U[0, most): a Beta distribution truncated at `most`.

    Integrals over [0, most) are Gauss-Legendre sums with half as many nodes as a trial has pulls, which are exact for
    these polynomials; for ``most = 1`` they are Beta functions. `features` are the mean and standard deviation of each
    arm's p, both divided by their prior values; 1 is subtracted from the mean.
    """

    def __init__(self, num_arms: int, pulls: int, most: float = 1.0) -> None:
        """Create the belief for trials of at most `pulls` pulls of each arm."""
        self.num_arms, self.most, self.size = num_arms, most, 2 * num_arms
        self.nodes = (pulls + 2) // 2 + 1  # exact up to the degree pulls + 3, for the second moment too

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Counts:
        zeros = torch.zeros(rows, self.num_arms, device=device)
        return Counts(zeros, zeros)

    def posterior(self, belief: Counts, step: Step) -> Counts:
        pulled = pulls_of(step, self.num_arms)
        won = pulled * step.prev_reward[:, None]
        return Counts(belief.wins + won, belief.losses + pulled - won)

    def features(self, belief: Counts) -> Tensor:
        mean, std = self.moments(belief)
        unit = self.most / 2.0
        return torch.cat([mean / unit - 1.0, std * math.sqrt(3.0) / unit], dim=-1).to(torch.float32)

    def task_mean(self, belief: Counts) -> Tensor:
        return self.moments(belief)[0].to(torch.float32)

    def moments(self, belief: Counts) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of each arm's p: float64 ``(B, k)`` each."""
        wins, losses = belief.wins.double(), belief.losses.double()
        if self.most == 1.0:
            mean = (wins + 1.0) / (wins + losses + 2.0)
            return mean, (mean * (1.0 - mean) / (wins + losses + 3.0)).sqrt()
        whole = self._log_integral(wins, losses)
        mean, square = ((self._log_integral(wins + power, losses) - whole).exp() for power in (1.0, 2.0))
        return mean, (square - mean**2).clamp_min(0.0).sqrt()

    def log_prob(self, belief: Counts, task: BernoulliArms) -> Tensor:
        """Return the log density of all arms' p; minus infinity for an arm outside [0, most)."""
        wins, losses, probs = belief.wins.double(), belief.losses.double(), task.probs.double()
        density = torch.xlogy(wins, probs) + torch.special.xlog1py(losses, -probs) - self._log_integral(wins, losses)
        outside = (probs < 0.0) | (probs > self.most)
        return torch.where(outside, -torch.inf, density).sum(-1).to(torch.float32)

    def _log_integral(self, wins: Tensor, losses: Tensor) -> Tensor:
        """Return log ∫ p^wins (1 - p)^losses dp over [0, most), float64 ``(B, k)``."""
        if self.most == 1.0:
            return torch.lgamma(wins + 1.0) + torch.lgamma(losses + 1.0) - torch.lgamma(wins + losses + 2.0)
        node, log_weight = gauss_legendre(self.nodes, self.most, wins.device)
        terms = torch.xlogy(wins[..., None], node) + losses[..., None] * torch.log1p(-node)
        return (terms + log_weight).logsumexp(-1)


class MirroredArms(BetaArms):
    """The belief over two Bernoulli arms that pay with p and 1 - p, p ~ U[0, 1): one Beta distribution for both.

    A payment of one arm counts as a non-payment of the other. The density of a task is that of p.
    """

    def __init__(self, pulls: int) -> None:
        super().__init__(2, pulls)

    def posterior(self, belief: Counts, step: Step) -> Counts:
        wins, losses = super().posterior(Counts(torch.zeros_like(belief.wins), torch.zeros_like(belief.wins)), step)
        return Counts(belief.wins + wins + losses.flip(-1), belief.losses + losses + wins.flip(-1))

    def log_prob(self, belief: Counts, task: BernoulliArms) -> Tensor:
        first = Counts(belief.wins[:, :1], belief.losses[:, :1])
        density = super().log_prob(first, BernoulliArms(task.probs[:, :1]))
        mirrored = (task.probs.sum(-1) - 1.0).abs() < 1e-6
        return torch.where(mirrored, density, -torch.inf)


class Masses(NamedTuple):
    """The probabilities of finitely many tasks."""

    log_mass: Tensor  # (B, M) float32


class ListedArms(FiniteBelief):
    """The belief over a finite set of Bernoulli tasks, such as a list of training tasks."""

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Masses:
        return Masses(self.uniform(rows, device))

    def posterior(self, belief: Masses, step: Step) -> Masses:
        probs = self.tasks_on(step.obs.device).probs  # (M, k)
        pulled = pulls_of(step, probs.shape[1])
        won = pulled * step.prev_reward[:, None]
        terms = torch.xlogy(won[:, None], probs) + torch.special.xlog1py((pulled - won)[:, None], -probs)
        return Masses(updated(belief.log_mass, terms.sum(-1)))


class Sums(NamedTuple):
    """Sums of the payments of Gaussian arms."""

    pulls: Tensor  # (B, k) float32
    total: Tensor  # (B, k) float64: the sum of an arm's payments


class NormalArms(Belief):
    """The belief over k independent Gaussian arms with mean μ ~ U[low, low + 1): a truncated normal distribution.

    Integrals are differences of normal distribution functions, computed from their logarithms in double precision, so
    they are exact in the tails too. `features` are the mean and standard deviation of each arm's μ, both divided by
    their prior values; 1 is subtracted from the mean.
    """

    def __init__(self, num_arms: int, std: float, low: float = 0.0) -> None:
        """Create the belief for payments with the standard deviation `std`."""
        self.num_arms, self.std, self.low, self.size = num_arms, std, low, 2 * num_arms

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Sums:
        zeros = torch.zeros(rows, self.num_arms, device=device)
        return Sums(zeros, zeros.double())

    def posterior(self, belief: Sums, step: Step) -> Sums:
        pulled = pulls_of(step, self.num_arms)
        return Sums(belief.pulls + pulled, belief.total + (pulled * step.prev_reward[:, None]).double())

    def features(self, belief: Sums) -> Tensor:
        mean, std = self.moments(belief)
        return torch.cat([2.0 * (mean - self.low) - 1.0, math.sqrt(12.0) * std], dim=-1).to(torch.float32)

    def task_mean(self, belief: Sums) -> Tensor:
        return self.moments(belief)[0].to(torch.float32)

    def moments(self, belief: Sums) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of each arm's μ, float64 ``(B, k)`` each."""
        centre, spread, low, high, log_mass = self._cut(belief)
        at_low, at_high = ((-0.5 * x * x - log_mass).exp() / math.sqrt(2.0 * math.pi) for x in (low, high))
        shift = at_low - at_high
        mean = centre + spread * shift
        variance = spread**2 * (1.0 + low * at_low - high * at_high - shift**2)
        seen = belief.pulls > 0
        mean = torch.where(seen, mean, self.low + 0.5)
        return mean, torch.where(seen, variance, 1.0 / 12.0).clamp_min(0.0).sqrt()

    def log_prob(self, belief: Sums, task: GaussianArms) -> Tensor:
        """Return the log density of all arms' μ; minus infinity for one outside [low, low + 1)."""
        means = task.means.double()
        centre, spread, _, _, log_mass = self._cut(belief)
        density = -0.5 * ((means - centre) / spread) ** 2 - (spread * math.sqrt(2.0 * math.pi)).log() - log_mass
        density = torch.where(belief.pulls > 0, density, 0.0)
        outside = (means < self.low) | (means > self.low + 1.0)
        return torch.where(outside, -torch.inf, density).sum(-1).to(torch.float32)

    def _cut(self, belief: Sums) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return an arm's mean payment, its standard error, the standardised ends of the range, and its log mass."""
        pulls = belief.pulls.double().clamp_min(1.0)
        centre, spread = belief.total / pulls, self.std / pulls.sqrt()
        low, high = (self.low - centre) / spread, (self.low + 1.0 - centre) / spread
        # Above the mean, use the upper tails: they are small, so their difference is exact.
        above = low > 0.0
        small, large = torch.where(above, -high, low), torch.where(above, -low, high)
        log_large = torch.special.log_ndtr(large)
        log_mass = log_large + torch.log1p(-(torch.special.log_ndtr(small) - log_large).exp())
        return centre, spread, low, high, log_mass


class ListedNormalArms(FiniteBelief):
    """The belief over a finite set of Gaussian tasks, such as a list of training tasks."""

    def __init__(self, tasks: GaussianArms, std: float) -> None:
        super().__init__(tasks)
        self.std = std

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Masses:
        return Masses(self.uniform(rows, device))

    def posterior(self, belief: Masses, step: Step) -> Masses:
        means = self.tasks_on(step.obs.device).means
        pulled = pulls_of(step, means.shape[1])
        error = (step.prev_reward[:, None, None] - means) / self.std
        return Masses(updated(belief.log_mass, -0.5 * (pulled[:, None] * error**2).sum(-1)))


def pulls_of(step: Step, num_arms: int) -> Tensor:
    """Return the pull that a step reports as one-hot float32 ``(B, k)``; zeros at the first step of a trial."""
    arms = torch.arange(num_arms, device=step.prev_action.device)
    return (step.prev_action[:, None] == arms).to(torch.float32)


@functools.lru_cache(maxsize=16)
def gauss_legendre(nodes: int, most: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the nodes and log weights of Gauss-Legendre quadrature on [0, most], float64 ``(nodes,)`` each."""
    x, weight = np.polynomial.legendre.leggauss(nodes)
    node = torch.as_tensor(0.5 * most * (x + 1.0), device=device)
    return node, torch.as_tensor(np.log(0.5 * most * weight), device=device)
