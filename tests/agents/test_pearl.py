"""PEARL: the contract of agents, its posterior, the latent of an episode, contexts, gradients, and that it learns."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, Length, Reach, Start, Target, TwoDoors
from space_families import Signals
from torch.distributions import Normal, kl_divergence

import metarl
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.pearl.agent import METRICS, OTHERS, Batch
from metarl.agents.pearl.by_task import ByTask, episodes_of
from metarl.agents.pearl.network import transitions_of
from metarl.agents.pearl.posterior import Posterior
from metarl.agents.recurrent_sac.network import choices
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import columns, take
from metarl.testing import check_agent

CPU = torch.device("cpu")


def config(**changes: Any) -> PEARLConfig:
    small = PEARLConfig(
        meta_batch_size=8, encoder_sizes=(16,), hidden_sizes=(16,), latent_size=3, updates_per_iteration=2,
        task_batch=3, batch_size=8, context_size=5, learning_starts=0, buffer_size=60,
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


def trial_of(agent: PEARL, family: TaskFamily, rows: int = 8, seed: int = 0) -> list[Rollout]:
    key = rng.key(seed)
    return run_trial(agent, family, family.sample_tasks(rng.fold(key, 0), rows), rng.fold(key, 1))


def trained(agent: PEARL, family: TaskFamily, iterations: int, rows: int = 8) -> list[dict[str, float]]:
    return [agent.update(trial_of(agent, family, rows, n), n / iterations) for n in range(iterations)]


def weights(agent: PEARL) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.net.parameters()])


def batch_of(agent: PEARL, seed: int = 3) -> tuple[Batch, torch.Tensor]:
    """A batch, and the keys of its tasks."""
    batch, places = agent._replay(ByTask(agent.ring, 3), rng.key(seed))
    return batch, rng.fold(rng.key(4), places)


def gradients(agent: PEARL, batch: Batch, keys: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of a step by parameter, which is not taken."""
    found: dict[str, torch.Tensor] = {}

    def keep(metrics: torch.Tensor) -> torch.Tensor:
        found.update({name: p.grad.clone() for name, p in agent.net.named_parameters() if p.grad is not None})
        agent.net.zero_grad()
        return metrics

    agent._step = keep
    try:
        agent._descend(batch, keys, torch.tensor(0.9), torch.tensor(-1.0))
    finally:
        del agent._step
    return found


# ---- The contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["GridNavi", "WindyPoint"])
def test_the_contract_of_agents(family: str):
    check_agent(config(), metarl.make(f"metarl/{family}-v0"))


@pytest.mark.parametrize("family", [Corridor(), Start(), Reach()], ids=lambda family: type(family).__name__)
def test_the_contract_on_small_families(family: TaskFamily):
    check_agent(config(next_obs=True, norm_obs=True), family)


# ---- The posterior --------------------------------------------------------------------------------------------------


def factors(count: int = 7, rows: int = 4, size: int = 3) -> tuple[Posterior, torch.Tensor, torch.Tensor]:
    mean = rng.normal(rng.fold(rng.key(1), torch.arange(rows)), count * size).reshape(rows, count, size).transpose(0, 1)
    variance = mean.roll(1, 0).exp()
    return Posterior.factors(mean.double(), variance.double()), mean.double(), variance.double()


def test_the_posterior_is_the_normalised_product_of_prior_and_factors():
    """On a grid of z, coordinate by coordinate, by multiplying densities."""
    found, mean, variance = factors()
    posterior = Posterior.prior(4, 3, mean).times(found, torch.ones(7, 4))
    z = torch.linspace(-12.0, 12.0, 20001, dtype=torch.float64)
    for row in range(4):
        for i in range(3):
            log = Normal(0.0, 1.0).log_prob(z)
            for n in range(7):
                log = log + Normal(mean[n, row, i], variance[n, row, i].sqrt()).log_prob(z)
            density = (log - log.max()).exp()
            density = density / density.sum()
            first = (z * density).sum()
            assert float(posterior.mean[row, i]) == pytest.approx(float(first), abs=1e-6)
            assert float(posterior.variance[row, i]) == pytest.approx(
                float(((z - first) ** 2 * density).sum()), rel=1e-5
            )


