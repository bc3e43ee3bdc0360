"""Natural-gradient steps: exact on quadratics, inside their bound, and honest about failing."""

import pytest
import torch
from torch import Tensor

from metarl.core.distributions import Categorical, DiagonalGaussian, MultiCategorical
from metarl.core.tree import detach
from metarl.learning.trust_region import conjugate_gradient, fisher_products, full_step, line_search, unflatten

G = torch.Generator().manual_seed(0)
N = 6
ROOT = torch.randn(N, N, dtype=torch.float64, generator=G)
MATRIX = ROOT @ ROOT.T + torch.eye(N, dtype=torch.float64)
B = torch.randn(N, dtype=torch.float64, generator=G)


def test_conjugate_gradients_solve_in_as_many_steps_as_dimensions():
    x = conjugate_gradient(lambda v: MATRIX @ v, B, N)
    torch.testing.assert_close(MATRIX @ x, B)
    few = conjugate_gradient(lambda v: MATRIX @ v, B, 2)
    assert 0 < float((MATRIX @ few - B).norm()) < float(B.norm())


def test_conjugate_gradients_stay_once_they_are_there():
    """More steps than dimensions would divide by a residual of nothing."""
    x = conjugate_gradient(lambda v: MATRIX @ v, B, 5 * N)
    torch.testing.assert_close(MATRIX @ x, B)


def test_conjugate_gradients_of_nothing():
    assert torch.equal(conjugate_gradient(lambda v: MATRIX @ v, torch.zeros_like(B), 5), torch.zeros_like(B))


def quadratic(theta: Tensor) -> tuple[float, float]:
    """Loss Bᵀθ and divergence ½ θᵀMθ: what the step's model of both is, exactly."""
    return float(B @ theta), float(0.5 * theta @ MATRIX @ theta)


def step(evaluate=quadratic, **options):
    longest = full_step(B, lambda v: MATRIX @ v, max_kl=0.01, cg_iters=N, cg_damping=0.0)
    return line_search(torch.zeros_like(B), longest, evaluate, 0.0, max_kl=0.01, **options)


def test_on_a_quadratic_the_step_is_the_best_inside_the_region():
    taken = step(ls_backtrack_ratio=1 - 1e-9)
    best = -torch.linalg.solve(MATRIX, B)
    best *= (0.02 / (best @ MATRIX @ best)).sqrt()
    assert taken.accepted and taken.kl == pytest.approx(0.01, rel=1e-6)
    torch.testing.assert_close(taken.theta, best, rtol=1e-6, atol=1e-8)


def test_the_line_search_shortens_until_both_conditions_hold():
    taken = step(lambda theta: (float(B @ theta), 3.0 * quadratic(theta)[1]), ls_backtrack_ratio=0.5)
    assert taken.accepted and taken.backtracks == 1, "three times the divergence, a quarter of it after halving"
    assert taken.kl == pytest.approx(0.0075) and taken.loss < 0


@pytest.mark.parametrize("bad", [(1.0, 0.0), (-1.0, 1.0), (float("nan"), 0.0), (-1.0, float("nan"))])
def test_a_step_that_is_never_good_is_not_taken(bad: tuple[float, float]):
    taken = step(lambda theta: bad, ls_max_steps=3)
    assert not taken.accepted and taken.backtracks == 3
    assert torch.equal(taken.theta, torch.zeros_like(B))


@pytest.mark.parametrize("gradient", [torch.zeros_like(B), torch.full_like(B, float("nan"))])
def test_no_direction_no_step(gradient: Tensor):
    longest = full_step(gradient, lambda v: MATRIX @ v, max_kl=0.01)
    taken = line_search(B, longest, quadratic, 0.0, max_kl=0.01)
    assert not taken.accepted and torch.equal(taken.theta, B) and taken.backtracks == 0


def gaussian(theta: tuple[Tensor, ...]) -> DiagonalGaussian:
    weight, log_std = theta
    x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 5, 1)
    mean = torch.tanh(x * weight)
    return DiagonalGaussian(mean, log_std.expand_as(mean))


def categorical(theta: tuple[Tensor, ...]) -> Categorical:
    weight, bias = theta
    x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 5, 1)
    return Categorical.from_logits(x * weight + bias)


def components(theta: tuple[Tensor, ...]) -> MultiCategorical:
    return MultiCategorical.from_logits(categorical(theta).log_probs, (1, 2))


@pytest.mark.parametrize("policy", [gaussian, categorical, components])
def test_products_are_the_hessian_of_the_divergence(policy):
    theta = tuple(torch.randn(3, dtype=torch.float64, generator=G).requires_grad_() for _ in range(2))
    weight = torch.rand(2, 5, dtype=torch.float64, generator=G)
    old = detach(policy(theta))

    def divergence(flat: Tensor) -> Tensor:
        return (old.kl(policy(unflatten(flat, theta))) * weight).sum()

    flat = torch.cat([part.detach() for part in theta])
    hessian = torch.autograd.functional.hessian(divergence, flat)
    product = fisher_products(policy(theta), theta, weight)
    for v in torch.eye(6, dtype=torch.float64):
        torch.testing.assert_close(product(v), hessian @ v, rtol=1e-9, atol=1e-10)


def test_products_where_a_parameter_moves_nothing():
    used, unused = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    distribution = categorical((used, torch.zeros(3, dtype=torch.float64)))
    product = fisher_products(distribution, (used, unused), torch.ones(2, 5, dtype=torch.float64))
    assert torch.equal(product(torch.ones(6, dtype=torch.float64))[3:], torch.zeros(3, dtype=torch.float64))
