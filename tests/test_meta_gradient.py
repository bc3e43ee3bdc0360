"""The gradient through the adaptation that is written by hand is autograd's."""

from __future__ import annotations

import pytest
import torch
from small_families import Reach
from test_maml import VARIANTS, build, each_family, each_variant, in_double, play

from metarl.agents import meta_gradient
from metarl.agents.meta_steps import add_gradient, ppo_loss
from metarl.family import TaskFamily


@each_variant
@each_family
def test_the_gradient_by_hand_is_autograds(variant: str, family: TaskFamily):
    agent = build(family, **(VARIANTS[variant] | {"outer": "ppo", "activation": "tanh"}))
    data = in_double(agent, play(agent))
    # Other policies than the present ones, so that the penalty has a gradient.
    olds = [type(old)(*(field + 0.1 * field.cos() for field in old)) for old in agent.adapted(agent.meta, data).inner]
    loss, metrics = ppo_loss(agent, agent.meta, data, olds)
    expected = torch.autograd.grad(loss, agent.meta)
    found = add_gradient(agent, data, olds, share=1.0)
    for parameter, gradient in zip(agent.meta, expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-10)
    for name, value in metrics.items():
        torch.testing.assert_close(found[name], value)


def test_parts_add_up():
    agent = build(Reach(), outer="ppo")
    data = in_double(agent, play(agent))
    add_gradient(agent, data, [], share=1.0)
    whole = [p.grad.clone() for p in agent.meta if p.grad is not None]
    for p in agent.meta:
        p.grad = None
    for _ in range(2):
        add_gradient(agent, data, [], share=0.5)
    for p, gradient in zip(agent.meta, whole, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.parametrize(("activation", "known"), [("tanh", True), ("relu", False)])
def test_other_units_are_left_to_autograd(activation: str, known: bool):
    assert meta_gradient.possible(build(Reach(), activation=activation)) is known
