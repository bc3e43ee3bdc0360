"""Feed-forward policies and the learned value."""

import gymnasium
import numpy as np
import pytest
import torch

from metarl.learning import nets


def box(low: float, high: float, n: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(low, high, (n,), np.float32)


def test_a_policy_for_continuous_actions_works_in_units_of_the_range():
    policy = nets.MLPPolicy(3, box(0, 4, 2), [8], init_std=0.5, min_std=0.1)
    distribution = policy(torch.zeros(5, 3))
    assert distribution.mean.tolist() == [[0.0, 0.0]] * 5, "biases start at zero: the centre of the range"
    torch.testing.assert_close(distribution.log_std.exp(), torch.full((5, 2), 0.5))
    with torch.no_grad():
        policy.head.log_std.fill_(-100.0)
    torch.testing.assert_close(policy(torch.zeros(1, 3)).log_std.exp(), torch.full((1, 2), 0.1))
    for space, expected in ((box(0, 4, 2), [4.0, 2.0]), (box(-np.inf, np.inf, 2), [1.0, 0.0])):
        actions = nets.MLPPolicy(3, space, [8]).head.actions
        assert actions.to_family(torch.tensor([1.0, 0.0])).tolist() == expected


def test_a_policy_for_discrete_actions_and_one_without_hidden_layers():
    policy = nets.MLPPolicy(3, gymnasium.spaces.Discrete(4), [])
    assert [name for name, _ in policy.named_parameters()] == ["head.linear.weight", "head.linear.bias"]
    torch.testing.assert_close(policy(torch.zeros(2, 3)).log_probs.exp(), torch.full((2, 4), 0.25))
    assert {name.split(".")[0] for name, _ in nets.MLPPolicy(3, box(0, 1, 1), [5, 5]).named_parameters()} == {
        "body",
        "head",
    }


def test_a_value_network_answers_in_the_scale_of_returns():
    net = nets.ValueNetwork(2, hidden=8)
    returns, mask = torch.full((4, 3), -80.0), torch.ones(4, 3)
    returns[0] = -60.0
    mask[0, 0], returns[0, 0] = 0.0, 1e6
    net.follow(returns, mask, 1.0)
    seen = returns[mask > 0]
    assert float(net.mean) == pytest.approx(float(seen.mean())) and float(net.std) == pytest.approx(
        float(seen.std(correction=0))
    )
    x, time = torch.rand(4, 3, 2), torch.rand(4, 3)
    assert net(x, time).shape == (4, 3) and abs(float(net(x, time).mean().detach()) + 78) < 10
    exact = net(x, time).detach()
    assert float(net.loss(x, time, exact, mask).detach()) == pytest.approx(0.0, abs=1e-9)


def test_tanh_and_its_first_two_derivatives():
    x = torch.linspace(-6.0, 6.0, 101, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(nets.Tanh()(x), torch.tanh(x), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(nets.Tanh(), x) and torch.autograd.gradgradcheck(nets.Tanh(), x)
