"""Recurrent soft actor-critic: the contract of agents, replay, targets and gradients, and that it learns."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, Reach, TwoDoors
from space_families import Signals

import metarl
from metarl.agents.recurrent_sac import RecurrentSAC, RecurrentSACConfig
from metarl.agents.recurrent_sac.agent import ACTOR_METRICS, CRITIC_METRICS
from metarl.agents.recurrent_sac.network import choices, play
from metarl.agents.recurrent_sac.replay import Batch, replayed, with_last
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import columns, features, tree_map
from metarl.learning.encoder import scale_tasks
from metarl.learning.memories import MEMORIES
from metarl.learning.soft import Point, SquashedGaussian
from metarl.testing import check_agent
from metarl.train import main

CPU = torch.device("cpu")


def config(**changes: Any) -> RecurrentSACConfig:
    small = RecurrentSACConfig(
        meta_batch_size=8, hidden_size=16, head_sizes=(16, 16), updates_per_iteration=2, batch_size=6,
        learning_starts=0, buffer_size=40,
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


def rollout_of(agent: RecurrentSAC, family: TaskFamily, rows: int = 8, seed: int = 0) -> Rollout:
    key = rng.key(seed)
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.fold(key, 0), rows), rng.fold(key, 1))
    return rollout


def trained(agent: RecurrentSAC, family: TaskFamily, iterations: int, rows: int = 8, total: int = 0) -> list[dict]:
    return [agent.update([rollout_of(agent, family, rows, n)], n / (total or iterations)) for n in range(iterations)]


def weights(agent: RecurrentSAC) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.net.parameters()])


def whole(agent: RecurrentSAC, rollout: Rollout, first: int = 0, length: int = 10**6, burn_in: int = 0) -> Batch:
    return replayed(agent.net, rollout, first, length, burn_in, agent.config.bootstrap_end)


def policy_of(agent: RecurrentSAC, batch: Batch) -> Any:
    return agent.net.actor.policy(agent.net.see(batch.raw, batch.burn_in)["actor"])


def keys_of(batch: Batch) -> torch.Tensor:
    return rng.fold(rng.key(3), torch.arange(batch.mask.shape[1]))


def gradients(agent: RecurrentSAC, batch: Batch) -> dict[str, torch.Tensor]:
    """The gradients of a step by parameter, which is not taken."""
    found: dict[str, torch.Tensor] = {}

    def keep(metrics: torch.Tensor, policy_learns: bool) -> torch.Tensor:
        found.update({name: p.grad.clone() for name, p in agent.net.named_parameters() if p.grad is not None})
        agent.net.zero_grad()
        return metrics

    agent._step = keep
    try:
        agent._descend(batch, keys_of(batch), rng.key(4), torch.tensor(0.9), torch.tensor(-1.0), True)
    finally:
        del agent._step
    return found


@pytest.mark.parametrize("family", ["GridNavi", "SparsePointRobot", "TMaze", "WindyPoint"])
@pytest.mark.parametrize("options", [{}, {"critic": "task", "num_critics": 4}], ids=str)
def test_the_contract_of_agents(family: str, options: dict[str, Any]):
    check_agent(config(**options), metarl.make(f"metarl/{family}-v0"))


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_contract_with_every_memory(memory: str):
    check_agent(config(memory=memory), TwoDoors())


@pytest.mark.parametrize("parts", [False, True])
def test_the_contract_with_images(parts: bool):
    """Policy and critics have networks of their own for them."""
    family = Signals(parts)
    check_agent(config(), family)
    agent = RecurrentSAC(config(), family)
    before = [copy.deepcopy(agent.net.actor.history.images), copy.deepcopy(agent.net.critic.history.images)]
    trained(agent, family, 1)
    for old, new in zip(before, (agent.net.actor.history.images, agent.net.critic.history.images), strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


def test_the_contract_of_td3_and_of_chunks():
    check_agent(config(algorithm="td3", policy_frequency=2), metarl.make("metarl/WindyPoint-v0"))
    check_agent(config(chunk_length=7, burn_in=3, norm_obs=True), metarl.make("metarl/SparsePointRobot-v0"))
    check_agent(config(bootstrap_end=True), Corridor())


def test_the_first_trials_are_uniformly_random_and_nothing_is_learned_from_them():
    family = metarl.make("metarl/WindyPoint-v0")
    agent = RecurrentSAC(config(learning_starts=16, init_alpha=1e-3), family)
    before = weights(agent)
    first = agent.update([rollout_of(agent, family)])
    assert torch.equal(weights(agent), before) and first["loss/replayable"] == 8.0 and "loss/critic" not in first
    action = agent.net.actions.to_own(rollout_of(agent, family, 400, 1).acted.action)
    counts = torch.histc(action, 10, -1.0, 1.0) / action.numel()
    assert bool(((counts - 0.1).abs() < 0.01).all()) and float(action.abs().max()) <= 1.0
    second = agent.update([rollout_of(agent, family)])
    assert "loss/critic" in second and not torch.equal(weights(agent), before)
    assert not bool(agent.exploring)


@pytest.mark.parametrize("family", ["SparsePointRobot", "GridNavi"])
def test_random_actions_may_stay_within_an_episode(family: str):
    """A share of 1 - 1/repeat of the steps after an episode's first one, up to chance; an episode begins anew."""
    made = metarl.make(f"metarl/{family}-v0")
    agent = RecurrentSAC(config(learning_starts=100, random_repeat=5.0), made)
    rollout = rollout_of(agent, made, 60)
    action = rollout.acted.action if rollout.acted.action.ndim == 3 else rollout.acted.action[..., None]
    same = (action[1:] == action[:-1]).all(-1).to(torch.float32)
    first = rollout.step.prev_done[1:] > 0
    chance = 0.0 if family == "SparsePointRobot" else 1 / 5  # of drawing the same again
    assert float(same[~first].mean()) == pytest.approx(0.8 + 0.2 * chance, abs=0.03)
    assert float(same[first].mean()) == pytest.approx(chance, abs=0.1)


