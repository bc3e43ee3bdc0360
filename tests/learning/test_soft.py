"""Parts of soft actor-critics: densities against numerical integration, perceptrons against plain ones."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from metarl.core import rng
from metarl.core.distributions import Categorical
from metarl.fast import linear, twins
from metarl.learning.soft import LOG_STD, BatchedMLP, Point, SquashedGaussian, all_choices, polyak


def keys(n: int) -> torch.Tensor:
    return rng.fold(rng.key(0), torch.arange(n))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.5, 1.2), (0.1, 0.05)])
def test_the_density_of_a_squashed_gaussian_integrates_to_the_shares_of_draws(mean: float, std: float):
    """Change of variables: over [-1, 1] the density integrates to 1, and over a part to the normal's probability."""
    edges = torch.linspace(-1.0, 1.0, 400_001, dtype=torch.float64)
    action = (edges[1:] + edges[:-1]) / 2
    policy = SquashedGaussian(torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64).log())
    density = policy.log_prob_before(torch.atanh(action)[:, None]).exp()
    mass = (density * (edges[1] - edges[0])).cumsum(0)
    assert float(mass[-1]) == pytest.approx(1.0, abs=2e-4)
    normal = torch.distributions.Normal(mean, std)
    for place in (100_000, 200_000, 300_000):
        expected = float(normal.cdf(torch.atanh(edges[place + 1])))
        assert float(mass[place]) == pytest.approx(expected, abs=2e-4)


def test_log_densities_are_those_of_torch_and_stay_finite_near_the_bounds():
    torch.manual_seed(0)
    policy = SquashedGaussian(torch.randn(50, 3), torch.randn(50, 3) * 0.3)
    action, log_prob = policy.draw(keys(50))
    normal = torch.distributions.Normal(policy.mean.double(), policy.log_std.exp().double())
    squashed = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform()])
    near = action.abs().amax(-1) < 0.999
    expected = squashed.log_prob(action.double()).sum(-1)
    torch.testing.assert_close(log_prob.double()[near], expected[near], rtol=1e-3, atol=1e-3)
    far, log_prob = SquashedGaussian(torch.full((1, 1), 30.0), torch.zeros(1, 1)).draw(keys(1))
    assert float(far) == 1.0 and bool(log_prob.isfinite())


def test_a_draw_carries_the_gradient_of_its_parameters():
    """The reparametrised gradient of E[action] is that of numerical integration."""
    mean = torch.full((200_000, 1), 0.4, requires_grad=True)
    log_std = torch.full((200_000, 1), -0.5, requires_grad=True)
    SquashedGaussian(mean, log_std).draw(keys(200_000))[0].mean().backward()

    def expected(mean: float, log_std: float) -> float:
        z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
        weight = torch.exp(-0.5 * z**2)
        return float((torch.tanh(mean + torch.exp(torch.tensor(log_std)) * z) * weight).sum() / weight.sum())

    e = 1e-4
    by_mean = (expected(0.4 + e, -0.5) - expected(0.4 - e, -0.5)) / (2 * e)
    by_log_std = (expected(0.4, -0.5 + e) - expected(0.4, -0.5 - e)) / (2 * e)
    assert float(mean.grad.sum()) == pytest.approx(by_mean, abs=3e-3)
    assert float(log_std.grad.sum()) == pytest.approx(by_log_std, abs=3e-3)


def test_the_standard_deviation_is_bounded():
    policy = SquashedGaussian.from_outputs(torch.tensor([[0.0, 50.0], [0.0, -50.0]]))
    assert policy.log_std.flatten().tolist() == [LOG_STD[1], LOG_STD[0]]


