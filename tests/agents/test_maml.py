"""MAML and its relatives: gradients by finite differences, steps by hand, and that they learn to adapt."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_families import Corridor, Reach, TwoDoors
from test_log import documented
from torch import Tensor
from torch.func import functional_call, vmap

import metarl
from metarl.agents.maml import MAML, MAMLConfig, PPOStep, ReptileStep, SupervisedStep, TRPOStep, trpo
from metarl.agents.maml.adaptation import Meta
from metarl.agents.maml.ppo import PPO
from metarl.agents.maml.rounds import Samples, credited, episode_time, make_samples
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.distributions import Distribution
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, collect, episode_returns, run_trial
from metarl.core.tree import detach, take
from metarl.learning.estimators import discounted_returns, linear_baseline, row_std
from metarl.learning.trust_region import unflatten
from metarl.testing import check_agent

VARIANTS: dict[str, dict] = {
    "maml": {},
    "maml, three steps": {"inner_steps": 3},
    "maml, three steps, all rounds": {"inner_steps": 3, "meta_rounds": "all"},
    "fomaml": {"first_order": True},
    "maml, all trusted": {"trust": "all", "inner_steps": 2},
    "anil": {"adapted": "head"},
    "meta-sgd": {"rates": "per_parameter"},
    "a rate per step": {"rates": "per_step", "inner_steps": 2},
    "one learned rate": {"rates": "scalar", "activation": "relu"},
    "promp": {"outer": "ppo", "inner_loss": "likelihood_ratio", "inner_kl_coef": 0.1, "inner_steps": 2},
    "dice": {"inner_loss": "dice", "inner_steps": 2},
    "e-maml": {"exploration": 1.0},
    "e-maml, two steps, all rounds": {"exploration": 0.5, "inner_steps": 2, "meta_rounds": "all", "trust": "all"},
    "learned value": {"baseline": "network", "gae_lambda": 0.9},
    "scaled observations": {"norm_obs": True, "hidden_sizes": ()},
}
FAMILIES = [Corridor(), Reach()]
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=["discrete", "continuous"])


def config(**changes) -> MAMLConfig:
    small = MAMLConfig(meta_batch_size=6, hidden_sizes=(8, 8), fast_batch_size=4, fast_lr=0.3)
    return dataclasses.replace(small, **nested(changes))


def nested(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of the outer step's options, which tests name among the others, put where they belong.

    Those of another kind of step are left out.
    """
    kinds: dict[str, type] = {"trpo": TRPOStep, "ppo": PPOStep, "reptile": ReptileStep, "supervised": SupervisedStep}
    outer = changes.get("outer", "trpo")
    if outer not in kinds:
        return changes
    every = {field.name for kind in kinds.values() for field in dataclasses.fields(kind)}
    own = {field.name for field in dataclasses.fields(kinds[outer])}
    rest = {name: value for name, value in changes.items() if name not in {*every, "outer"}}
    return rest | {"outer": kinds[outer](**{name: value for name, value in changes.items() if name in own})}


def build(family: TaskFamily, **changes) -> MAML:
    return config(**changes).build(family, 0, torch.device("cpu"))


def play(agent: MAML, tasks: int = 6, seed: int = 0, **options) -> list[Rollout]:
    return run_trial(agent, agent.family, agent.family.sample_tasks(rng.key(seed), tasks), rng.key(seed), **options)


def in_double(agent: MAML, trial: list[Rollout]) -> list[Samples]:
    """The agent's network and what it is taught, in float64; the random policy is moved off its symmetric start."""
    rounds = credited([agent.samples(rollout, 6) for rollout in trial], agent.adaptation.outer)
    agent.net.double()
    return [Samples(*(x.double() if x.is_floating_point() else x for x in samples)) for samples in rounds]


def before_steps(agent: MAML, rounds: list[Samples]) -> list[Distribution]:
    """The policies before each gradient step."""
    return detach(agent.adaptation.adapt(agent.meta, rounds).policies[:-1])