def test_greedy_actions_of_td3_have_no_noise_and_those_of_sac_the_density_of_their_mode():
    mean, log_std = torch.tensor([[0.3, -1.2]]).expand(6, 2), torch.tensor([[-0.5, 0.2]]).expand(6, 2)
    keys = rng.fold(rng.key(0), torch.arange(6))
    action, _ = play(Point(mean.tanh()), keys, greedy=True, noise=0.5)
    assert torch.equal(action, mean.tanh())
    assert not torch.equal(play(Point(mean.tanh()), keys, greedy=False, noise=0.5)[0], action)
    action, log_prob = play(SquashedGaussian(mean, log_std), keys, greedy=True, noise=0.0)
    normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(log_prob, squashed.log_prob(action.double()).sum(-1).float())


def test_no_gradient_flows_through_a_burn_in():
    net = RecurrentSAC(config(), Corridor()).net
    raw = rng.normal(rng.fold(rng.key(0), torch.arange(8 * 3)), net.encoder.raw_size).unflatten(0, (8, 3))
    steps = raw.clone().requires_grad_()
    seen = net.see(steps[4:], steps[:4])
    sum(each.output.square().sum() for each in seen.values()).backward()
    assert not steps.grad[:4].any() and bool(steps.grad[4:].any())
    alone = net.see(raw[4:], raw[:0])
    assert not torch.allclose(alone["actor"].output, seen["actor"].output), "what came before is remembered"


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_random_actions_have_the_log_probability_of_their_draw(family: TaskFamily):
    """Uniform over two actions, or over a square with sides of 2."""
    agent = RecurrentSAC(config(learning_starts=100), family)
    rollout, size = rollout_of(agent, family), 1 if isinstance(family, Corridor) else 2
    torch.testing.assert_close(rollout.acted.log_prob, torch.full_like(rollout.mask, -size * math.log(2.0)))


