"""The second derivatives of MAML's inner losses against an exact Hessian: what the table in docs/findings.md says."""

import pytest
import torch

from benchmarks.surrogate_hessians import POLICIES, SIZES, errors, exact, of_loss


@pytest.mark.parametrize("name", POLICIES)
def test_the_likelihood_ratio_has_the_exact_hessian(name: str):
    assert float(errors(name, "likelihood_ratio", policies=10).max()) < 1e-9


def test_vpg_has_another_one():
    assert float(errors("one hidden layer", "vpg", policies=30).mean()) > 0.3


def test_vpg_of_a_linear_policy_has_none():
    """Then nothing of second order is left, and MAML is its own first-order approximation."""
    generator = torch.Generator().manual_seed(1)
    theta, reward = torch.randn(2, SIZES["linear"], generator=generator, dtype=torch.float64)
    weight = POLICIES["linear"](theta).exp()
    assert float(of_loss(POLICIES["linear"], theta, reward, "vpg", weight).abs().max()) < 1e-12
    assert float(exact(POLICIES["linear"], theta, reward).norm()) > 0.01
    assert float((errors("linear", "vpg", policies=5) - 1.0).abs().max()) < 1e-9
