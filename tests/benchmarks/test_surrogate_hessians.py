"""The second derivatives of MAML's inner losses against an exact Hessian: what the tables in docs/findings.md say."""

import pytest
import torch

from benchmarks.surrogate_hessians import POLICIES, ROWS, draws, errors, linear, objectives, of_samples, value

EXACT = 1e-9
each_policy = pytest.mark.parametrize("name", POLICIES)


@each_policy
@pytest.mark.parametrize(
    ("pulls", "row"), [(1, "`likelihood_ratio`"), (1, "`dice`"), (2, "`dice`"), (2, "`dice`, no baseline")]
)
def test_these_have_the_exact_hessian(name: str, pulls: int, row: str):
    found = errors(name, pulls, row, policies=5)
    assert float(found.expected.max()) < EXACT and float(found.meta_gradient.max()) < EXACT
    assert EXACT < float(found.sampled.median()) < 0.05, "a mean of 100,000 episodes is close"


@each_policy
def test_with_two_decisions_the_likelihood_ratio_is_between(name: str):
    means = [float(errors(name, 2, row, policies=4).expected.mean()) for row in list(ROWS)[:3]]
    assert means[2] < EXACT < 0.1 < means[1] < means[0]


def test_vpg_has_another_one():
    assert float(errors("one hidden layer", 1, "`vpg`", policies=12).expected.mean()) > 0.3


@pytest.mark.parametrize("pulls", [1, 2])
def test_vpg_of_a_linear_policy_has_none(pulls: int):
    """Then nothing of second order is left, and MAML is its own first-order approximation."""
    for theta, task in draws("linear", pulls, policies=3, scale=1.0, seed=1):
        chance = linear(theta)[task.states, task.actions].sum(-1).exp()

        def expected(t: torch.Tensor, task=task, chance=chance) -> torch.Tensor:
            return (chance * objectives("vpg", linear, t, task)).sum()

        hessian = torch.autograd.functional.hessian(expected, theta)
        # `objectives` takes the policy at its argument for the one that acted: a constant to the derivative.
        assert float(hessian.abs().max()) < 1e-12
        exact = torch.autograd.functional.hessian(lambda t, task=task: value(linear, t, task), theta)
        assert float(exact.norm()) > 0.01
    assert float((errors("linear", pulls, "`vpg`", policies=5).expected - 1.0).abs().max()) < EXACT


def test_a_baseline_takes_variance_away():
    with_one, without = (
        errors("one hidden layer", 2, row, policies=4).spread for row in ("`dice`", "`dice`, no baseline")
    )
    assert float(with_one.mean()) < float(without.mean())


@each_policy
def test_steps_on_more_samples_need_less_credit_for_exploration(name: str):
    few, many = (of_samples(name, "likelihood_ratio", k, policies=5) for k in (2, 20))
    assert float(many.mean()) < 0.3 * float(few.mean())
    assert float((of_samples(name, "vpg", 20, policies=5) / many).mean()) > 3.0, "the error of vpg stays"
