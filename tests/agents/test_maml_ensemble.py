"""Ensembles of agents that adapt in rounds: one mixture acts, and each member takes a gradient step of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_families import Corridor, Reach
from torch import Tensor

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.ensemble import Ensemble
from metarl.agents.maml import MAML
from metarl.core import rng
from metarl.core.rollout import Rollout, play_rounds
from metarl.core.tree import take
from metarl.envs.bandits.bernoulli import BernoulliArms, BernoulliBandit

CPU = torch.device("cpu")
FAMILIES = {"discrete": Corridor(), "continuous": Reach()}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def member(family: Any, seed: int, **options: Any) -> MAML:
    small = {"hidden_sizes": (8,), "fast_batch_size": 6, "fast_lr": 0.5, "test_steps": 2} | options
    agent = MAMLConfig(meta_batch_size=4, **small).build(family, seed, CPU)
    assert isinstance(agent, MAML)
    with torch.no_grad():  # the head begins at zero, where all members act alike
        for number, head in enumerate(agent.net.policy.head.linear.parameters()):
            head.copy_(0.5 * rng.normal(rng.fold(rng.key(seed), number), head.numel()).reshape(head.shape))
    return agent


def rounds_of(agent: Any, family: Any, tasks: int = 4, **options: Any) -> list[tuple[Rollout, Any]]:
    """The rounds of a trial, each with the memory at its end."""
    task = family.sample_tasks(rng.key(0), tasks)
    return [(each.played, each.memory) for each in play_rounds(agent, family, task, rng.key(1), **options)]


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-6) for x, y in zip(a, b, strict=True))


@each_family
@pytest.mark.parametrize("inner_loss", ["vpg", "likelihood_ratio", "dice"])
def test_from_its_own_round_it_learns_the_same(family: Any, inner_loss: str):
    agent = member(family, 0, inner_loss=inner_loss)
    (rollout, memory), *_ = rounds_of(agent, family)
    assert same(agent.adapt(memory, rollout).params, agent.adapt_from_others(memory, rollout).params)
    assert not same(agent.adapt(memory, rollout).params, memory.params)


def test_from_another_s_round_it_learns_what_its_own_would_have_taught():
    """One decision in an episode: importance sampling then has the policy gradient as its expectation."""
    family = BernoulliBandit(num_arms=3, episodes_per_trial=1)
    agent, other = (member(family, seed, fast_batch_size=40_000, norm_adv=False) for seed in (1, 2))
    task = BernoulliArms(torch.tensor([[0.9, 0.5, 0.1]]))
    played = [next(play_rounds(each, family, task, rng.key(0), rounds=1)) for each in (agent, other)]
    memory, agent.reward_size = played[0].memory, torch.tensor(1.0)  # advantages are in units of rewards
    own, weighed = agent.adapt(memory, played[0].played), agent.adapt_from_others(memory, played[1].played)
    naive = agent.adapt(memory, played[1].played)

    def change(after: Any) -> Tensor:
        return torch.cat([(a - b).flatten() for a, b in zip(after.params, memory.params, strict=True)])

    assert float((change(weighed) - change(own)).norm()) < 0.1 * float(change(own).norm())
    assert float((change(naive) - change(own)).norm()) > 0.3 * float(change(own).norm())


@each_family
def test_the_policy_is_the_mixture_in_every_round(family: Any):
    members = [member(family, seed) for seed in (0, 1, 2)]
    trial = rounds_of(Ensemble(members), family)
    assert len(trial) == 3 and trial[0][0].mask.shape[1] == 4 * 6
    for rollout, memory in trial:
        step, units = take(rollout.step, 0), members[0].net.policy.head.actions
        action = units.to_own(take(rollout.acted.action, 0))
        each = [
            agent.action_distribution(own, step).log_prob(action)
            for agent, own in zip(members, memory.members, strict=True)
        ]
        expected = torch.logsumexp(torch.stack(each), dim=0) - math.log(3)
        torch.testing.assert_close(take(rollout.acted.log_prob, 0), expected, rtol=1e-4, atol=1e-5)
    assert float(trial[0][1].disagreement.mean()) > 0.0


@each_family
def test_each_member_takes_its_own_step_from_what_all_played(family: Any):
    members = [member(family, seed, fast_lr=rate) for seed, rate in ((0, 0.5), (1, 0.2))]
    (first, before), (_, after), _ = rounds_of(Ensemble(members), family)
    for agent, own, adapted in zip(members, before.members, after.members, strict=True):
        assert same(agent.adapt_from_others(own, first).params, adapted.params)
        assert int(adapted.steps) == 1


def test_equal_members_are_one():
    family = FAMILIES["discrete"]
    alone = member(family, 0)
    ensemble = Ensemble([member(family, 0), member(family, 0)])
    (first, before), *_ = rounds_of(ensemble, family)
    expected = alone.adapt(before.members[0], first)
    assert all(same(each.params, expected.params) for each in ensemble.adapt(before, first).members)


def test_with_episodes_a_member_learns_only_from_those_that_it_played():
    family = FAMILIES["discrete"]
    ensemble = Ensemble([member(family, seed) for seed in (0, 1)], mix="episode")
    (first, memory), *_ = rounds_of(ensemble, family)
    mine = memory.playing == 0
    assert 0 < int(mine.sum()) < len(mine), "both play"
    others = first.outcome._replace(reward=torch.where(mine, first.outcome.reward, 7.0 * torch.rand_like(first.mask)))
    whole, changed = (ensemble.adapt(memory, each).members for each in (first, first._replace(outcome=others)))
    assert same(whole[0].params, changed[0].params) and not same(whole[1].params, changed[1].params)
    idle = ensemble.adapt(memory._replace(playing=torch.zeros_like(memory.playing)), first).members[1]
    assert same(idle.params, memory.members[1].params), "who played nothing learns nothing"


def test_its_curve_has_gradient_steps():
    family = FAMILIES["discrete"]
    members = [member(family, seed) for seed in (0, 1)]
    curve = metarl.evaluate(Ensemble(members), tasks=2, repeats=1, split="train", step_curve=False)
    assert curve.labels == ("0 gradient steps", "1 gradient step", "2 gradient steps")


def test_what_cannot_be_combined():
    family = FAMILIES["discrete"]
    two = [member(family, seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match="weights stay uniform"):
        Ensemble(two, "hedge")
    with pytest.raises(ValueError, match="trials differ"):
        Ensemble([two[0], RL2Config(meta_batch_size=4, hidden_size=8).build(family, 0, CPU)])
    with pytest.raises(ValueError, match="trials differ"):
        Ensemble([two[0], member(family, 1, fast_batch_size=5)])