def outer_loss(agent: MAML, meta: Meta, rounds: list[Samples], before: list[Distribution]) -> Tensor:
    """What the outer step descends, as a function of `meta` in autograd's graph."""
    policies, _ = agent.adaptation.adapt(meta, rounds, differentiable=True)
    if isinstance(agent.outer, PPO):
        return agent.outer.loss(policies, rounds, before)[0]
    return agent.outer.loss(policies, rounds)


def divergence(agent: MAML, policies: list[Distribution], others: list[Distribution], rounds: list[Samples]) -> Tensor:
    """Mean over the constrained rounds of the mean KL(policies ‖ others)."""
    triples = list(zip(policies, others, rounds, strict=True))[agent.outer.constrained]
    return torch.stack([(a.kl(b) * samples.weight).sum(-1).mean() for a, b, samples in triples]).mean()


def flat(tensors) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def directions(size: int, n: int = 4) -> Tensor:
    return torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


# ---- the contract, and the numbers ---------------------------------------------------------------------------------


@each_family
@each_variant
def test_the_contract_of_agents(variant: str, family: TaskFamily):
    check_agent(config(**VARIANTS[variant]), family)


def test_the_contract_holds_for_reptile():
    check_agent(config(outer="reptile", lr=0.5), Corridor())


@each_family
@pytest.mark.parametrize("outer", ["trpo", "ppo"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "fomaml"])
def test_the_meta_gradient_equals_finite_differences(variant: str, outer: str, family: TaskFamily):
    agent = build(family, **(VARIANTS[variant] | {"outer": outer, "clip_coef": 0.9}))
    data = in_double(agent, play(agent))
    olds = before_steps(agent, data)
    start = flat(agent.meta)
    # Off the point at which the rounds were played: there the penalty's gradient is zero and the ratio is 1.
    theta = start + 0.01 * directions(len(start), 1)[0]

    def loss(meta: tuple[Tensor, ...]) -> Tensor:
        return outer_loss(agent, meta, data, olds)

    meta = tuple(part.clone().requires_grad_() for part in unflatten(theta, agent.meta))
    gradient = flat(torch.autograd.grad(loss(meta), meta))
    eps = 1e-5
    for direction in directions(len(theta)):
        up, down = (
            loss(tuple(part.clone().requires_grad_() for part in unflatten(theta + sign * eps * direction, agent.meta)))
            for sign in (1, -1)
        )
        difference = float((up - down).detach()) / (2 * eps)
        assert float(gradient @ direction) == pytest.approx(difference, rel=1e-5, abs=1e-8)


@each_family
def test_first_order_is_the_gradient_at_the_adapted_parameters(family: TaskFamily):
    """Finn et al. 2017, section 5.2: the mean over tasks of the gradient of the last loss, taken where each task is."""
    agent = build(family, first_order=True, inner_steps=2)
    data = in_double(agent, play(agent))
    policies, params = agent.adaptation.adapt(agent.meta, data, differentiable=True)
    ours = torch.autograd.grad(agent.outer.loss(policies, data), agent.meta)
    adapted = [p.detach().requires_grad_() for p in params[-1]]
    loss = agent.outer.loss([*policies[:-1], agent.adaptation.policies(adapted, data[-1].x)], data)
    for ours_of, per_task in zip(ours, torch.autograd.grad(loss, adapted), strict=True):
        torch.testing.assert_close(ours_of, per_task.sum(0), rtol=0, atol=1e-12)