def test_the_entropy_of_draws_is_that_of_the_density():
    policy = SquashedGaussian(torch.zeros(100_000, 2), torch.zeros(100_000, 2))
    estimate = policy.choices(keys(100_000)).entropy().mean()
    edges = torch.linspace(-1.0, 1.0, 200_001, dtype=torch.float64)
    action = (edges[1:] + edges[:-1]) / 2
    one = SquashedGaussian(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    log_density = one.log_prob_before(torch.atanh(action)[:, None])
    entropy = -(log_density.exp() * log_density).sum() * (edges[1] - edges[0])
    assert float(estimate) == pytest.approx(2 * float(entropy), abs=0.01)


def test_all_choices_have_the_policys_entropy():
    policy = Categorical.from_logits(torch.randn(7, 4))
    chosen = all_choices(policy)
    torch.testing.assert_close(chosen.entropy(), policy.entropy())
    assert chosen.action is None and torch.equal(chosen.until(3).prob, chosen.prob[:3])


def test_noise_on_a_point_is_cut_off():
    point = Point(torch.full((1000, 1), 0.9))
    action, _ = point.draw(keys(1000), 0.5, limit=0.3)
    assert float(action.max()) == 1.0 and float(action.min()) == pytest.approx(0.6)
    still, log_prob = point.draw(keys(1000), 0.0)
    assert torch.equal(still, point.action) and bool(log_prob.isfinite().all())


@pytest.mark.parametrize("shape", [(5,), (6, 5)])
def test_perceptrons_side_by_side_are_plain_ones(shape: tuple[int, ...]):
    torch.manual_seed(0)
    nets = BatchedMLP(3, [4, 2], (8, 6), 2)
    x, y = torch.randn(*shape, 4), torch.randn(*shape, 2)
    found = nets.finish(nets.begin(x), y)
    torch.testing.assert_close(found, nets.finish(nets.begin(x, y)))
    for number in range(3):
        own = slice(8 * number, 8 * number + 8)
        first = nn.functional.linear(torch.cat([x, y], -1), torch.cat([p[own] for p in nets.parts], 1), nets.bias[own])
        second = nn.functional.linear(torch.relu(first), nets.weights[0][number], nets.biases[0][number, :, 0])
        third = nn.functional.linear(torch.relu(second), nets.weights[1][number], nets.biases[1][number, :, 0])
        torch.testing.assert_close(found[number], third)


def test_frozen_perceptrons_give_their_inputs_the_same_gradient_and_take_none():
    nets, total = BatchedMLP(2, [3, 1], (8, 8), 1), torch.randn(5, 16)
    actions = [torch.zeros(5, 1, requires_grad=True) for _ in range(2)]
    for action, frozen in zip(actions, (False, True), strict=True):
        nets.zero_grad()
        nets.finish(total, action, frozen).sum().backward()
    assert torch.equal(actions[0].grad, actions[1].grad)
    assert all(p.grad is None for p in nets.parameters())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_hidden_layers_block_by_block_are_those_at_once(last: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("metarl.fast.linear.BLOCK", 90)  # five rows of 18 numbers
    torch.manual_seed(0)
    nets = BatchedMLP(3, [4, 2], (6, 5, 4), 2).double()
    results = []
    for plain in (False, True):
        total, y = (torch.arange(13.0 * n).double().reshape(13, n).sin().requires_grad_() for n in (18, 2))
        with twins.plain("hidden_layers") if plain else contextlib.nullcontext():
            outputs = nets.finish(total, y if last else None, frozen)
        weight = torch.arange(outputs.numel()).reshape(outputs.shape).sin()
        leaves = [total, *([y] if last else []), *([] if frozen else [*nets.weights, *nets.biases])]
        leaves += [nets.parts[-1]] if last and not frozen else []
        results.append([outputs, *torch.autograd.grad((outputs * weight).sum(), leaves)])
    assert linear.many_rows(total, y, None, [], [])
    for ours, plain_ones in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain_ones, rtol=0, atol=1e-12)


def test_perceptrons_need_a_hidden_layer():
    with pytest.raises(ValueError, match="at least one hidden layer"):
        BatchedMLP(2, [3], (), 1)


def test_targets_follow_by_the_share_tau():
    target, online = [torch.zeros(3)], [torch.ones(3)]
    for _ in range(2):
        polyak(target, online, 0.25)
    torch.testing.assert_close(target[0], torch.full((3,), 0.4375))