def test_the_posterior_does_not_depend_on_the_order_and_adds_up():
    found, mean, _ = factors()
    prior, one = Posterior.prior(4, 3, mean), torch.ones(7, 4)
    whole = prior.times(found, one)
    for order in (torch.arange(6, -1, -1), torch.tensor([3, 0, 6, 5, 1, 2, 4])):
        torch.testing.assert_close(prior.times(take(found, order), one), whole)
    split = prior.times(take(found, slice(0, 4)), one[:4]).times(take(found, slice(4, None)), one[4:])
    torch.testing.assert_close(split, whole)
    few = torch.ones(7, 4)
    few[4:] = 0.0
    torch.testing.assert_close(prior.times(found, few), prior.times(take(found, slice(0, 4)), one[:4]))


@pytest.mark.parametrize("options", [{}, {"embedding_loss": "contrastive"}], ids=["critic", "contrastive"])
def test_a_factor_has_the_softplus_as_its_variance_and_a_bounded_mean_where_distances_train_it(options: Any):
    net = PEARL(config(**options), Reach()).net
    outputs = torch.tensor([3.0, -0.5, 0.2, 1.0, -2.0, 4.0])  # three means and three spreads
    with torch.no_grad():
        net.encoder.weights[-1].zero_()
        net.encoder.biases[-1].copy_(outputs[:, None])
    width = net.encoder.parts[0].shape[1]
    found = net.factors(rng.normal(rng.fold(rng.key(0), torch.arange(4)), width))
    mean = outputs[:3].tanh() if options else outputs[:3]
    torch.testing.assert_close(found.mean, mean.expand(4, 3))
    torch.testing.assert_close(found.variance, (1.0 + outputs[3:].exp()).log().expand(4, 3))


def test_the_posterior_of_nothing_is_the_prior():
    found, mean, _ = factors()
    nothing = Posterior.prior(4, 3, mean).times(found, torch.zeros(7, 4))
    assert torch.equal(nothing.mean, torch.zeros(4, 3).double()) and torch.equal(nothing.kl(), torch.zeros(4).double())