def test_greedy_actions_are_never_random():
    family = metarl.make("metarl/WindyPoint-v0")
    agents = [RecurrentSAC(config(learning_starts=n), family) for n in (0, 100)]
    task = family.sample_tasks(rng.key(0), 3)
    from metarl.core.rollout import play_rounds

    seen = [next(iter(play_rounds(a, family, task, rng.key(1), greedy=True))).played.acted.action for a in agents]
    assert torch.equal(*seen)


def test_replayed_steps_are_what_the_policy_saw():
    """The memories over a replayed trial are those that acted, up to rounding, also for padded trials."""
    family = Corridor()
    agent = RecurrentSAC(config(), family)
    rollout = rollout_of(agent, family, 8)
    assert bool((rollout.mask == 0).any())
    batch = whole(agent, rollout)
    policy = policy_of(agent, batch)
    log_prob = policy.log_probs[:-1].gather(-1, batch.action[..., None]).squeeze(-1)
    torch.testing.assert_close(log_prob * batch.mask, rollout.acted.log_prob * batch.mask, rtol=0, atol=1e-5)


def test_the_step_after_the_last_is_made_of_the_last_outcome():
    family = Corridor()
    agent = RecurrentSAC(config(), family)
    rollout = rollout_of(agent, family, 8)
    following = torch.cat([rollout.mask[1:], torch.zeros(1, 8)])
    steps = with_last(rollout, following)
    for row in range(8):
        length = int(rollout.mask[:, row].sum())
        assert torch.equal(steps.obs[:length, row], rollout.step.obs[:length, row])
        assert torch.equal(steps.obs[length, row], rollout.outcome.final_obs[length - 1, row])
        assert steps.prev_action[length, row] == rollout.acted.action[length - 1, row]
        assert steps.prev_reward[length, row] == rollout.outcome.reward[length - 1, row]
        assert steps.prev_done[length, row] == 1.0