@each_family
@pytest.mark.parametrize("variant", ["maml", "maml, three steps, all rounds", "maml, all trusted", "anil", "meta-sgd"])
def test_fisher_products_equal_differences_of_the_kl_gradient(variant: str, family: TaskFamily):
    agent = build(family, **VARIANTS[variant])
    data = in_double(agent, play(agent))
    old, path = agent.adaptation.adapt(agent.meta, data)
    theta = flat(agent.meta)

    def kl_gradient(theta: Tensor) -> Tensor:
        meta = tuple(part.clone().requires_grad_() for part in unflatten(theta, agent.meta))
        new = agent.adaptation.adapt(meta, data, differentiable=True).policies
        return flat(torch.autograd.grad(divergence(agent, detach(old), new, data), meta))

    assert kl_gradient(theta).abs().max() < 1e-12, "the divergence is least where nothing has changed"
    whole = agent.outer.fisher([(data, 1.0, path)])
    halves = [(slice(0, 2), 2 / 6), (slice(2, 6), 4 / 6)]
    chunked = agent.outer.fisher([(take(data, half), share, take(path, half)) for half, share in halves])
    for v in directions(len(theta)):
        difference = (kl_gradient(theta + 1e-5 * v) - kl_gradient(theta - 1e-5 * v)) / 2e-5
        torch.testing.assert_close(whole(v), difference, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(chunked(v), whole(v), rtol=1e-9, atol=1e-12)


def test_a_share_of_the_trajectories_estimates_the_same_fisher_matrix():
    agent = build(Reach(), fast_batch_size=64, fisher_share=0.5)
    data = in_double(agent, play(agent))
    part = (data, 1.0, agent.adaptation.adapt(agent.meta, data).params)
    half = agent.outer.fisher([part])
    agent.outer.options = TRPOStep(fisher_share=1.0)
    whole = agent.outer.fisher([part])
    for v in directions(len(flat(agent.meta))):
        cosine = torch.nn.functional.cosine_similarity(half(v), whole(v), dim=0)
        assert 0.9 < float(cosine) < 1 - 1e-9, "about the same, from other samples"


def test_without_a_share_the_fisher_matrix_is_of_all_steps_if_they_are_few(monkeypatch: pytest.MonkeyPatch):
    agent = build(Reach(), fast_batch_size=8)
    data = in_double(agent, play(agent))
    part, v = (data, 1.0, agent.adaptation.adapt(agent.meta, data).params), directions(len(flat(agent.meta)))[0]
    given = agent.outer.fisher([part])(v)
    agent.outer.options = TRPOStep(fisher_share=1.0)
    whole = agent.outer.fisher([part])(v)
    assert torch.equal(given, whole)
    agent.outer.options = TRPOStep(fisher_share=None)
    monkeypatch.setattr(trpo, "FISHER_STATES", data[-1].x.shape[0] * data[-1].x.shape[1] // 2)
    assert not torch.equal(agent.outer.fisher([part])(v), whole)
    agent.outer.options = TRPOStep(fisher_share=0.5)
    half = agent.outer.fisher([part])(v)
    agent.outer.options = TRPOStep(fisher_share=None)
    assert torch.equal(agent.outer.fisher([part])(v), half), "as many trajectories as hold that many steps"


# ---- adaptation ------------------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("hidden", [(), (8, 8)])
def test_all_tasks_at_once_are_vmap_of_one(family: TaskFamily, hidden: tuple[int, ...]):
    agent = build(family, hidden_sizes=hidden)
    policy = agent.net.policy
    params = {name: torch.randn(5, *p.shape) for name, p in policy.named_parameters()}
    x = torch.randn(5, 7, 2)
    ours = agent.adaptation.policies(list(params.values()), x)
    theirs = vmap(lambda params, x: functional_call(policy, params, (x,)))(params, x)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@each_family
def test_adaptation_is_a_policy_gradient_step_of_each_task_alone(family: TaskFamily):
    """One task, one plain `nn.Module`, no batching: REINFORCE with the baseline, a step downhill."""
    agent = build(family, fast_lr=0.5)
    memory = agent.begin(6)
    rollout = play(agent, rounds=1)[0]
    adapted = agent.adapt(memory, rollout)
    assert int(adapted.steps) == 1 and int(memory.steps) == 0
    for task in range(6):
        alone = build(family)
        mine = slice(4 * task, 4 * task + 4)
        obs = alone.net.scaling.scaled(rollout.step.obs[:, mine], 2)
        mask = rollout.mask[:, mine]
        ends = (rollout.outcome.terminated | rollout.outcome.truncated)[:, mine].float()
        returns = discounted_returns(rollout.outcome.reward[:, mine] * mask, ends, 0.99)
        time = episode_time(rollout)[:, mine]
        parts = [part.transpose(0, 1).flatten(0, 1)[None] for part in (obs, time, returns, mask)]
        advantage = (parts[2] - linear_baseline(*parts))[0].unflatten(0, (4, -1)).T
        valid = advantage[mask > 0]
        advantage = (advantage - valid.mean()) / valid.std(correction=0) * mask
        log_prob = alone.net.policy(obs).log_prob(rollout.acted.action[:, mine])
        (-(log_prob * advantage).sum() / mask.sum()).backward()
        for p, new in zip(alone.net.policy.parameters(), adapted.params, strict=True):
            torch.testing.assert_close(new[task], (p - 0.5 * p.grad).detach(), rtol=1e-4, atol=1e-5)


def test_padding_and_other_tasks_change_nothing():
    family = Corridor(horizon=6)
    agent = build(family)
    rollout = play(agent, rounds=1)[0]
    assert bool((rollout.mask == 0).any())
    noise = torch.rand(rollout.mask.shape) * (1 - rollout.mask)
    spoiled = rollout._replace(
        outcome=rollout.outcome._replace(reward=rollout.outcome.reward + noise),
        step=rollout.step._replace(obs=rollout.step.obs + noise[..., None]),
    )
    for a, b in zip(agent.adapt(agent.begin(6), rollout).params, agent.adapt(agent.begin(6), spoiled).params):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_the_head_alone_is_adapted_by_anil():
    agent = build(Reach(), adapted="head")
    before, after = agent.begin(6), agent.adapt(agent.begin(6), play(agent, rounds=1)[0])
    changed = {name for name, a, b in zip(agent.adaptation.names, before.params, after.params) if not torch.equal(a, b)}
    assert changed == {"head.log_std", "head.linear.weight", "head.linear.bias"}


def test_steps_beyond_those_of_training_are_shorter():
    agent = build(Reach(), fast_lr=0.4, later_rate=0.5, inner_steps=2)
    rollout = play(agent, rounds=1)[0]
    start = agent.begin(6)
    lengths = []
    for number in range(4):
        after = agent.adapt(start._replace(steps=torch.tensor(number)), rollout)
        lengths.append(float((after.params[-1] - start.params[-1]).norm()))
    assert lengths == pytest.approx([lengths[0], lengths[0], lengths[0] / 2, lengths[0] / 2])


def test_an_evaluation_may_take_more_trajectories_and_more_steps():
    agent = build(Reach(), fast_batch_size=4, test_fast_batch_size=10, test_steps=5)
    test = agent.protocol.test()
    assert (agent.protocol.rounds, agent.protocol.envs_per_task) == (2, 4)
    assert (test.rounds, test.envs_per_task) == (6, 10)
    trial = play(agent, rounds=test.rounds, envs_per_task=test.envs_per_task)
    assert len(trial) == 6 and trial[0].mask.shape[1] == 60


def test_a_users_own_task_is_adapted_to():
    family = Reach()
    agent = build(family)
    task = take(family.sample_tasks(rng.key(3), 1), torch.zeros(40, dtype=torch.int64))  # 40 rows of one task
    memory = agent.begin(1)
    rollout, memory = collect(agent, memory, BatchEnv(family, task, rng.key(0), 1), rng.key(1))
    adapted = agent.adapt(memory, rollout)
    assert adapted.params[0].shape[0] == 1 and not torch.equal(adapted.params[0], memory.params[0])


@each_variant
def test_the_likelihood_ratio_is_one_at_first(variant: str):
    agent = build(Reach(), **VARIANTS[variant])
    data = [agent.samples(rollout, 6) for rollout in play(agent)]
    for policy, samples in zip(agent.adaptation.adapt(agent.meta, data).policies, data, strict=True):
        assert ((policy.log_prob(samples.action) - samples.log_prob).abs() * (samples.weight > 0)).max() < 1e-5


# ---- outer steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_kl", [1e-4, 1e-2, 0.1])
@pytest.mark.parametrize("trust", ["adapted", "all"])
@each_family
def test_a_trust_region_step_keeps_its_bound(max_kl: float, trust: str, family: TaskFamily):
    agent, accepted = build(family, max_kl=max_kl, trust=trust), 0.0
    for seed in range(5):
        trial = play(agent, seed=seed)
        data = [agent.samples(rollout, 6) for rollout in trial]
        old = agent.adaptation.adapt(agent.meta, data).policies
        metrics = agent.update(trial)
        kl = float(divergence(agent, old, agent.adaptation.adapt(agent.meta, data).policies, data))
        assert kl <= max_kl * (1 + 1e-3)
        if metrics["loss/line_search_accepted"]:
            assert kl == pytest.approx(metrics["loss/kl_after"], abs=1e-6) and kl > 0
            assert metrics["loss/surrogate_after"] < metrics["loss/surrogate_before"]
        accepted += metrics["loss/line_search_accepted"]
    assert accepted >= 4


def test_a_line_search_that_fails_keeps_the_parameters_and_says_so(monkeypatch: pytest.MonkeyPatch):
    agent = build(Reach(), ls_max_steps=2)
    trial, before = play(agent), flat(agent.meta)
    monkeypatch.setattr(agent.outer, "loss_and_kl", lambda *_: torch.tensor([-1e9, 1.0]))
    metrics = agent.update(trial)
    assert torch.equal(flat(agent.meta), before)
    assert metrics["loss/line_search_accepted"] == 0.0 and metrics["loss/line_search_backtracks"] == 2.0


@pytest.mark.parametrize(
    "changes", [{}, {"outer": "ppo", "inner_kl_coef": 0.1, "inner_steps": 2}, {"outer": "reptile"}]
)
def test_chunks_of_tasks_change_nothing(changes: dict):
    """In float64: ten steps of conjugate gradients in float32 multiply the last bit until it is seen."""
    whole, chunked = build(Reach(), **changes), build(Reach(), **changes, task_chunk=4)
    trial = play(whole)
    before = flat(whole.meta)
    a, b = (agent.outer.step(in_double(agent, trial), 0.0, agent.key) for agent in (whole, chunked))
    assert not torch.equal(flat(whole.meta).float(), before)
    torch.testing.assert_close(flat(whole.meta), flat(chunked.meta), rtol=1e-6, atol=1e-9)
    assert a == pytest.approx(b, rel=1e-6, abs=1e-9)


def test_minibatches_hold_whole_tasks():
    whole, parts = (build(Reach(), outer="ppo", num_minibatches=n, update_epochs=1) for n in (1, 3))
    trial = play(whole)
    for agent in (whole, parts):
        agent.update(trial)
    assert whole.outer.optimizer.steps == 1 and parts.outer.optimizer.steps == 3


def test_every_epoch_has_minibatches_of_its_own():
    agent, seen = build(Reach(), outer="ppo", num_minibatches=3, update_epochs=2), []
    minibatch = agent.outer.minibatch

    def noted(rounds, before):
        seen.append(rounds[0].mean_return[:, 0])
        return minibatch(rounds, before)

    agent.outer.minibatch = noted
    agent.update(play(agent))
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, second.sort().values) and not torch.equal(first, second)


def test_reptile_moves_to_the_adapted_mean():
    agent = build(Reach(), outer="reptile", lr=0.25)
    trial, start = play(agent), flat(agent.meta)
    # `adapt` repeats the steps from the same samples; the one on the last round is beyond those of training.
    memory = agent.begin(6)
    for rollout in trial:
        memory = agent.adapt(memory, rollout)
    mean = torch.cat([p.mean(0).flatten() for p in memory.params])
    agent.update(trial)
    torch.testing.assert_close(flat(agent.meta), start + 0.25 * (mean - start), rtol=1e-5, atol=1e-6)


def test_the_penalty_follows_the_divergence_before_each_step():
    agent = build(Reach(), outer="ppo", inner_kl_coef=1.0, inner_kl_target=1e3, lr=0.1)
    assert agent.update(play(agent))["loss/inner_kl_coef"] == 0.5, "far below the target: less of it"
    agent.outer.options = dataclasses.replace(agent.outer.options, inner_kl_target=1e-9)
    metrics = agent.update(play(agent))
    assert metrics["loss/inner_kl"] > 1e-6 and metrics["loss/inner_kl_coef"] == 1.0
    agent.outer.inner_kl_coef.fill_(torch.finfo(torch.float32).tiny)
    for target, least in ((1e3, 1.0), (1e-9, 2.0)):
        agent.outer.options = dataclasses.replace(agent.outer.options, inner_kl_target=target)
        agent.update(play(agent))
        assert float(agent.outer.inner_kl_coef) == least * torch.finfo(torch.float32).tiny, "it never vanishes for good"


def test_the_penalty_is_the_divergence_of_the_old_policy_from_the_new_one():
    """Not the other way round: the two differ where the new one is wider."""
    agent = build(Reach(), outer="ppo", inner_kl_coef=1.0)
    data = [agent.samples(rollout, 6) for rollout in play(agent)]
    old = agent.adaptation.adapt(agent.meta, data).policies
    new = [policy._replace(log_std=policy.log_std + 0.3) for policy in old]
    with_penalty = agent.outer.loss(new, data, old[:-1])[0]
    agent.outer.inner_kl_coef.zero_()
    penalty = with_penalty - agent.outer.loss(new, data, old[:-1])[0]
    torch.testing.assert_close(penalty, (old[0].kl(new[0]) * data[0].weight).sum(-1).mean())


def test_normalised_advantages_are_of_returns_in_a_known_unit():
    """That of the credit for later rounds, which stands next to them in the loss."""
    agent = build(Corridor())
    rollout = play(agent)[0]
    x = agent.net.scaling.scaled(rollout.step.obs, 2)
    raw, scaled = (make_samples(rollout, x, 6, gamma=0.9, norm_adv=norm_adv) for norm_adv in (False, True))
    std = row_std(raw.advantage, (raw.weight > 0).float())[:, None]
    torch.testing.assert_close(scaled.return_scale * std, raw.return_scale)


def test_a_round_is_credited_for_later_rounds_alone():
    agent = build(Corridor(), exploration=1.0, inner_steps=2, meta_rounds="all")
    data = [agent.samples(rollout, 6) for rollout in play(agent)]
    better = torch.arange(6.0)[:, None]
    for changed, credited_rounds in ((0, []), (1, [0]), (2, [0, 1])):
        other = [s._replace(mean_return=s.mean_return + better * (n == changed)) for n, s in enumerate(data)]
        pairs = zip(credited(data, agent.adaptation.outer), credited(other, agent.adaptation.outer), strict=True)
        assert [n for n, (a, b) in enumerate(pairs) if not torch.equal(a.credit, b.credit)] == credited_rounds


def test_the_outer_rounds_are_those_of_the_configuration():
    for meta_rounds, number in (("last", 1), ("all", 3)):
        agent = build(Reach(), inner_steps=3, meta_rounds=meta_rounds, outer="ppo")
        data = [agent.samples(rollout, 6) for rollout in play(agent)]
        assert len(data[agent.adaptation.outer]) == number
        loss, _ = agent.outer.loss(agent.adaptation.adapt(agent.meta, data).policies, data, [])
        # Where no parameter has changed all ratios are 1.
        means = [-(samples.advantage * samples.weight).sum(-1).mean() for samples in data[-number:]]
        torch.testing.assert_close(loss, torch.stack(means).mean(), atol=1e-6, rtol=0)


def test_every_metric_is_documented():
    for changes in [*VARIANTS.values(), {"outer": "reptile"}]:
        agent = build(Reach(), **changes)
        undocumented = [tag for tag in agent.update(play(agent)) if not documented(tag)]
        assert not undocumented, changes


@pytest.mark.parametrize(("preset", "title"), [
    ("maml_vpg_navigation2d", "MAML"), ("maml_navigation2d", "MAML (likelihood ratio)"),
    ("promp_navigation2d", "ProMP"),
    ("maml_bernoulli_bandit", "MAML (PPO)"), ("maml_gridnavi", "MAML (likelihood ratio, PPO)"),
    ("fomaml_navigation2d", "FOMAML"), ("anil_navigation2d", "ANIL (likelihood ratio)"),
    ("metasgd_navigation2d", "Meta-SGD (likelihood ratio)"), ("reptile_navigation2d", "Reptile"),
])  # fmt: skip
def test_names_say_what_is_trained(preset: str, title: str):
    agent = metarl.load(f"pretrained:{preset}")
    curve = metarl.evaluate(agent, tasks=2, rounds=1)
    assert agent.title == curve.agent == title


def test_other_titles():
    assert config(exploration=1.0).title == "E-MAML" and config(inner_loss="dice").title == "MAML (DiCE)"


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [
    ("outer", "trop"), ("adapted", "body"), ("rates", "learned"), ("activation", "tahn"), ("inner_loss", "dise"),
    ("baseline", "none"), ("meta_rounds", "first"), ("inner_steps", 0), ("fast_batch_size", 0), ("fast_lr", -0.1),
    ("max_kl", 0.0), ("cg_iters", 0), ("ls_backtrack_ratio", 1.0), ("fisher_share", 1.5), ("hidden_sizes", (8, 0)),
    ("gamma", 1.1), ("min_std", 0.0), ("task_chunk", 0),
    ("exploration", -1.0), ("obs_unit", 0.0),
])  # fmt: skip
def test_impossible_options_are_refused(field: str, value: object):
    with pytest.raises(ValueError):
        config(**{field: value})


