"""PPO's clipped loss."""

import contextlib

import pytest
import torch

from metarl.core.distributions import Categorical, DiagonalGaussian
from metarl.fast import twins
from metarl.learning.losses import PPO_METRICS, clipped_surrogate, ppo_loss

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


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def cases() -> list:
    categorical = (Categorical.from_logits, (LOGITS,), ACTION)
    features_first = (Categorical.from_logits, (noise(A, T, B).permute(1, 2, 0),), ACTION)
    gaussian = (DiagonalGaussian, (noise(T, B, 2), noise(2)), noise(T, B, 2) + 0.5)
    of_state = (DiagonalGaussian, (noise(T, B, 2), noise(T, B, 2)), noise(T, B, 2))
    return [categorical, features_first, gaussian, of_state]


def steps(action: torch.Tensor, policy) -> tuple[torch.Tensor, ...]:
    """Actions, log-probabilities of another policy, advantages, targets and weights; some of the ratios are clipped."""
    old = policy.log_prob(action) + 0.3 * noise(T, B)
    ratio = (policy.log_prob(action) - old).exp()
    assert bool((ratio > 1.2).any()) and bool((ratio < 0.8).any())
    return action, old.detach(), ADVANTAGE, noise(T, B) - 1.0, MASK / MASK.sum()


COEFFICIENTS = {"clip_coef": 0.2, "vf_coef": 0.7, "ent_coef": 0.05}


@pytest.mark.parametrize("case", range(4))
def test_the_fast_loss_of_ppo_is_the_plain_one(case: int):
    make, fields, action = cases()[case]
    data, found = steps(action, make(*fields)), []
    for fast in (True, False):
        leaves = [leaf.clone().requires_grad_() for leaf in (noise(T, B), *fields)]
        with contextlib.nullcontext() if fast else twins.plain():
            loss, metrics = ppo_loss(leaves[0], make(*leaves[1:]), *data, **COEFFICIENTS)
        (3.0 * loss).backward()
        found.append([loss, metrics, *(leaf.grad for leaf in leaves)])
    for fast_one, plain_one in zip(*found, strict=True):
        torch.testing.assert_close(fast_one, plain_one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("fast", [True, False])
def test_ppo_s_metrics_are_its_terms_and_those_of_the_surrogate(fast: bool):
    policy, value = Categorical.from_logits(LOGITS), noise(T, B)
    data = steps(ACTION, policy)
    with contextlib.nullcontext() if fast else twins.plain():
        loss, found = ppo_loss(value, policy, *data, **COEFFICIENTS)
    metrics = dict(zip(PPO_METRICS, found, strict=True))
    gain, expected = clipped_surrogate(policy.log_prob(ACTION), data[1], ADVANTAGE, MASK, 0.2)
    torch.testing.assert_close(loss, metrics["policy"] + 0.7 * metrics["value"] - 0.05 * metrics["entropy"])
    torch.testing.assert_close(metrics["policy"], gain)
    torch.testing.assert_close(metrics["value"], 0.5 * ((value - data[3]) ** 2)[MASK > 0].mean())
    torch.testing.assert_close(metrics["entropy"], policy.entropy()[MASK > 0].mean())
    for name, number in expected.items():
        torch.testing.assert_close(metrics[name], number)


@pytest.mark.parametrize("fast", [True, False])
def test_ppo_refuses_shapes_that_would_broadcast(fast: bool):
    policy = Categorical.from_logits(LOGITS)
    with pytest.raises(ValueError, match="one shape"), contextlib.nullcontext() if fast else twins.plain():
        ppo_loss(noise(T, 1), policy, *steps(ACTION, policy), **COEFFICIENTS)