@pytest.mark.parametrize("bootstrap_end", [False, True])
def test_targets_are_those_of_a_naive_loop(bootstrap_end: bool):
    """Values reach across the ends of episodes; after the trial's last step they count only with bootstrap_end."""
    family = Corridor()
    agent = RecurrentSAC(config(bootstrap_end=bootstrap_end), family)
    trained(agent, family, 2)
    rollout = rollout_of(agent, family, 8, 9)
    batch = whole(agent, rollout)
    with torch.no_grad():
        now = choices(policy_of(agent, batch), torch.zeros(()))
        seen = agent.net.see(batch.raw, batch.burn_in)
        found = agent._targets(batch, seen, now, torch.zeros(()), rng.key(0), 0.3, torch.tensor(0.9))
        first_layer = agent.net.critic_target.first_layer(seen["critic_target"], batch.task)
        q = agent.net.critic_target.values(first_layer, None)
    size = float(agent.net.encoder.reward_size)
    for row in range(8):
        length = int(rollout.mask[:, row].sum())
        for t in range(length):
            expected = float(rollout.outcome.reward[t, row]) / size
            if t + 1 < length or bootstrap_end:
                p = now.prob[t + 1, row].double()
                least = torch.minimum(q[0, t + 1, row], q[1, t + 1, row]).double()
                expected += 0.9 * float((p * (least - 0.3 * p.log())).sum())
            assert float(found[t, row]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_padding_changes_no_gradient():
    family = Corridor()
    agent = RecurrentSAC(config(critic="task"), family)
    trained(agent, family, 1)
    rollout = rollout_of(agent, family, 8, 5)
    padding = rollout.mask == 0
    spoiled = rollout._replace(outcome=rollout.outcome._replace(
        reward=torch.where(padding, 7.0, rollout.outcome.reward)))  # fmt: skip
    spoiled = spoiled._replace(acted=rollout.acted._replace(action=torch.where(padding, 0, rollout.acted.action)))
    a, b = (gradients(agent, whole(agent, each)) for each in (rollout, spoiled))
    assert a.keys() == b.keys()
    for name, gradient in a.items():
        torch.testing.assert_close(gradient, b[name], rtol=1e-4, atol=1e-7)


def test_more_padding_changes_no_gradient():
    """Losses are means over the steps that count, not over all that are there."""
    agent = RecurrentSAC(config(), Corridor())
    trained(agent, Corridor(), 2)
    rollout = rollout_of(agent, Corridor(), 4)
    parts = (rollout.step, rollout.acted, rollout.outcome)
    step, acted, outcome = tree_map(lambda x: torch.cat([x, x[-1:].expand(7, *x.shape[1:])]), parts)
    mask = torch.cat([rollout.mask, torch.zeros(7, 4)])
    longer = rollout._replace(step=step, acted=acted, outcome=outcome, mask=mask)
    first, second = (gradients(agent, whole(agent, each)) for each in (rollout, longer))
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_noise_of_td3_s_targets_is_cut_off():
    agent = RecurrentSAC(config(algorithm="td3", policy_noise=2.0, noise_clip=0.25), Reach())
    trained(agent, Reach(), 2)
    batch, asked = whole(agent, rollout_of(agent, Reach(), 4)), list[torch.Tensor]()
    values = agent.net.critic_target.values
    agent.net.critic_target.values = lambda seen, action: asked.append(action) or values(seen, action)
    gradients(agent, batch)
    with torch.no_grad():
        plain = agent.net.actor_target.policy(agent.net.see(batch.raw, batch.burn_in)["actor_target"]).action
    noise = (asked[0] - plain).abs()
    assert float(noise.max()) <= 0.25 + 1e-6 and float((noise > 0.2499).float().mean()) > 0.5
    assert float(asked[0].abs().max()) <= 1.0


def test_a_burn_in_that_covers_the_trial_gives_the_memories_of_the_whole_trial():
    family = metarl.make("metarl/SparsePointRobot-v0", episodes_per_trial=2)
    agent = RecurrentSAC(config(), family)
    trained(agent, family, 1)
    rollout = rollout_of(agent, family, 8, 5)
    everything = policy_of(agent, whole(agent, rollout))
    for first in (0, 13, 39):
        part = policy_of(agent, whole(agent, rollout, first, 9, burn_in=40))
        expected = everything.mean[first : first + 10]
        torch.testing.assert_close(part.mean, expected, rtol=1e-4, atol=1e-5)
    short = policy_of(agent, whole(agent, rollout, 13, 9, burn_in=2))
    assert not torch.allclose(short.mean, everything.mean[13:23], rtol=1e-4, atol=1e-5)


def test_a_chunk_as_long_as_the_trial_is_the_trial():
    family = metarl.make("metarl/SparsePointRobot-v0", episodes_per_trial=1)
    agents = [RecurrentSAC(config(chunk_length=n), family) for n in (None, 20, 300)]
    for agent in agents:
        trained(agent, family, 2)
    assert torch.equal(weights(agents[0]), weights(agents[1])) and torch.equal(weights(agents[0]), weights(agents[2]))


def test_the_chunks_of_a_trial_are_all_drawn():
    family = metarl.make("metarl/SparsePointRobot-v0", episodes_per_trial=1)
    agent = RecurrentSAC(config(chunk_length=6, burn_in=4), family)
    agent._keep(rollout_of(agent, family))
    sizes = {(len(b.burn_in), len(b.mask)) for b, _ in (agent._replay(rng.key(n)) for n in range(40))}
    assert sizes == {(0, 6), (4, 6), (4, 2)}


def test_the_gradient_of_the_critics_is_that_of_finite_differences():
    family = Reach()
    agent = RecurrentSAC(config(critic="task", hidden_size=4, head_sizes=(5,)), family)
    trained(agent, family, 1)
    batch = Batch(*(x.double() for x in whole(agent, rollout_of(agent, family, 4, 5))))
    agent.net.double()
    analytic = gradients(agent, batch)
    with torch.no_grad():
        each = rng.fold(keys_of(batch), torch.arange(len(batch.raw))[:, None])
        now = choices(policy_of(agent, batch), each)
        alpha = agent.net.log_alpha.exp()
        seen = agent.net.see(batch.raw, batch.burn_in)
        target = agent._targets(batch, seen, now, each, rng.key(4), alpha, torch.tensor(0.9))

    def loss() -> float:
        with torch.no_grad():
            seen = agent.net.see(batch.raw, batch.burn_in)["critic"]
            first_layer = agent.net.critic.first_layer(seen, batch.task)[:-1]
            q = agent.net.critic.values(first_layer, batch.action).squeeze(-1)
            return float((0.5 * (q - target) ** 2 * batch.mask).sum() / batch.mask.sum())

    _compare(agent, analytic, loss, ["critic.history.memory.cell.weight_hh_l0", "critic.head.parts.3"])


def test_the_gradient_of_the_actor_is_that_of_finite_differences():
    """Through the memory, the draws and the critics, whose parameters it leaves alone."""
    family = Reach()
    agent = RecurrentSAC(config(hidden_size=4, head_sizes=(5,)), family)
    trained(agent, family, 1)
    batch = Batch(*(x.double() for x in whole(agent, rollout_of(agent, family, 4, 5))))
    agent.net.double()
    analytic = gradients(agent, batch)
    each = rng.fold(keys_of(batch), torch.arange(len(batch.raw))[:, None])

    def loss() -> float:
        with torch.no_grad():
            now = choices(policy_of(agent, batch), each).until(-1)
            seen = agent.net.see(batch.raw, batch.burn_in)["critic"]
            first_layer = agent.net.critic.first_layer(seen, batch.task)[:-1]
            q = agent.net.critic.values(first_layer, now.action).amin(0).squeeze(-1)
            each_loss = agent.net.log_alpha.exp() * now.log_prob.squeeze(-1) - q
            return float((each_loss * batch.mask).sum() / batch.mask.sum())

    _compare(agent, analytic, loss, ["actor.history.memory.cell.weight_hh_l0", "actor.head.weights.0"])


def _compare(agent: RecurrentSAC, analytic: dict[str, torch.Tensor], loss: Any, names: list[str]) -> None:
    parameters = dict(agent.net.named_parameters())
    for name in names:
        for place in range(0, analytic[name].numel(), 7):
            flat, e = parameters[name].data.view(-1), 1e-5
            before = flat[place].clone()
            flat[place] = before + e
            above = loss()
            flat[place] = before - e
            below = loss()
            flat[place] = before
            numeric = (above - below) / (2 * e)
            assert float(analytic[name].view(-1)[place]) == pytest.approx(numeric, rel=1e-3, abs=1e-7), name


@pytest.mark.parametrize("family", ["GridNavi", "WindyPoint"])
def test_no_gradient_reaches_targets_or_the_wrong_network(family: str):
    made = metarl.make(f"metarl/{family}-v0")
    agent = RecurrentSAC(config(), made)
    trained(agent, made, 1)
    found = gradients(agent, whole(agent, rollout_of(agent, made, 4)))
    assert not [name for name in found if "target" in name]
    critic_only = agent.net
    batch = whole(agent, rollout_of(agent, made, 4))
    agent._step = lambda metrics, learns: metrics
    agent._descend(batch, keys_of(batch), rng.key(4), torch.tensor(0.9), torch.tensor(-1.0), False)
    assert all(p.grad is None for p in critic_only.actor.parameters()) and critic_only.log_alpha.grad is None


@pytest.mark.parametrize(
    ("family", "options"),
    [(Corridor(), {}), (Corridor(), {"num_critics": 4}), (Reach(), {}), (Reach(), {"algorithm": "td3"})],
    ids=["Discrete", "Discrete, four critics", "Box", "TD3"],
)
def test_the_policy_s_loss_changes_no_gradient_of_the_critics(family: TaskFamily, options: dict[str, Any]):
    agent = RecurrentSAC(config(**options), family)
    trained(agent, family, 2)
    batch, found = whole(agent, rollout_of(agent, family, 4)), list[dict[str, torch.Tensor]]()
    for policy_learns in (True, False):
        agent._step = lambda metrics, learns: metrics
        agent._descend(batch, keys_of(batch), rng.key(4), torch.tensor(0.9), torch.tensor(-1.0), policy_learns)
        found.append({name: p.grad.clone() for name, p in agent.net.critic.named_parameters() if p.grad is not None})
        agent.net.zero_grad(set_to_none=True)
    assert found[0].keys() == found[1].keys() and len(found[0]) > 6
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-5, atol=1e-7, msg=name)


