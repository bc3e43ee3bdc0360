"""The losses of soft actor-critic: against naive loops, finite differences, exact expectations and exact optima."""

from __future__ import annotations

import math

import pytest
import torch

from metarl.agents.recurrent_sac.losses import actor_loss, critic_loss, soft_value, td_target, temperature_loss
from metarl.core import rng
from metarl.core.distributions import Categorical
from metarl.learning.soft import Choices, SquashedGaussian, all_choices


def test_targets_are_those_of_a_naive_loop():
    torch.manual_seed(0)
    steps, rows, gamma, alpha = 6, 4, 0.9, 0.3
    lengths = [6, 3, 1, 4]
    mask = torch.tensor([[float(t < n) for n in lengths] for t in range(steps)])
    following = torch.cat([mask[1:], torch.zeros(1, rows)])
    reward, q = torch.randn(steps, rows), torch.randn(steps + 1, rows, 5)
    policy = all_choices(Categorical.from_logits(torch.randn(steps + 1, rows, 5)))
    target = td_target(reward, soft_value(q, policy, alpha)[1:], following, gamma)
    for row, length in enumerate(lengths):
        for t in range(length):
            expected = float(reward[t, row])
            if t + 1 < length:
                for a in range(5):
                    p = float(policy.prob[t + 1, row, a])
                    expected += gamma * p * (float(q[t + 1, row, a]) - alpha * math.log(p))
            assert float(target[t, row]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_loss_of_sac_discrete_is_that_of_sampled_actions_in_the_mean():
    """All actions with their probabilities, or drawn ones: one number, up to chance."""
    torch.manual_seed(0)
    logits, q, alpha = torch.randn(4), torch.randn(4), 0.5
    policy = Categorical.from_logits(logits)
    one = torch.ones(1)
    exact = actor_loss(q[None], all_choices(Categorical(policy.log_probs[None])), alpha, one)
    drawn = policy.__class__(policy.log_probs.expand(100_000, 4)).sample(rng.fold(rng.key(0), torch.arange(100_000)))
    sampled = Choices(drawn[:, None], torch.ones(100_000, 1), policy.log_probs[drawn][:, None])
    estimate = actor_loss(q[drawn][:, None], sampled, alpha, torch.full((100_000,), 1e-5))
    assert float(exact) == pytest.approx(float(estimate), abs=0.01)


def test_the_gradient_of_the_actor_is_that_of_finite_differences():
    """A toy with the value q(a) = -(a - 0.5)²: the noise stays the same, so that the loss is a smooth function."""
    keys = rng.fold(rng.key(1), torch.arange(64))

    def loss(parameters: torch.Tensor) -> torch.Tensor:
        policy = SquashedGaussian(*(x.expand(64, 1) for x in parameters[:, None]))
        drawn = policy.choices(keys)
        q = -((drawn.action - 0.5) ** 2)
        return actor_loss(q, drawn, 0.2, torch.full((64,), 1 / 64, dtype=torch.float64))

    at = torch.tensor([0.2, -0.7], dtype=torch.float64, requires_grad=True)
    loss(at).backward()
    for n, analytic in enumerate(at.grad.tolist()):
        e = torch.zeros(2, dtype=torch.float64)
        e[n] = 1e-5
        numeric = (loss(at.detach() + e) - loss(at.detach() - e)) / 2e-5
        assert analytic == pytest.approx(float(numeric), rel=1e-5)


def test_the_best_discrete_policy_is_the_softmax_of_the_values():
    """The minimum of the actor's loss is the Boltzmann distribution (Haarnoja et al. 2018, eq. 4), its value exact."""
    q, alpha = torch.tensor([[1.0, 0.2, -0.5]]), 0.4
    best = all_choices(Categorical.from_logits(q / alpha))
    assert float(actor_loss(q, best, alpha, torch.ones(1))) == pytest.approx(-0.4 * float((q / alpha).logsumexp(-1)))
    logits = (q / alpha).clone().requires_grad_()
    actor_loss(q, all_choices(Categorical.from_logits(logits)), alpha, torch.ones(1)).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3), rtol=0, atol=1e-6)


def test_the_critics_error_is_summed_over_critics_and_weighted():
    q, target = torch.tensor([[[1.0, 5.0]], [[3.0, 7.0]]]), torch.tensor([[2.0, 0.0]])
    assert float(critic_loss(q, target, torch.tensor([[0.5, 0.0]]))) == pytest.approx(0.5 * 0.5 * (1.0 + 1.0))


@pytest.mark.parametrize("target", [0.2, 0.9])
def test_the_temperature_moves_the_entropy_to_its_target(target: float):
    """The policy is always the best one for the temperature; in the end its entropy is the target."""
    q = torch.tensor([[1.0, 0.4, -0.5, 0.0]])
    log_alpha = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([log_alpha], lr=0.02)
    for _ in range(1500):
        policy = all_choices(Categorical.from_logits(q / log_alpha.exp().detach()))
        optimizer.zero_grad()
        temperature_loss(log_alpha, policy.entropy(), target, torch.ones(1)).backward()
        optimizer.step()
    assert float(policy.entropy()) == pytest.approx(target, abs=0.02)


def test_nothing_broadcasts():
    one = all_choices(Categorical.from_logits(torch.randn(3, 2, 4)))
    with pytest.raises(ValueError, match="Shapes differ: q"):
        soft_value(torch.randn(3, 1, 4), one, 0.1)
    with pytest.raises(ValueError, match="Shapes differ: reward"):
        td_target(torch.randn(3, 1), torch.randn(3, 2), torch.ones(3, 2), 0.9)
    with pytest.raises(ValueError, match="Shapes differ: q"):
        critic_loss(torch.randn(2, 3, 2), torch.randn(3, 1), torch.ones(3, 2))
    with pytest.raises(ValueError, match="Shapes differ: value"):
        actor_loss(torch.randn(3, 2, 4), one, 0.1, torch.ones(3))
    with pytest.raises(ValueError, match="Shapes differ: entropy"):
        temperature_loss(torch.zeros(()), torch.randn(3, 2), 0.1, torch.ones(3))
