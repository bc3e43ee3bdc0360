"""R2D2's formulas next to naive ones: rescaling, targets, loss, priorities, exploration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metarl.agents.r2d2.exploration import epsilon_greedy, ladder, mean_apex_epsilon
from metarl.agents.r2d2.losses import sequence_priority, td_loss
from metarl.agents.r2d2.targets import n_step_double_targets, rescale, unscale
from metarl.core import rng

STEPS, ROWS, ACTIONS = 9, 5, 3


def example(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, masks with trials of 9, 9, 6, 1 and 0 steps, and values of two networks."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: 3.0 * torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    mask = (torch.arange(STEPS)[:, None] < torch.tensor([9, 9, 6, 1, 0])).to(torch.float64)
    return draw(STEPS, ROWS), mask, draw(STEPS, ROWS, ACTIONS), draw(STEPS, ROWS, ACTIONS)


def h(x: float) -> float:
    return math.copysign(math.sqrt(abs(x) + 1.0) - 1.0, x) + 1e-3 * x


def inverse_h(x: float) -> float:
    """By bisection."""
    low, high = -1e7, 1e7
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if h(middle) < x else (low, middle)
    return low


def naive(reward: Tensor, mask: Tensor, online: Tensor, target: Tensor, gamma: float, n: int, rescaled: bool):
    out = torch.zeros(STEPS, ROWS, dtype=torch.float64)
    for b in range(ROWS):
        length = int(mask[:, b].sum())
        for t in range(length):
            total = sum(gamma**k * float(reward[t + k, b]) for k in range(n) if t + k < length)
            if t + n < length:
                action = max(range(ACTIONS), key=lambda a, t=t, b=b: float(online[t + n, b, a]))
                value = float(target[t + n, b, action])
                total += gamma**n * (inverse_h(value) if rescaled else value)
            out[t, b] = h(total) if rescaled else total
    return out


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 20])
def test_targets_are_those_of_a_naive_loop(n: int, rescaled: bool):
    reward, mask, online, target = example()
    ours = n_step_double_targets(reward, mask, online, target, 0.9, n, rescaled)
    wanted = naive(reward, mask, online, target, 0.9, n, rescaled)
    torch.testing.assert_close(ours * mask, wanted, rtol=1e-9, atol=1e-9)


def test_what_is_padded_changes_no_target():
    reward, mask, online, target = example()
    plain = n_step_double_targets(reward, mask, online, target, 0.9, 3)
    there = mask[..., None] > 0
    spoiled = [torch.where(mask > 0, reward, 99.0), mask, *(torch.where(there, x, -99.0) for x in (online, target))]
    torch.testing.assert_close(n_step_double_targets(*spoiled, 0.9, 3) * mask, plain * mask, rtol=0, atol=0)


def test_the_online_network_chooses_and_the_target_network_rates():
    reward, mask, online, target = (x[:, :1] for x in example())
    best = online.argmax(-1, keepdim=True)
    plain = n_step_double_targets(reward, mask, online, target, 0.9, 2)
    others = target + 7.0 * torch.ones_like(target).scatter(-1, best, 0.0)
    assert torch.equal(n_step_double_targets(reward, mask, online, others, 0.9, 2), plain)
    chosen = target + torch.zeros_like(target).scatter(-1, best, 7.0)
    changed = n_step_double_targets(reward, mask, online, chosen, 0.9, 2) > plain
    assert torch.equal(changed[:, 0], torch.arange(STEPS) < STEPS - 2)


def test_targets_of_a_cut_sequence_are_those_of_the_whole_one():
    reward, mask, online, target = example()
    whole = n_step_double_targets(reward, mask, online, target, 0.9, 2)
    cut = n_step_double_targets(reward[2:7], mask[2:7], online[2:7], target[2:7], 0.9, 2)
    torch.testing.assert_close(cut[:-2], whole[2:5], rtol=0, atol=0)


def test_rescaling_has_this_inverse():
    x = torch.cat([-torch.logspace(-12, 6, 200), torch.zeros(1), torch.logspace(-12, 6, 200)]).double()
    torch.testing.assert_close(unscale(rescale(x)), x, rtol=1e-12, atol=0)
    torch.testing.assert_close(rescale(unscale(x)), x, rtol=1e-12, atol=0)
    single = x.float()
    torch.testing.assert_close(unscale(rescale(single)), single, rtol=1e-5, atol=0)


def test_rescaling_is_the_one_of_the_paper():
    for x in (-120.0, -1.0, 0.0, 0.3, 8.0, 5000.0):
        assert float(rescale(torch.tensor(x, dtype=torch.float64))) == pytest.approx(h(x), abs=1e-12)


def test_targets_of_wrong_shapes_are_refused():
    reward, mask, online, target = example()
    with pytest.raises(ValueError, match="Shapes differ: reward"):
        n_step_double_targets(reward[:1], mask, online, target, 0.9, 3)
    with pytest.raises(ValueError, match="Shapes differ: value"):
        td_loss(reward, reward, mask, mask, mask.sum())
    with pytest.raises(ValueError, match="Shapes differ: error"):
        sequence_priority(reward, mask[:2], 0.9)


@pytest.mark.parametrize("eta", [0.0, 0.9, 1.0])
def test_the_priority_of_a_sequence_mixes_the_largest_and_the_mean_error(eta: float):
    error, mask, _, _ = example()
    found = sequence_priority(error, mask, eta)
    for b in range(ROWS):
        sizes = [abs(float(error[t, b])) for t in range(STEPS) if mask[t, b]]
        wanted = eta * max(sizes) + (1 - eta) * sum(sizes) / len(sizes) if sizes else 0.0
        assert float(found[b]) == pytest.approx(wanted)
    free = sequence_priority(torch.zeros_like(error), mask, eta)
    assert torch.equal(free > 0, mask.sum(0) > 0) and float(free.max()) < 1e-5, "drawn again, unless it is all padding"


def test_the_loss_is_a_weighted_mean_over_steps():
    value, mask, online, _ = example()
    target, weight = online[..., 0], torch.tensor([1.0, 0.5, 0.2, 1.0, 1.0], dtype=torch.float64)
    steps = [(t, b) for t in range(STEPS) for b in range(ROWS) if mask[t, b]]
    wanted = sum(0.5 * float(weight[b]) * float(target[t, b] - value[t, b]) ** 2 for t, b in steps) / len(steps)
    assert float(td_loss(value, target, mask, weight, mask.sum())) == pytest.approx(wanted)


def test_the_ladder_is_the_one_of_the_paper():
    n, epsilon, alpha = 8, 0.4, 7.0
    wanted = [epsilon ** (1.0 + i * alpha / (n - 1)) for i in range(n)]
    torch.testing.assert_close(ladder(torch.arange(n) / (n - 1), epsilon, alpha), torch.tensor(wanted))


@pytest.mark.parametrize(("epsilon", "alpha"), [(0.4, 7.0), (0.4, 0.0), (0.0, 7.0), (1.0, 7.0), (0.01, 2.0)])
def test_the_mean_of_the_ladder(epsilon: float, alpha: float):
    numeric = float(ladder((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000, epsilon, alpha).mean())
    assert mean_apex_epsilon(epsilon, alpha) == pytest.approx(numeric, abs=1e-7)


def test_epsilon_greedy_is_a_mixture():
    q, epsilon = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, -1.0], [0.0, 0.0, 9.0]]), torch.tensor([0.3, 1.0, 0.0])
    policy = epsilon_greedy(q, epsilon)
    wanted = torch.tensor([[0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(policy.log_probs.exp(), wanted)
    n = 20_000
    policy = epsilon_greedy(q[:1].expand(n, 3), epsilon[:1].expand(n))
    drawn = policy.sample(rng.fold(rng.key(0), torch.arange(n))).bincount(minlength=3) / n
    torch.testing.assert_close(drawn, wanted[0], rtol=0, atol=0.015)