def test_the_policy_learns_at_every_so_many_th_step():
    family = metarl.make("metarl/WindyPoint-v0")
    agent = RecurrentSAC(config(policy_frequency=3, updates_per_iteration=7), family)
    trained(agent, family, 1)
    assert int(agent.optimizers["actor.head"].steps) == 3 and int(agent.optimizers["critic.head"].steps) == 7


def test_td3_has_a_target_policy_and_no_temperature():
    family = metarl.make("metarl/WindyPoint-v0")
    agent = RecurrentSAC(config(algorithm="td3"), family)
    before = agent.net.actor_target.head.weights[0].clone()
    metrics = trained(agent, family, 2)[-1]
    assert not torch.equal(agent.net.actor_target.head.weights[0], before)
    assert metrics["loss/alpha"] == pytest.approx(0.1) and metrics["loss/entropy"] == 0.0


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_the_target_networks_follow_the_others(algorithm: str):
    family = metarl.make("metarl/WindyPoint-v0")
    agent = RecurrentSAC(config(algorithm=algorithm, tau=0.25, updates_per_iteration=1), family)
    before = [[p.clone() for p in target.parameters()] for target, _ in agent.net.targets()]
    trained(agent, family, 1)
    assert len(before) == (2 if algorithm == "td3" else 1)
    for olds, (target, online) in zip(before, agent.net.targets(), strict=True):
        triples = list(zip(olds, target.parameters(), online.parameters(), strict=True))
        assert not all(torch.equal(old, now) for old, _, now in triples)
        for old, follower, now in triples:
            torch.testing.assert_close(follower, torch.lerp(old, now.detach(), 0.25))


