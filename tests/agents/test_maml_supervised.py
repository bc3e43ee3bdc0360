"""MAML with supervised losses: gradients by finite differences, steps by hand, and that they know nothing of chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_families import Reach
from test_log import documented
from test_maml import build, directions, flat, in_double, play
from torch import Tensor

from metarl.agents.maml import MAML, MAMLConfig, SupervisedStep
from metarl.agents.maml.adaptation import Meta, supervised
from metarl.agents.maml.rounds import Samples
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import episode_returns, run_trial
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid
from metarl.learning.trust_region import unflatten
from metarl.testing import check_agent

BOTH = {"inner_loss": "supervised", "outer": "supervised"}
VARIANTS: dict[str, dict[str, Any]] = {
    "maml": BOTH,
    "silu": BOTH | {"activation": "silu"},
    "three steps, all rounds": BOTH | {"inner_steps": 3, "meta_rounds": "all"},
    "fomaml": BOTH | {"first_order": True},
    "anil": BOTH | {"adapted": "head"},
    "meta-sgd": BOTH | {"rates": "per_parameter"},
    "only the inner loss": {"inner_loss": "supervised"},
    "only the inner loss, ppo": {"inner_loss": "supervised", "outer": "ppo", "clip_coef": 0.9},
    "only the outer loss": {"outer": "supervised"},
    "reptile": {"inner_loss": "supervised", "outer": "reptile"},
}
FAMILIES = [FewShotDigits(num_classes=2), Sinusoid(horizon=5)]
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=["cross-entropy", "squared error"])


def outer_loss(agent: MAML, meta: Meta, rounds: list[Samples]) -> Tensor:
    policies, _ = agent.adaptation.adapt(meta, rounds, differentiable=True)
    if agent.config.outer.__class__.__name__ == "TRPOStep":
        return agent.outer.loss(policies, rounds)
    return agent.outer.loss(policies, rounds, [])[0]


@each_family
@each_variant
def test_the_contract_of_agents(variant: str, family: TaskFamily):
    config = build(family, **VARIANTS[variant]).config
    check_agent(config, family)


@each_family
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("fomaml", "reptile")])
def test_the_meta_gradient_equals_finite_differences(variant: str, family: TaskFamily):
    agent = build(family, **VARIANTS[variant])
    data = in_double(agent, play(agent))
    start = flat(agent.meta)
    theta = start + 0.01 * directions(len(start), 1)[0]
    meta = tuple(part.clone().requires_grad_() for part in unflatten(theta, agent.meta))
    gradient = torch.autograd.grad(outer_loss(agent, meta, data), meta, allow_unused=True, materialize_grads=True)
    for direction in directions(len(theta)):
        up, down = (
            outer_loss(
                agent,
                tuple(part.requires_grad_() for part in unflatten(theta + sign * 1e-5 * direction, agent.meta)),
                data,
            )
            for sign in (1, -1)
        )
        difference = float((up - down).detach()) / 2e-5
        assert float(flat(gradient) @ direction) == pytest.approx(difference, rel=1e-5, abs=1e-8)


@each_family
@pytest.mark.parametrize("variant", ["maml", "three steps, all rounds", "anil", "meta-sgd", "only the outer loss"])
def test_the_step_descends_that_gradient(variant: str, family: TaskFamily):
    """What Adam is given is the gradient of the outer loss through the gradient steps."""
    agent = build(family, **VARIANTS[variant])
    data = in_double(agent, play(agent))
    whole = torch.autograd.grad(outer_loss(agent, agent.meta, data), agent.meta, allow_unused=True)
    agent.net.zero_grad()
    metrics = agent.outer.add_gradient(data, [], share=1.0)
    for parameter, expected in zip(agent.meta, whole, strict=True):
        expected = torch.zeros_like(parameter) if expected is None else expected
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-12)
    assert float(metrics["supervised"]) == pytest.approx(float(outer_loss(agent, agent.meta, data).detach()))


def test_a_gradient_step_is_that_of_the_squared_error_by_hand():
    """One task, one plain `nn.Module`; errors in units of half the action range, 8."""
    family = Sinusoid(horizon=5)
    agent = build(family, **BOTH, fast_lr=0.5)
    rollout = play(agent, rounds=1)[0]
    adapted = agent.adapt(agent.begin(6), rollout)
    for task in range(6):
        alone, mine = build(family, **BOTH), slice(4 * task, 4 * task + 4)
        obs = rollout.step.obs[:, mine]
        wave = [float(part[4 * task]) for part in rollout.task]
        y = wave[0] * torch.sin(obs[..., 0] - wave[1])
        mean = alone.net.policy(alone.net.scaling.scaled(obs, 2)).mean[..., 0]
        (((mean - y / 8.0) ** 2).mean()).backward()
        for (name, p), new in zip(alone.net.policy.named_parameters(), adapted.params, strict=True):
            step = torch.zeros_like(p) if name == "head.log_std" else 0.5 * p.grad
            torch.testing.assert_close(new[task], (p - step).detach(), rtol=1e-4, atol=1e-6)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    family = FewShotDigits(num_classes=2)
    agent = build(family, **BOTH)
    rollout = play(agent, rounds=1)[0]
    samples = agent.samples(rollout, 6)
    policies = agent.adaptation.policies(agent.begin(6).params, samples.x)
    label = samples.target
    by_hand = -policies.log_probs.gather(-1, label[..., None])[..., 0].mean(-1)
    torch.testing.assert_close(supervised(policies, samples), by_hand)
    right = (rollout.acted.action == rollout.target).float()
    assert torch.equal(right, rollout.outcome.reward), "targets are what rewards reward"


@each_family
def test_neither_actions_nor_rewards_nor_likelihoods_count(family: TaskFamily):
    agent, other = build(family, **BOTH), build(family, **BOTH)
    trial = play(agent)
    spoiled = [
        rollout._replace(
            acted=rollout.acted._replace(action=0 * rollout.acted.action, log_prob=rollout.acted.log_prob - 3.0),
            outcome=rollout.outcome._replace(reward=torch.rand_like(rollout.outcome.reward)),
        )
        for rollout in trial
    ]
    one, two = (agent.adapt(agent.begin(6), played[0]).params for played in (trial, spoiled))
    for mine, theirs in zip(one, two):
        assert torch.equal(mine, theirs)
    before = flat(agent.meta)
    agent.update(trial)
    other.update(spoiled)
    assert torch.equal(flat(agent.meta), flat(other.meta)) and not torch.equal(flat(agent.meta), before)


def test_minibatches_and_chunks_hold_whole_tasks():
    family = Sinusoid(horizon=5)
    whole, chunked = build(family, **BOTH), build(family, **BOTH, task_chunk=4)
    trial = play(whole)
    for agent in (whole, chunked):
        agent.outer.step(in_double(agent, trial), 0.0, agent.key)
    torch.testing.assert_close(flat(whole.meta), flat(chunked.meta), rtol=1e-9, atol=1e-12)
    parts = build(family, **BOTH, num_minibatches=3, update_epochs=2)
    parts.update(trial)
    assert parts.outer.optimizer.steps == 6


@pytest.mark.parametrize("horizon", [5, 10])
def test_a_step_on_a_few_points_lowers_the_error_on_others(horizon: int):
    """After a short training, one gradient step on 5 or 10 points halves the squared error on as many new ones."""
    config = MAMLConfig(
        meta_batch_size=500, hidden_sizes=(40, 40), activation="relu", init_std=0.001, min_std=0.001,
        fast_batch_size=1, test_steps=1, fast_lr=0.3, inner_loss="supervised",
        outer=SupervisedStep(lr=3e-3, num_minibatches=20),
    )  # fmt: skip
    family = Sinusoid(horizon, show_previous=False)
    agent = config.build(family, 0, torch.device("cpu"))
    for n in range(40):
        agent.update(play(agent, tasks=500, seed=n), n / 40)
    task = family.sample_tasks(rng.key(9), 1000, "test")
    trial = run_trial(agent, family, task, rng.key(8), rounds=2)
    before, after = (float(-episode_returns(played, 1).mean()) / horizon for played in trial)
    assert 2.5 < before < 4.3, "nothing is known of the wave: 3.0 at best, 4.25 for zero"
    assert after < 0.5 * before


def test_every_metric_is_documented():
    agent = build(Sinusoid(horizon=5), **BOTH)
    assert not [tag for tag in agent.update(play(agent)) if not documented(tag)]


def test_names_say_what_is_trained():
    titles = [build(Sinusoid(horizon=5), **VARIANTS[name]).title for name in VARIANTS]
    assert titles == [
        "MAML (supervised)", "MAML (supervised)", "MAML (supervised)", "FOMAML (supervised)", "ANIL (supervised)",
        "Meta-SGD (supervised)", "MAML (supervised, TRPO outside)", "MAML (supervised, PPO outside)",
        "MAML (supervised outer loss)", "Reptile (supervised)",
    ]  # fmt: skip


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"inner_loss": "supervised"}, {"outer": "supervised"}])
def test_a_family_without_right_actions_is_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match=r"^A supervised loss needs target actions, and Reach has none: implement "):
        build(Reach(), **changes)


def test_so_is_a_round_without_them():
    agent = build(Sinusoid(horizon=5), **BOTH)
    with pytest.raises(ValueError, match="needs target actions, and this rollout has none"):
        agent.adapt(agent.begin(6), play(agent, rounds=1)[0]._replace(target=()))


@pytest.mark.parametrize("changes", [{"inner_loss": "supervised"}, {"outer": "supervised"}])
def test_there_is_no_return_to_be_credited(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="exploration must be 0 with a supervised loss"):
        build(Sinusoid(), exploration=1.0, **changes)


def test_minibatches_have_tasks():
    with pytest.raises(ValueError, match="num_minibatches must not exceed meta_batch_size = 6"):
        build(Sinusoid(), **BOTH, num_minibatches=7)