@pytest.mark.parametrize("option", [{"num_minibatches": 7}, {"num_minibatches": 0}, {"lr": -1.0}, {"clip_coef": 0.0}])
def test_impossible_options_of_ppo_are_refused(option: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(option))):
        config(outer="ppo", **option)


def test_credit_is_not_given_twice():
    for inner_loss in ("likelihood_ratio", "dice"):
        with pytest.raises(ValueError, match="inner_loss must be 'vpg' where exploration is not 0"):
            config(exploration=1.0, inner_loss=inner_loss)
    with pytest.raises(ValueError, match="exploration must be 0 with outer 'reptile'"):
        config(exploration=1.0, outer="reptile")


def test_observations_have_one_unit():
    with pytest.raises(ValueError, match="obs_unit must be null where norm_obs"):
        config(obs_unit=1.0, norm_obs=True)
    obs = torch.tensor([[0.5, -1.0]])
    assert torch.equal(build(Corridor(), obs_unit=2.0).net.scaling.scaled(obs, 1), obs / 2.0)


# ---- learning --------------------------------------------------------------------------------------------------------


def train(family: TaskFamily, iterations: int, **changes) -> Tensor:
    """Mean return of an episode after 0, 1, … gradient steps on tasks of another seed, after a short training."""
    agent = build(family, **({"meta_batch_size": 32, "fast_batch_size": 16} | changes))
    for n in range(iterations):
        agent.update(play(agent, tasks=32, seed=n), n / iterations)
    return torch.stack([episode_returns(rollout, 1).mean() for rollout in play(agent, tasks=500, seed=10_000)])


@pytest.mark.parametrize("changes", [{"trust": "all"}, {"outer": "ppo", "lr": 0.01}], ids=["trpo", "ppo"])
def test_it_learns_to_learn(changes: dict):
    before, after = train(TwoDoors(), iterations=25, fast_lr=2.0, **changes)
    assert abs(before - 0.5) < 0.05, "before any reward nothing can be known"
    assert after > 0.95, f"random is 0.5, the optimum 1 after one look: {after}"


@pytest.mark.gpu
@pytest.mark.parametrize("outer", ["trpo", "ppo", "reptile"])
def test_cpu_and_gpu_give_the_same(outer: str):
    agents = [config(outer=outer).build(Reach(), 0, torch.device(device)) for device in ("cpu", "cuda")]
    for agent in agents:
        task = agent.family.sample_tasks(rng.key(0, agent.device), 6)
        agent.update(run_trial(agent, agent.family, task, rng.key(0, agent.device)))
    torch.testing.assert_close(flat(agents[0].meta), flat(agents[1].meta).cpu(), rtol=1e-3, atol=1e-4)
