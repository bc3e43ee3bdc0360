"""PPO's clipped loss."""

import pytest
import torch

from metarl.surrogate import clipped_surrogate

T, B, A = 5, 4, 3
G = torch.Generator().manual_seed(0)
LOGITS, ADVANTAGE = torch.randn(T, B, A, generator=G).double(), torch.randn(T, B, generator=G).double()
ACTION = torch.randint(A, (T, B), generator=G)
MASK = torch.ones(T, B).double()
MASK[3:, 2] = 0.0


def log_prob(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, -1).gather(-1, ACTION[..., None]).squeeze(-1)


def loss_at(logits: torch.Tensor, clip: float = 0.2) -> torch.Tensor:
    return clipped_surrogate(log_prob(logits), log_prob(LOGITS), ADVANTAGE, MASK, clip)[0]


def test_at_ratio_one_the_loss_is_minus_the_mean_advantage():
    loss, metrics = clipped_surrogate(log_prob(LOGITS), log_prob(LOGITS), ADVANTAGE, MASK, 0.2)
    torch.testing.assert_close(loss, -ADVANTAGE[MASK > 0].mean())
    assert metrics["approx_kl"] == 0.0 and metrics["clip_fraction"] == 0.0


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    logits = LOGITS.clone().requires_grad_()
    (ours,) = torch.autograd.grad(loss_at(logits), logits)
    (reinforce,) = torch.autograd.grad(-(log_prob(logits) * ADVANTAGE * MASK).sum() / MASK.sum(), logits)
    torch.testing.assert_close(ours, reinforce)
    eps = 1e-6
    for t, b, a in ((0, 0, 0), (2, 1, 2), (4, 3, 1), (4, 2, 0)):
        nudge = torch.zeros_like(LOGITS)
        nudge[t, b, a] = eps
        difference = (loss_at(LOGITS + nudge) - loss_at(LOGITS - nudge)) / (2 * eps)
        torch.testing.assert_close(ours[t, b, a], difference, rtol=1e-5, atol=1e-9)


def test_what_is_masked_has_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_at(logits), logits)
    assert bool((gradient[MASK == 0] == 0).all()) and bool((gradient[MASK > 0] != 0).any())


@pytest.mark.parametrize(("ratio", "advantage", "loss", "moves"), [
    (1.5, 1.0, -1.2, False), (0.5, 1.0, -0.5, True), (1.5, -1.0, 1.5, True), (0.5, -1.0, 0.8, False),
])  # fmt: skip
def test_clipping_only_takes_away_the_gain(ratio: float, advantage: float, loss: float, moves: bool):
    new = torch.tensor([[ratio]]).log().requires_grad_()
    value, metrics = clipped_surrogate(new, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.ones(1, 1), 0.2)
    (gradient,) = torch.autograd.grad(value, new)
    assert value.item() == pytest.approx(loss) and bool(gradient != 0) == moves
    assert metrics["clip_fraction"] == 1.0


def test_approx_kl_estimates_the_kl():
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.3, 0.3, 0.4])
    old, new = p.log()[None], q.log()[None]
    _, metrics = clipped_surrogate(new, old, torch.zeros(1, 3), p[None], 0.2)  # the mask as weights: exact expectation
    assert float(metrics["approx_kl"]) == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)


def test_nothing_broadcasts():
    with pytest.raises(ValueError, match="one shape"):
        clipped_surrogate(torch.zeros(T, B), torch.zeros(T, B), torch.zeros(T, 1), torch.ones(T, B), 0.2)
