"""The ELBO as a pure function: equal to a loop over the paper's formula, with a chain of KLs from the prior on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from metarl.agents.varibad.elbo import Gaussian, elbo, kl

STEPS, TRIALS, LATENT = 5, 3, 2


def belief(seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean, logvar = torch.randn(2, STEPS, TRIALS, LATENT, generator=generator, dtype=torch.float64)
    return Gaussian(mean, logvar)


def normal(q: Gaussian, t: int, row: int) -> Normal:
    if t < 0:
        return Normal(torch.zeros(LATENT, dtype=torch.float64), torch.ones(LATENT, dtype=torch.float64))
    return Normal(q.mean[t, row], q.logvar[t, row].exp().sqrt())


def test_it_equals_a_loop_over_the_paper_s_formula():
    q = belief()
    noise = torch.randn(4, TRIALS, LATENT, dtype=torch.float64)
    prefixes = torch.tensor([[0, 1, 2], [4, 4, 0], [1, 1, 1], [3, 0, 4]])
    weights = torch.randn(LATENT, dtype=torch.float64)
    found = elbo(q, lambda m: -((m @ weights) ** 2), prefixes, noise, 0.3)
    for p in range(4):
        for row in range(TRIALS):
            t = int(prefixes[p, row])
            here, before = normal(q, t, row), normal(q, t - 1, row)
            m = here.mean + here.stddev * noise[p, row]
            expected = -((m @ weights) ** 2) - 0.3 * kl_divergence(here, before).sum()
            torch.testing.assert_close(found.bound[p, row], expected)


def test_the_first_belief_is_held_to_the_standard_normal_distribution():
    q = Gaussian(*(torch.zeros(STEPS, TRIALS, LATENT) for _ in range(2)))
    every = torch.arange(STEPS)[:, None].expand(-1, TRIALS)
    nothing = torch.zeros(STEPS, TRIALS, LATENT)
    assert not elbo(q, lambda m: m.sum(-1), every, nothing).kl.any()
    shifted = q._replace(mean=torch.full_like(q.mean, 2.0))
    divergence = elbo(shifted, lambda m: m.sum(-1), every, nothing).kl
    assert torch.equal(divergence[0], torch.full((TRIALS,), 0.5 * LATENT * 4.0)) and not divergence[1:].any()


def test_the_kl_of_gaussians_is_torch_s():
    q, p = belief(1), belief(2)
    expected = kl_divergence(Normal(q.mean, (q.logvar / 2).exp()), Normal(p.mean, (p.logvar / 2).exp())).sum(-1)
    torch.testing.assert_close(kl(q, p), expected)
    assert float(kl(q, q).abs().max()) < 1e-12


@pytest.mark.parametrize("part", [0, 1])
def test_gradients_equal_finite_differences(part: int):
    """Beliefs are taught by their own terms and, as the prior, by those of the next prefix."""
    q = belief()
    noise = torch.randn(STEPS, TRIALS, LATENT, dtype=torch.float64)
    every = torch.arange(STEPS)[:, None].expand(-1, TRIALS)

    def bound(x: Tensor) -> Tensor:
        parts = [x if number == part else leaf for number, leaf in enumerate(q)]
        return elbo(Gaussian(*parts), lambda m: m.sin().sum(-1), every, noise, 0.7).bound.sum()

    assert torch.autograd.gradcheck(bound, q[part].clone().requires_grad_())
