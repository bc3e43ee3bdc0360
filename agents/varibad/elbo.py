"""The evidence lower bound (ELBO) of VariBAD (Zintgraf et al. 2020, eq. 8 and 10), as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """A normal distribution with a diagonal covariance matrix."""

    mean: Tensor  # (…, Z)
    logvar: Tensor  # (…, Z)


class ELBO(NamedTuple):
    """The bound for each of P prefixes of B trials, and its terms."""

    bound: Tensor  # (P, B): reconstruction - kl_weight · kl
    reconstruction: Tensor  # (P, B)
    kl: Tensor  # (P, B)


def elbo(
    posterior: Gaussian,
    log_likelihood: Callable[[Tensor], Tensor],
    prefixes: Tensor,
    noise: Tensor,
    kl_weight: float = 1.0,
) -> ELBO:
    """Return, for prefixes t of trials, E over m ~ q(m | τ:t) of log p(τ:H | m), minus KL(q(m | τ:t) ‖ q(m | τ:t-1)).

    The prior of the first belief, t = 0, is the standard normal distribution. `posterior` holds the beliefs q(m | τ:t)
    after each step, ``(T, B, Z)``, and `prefixes`, int64 ``(P, B)``, the prefixes t, counted from 0. One sample of m
    per prefix, made from standard normal `noise` ``(P, B, Z)``, estimates the expectation. ``log_likelihood(m)``
    returns the log-likelihood of the whole trial, past and future, ``(P, B)``.
    """
    before = Gaussian(*(torch.cat([torch.zeros_like(part[:1]), part[:-1]]) for part in posterior))
    q, prior = (Gaussian(*(_at(part, prefixes) for part in belief)) for belief in (posterior, before))
    m = q.mean + (0.5 * q.logvar).exp() * noise
    reconstruction, divergence = log_likelihood(m), kl(q, prior)
    return ELBO(reconstruction - kl_weight * divergence, reconstruction, divergence)


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """Return KL(q ‖ p), ``(…)``."""
    squares = (q.logvar - p.logvar).exp() + (q.mean - p.mean) ** 2 * (-p.logvar).exp()
    return 0.5 * (p.logvar - q.logvar + squares - 1.0).sum(-1)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Return the entries of ``(T, B, Z)`` at times `index` ``(P, B)``: ``(P, B, Z)``."""
    return x.gather(0, index[..., None].expand(-1, -1, x.shape[-1]))