def test_targets_are_those_of_the_target_critics():
    family = metarl.make("metarl/GridNavi-v0")
    agent = RecurrentSAC(config(), family)
    trained(agent, family, 1)
    batch = whole(agent, rollout_of(agent, family, 4))
    with torch.no_grad():
        seen = agent.net.see(batch.raw, batch.burn_in)
        now, found = choices(agent.net.actor.policy(seen["actor"]), torch.zeros(())), []
        for network in (agent.net.critic, agent.net.critic_target):
            network.head.biases[-1].add_(1.0)
            found.append(agent._targets(batch, seen, now, torch.zeros(()), rng.key(0), 0.1, torch.tensor(0.9)))
    torch.testing.assert_close(found[1] - found[0], 0.9 * batch.following, rtol=0, atol=1e-5)


def test_the_temperature_aims_at_an_entropy_of_each_dimension_or_a_share_of_the_largest():
    schedules = {"target_entropy": [(0.0, -1.0), (1.0, -2.0)], "target_entropy_share": 0.3, "gamma": 0.8}
    for family, entropy in (("WindyPoint", 2 * -1.5), ("GridNavi", 0.3 * math.log(5))):
        agent = RecurrentSAC(config(**schedules), metarl.make(f"metarl/{family}-v0"))
        assert [float(each) for each in agent._schedules(0.5)] == pytest.approx([0.8, entropy])