def test_the_kl_divergence_is_that_of_torch():
    found, mean, _ = factors()
    posterior = Posterior.prior(4, 3, mean).times(found, torch.ones(7, 4))
    expected = kl_divergence(Normal(posterior.mean, posterior.variance.sqrt()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(posterior.kl(), expected)


def test_draws_have_the_posterior_s_moments():
    found, mean, _ = factors()
    posterior = Posterior.prior(4, 3, mean).times(found, torch.ones(7, 4))
    keys = rng.fold(rng.key(2), torch.arange(40000)[:, None] * 4 + torch.arange(4))
    drawn = posterior.draw(rng.normal(keys, 3).double())
    std = posterior.variance.sqrt()
    assert bool(((drawn.mean(0) - posterior.mean) / std).abs().max() < 0.03)
    assert bool((drawn.std(0) / std - 1.0).abs().max() < 0.03)


# ---- Acting and adapting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Corridor(), metarl.make("metarl/SparsePointRobot-v0")], ids=["Corridor", "Points"])
def test_the_sums_of_adapt_are_a_recomputation_from_all_rounds(family: TaskFamily):
    agent = PEARL(config(), family)
    trained(agent, family, 3)
    trial = trial_of(agent, family)
    memory = agent.begin(8)
    sizes = set()
    for rollout in trial:
        memory = agent.adapt(memory, rollout)
        sizes.add(sum(leaf.numel() for leaf in (*memory.posterior, memory.latent, memory.fresh, memory.rounds)))
    assert len(sizes) == 1, "the memory does not grow"
    for row in range(8):
        mean = torch.zeros(3, dtype=torch.float64)
        precision = torch.ones(3, dtype=torch.float64)
        for rollout in trial:
            context = agent.net.encoded(transitions_of(rollout))[: int(rollout.mask[:, row].sum()), row]
            found = agent.net.factors(context)
            precision += found.precision.detach().double().sum(0)
            mean += (found.mean * found.precision).detach().double().sum(0)
        expected = (mean / precision).float()
        torch.testing.assert_close(memory.posterior.mean[row], expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(memory.posterior.precision[row], precision.float(), rtol=1e-4, atol=1e-4)


def latents(agent: PEARL, family: TaskFamily, episodes: int, greedy: bool = False) -> list[torch.Tensor]:
    """The latents of all steps ``(T, B, Z)`` by round, and the masks are those of a family whose episodes are full."""
    found: list[list[torch.Tensor]] = []
    act, adapt = agent.act, agent.adapt

    def watched(memory, step, key, greedy=False):
        acted, after = act(memory, step, key, greedy)
        found[-1].append(after.latent)
        return acted, after

    def adapted(memory, rollout):
        found.append([])
        return adapt(memory, rollout)

    agent.act, agent.adapt = watched, adapted
    found.append([])
    from metarl.core.rollout import play_rounds

    task = family.sample_tasks(rng.key(0), 400)
    list(play_rounds(agent, family, task, rng.key(1), episodes=episodes))
    del agent.act, agent.adapt
    return [torch.stack(steps) for steps in found if steps]


def test_the_latent_stays_within_an_episode_and_is_drawn_anew_for_the_next():
    family = Reach()  # three steps an episode
    agent = PEARL(config(rounds=3), family)
    trained(agent, family, 2)
    for of_round in latents(agent, family, episodes=2):
        assert of_round.shape == (6, 400, 3)
        for first in (0, 3):
            assert bool((of_round[first : first + 3] == of_round[first]).all())
        assert not bool((of_round[0] == of_round[3]).any())


def test_first_rounds_act_on_the_prior_and_later_ones_on_the_posterior():
    family = Reach()
    agent = PEARL(config(rounds=4, prior_rounds=2), family)
    trained(agent, family, 2)
    with torch.no_grad():
        agent.net.encoder.biases[-1][0, :3] = 4.0  # every factor has its mean near 4
    first, second, third, _ = latents(agent, family, episodes=1)
    for prior in (first, second):
        assert bool((prior[0].mean(0).abs() < 0.2).all()) and bool(((prior[0].std(0) - 1.0).abs() < 0.15).all())
    assert bool((third[0].mean(0) > 2.0).all()) and bool((third[0].std(0) < 0.8).all())


def test_greedy_play_acts_on_the_mean():
    family = Reach()
    agent = PEARL(config(), family)
    trial = trial_of(agent, family)
    memory = agent.adapt(agent.begin(8), trial[0])
    keys = rng.fold(rng.key(5), torch.arange(8))
    _, after = agent.act(memory, take(trial[0].step, 0), keys, greedy=True)
    assert torch.equal(after.latent, memory.posterior.mean)


def test_a_trial_has_rounds_of_one_episode():
    family = metarl.make("metarl/SparsePointRobot-v0")
    agent = PEARL(config(rounds=4), family)
    trial = trial_of(agent, family)
    assert len(trial) == 4 and all(len(rollout.mask) == 20 for rollout in trial)
    curve = metarl.evaluate(agent, tasks=3, rounds=2, repeats=1)
    assert curve.labels == ("0 context episodes", "1 context episode")


# ---- Transitions by task --------------------------------------------------------------------------------------------


def marked(family: TaskFamily, numbers: list[int], agent: PEARL) -> None:
    """Put trials into the ring, whose rewards are 100 · (number) + 10 · (round) + (task)."""
    for number in numbers:
        trial = []
        for played, rollout in enumerate(trial_of(agent, family, 24, number)):
            own = 100.0 * number + 10.0 * played + rollout.task.length.to(torch.float32)
            reward = own.expand_as(rollout.outcome.reward).clone()
            trial.append(rollout._replace(outcome=rollout.outcome._replace(reward=reward)))
        agent._keep(trial)


def test_transitions_are_of_their_task_and_contexts_of_its_newest_episodes():
    """Corridor has the three tasks 1, 2 and 4; a reward says when and on which it was played."""
    family = Corridor()
    agent = PEARL(config(buffer_size=300), family)
    marked(family, [0, 1, 2], agent)
    by_task = ByTask(agent.ring, recent=3)
    assert len(by_task) == 3
    keys = rng.fold(rng.key(0), torch.arange(3))
    every, newest = (draw(torch.arange(3), keys, 400).reward for draw in (by_task.ever, by_task.recently))
    for row, task in enumerate((1.0, 2.0, 4.0)):
        assert {*(every[row] % 10).tolist()} == {task} and {*(newest[row] % 10).tolist()} == {task}
        assert {*(every[row] // 10).tolist()} == {0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 20.0, 21.0, 22.0}
        assert {*(newest[row] // 10).tolist()} == {20.0, 21.0, 22.0}, "all rounds of the last trial"


def test_the_newest_episodes_are_known_once_the_ring_has_come_round():
    """Rewards are the episodes' numbers: the last three of each task are the largest three."""
    family = Corridor()
    agent = PEARL(config(buffer_size=100), family)
    marked(family, [0, 1], agent)
    ring = agent.ring
    assert ring.oldest() > 0
    numbers = torch.arange(ring.oldest(), ring.added)
    ring.stored["outcome.reward"][numbers % ring.slots] = numbers[:, None].float()
    lengths = ring.stored["task.length"][numbers % ring.slots]
    newest = ByTask(ring, recent=3).recently(torch.arange(3), rng.fold(rng.key(0), torch.arange(3)), 200).reward
    for row, length in enumerate((1, 2, 4)):
        assert {*newest[row].tolist()} == {*numbers[lengths == length][-3:].tolist()}


def test_the_target_critics_follow_the_critics():
    family = Corridor()
    agent = PEARL(config(tau=0.25), family)
    before = [p.clone() for p in agent.net.critic_target.parameters()]
    agent._keep(trial_of(agent, family))
    batch, keys = batch_of(agent)
    agent.gradient_step(batch, keys, *agent._schedules(0.0))
    triples = zip(before, agent.net.critic_target.parameters(), agent.net.critic.parameters(), strict=True)
    for old, target, online in triples:
        torch.testing.assert_close(target, torch.lerp(old, online.detach(), 0.25))
        assert not torch.equal(old, online)


def test_contexts_are_recent_and_what_is_learned_from_is_of_any_time():
    family = Corridor()
    agent = PEARL(config(), family)
    marked(family, [0, 1], agent)
    by_task, drawn = ByTask(agent.ring, recent=1), {}
    for name in ("recently", "ever"):
        draw = getattr(by_task, name)
        setattr(by_task, name, lambda *given, name=name, draw=draw: drawn.setdefault(name, draw(*given)))
    batch, _ = agent._replay(by_task, rng.key(0))
    assert torch.equal(batch.context, agent.net.encoded(drawn["recently"]))
    assert torch.equal(batch.action, drawn["ever"].action)
    size = agent.net.scaling.reward_size
    assert size != 1.0
    torch.testing.assert_close(batch.reward * size, drawn["ever"].reward)


@pytest.mark.parametrize("options", [{}, {"embedding_loss": "siamese"}], ids=["critic", "siamese"])
def test_all_that_is_drawn_in_a_gradient_step_has_a_key_of_its_own(options: Any, monkeypatch: pytest.MonkeyPatch):
    """Contexts and what is learned from, both contexts of a pair, actions of now and of next."""
    from metarl.agents.pearl import agent as module

    family, keys = Reach(), list[torch.Tensor]()
    agent = PEARL(config(**options), family)
    trained(agent, family, 2)
    for owner, name, place in ((ByTask, "_draw", 3), (module, "choices", 1)):
        real = getattr(owner, name)
        spy = lambda *given, real=real, place=place: keys.append(given[place].flatten()) or real(*given)  # noqa: E731
        monkeypatch.setattr(owner, name, spy)
    gradients(agent, *batch_of(agent))
    assert len(keys) == (5 if options else 4)
    together = torch.cat(keys)
    assert len(together.unique()) == len(together)


@pytest.mark.parametrize(("given", "recent"), [(1, 1), (None, 3)])
def test_a_context_is_of_so_many_episodes_or_of_as_many_as_a_trial_has(given: Any, recent: int, monkeypatch: Any):
    from metarl.agents.pearl import agent as module

    found = []
    monkeypatch.setattr(module, "ByTask", lambda ring, number: found.append(number) or ByTask(ring, number))
    agent = PEARL(config(context_episodes=given, rounds=3), Corridor())
    trained(agent, Corridor(), 2)
    assert found == [recent, recent]


def test_the_temperature_aims_at_an_entropy_of_each_dimension_or_a_share_of_the_largest():
    options = {"target_entropy": -0.5, "target_entropy_share": 0.3}
    for family, entropy in ((Reach(), 2 * -0.5), (Corridor(), 0.3 * math.log(2))):
        agent = PEARL(config(**options), family)
        assert float(agent._schedules(0.5)[1]) == pytest.approx(entropy)


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_the_temperature_and_the_norms_are_those_of_the_gradients(family: TaskFamily):
    """dα · (entropy - target) by log α is itself times α; and each group's norm is that of its own gradients."""
    agent = PEARL(config(max_grad_norm=1e9), family)
    trained(agent, family, 2)
    batch, keys = batch_of(agent)
    found = gradients(agent, batch, keys)
    alpha = float(agent.net.log_alpha.detach().exp())
    metrics = agent._descend(batch, keys, torch.tensor(0.9), torch.tensor(-1.0))
    named = dict(zip((*METRICS, *OTHERS), metrics.tolist(), strict=True))
    assert named["alpha"] == pytest.approx(alpha)
    assert float(found["log_alpha"]) == pytest.approx(alpha * (named["entropy"] + 1.0), rel=1e-4)
    for group in ("encoder", "actor", "critic"):
        squares = [float(gradient.square().sum()) for name, gradient in found.items() if name.startswith(f"{group}.")]
        assert named[f"{group}_grad_norm"] == pytest.approx(sum(squares) ** 0.5, rel=1e-4)


def test_tasks_with_large_numbers_that_differ_by_one_are_two():
    """As float32 they would be the same."""
    agent, family = PEARL(config(), Corridor()), Corridor()
    trial = trial_of(agent, family, 2)
    far = Length(torch.tensor([2**24, 2**24 + 1]))
    agent._keep([rollout._replace(task=far) for rollout in trial])
    assert len(ByTask(agent.ring, recent=3)) == 2


def test_scales_follow_the_mean_over_all_rounds():
    """Each round weighs the same, those of later iterations too."""
    family = Corridor()
    agent = PEARL(config(norm_obs=True, learning_starts=10**6), family)
    trials = [trial_of(agent, family, seed=n) for n in range(3)]
    for trial in trials:
        agent.update(trial)
    means = [rollout.step.obs[rollout.mask > 0].mean(0) for trial in trials for rollout in trial]
    torch.testing.assert_close(agent.net.scaling.centre, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)


def test_every_transition_of_a_task_is_equally_likely_and_none_is_padding():
    family = Corridor()
    agent = PEARL(config(buffer_size=100), family)
    rollouts, numbered, trial = trial_of(agent, family, 8, 1), 0, []
    for rollout in rollouts:
        steps = rollout.mask.numel()
        reward = torch.arange(numbered, numbered + steps, dtype=torch.float32).reshape(rollout.mask.shape)
        numbered += steps
        reward = torch.where(rollout.mask > 0, reward, -1.0)
        trial.append(rollout._replace(outcome=rollout.outcome._replace(reward=reward)))
    agent._keep(trial)
    by_task = ByTask(agent.ring, recent=1)
    drawn = by_task.ever(torch.arange(len(by_task)), rng.fold(rng.key(0), torch.arange(len(by_task))), 6000).reward
    assert float(drawn.min()) >= 0.0
    total = 0
    for row in drawn:
        values, counts = row.unique(return_counts=True)
        total += len(values)
        assert bool(((counts / 6000 * len(values) - 1.0).abs() < 0.6).all())
    assert total == int(sum(rollout.mask.sum() for rollout in rollouts))


def test_the_parts_of_a_transition_belong_together():
    family = metarl.make("metarl/SparsePointRobot-v0", train_tasks=3)
    agent = PEARL(config(), family)
    for n in range(2):
        agent._keep(trial_of(agent, family, 8, n))
    by_task = ByTask(agent.ring, recent=3)
    assert len(by_task) == 3
    drawn = by_task.ever(torch.arange(3), rng.fold(rng.key(1), torch.arange(3)), 50)
    moved = drawn.obs + drawn.action.clamp(-0.1, 0.1)
    torch.testing.assert_close(drawn.next_obs, moved, rtol=0, atol=1e-6)


def test_tasks_without_end_make_a_group_for_each_trial():
    family = metarl.make("metarl/SparsePointRobot-v0")
    agent = PEARL(config(buffer_size=60), family)
    for n in range(4):  # 24 episodes each: the oldest leave the ring
        agent._keep(trial_of(agent, family, 8, n))
    assert len(agent.ring) == 60 and len(ByTask(agent.ring, 3)) == 20  # 3 episodes each


def test_trials_that_are_not_finite_are_never_drawn():
    family = Corridor()
    agent = PEARL(config(), family)
    broken = [
        rollout._replace(outcome=rollout.outcome._replace(reward=torch.full_like(rollout.outcome.reward, torch.nan)))
        for rollout in trial_of(agent, family)
    ]
    agent.ring.add(episodes_of(broken))
    assert len(ByTask(agent.ring, 3)) == 0
    metrics = agent.update(trial_of(agent, family))
    assert np.isfinite(list(metrics.values())).all()


# ---- The update -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_targets_are_those_of_a_naive_loop(family: TaskFamily):
    agent = PEARL(config(init_alpha=0.3), family)
    trained(agent, family, 2)
    agent._keep(trial_of(agent, family, 8, 7))
    batch, keys = batch_of(agent)
    net, alpha = agent.net, float(agent.net.log_alpha.detach().exp())
    with torch.no_grad():
        latent = net.infer(batch.context).mean[:, None]
        each = rng.fold(keys[:, None], torch.arange(8))
        found = agent._targets(batch, latent, each, torch.tensor(0.9))
        assert isinstance(family, Reach) or bool((batch.following == 0).any())
        for n in range(3):
            for m in range(8):
                seen, z = batch.next_seen[n, m], latent[n, 0]
                now = choices(net.policy(seen[None], z[None]), each[n, m][None])
                inputs = [seen[None], z[None], *([] if now.action is None else [now.action])]
                q = net.critic_target.finish(net.critic_target.begin(*inputs))[:, 0]
                soft = sum(
                    float(p) * (min(float(q[0, k]), float(q[1, k])) - alpha * float(log))
                    for k, (p, log) in enumerate(zip(now.prob[0], now.log_prob[0], strict=True))
                )
                expected = float(batch.reward[n, m]) + 0.9 * float(batch.following[n, m]) * soft
                assert float(found[n, m]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_the_encoder_learns_from_the_critics_and_the_kl_but_not_from_the_actor(family: TaskFamily, monkeypatch):
    agent = PEARL(config(kl_weight=0.0), family)
    trained(agent, family, 2)
    batch, keys = batch_of(agent)
    found = gradients(agent, batch, keys)
    assert not [name for name in found if "target" in name]
    assert float(found["encoder.weights.0"].norm()) > 0.0 and float(found["actor.weights.0"].norm()) > 0.0
    from metarl.agents.pearl import agent as module

    monkeypatch.setattr(module, "actor_loss", lambda q, now, alpha, weight: 0.0 * now.log_prob.sum())
    without = gradients(agent, batch, keys)
    for name in found:
        if not name.startswith(("actor", "log_alpha")):
            assert torch.equal(found[name], without[name]), name
    monkeypatch.setattr(module, "critic_loss", lambda q, target, weight: 0.0 * q.sum())
    assert float(gradients(agent, batch, keys)["encoder.weights.0"].norm()) == 0.0
    agent.config.kl_weight = 1.0
    assert float(gradients(agent, batch, keys)["encoder.weights.0"].norm()) > 0.0


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_the_actor_follows_the_lesser_of_both_critics(family: TaskFamily, monkeypatch: pytest.MonkeyPatch):
    from metarl.agents.pearl import agent as module

    agent, followed = PEARL(config(), family), []
    trained(agent, family, 2)
    real = module.actor_loss
    monkeypatch.setattr(module, "actor_loss", lambda q, *others: followed.append(q.detach()) or real(q, *others))
    batch, keys = batch_of(agent)
    gradients(agent, batch, keys)
    with torch.no_grad():
        agent.net.critic.biases[-1][1] += 50.0
    gradients(agent, batch, keys)  # of one critic alone
    with torch.no_grad():
        agent.net.critic.biases[-1][1] -= 100.0
    gradients(agent, batch, keys)  # of the other one, 50 lower
    first, second = followed[1], followed[2] + 50.0
    torch.testing.assert_close(followed[0], torch.minimum(first, second), rtol=1e-3, atol=1e-3)
    assert bool((first != second).any())


def test_the_gradient_of_the_encoder_is_that_of_finite_differences():
    """Of the critics' loss and the weighted KL divergence, through the product and the draw."""
    family = Reach()
    agent = PEARL(config(kl_weight=0.3, latent_size=2), family)
    trained(agent, family, 2)
    batch, keys = batch_of(agent)
    agent.net.double()
    batch = Batch(*(x.double() for x in batch[:6]))
    analytic = gradients(agent, batch, keys)
    net = agent.net
    noise = rng.normal(rng.fold(keys, 0), 2).double()
    each = rng.fold(rng.fold(keys, 1)[:, None], torch.arange(8))
    with torch.no_grad():
        target = agent._targets(batch, net.infer(batch.context).draw(noise)[:, None], each, torch.tensor(0.9))

    def loss() -> float:
        with torch.no_grad():
            posterior = net.infer(batch.context)
            latent = posterior.draw(noise)[:, None].expand(-1, 8, -1)
            q = net.critic.finish(net.critic.begin(batch.seen, latent, batch.action)).squeeze(-1)
            return float((0.5 * (q - target) ** 2).sum() / 24 + 0.3 * posterior.kl().mean())

    for name in ("encoder.parts.0", "encoder.weights.0", "critic.parts.1"):
        parameter = dict(net.named_parameters())[name].data.view(-1)
        for place in range(0, len(parameter), 5):
            before, e = parameter[place].clone(), 1e-5
            parameter[place] = before + e
            above = loss()
            parameter[place] = before - e
            below = loss()
            parameter[place] = before
            numeric = (above - below) / (2 * e)
            assert float(analytic[name].view(-1)[place]) == pytest.approx(numeric, rel=1e-3, abs=1e-7), name


def test_the_end_by_the_horizon_is_no_terminal():
    family = Corridor()
    agent = PEARL(config(buffer_size=100), family)
    agent._keep(trial_of(agent, family))
    ended = take(agent.ring.stored["outcome.truncated"].nonzero().T, slice(None))
    batch, _ = batch_of(agent)
    drawn = agent.ring.stored["outcome.terminated"]
    assert set(batch.following.unique().tolist()) <= {0.0, 1.0}
    assert not bool(drawn[ended[0], ended[1]].any())


def test_a_row_of_a_context_is_that_row():
    """The factors of a transition do not depend on what else is encoded."""
    family = Corridor()
    agent = PEARL(config(next_obs=True), family)
    trained(agent, family, 2)
    rollout = trial_of(agent, family)[0]
    rows = torch.tensor([2, 5])
    part = rollout._replace(**{n: columns(getattr(rollout, n), rows) for n in ("step", "acted", "outcome", "mask")})
    whole, alone = (agent.net.encoded(transitions_of(each)) for each in (rollout, part))
    assert torch.equal(whole[:, rows], alone)


def test_the_encoder_sees_the_next_observation_only_if_asked():
    family = Reach()
    rollout = trial_of(PEARL(config(), family), family)[0]
    changed = rollout._replace(outcome=rollout.outcome._replace(final_obs=rollout.outcome.final_obs + 0.5))
    for asked in (False, True):
        net = PEARL(config(next_obs=asked), family).net
        same = torch.equal(*(net.encoded(transitions_of(each)) for each in (rollout, changed)))
        assert same is not asked


def test_the_encoder_sees_whether_an_episode_was_terminated():
    agent = PEARL(config(), Corridor())
    made = transitions_of(trial_of(agent, Corridor())[0])
    ended, goes_on = (made._replace(terminated=torch.full_like(made.terminated, end)) for end in (True, False))
    assert not torch.equal(agent.net.encoded(ended), agent.net.encoded(goes_on))


def test_nothing_is_learned_before_learning_starts():
    family = Reach()
    agent = PEARL(config(learning_starts=16), family)
    before = weights(agent)
    first = agent.update(trial_of(agent, family))
    assert torch.equal(weights(agent), before) and first["loss/replayable"] == 24.0 and "loss/critic" not in first
    second = agent.update(trial_of(agent, family))
    assert "loss/kl" in second and not torch.equal(weights(agent), before)


def test_a_resume_with_the_ring_is_exact():
    family = metarl.make("metarl/WindyPoint-v0", train_tasks=5)
    first, second = (PEARL(config(norm_obs=True), family, seed=1) for _ in range(2))
    trained(first, family, 3)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    second.ring.load_state_dict({k: v.clone() for k, v in first.ring.state_dict().items()})
    for agent in (first, second):
        trained(agent, family, 2)
    assert torch.equal(weights(first), weights(second))


# ---- Mistakes -------------------------------------------------------------------------------------------------------


def test_spaces_that_it_does_not_know_are_refused_in_one_sentence():
    class Free(Reach):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    class Several(Reach):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    with pytest.raises(ValueError, match="PEARL needs actions with finite bounds, and those of Free are"):
        config().build(Free(), 0, CPU)
    with pytest.raises(ValueError, match="PEARL needs Discrete or Box actions, and those of Several are"):
        config().build(Several(), 0, CPU)
    with pytest.raises(ValueError, match=r"PEARL needs vector observations, and .* has images"):
        config().build(Signals(False), 0, CPU)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prior_rounds": 3}, "prior_rounds must be below rounds = 3, so that the posterior is used, got 3"),
        ({"buffer_size": 23}, "buffer_size must be at least meta_batch_size × rounds = 24, got 23"),
        ({"hidden_sizes": ()}, "hidden_sizes must have at least one layer"),
        ({"encoder_sizes": ()}, "encoder_sizes must have at least one layer"),
        ({"rounds": 1}, "rounds must be at least 2"),
    ],
)
def test_options_that_do_not_fit_each_other(options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        config(**options)


# ---- Learning -------------------------------------------------------------------------------------------------------

QUICK = {
    "meta_batch_size": 16, "task_batch": 8, "batch_size": 16, "context_size": 2, "updates_per_iteration": 15,
    "learning_starts": 32, "buffer_size": 1000, "policy_lr": 3e-3, "q_lr": 3e-3, "encoder_lr": 3e-3, "alpha_lr": 3e-3,
    "tau": 0.05, "gamma": 0.5, "rounds": 4,
}  # fmt: skip


def returns(agent: PEARL, family: TaskFamily) -> list[float]:
    """The mean return of each round."""
    trial = run_trial(agent, family, family.sample_tasks(rng.key(77), 300), rng.key(78))
    return [float((rollout.outcome.reward * rollout.mask).sum(0).mean()) for rollout in trial]


def test_it_learns_to_repeat_the_door_that_paid():
    family = TwoDoors()
    agent = PEARL(config(**QUICK, target_entropy_share=0.05, kl_weight=0.01), family)
    trained(agent, family, 40, 16)
    first, *others = returns(agent, family)
    assert first == pytest.approx(0.5, abs=0.12) and min(others) > 0.9


class Corners(Reach):
    """`Reach` with two targets, opposite each other: who does not know which one gets -2.94 an episode at best."""

    def draw_tasks(self, keys: torch.Tensor, split: str) -> Target:
        side = 1.4 * rng.integers(keys, 1, 2) - 0.7
        return Target(side.expand(len(keys), 2).to(torch.float32))


@pytest.mark.slow
def test_it_learns_to_reach_what_the_rewards_tell():
    """In the first round it does not know the corner, and acts as if it knew."""
    family = Corners()
    options = QUICK | {"context_size": 6, "hidden_sizes": (32, 32), "encoder_sizes": (32,), "kl_weight": 0.01}
    agent = PEARL(config(**options, target_entropy=-0.7), family)
    trained(agent, family, 70, 16)
    first, *others = returns(agent, family)
    assert first < -2.5 and max(others) == others[-1] > -0.5 and min(others) > -1.0, (first, others)
