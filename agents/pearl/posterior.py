"""The posterior over the latent task: a product of Gaussians, stored as sums of natural parameters."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LEAST_VARIANCE = 1e-7
"""Smallest variance of a factor."""


class Posterior(NamedTuple):
    """Gaussians over the latent z with diagonal covariances, in natural parameters, which a product adds up.

    The posterior after the transitions c_1 … c_n is N(0, I) · Π Ψ(z | c_i), with a Gaussian factor Ψ for each
    transition (Rakelly et al. 2019, §4.1). Its precision is 1 plus the sum of the factors' precisions. The order of
    transitions therefore does not matter, and more transitions need no more memory.
    """

    precision: Tensor  # (…, Z) 1 / variance
    weighted: Tensor  # (…, Z) mean / variance

    @classmethod
    def prior(cls, rows: int, size: int, like: Tensor) -> Posterior:
        """Return the standard normal prior ``(rows, size)``, with the type and device of `like`."""
        return cls(like.new_ones(rows, size), like.new_zeros(rows, size))

    @classmethod
    def factors(cls, mean: Tensor, variance: Tensor) -> Posterior:
        """Return Gaussian factors ``(…, Z)`` with this mean and variance."""
        precision = 1.0 / variance.clamp_min(LEAST_VARIANCE)
        return cls(precision, mean * precision)

    def times(self, factors: Posterior, mask: Tensor) -> Posterior:
        """Return the product ``(N, Z)`` with the `factors` ``(M, N, Z)`` whose `mask` ``(M, N)`` is 1."""
        kept = mask[..., None]
        return Posterior(
            self.precision + (kept * factors.precision).sum(0), self.weighted + (kept * factors.weighted).sum(0)
        )

    @property
    def mean(self) -> Tensor:
        """The mean ``(…, Z)``."""
        return self.weighted / self.precision

    @property
    def variance(self) -> Tensor:
        """The variance ``(…, Z)``."""
        return 1.0 / self.precision

    def draw(self, noise: Tensor) -> Tensor:
        """Return differentiable samples ``(…, Z)``, made from standard normal `noise` of that shape."""
        return self.mean + self.precision.rsqrt() * noise

    def kl(self) -> Tensor:
        """Return the KL divergence ``(…)`` of the posterior from the prior N(0, I), in nats."""
        return 0.5 * (self.variance + self.mean**2 - 1.0 + self.precision.log()).sum(-1)