def test_targets_take_the_least_of_some_critics():
    family = metarl.make("metarl/GridNavi-v0")
    agent = RecurrentSAC(config(num_critics=5, target_critics=2), family)
    trained(agent, family, 1)
    batch = whole(agent, rollout_of(agent, family, 4))
    with torch.no_grad():
        now = choices(policy_of(agent, batch), torch.zeros(()))
        seen = agent.net.see(batch.raw, batch.burn_in)
        arguments = batch, seen, now, torch.zeros(())
        found = [agent._targets(*arguments, rng.key(n), 0.1, torch.tensor(0.9)) for n in range(80)]
    assert len({float(target.sum()) for target in found}) == 10, "the pairs of five"


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_the_policy_follows_the_least_of_two_critics_the_mean_of_more_and_with_td3_the_first(family: TaskFamily):
    values = rng.normal(rng.fold(rng.key(0), torch.arange(4 * 5 * 3)), 2).reshape(4, 5, 3, 2)
    two, four = (RecurrentSAC(config(num_critics=n), family) for n in (2, 4))
    assert torch.equal(two._followed(values[:2]), torch.minimum(values[0], values[1]))
    torch.testing.assert_close(four._followed(values), (values[0] + values[1] + values[2] + values[3]) / 4)
    if isinstance(family, Reach):
        assert torch.equal(RecurrentSAC(config(algorithm="td3"), family)._followed(values[:2]), values[0])


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Discrete", "Box"])
def test_the_norms_are_those_of_the_gradients(family: TaskFamily):
    agent = RecurrentSAC(config(max_grad_norm=1e9), family)
    trained(agent, family, 2)
    batch = whole(agent, rollout_of(agent, family, 4))
    found = gradients(agent, batch)
    metrics = agent._descend(batch, keys_of(batch), rng.key(4), torch.tensor(0.9), torch.tensor(-1.0), True)
    named = dict(zip((*CRITIC_METRICS, *ACTOR_METRICS), metrics.tolist(), strict=True))
    for group in ("actor", "critic"):
        squares = [float(gradient.square().sum()) for name, gradient in found.items() if name.startswith(f"{group}.")]
        assert named[f"{group}_grad_norm"] == pytest.approx(sum(squares) ** 0.5, rel=1e-4)


def test_scales_follow_the_mean_over_all_iterations():
    agent, means = RecurrentSAC(config(norm_obs=True, learning_starts=10**6), Corridor()), []
    for seed in range(3):
        rollout = rollout_of(agent, Corridor(), 8, seed)
        means.append(rollout.step.obs[rollout.mask > 0].mean(0))
        agent.update([rollout])
    torch.testing.assert_close(agent.net.encoder.centre, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)


