"""The gradient through the adaptation that is written by hand is autograd's."""

from __future__ import annotations

import contextlib

import pytest
import torch
from small_families import Reach
from test_maml import VARIANTS, before_steps, build, each_family, each_variant, in_double, outer_loss, play

from metarl.agents.maml import MAML
from metarl.agents.maml.rounds import Samples
from metarl.core.distributions import Distribution
from metarl.core.family import TaskFamily
from metarl.fast import perceptron, twins


def gradients(agent: MAML, rounds: list[Samples], before: list[Distribution], share: float = 1.0) -> list[torch.Tensor]:
    """The gradient that `add_gradient` leaves in the meta-parameters."""
    for parameter in agent.meta:
        parameter.grad = None
    agent.outer.add_gradient(rounds, before, share)
    return [parameter.grad.clone() for parameter in agent.meta]


@each_variant
@each_family
@pytest.mark.parametrize("fast", [True, False], ids=["by hand", "plain twin"])
def test_the_gradient_through_the_steps_is_autograds(variant: str, family: TaskFamily, fast: bool):
    agent = build(family, **(VARIANTS[variant] | {"outer": "ppo", "activation": "tanh"}))
    rounds = in_double(agent, play(agent))
    # Other policies than the present ones, so that the penalty has a gradient.
    before = [type(old)(*(field + 0.1 * field.cos() for field in old)) for old in before_steps(agent, rounds)]
    expected = torch.autograd.grad(outer_loss(agent, agent.meta, rounds, before), agent.meta)
    with contextlib.nullcontext() if fast else twins.plain():
        found = gradients(agent, rounds, before)
    for ours, autograds in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-10, atol=1e-10)


def test_its_metrics_are_those_of_the_loss():
    agent = build(Reach(), outer="ppo", inner_steps=2)
    rounds = in_double(agent, play(agent))
    found = agent.outer.add_gradient(rounds, [], 1.0)
    _, expected = agent.outer.loss(agent.adaptation.adapt(agent.meta, rounds).policies, rounds, [])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_parts_add_up():
    agent = build(Reach(), outer="ppo")
    rounds = in_double(agent, play(agent))
    whole = gradients(agent, rounds, [])
    gradients(agent, rounds, [], 0.5)
    agent.outer.add_gradient(rounds, [], 0.5)
    for p, gradient in zip(agent.meta, whole, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.parametrize(("activation", "known"), [("tanh", True), ("relu", False)])
def test_other_units_are_left_to_autograd(activation: str, known: bool):
    agent = build(Reach(), activation=activation)
    assert perceptron.suits((), [], [], agent.adaptation, None) is known