def test_the_told_task_is_standardised_over_training_tasks():
    agent = RecurrentSAC(config(critic="task"), Reach())
    tasks = features(scale_tasks(Reach()))
    told = agent.net.told(tasks)
    torch.testing.assert_close(told.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(told.square().mean(0), torch.ones(2), rtol=1e-4, atol=0)


def test_a_resume_with_the_ring_is_exact():
    family = metarl.make("metarl/WindyPoint-v0")
    first, second = (RecurrentSAC(config(learning_starts=8, policy_frequency=2), family, seed) for seed in (1, 1))
    trained(first, family, 3)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    second.ring.load_state_dict({k: v.clone() for k, v in first.ring.state_dict().items()})
    for agent in (first, second):
        trained(agent, family, 2)
    assert torch.equal(weights(first), weights(second))


def test_no_step_of_an_overwritten_trial_is_replayed():
    """The ring is smaller than what was played: only the newest trials come, each whole."""
    family = TwoDoors()
    agent = RecurrentSAC(config(meta_batch_size=3, buffer_size=5), family)
    rollouts = [rollout_of(agent, family, 3, n) for n in range(4)]
    for number, rollout in enumerate(rollouts):
        marked = rollout.outcome._replace(reward=torch.full_like(rollout.outcome.reward, float(number)))
        agent._keep(rollout._replace(outcome=marked))
    drawn = torch.stack([agent.ring.sample(rng.key(n), 6).outcome.reward for n in range(30)], 1).flatten(1)
    assert bool((drawn == drawn[0]).all()), "steps of two trials in one"
    assert {*drawn[0].tolist()} == {2.0, 3.0}


@pytest.mark.parametrize("family", ["WindyPoint", "GridNavi"])
def test_powers_of_two_of_the_rewards_change_nothing(family: str):
    made = metarl.make(f"metarl/{family}-v0")
    agents = [RecurrentSAC(config(), made) for _ in range(2)]
    rollouts = [rollout_of(agents[0], made, 8, n) for n in range(2)]
    for agent, size in zip(agents, (1.0, 2.0**9), strict=True):
        for rollout in rollouts:
            step = rollout.step._replace(prev_reward=rollout.step.prev_reward * size)
            outcome = rollout.outcome._replace(reward=rollout.outcome.reward * size)
            agent.update([rollout._replace(step=step, outcome=outcome)])
    assert torch.equal(weights(agents[0]), weights(agents[1]))


def test_spaces_that_it_does_not_know_are_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    class Free(Reach):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    class Several(Reach):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    with pytest.raises(ValueError, match="needs actions with finite bounds, and those of Free are"):
        config().build(Free(), 0, CPU)
    with pytest.raises(ValueError, match="needs Discrete or Box actions, and those of Several are"):
        config().build(Several(), 0, CPU)
    monkeypatch.chdir(tmp_path)
    assert main(["--family=metarl/GridNavi-v0", "--agent=RecurrentSAC", "--agent.algorithm=td3"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "algorithm td3 needs Box actions" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target_critics": 3}, "target_critics must not exceed num_critics = 2, got 3"),
        ({"memory": "transformer", "chunk_length": 5}, "chunk_length must be null with memory 'transformer'"),
        ({"buffer_size": 7}, "buffer_size must be at least meta_batch_size = 8, got 7"),
        ({"head_sizes": ()}, "head_sizes must have at least one layer"),
        ({"num_critics": 1}, "num_critics must be at least 2"),
    ],
)
def test_options_that_do_not_fit_each_other(options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        config(**options)


def played(agent: RecurrentSAC, family: TaskFamily) -> list[float]:
    """The mean reward of each episode of trials of one step an episode."""
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(77), 500), rng.key(78))
    return rollout.outcome.reward.mean(1).tolist()


QUICK = {
    "meta_batch_size": 16, "batch_size": 32, "updates_per_iteration": 10, "learning_starts": 64, "buffer_size": 1000,
    "policy_lr": 3e-3, "q_lr": 3e-3, "memory_lr": 3e-3, "alpha_lr": 3e-3, "tau": 0.05,
}  # fmt: skip


def test_it_learns_to_repeat_the_door_that_paid():
    family = TwoDoors()
    agent = RecurrentSAC(config(**QUICK, target_entropy_share=0.05), family)
    trained(agent, family, 40, 16)
    first, *others = played(agent, family)
    assert first == pytest.approx(0.5, abs=0.1) and min(others) > 0.93


@pytest.mark.parametrize(
    "options", [{"target_entropy": -2.5}, {"algorithm": "td3", "exploration_noise": 0.05, "policy_lr": 1e-3}], ids=str
)
def test_it_learns_to_reach_what_the_rewards_tell(options: dict[str, Any]):
    """At random a trial pays -11; the best policy that ignores the rewards gets -0.25, without noise."""
    family = Reach()
    agent = RecurrentSAC(config(**QUICK | {"gamma": 0.5, "init_alpha": 0.01} | options), family)
    before = sum(played(agent, family))
    trained(agent, family, 40, 16)
    assert before < -3.0 and sum(played(agent, family)) > -1.0


def test_columns_of_a_rollout_replay_as_they_were_played():
    """A row of a replayed batch is that row alone."""
    family = metarl.make("metarl/WindyPoint-v0")
    agent = RecurrentSAC(config(), family)
    rollout = rollout_of(agent, family, 8)
    rows = torch.tensor([2, 5])
    part = rollout._replace(**{n: columns(getattr(rollout, n), rows) for n in ("step", "acted", "outcome", "mask")})
    part = part._replace(task=type(rollout.task)(*(field[rows] for field in rollout.task)))
    a, b = (policy_of(agent, whole(agent, each)).mean for each in (rollout, part))
    torch.testing.assert_close(a[:, rows], b, rtol=1e-4, atol=1e-5)
