"""RL²: recurrent PPO over whole trials."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_families import Corridor, Reach, TwoDoors

from metarl.agents.rl2 import RL2, RL2Config
from metarl.core import rng
from metarl.core.distributions import Distribution
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, episode_returns, run_trial
from metarl.core.tree import features, take
from metarl.learning.estimators import follow, gae, mean_square
from metarl.testing import check_agent

MEMORIES = ["gru", "lstm", "rnn", "transformer", "none"]


def config(**changes) -> RL2Config:
    small = RL2Config(meta_batch_size=12, hidden_size=16, num_minibatches=1, update_epochs=1)
    return dataclasses.replace(small, **changes)


def build(family: TaskFamily, **changes) -> RL2:
    return config(**changes).build(family, 0, torch.device("cpu"))


def rollout_of(agent: RL2, family: TaskFamily, tasks: int = 12, seed: int = 0) -> Rollout:
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(seed), tasks), rng.key(seed))
    return rollout


def parameters(agent: RL2) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.net.parameters()])


def whole_trial(
    agent: RL2, rollout: Rollout, task: torch.Tensor | None = None, share: torch.Tensor | None = None
) -> tuple[Distribution, torch.Tensor]:
    """Policy and value of every step of a trial, as `update` sees them."""
    raw, _ = agent.net.encoder.raw(rollout.step, agent.net.encoder.initial(rollout.mask.shape[1]))
    output, x, _ = agent.net.sequence(raw, None)
    return agent.net.heads(output, x, task, share)


def spoil(rollout: Rollout) -> Rollout:
    """Something else in every padding step."""
    padding = rollout.mask == 0
    assert bool(padding.any())

    def other(x: torch.Tensor) -> torch.Tensor:
        where = padding.reshape(*padding.shape, *[1] * (x.ndim - 2))
        value = 1 - x if x.dtype == torch.int64 else x + 3.0
        return torch.where(where, value, x)

    step = rollout.step._replace(obs=other(rollout.step.obs), prev_reward=other(rollout.step.prev_reward))
    acted = rollout.acted._replace(action=other(rollout.acted.action), log_prob=other(rollout.acted.log_prob),
                                   value=other(rollout.acted.value))  # fmt: skip
    outcome = rollout.outcome._replace(reward=other(rollout.outcome.reward))
    # The first padding step still shows what the last real one led to; it is padding all the same.
    return rollout._replace(step=step, acted=acted, outcome=outcome)


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["corridor", "reach"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_the_contract_of_agents(memory: str, family: TaskFamily):
    check_agent(config(memory=memory), family)


@pytest.mark.parametrize("changes", [
    {"critic": "task"}, {"critic": "task_and_time"}, {"embed_size": 8, "head_size": 8}, {"chunk_length": 2},
    {"transition_input": True, "chunk_length": 2}, {"aux_coef": 0.1}, {"norm_obs": True}])  # fmt: skip
def test_the_contract_holds_with_options(changes: dict):
    check_agent(config(**changes), Corridor())


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_likelihood_ratio_is_one_at_first(memory: str):
    family = Corridor()
    agent = build(family, memory=memory)
    rollout = rollout_of(agent, family)
    policy, value = whole_trial(agent, rollout)
    log_prob = policy.log_prob(rollout.acted.action)
    assert (log_prob - rollout.acted.log_prob).abs().max() < 1e-5, "acting and learning see different networks"
    assert (agent._unscale(value) - rollout.acted.value).abs().max() < 1e-4
    metrics = agent.update([rollout])
    assert metrics["loss/approx_kl"] < 1e-7 and metrics["loss/clip_fraction"] == 0.0


def test_minibatches_are_of_tasks_not_of_time(monkeypatch: pytest.MonkeyPatch):
    family = Corridor()
    agent = build(family, num_minibatches=4, update_epochs=2)
    rollout, seen = rollout_of(agent, family), []
    descend = agent.minibatch
    monkeypatch.setattr(agent, "minibatch", lambda batch, *rest: (seen.append(batch), descend(batch, *rest))[1])
    agent.update([rollout])
    assert [part.mask.shape for part in seen] == [(rollout.mask.shape[0], 3)] * 8
    for epoch in (seen[:4], seen[4:]):
        rewards = torch.cat([part.log_prob for part in epoch], dim=1)
        assert sorted(rewards.sum(0).tolist()) == sorted(rollout.acted.log_prob.sum(0).tolist()), "each task once"
    assert not torch.equal(seen[0].log_prob, seen[4].log_prob), "each pass in another order"


@pytest.mark.parametrize("memory", MEMORIES)
def test_padding_changes_no_gradient(memory: str):
    family = Corridor()
    first, second = (build(family, memory=memory, update_epochs=2, num_minibatches=2) for _ in range(2))
    rollout = rollout_of(first, family)
    before = parameters(first)
    metrics, spoiled = first.update([rollout]), second.update([spoil(rollout)])
    assert not torch.equal(before, parameters(first))
    torch.testing.assert_close(parameters(first), parameters(second), rtol=0, atol=1e-6)
    assert metrics == pytest.approx(spoiled, abs=1e-4)


@pytest.mark.parametrize("memory", ["gru", "lstm", "transformer"])
def test_chunks(memory: str):
    family = Corridor()
    whole, long, short = (build(family, memory=memory, chunk_length=length) for length in (None, 18, 2))
    rollout = rollout_of(whole, family)
    for agent in (whole, long, short):
        agent.update([rollout])
    assert torch.equal(parameters(whole), parameters(long)), "a chunk of the whole trial is the whole trial"
    assert not torch.allclose(parameters(whole), parameters(short), atol=1e-6), "short chunks cut the gradient"


def test_short_chunks_change_the_gradient_alone():
    family = Corridor()
    whole, short = (build(family, chunk_length=length) for length in (None, 4))
    rollout = rollout_of(whole, family)
    a, b = whole.update([rollout]), short.update([rollout])
    for name in ("loss/policy", "loss/value", "loss/entropy", "loss/approx_kl"):
        assert a[name] == pytest.approx(b[name], abs=1e-5), name


@pytest.mark.parametrize(("chunk_length", "reaches"), [(None, True), (1, False)])
def test_the_gradient_reaches_the_first_step(chunk_length: int | None, reaches: bool):
    family = TwoDoors(episodes_per_trial=5)
    agent = build(family, vf_coef=0.0, ent_coef=0.0, chunk_length=chunk_length)
    rollout = rollout_of(agent, family)
    batch, _ = agent._prepare(rollout, features(rollout.task), 0.9)
    raw = batch.raw.clone().requires_grad_()
    advantage = torch.zeros_like(batch.advantage)
    advantage[-1] = 1.0  # only the last action is to be changed
    agent._descend(batch._replace(raw=raw, advantage=advantage), features(rollout.task), torch.tensor(0.0))
    assert bool((raw.grad[0] != 0).any()) == reaches
    assert bool((raw.grad[-1] != 0).any())


def test_the_only_terminal_is_the_trials_end():
    family = Corridor()
    agent = build(family, norm_adv=False, gae_lambda=0.7)
    rollout = rollout_of(agent, family)
    batch, _ = agent._prepare(rollout, features(rollout.task), 0.9)
    done = rollout.outcome.terminated | rollout.outcome.truncated
    size = mean_square((rollout.outcome.reward * rollout.mask).flatten()).sqrt()
    for row in range(12):
        steps = int(rollout.mask[:, row].sum())
        assert int(done[:steps, row].sum()) == 3 and bool(done[steps - 1, row])
        ends = torch.zeros(steps, 1)
        ends[-1] = 1.0
        one = slice(row, row + 1)
        reward, value = rollout.outcome.reward[:steps, one], rollout.acted.value[:steps, one]
        expected = gae(reward, value, ends, torch.zeros(1), 0.9, 0.7)
        torch.testing.assert_close(batch.advantage[:steps, one] * size, expected)
        assert not bool(batch.advantage[steps:, row].any())


def test_normalised_advantages_have_mean_0_and_standard_deviation_1():
    family = TwoDoors(episodes_per_trial=3)
    agent = build(family)
    rollout = rollout_of(agent, family)
    found = agent._prepare(rollout, features(rollout.task), 0.9)[0].advantage
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-5) and float(found.std(correction=0)) == pytest.approx(1.0)


def test_a_later_episodes_reward_counts_for_an_earlier_action():
    family = TwoDoors(episodes_per_trial=3)
    agent = build(family, norm_adv=False)
    rollout = rollout_of(agent, family)
    richer = rollout.outcome.reward.clone()
    richer[2] += 1.0
    changed = rollout._replace(outcome=rollout.outcome._replace(reward=richer))
    a, b = (advantage(build(family, norm_adv=False), each) for each in (rollout, changed))
    torch.testing.assert_close((b - a)[:, 0], torch.tensor([(0.5 * 0.95) ** 2, 0.5 * 0.95, 1.0]))


def advantage(agent: RL2, rollout: Rollout) -> torch.Tensor:
    """In units of rewards, where it is not normalised."""
    found = agent._prepare(rollout, features(rollout.task), 0.5)[0].advantage
    return found * mean_square(rollout.outcome.reward.flatten()).sqrt()


def test_the_memory_lives_through_the_ends_of_episodes():
    family = TwoDoors(episodes_per_trial=4)
    agent = build(family)
    rollout = rollout_of(agent, family)
    agent.net.encoder.follow_rewards(rollout.outcome.reward, rollout.mask)  # until then the policy sees none
    other = rollout.step.prev_reward.clone()
    other[1] = 1.0 - other[1]  # the reward of the first episode
    outputs = []
    for prev_reward in (rollout.step.prev_reward, other):
        outputs.append(whole_trial(agent, rollout._replace(step=rollout.step._replace(prev_reward=prev_reward)))[1])
    differs = (outputs[0] != outputs[1]).any(1)
    assert differs.tolist() == [False, True, True, True]


def test_target_kl_stops_the_passes():
    family = Corridor()
    patient, strict = (build(family, update_epochs=5, num_minibatches=3, target_kl=kl) for kl in (None, 1e-12))
    rollout = rollout_of(patient, family)
    assert patient.update([rollout])["loss/epochs"] == 5
    assert strict.update([rollout])["loss/epochs"] == 1


def test_schedules_follow_the_progress():
    agent = build(TwoDoors(), lr=[(0.0, 1e-2), (1.0, 0.0)], gamma=[(0.0, 0.5), (1.0, 1.0)])
    rollout = rollout_of(agent, TwoDoors())
    metrics = agent.update([rollout], progress=0.25)
    assert metrics["loss/lr"] == pytest.approx(7.5e-3) and metrics["loss/gamma"] == pytest.approx(0.625)
    step = take(rollout.step, 0)
    keys = rng.fold(rng.key(0), torch.arange(12))
    agent.net.encoder.number = 1  # what rewards look like may move
    before, said = agent.act(agent.begin(12), step, keys)[0], []
    said.append((before.value - agent.return_mean) / agent.return_std)
    agent.update([rollout], progress=1.0)
    after = agent.act(agent.begin(12), step, keys)[0]
    said.append((after.value - agent.return_mean) / agent.return_std)
    assert torch.equal(before.log_prob, after.log_prob), "a learning rate of 0 changes nothing"
    torch.testing.assert_close(*said, atol=1e-5, rtol=1e-5)  # what the critic says, in its own scale


def test_the_first_returns_that_differ_set_the_scale():
    """Where nothing is paid for long, such as in a maze, the spread must not begin at a twentieth of what it is."""
    mean, std, mask = torch.zeros(()), torch.zeros(()), torch.ones(4, 3)
    for _ in range(30):
        follow(mean, std, torch.zeros(4, 3), mask, 0.05)
    assert float(std) == 0.0
    target = torch.arange(12.0).reshape(4, 3)
    follow(mean, std, target, mask, 0.05)
    assert float(std) == pytest.approx(float(target.std(correction=0)))
    follow(mean, std, 2.0 * target, mask, 0.05)
    assert float(std) == pytest.approx(1.05 * float(target.std(correction=0)))


@pytest.mark.parametrize("critic", ["task", "task_and_time"])
def test_a_critic_that_sees_the_task_leaves_the_policy_blind(critic: str):
    family = Reach()
    agent = build(family, critic=critic)
    tasks = [family.sample_tasks(rng.key(seed), 12) for seed in (0, 1)]
    memory, step = agent.begin(12), rollout_of(agent, family).step
    first = take(step, 0)
    keys = rng.fold(rng.key(0), torch.arange(12))
    acts = [agent.act(agent.begin(12, task), first, keys)[0] for task in tasks]
    assert torch.equal(acts[0].action, acts[1].action)
    assert torch.equal(agent.act(memory, first, keys)[0].action, acts[0].action)


@torch.no_grad()
def test_the_inference_loss_is_one_for_a_guess_and_zero_for_the_truth():
    """Whoever always says the mean errs by the variance, and the task is scaled to variance 1; padding is not asked."""
    agent = build(Reach(), aux_coef=1.0)
    size = agent.net.infer.in_features
    task = torch.randn(50, agent.net.infer.out_features)
    output, mask = torch.zeros(20, 50, size), torch.ones(20, 50)
    torch.nn.init.zeros_(agent.net.infer.weight)
    torch.nn.init.zeros_(agent.net.infer.bias)
    assert float(agent._inference_loss(output, task, mask)) == pytest.approx(1.0, rel=1e-5)
    n = task.shape[1]
    agent.net.infer.weight.data[:, :n] = torch.eye(n)
    output[..., :n] = (task - task.mean(0)) / task.std(0, correction=0)
    output[10:], mask[10:] = 100.0, 0.0
    assert float(agent._inference_loss(output, task, mask)) < 1e-8


def test_observations_are_scaled_by_what_was_seen_and_not_before_the_update():
    agent = build(Reach(), norm_obs=True)
    rollout = rollout_of(agent, Reach())
    seen = rollout.step.obs[rollout.mask > 0]
    agent.update([rollout])
    torch.testing.assert_close(agent.net.encoder.centre, seen.mean(0))
    torch.testing.assert_close(1.0 / agent.net.encoder.scale, seen.std(0, correction=0).clamp_min(1e-3))


@pytest.mark.parametrize(("field", "value"), [
    ("memory", "grru"), ("critic", "oracle"), ("num_minibatches", 13), ("num_minibatches", 0), ("hidden_size", 0),
    ("chunk_length", 0), ("gamma", 1.5), ("lr", [(0.5, 1e-3), (0.0, 1e-3)]), ("gae_lambda", -0.1), ("aux_coef", -1.0),
    ("head_size", -1), ("clip_coef", 0.0), ("target_kl", 0.0), ("init_std", float("inf")), ("vf_coef", float("nan")),
])  # fmt: skip
def test_impossible_options_are_refused(field: str, value: object):
    with pytest.raises(ValueError):
        build(TwoDoors(), **{field: value})


def train(family: TaskFamily, iterations: int, **changes) -> torch.Tensor:
    """Mean return of each episode on tasks of another seed, after a short training."""
    agent = build(family, meta_batch_size=128, update_epochs=4, num_minibatches=2, lr=5e-3, **changes)
    for n in range(iterations):
        agent.update([rollout_of(agent, family, tasks=128, seed=n)], n / iterations)
    rollout = rollout_of(agent, family, tasks=1000, seed=10_000)
    return episode_returns(rollout, family.episodes_per_trial).mean(0)


def test_it_learns_to_learn():
    returns = train(TwoDoors(), iterations=30, gamma=0.9)
    chance = 5 * 0.5 / 1000**0.5
    assert abs(returns[0] - 0.5) < chance, "before any reward nothing can be known"
    assert bool((returns[1:] > 0.95).all()), f"random is 0.5 per episode, the optimum 1 from the second on: {returns}"


def test_without_memory_the_first_episode_stays_at_chance():
    returns = train(TwoDoors(), iterations=30, gamma=0.9, memory="none")
    assert abs(returns[0] - 0.5) < 5 * 0.5 / 1000**0.5


def test_continuous_actions_are_learned():
    family = Reach(episodes_per_trial=1)
    random, trained = train(family, 0), train(family, 40)
    assert trained[0] > 0.5 * random[0], f"returns are negative, 0 is best: {random} before, {trained} after"


@pytest.mark.parametrize("heads", ["plain", "hyper"])
def test_only_the_critic_is_told_the_time(heads: str):
    family = Corridor()
    agent = build(family, critic="task_and_time", heads=heads)
    rollout = rollout_of(agent, family)
    task, share = features(rollout.task), agent._share(rollout.step)
    episode, since = 0, 0
    for row in range(12):  # by counting
        for t in range(int(rollout.mask[:, row].sum())):
            ended = bool(rollout.step.prev_done[t, row] > 0.5)
            episode, since = (0, 0) if t == 0 else (episode + ended, 0 if ended else since + 1)
            expected = (episode + since / family.horizon) / family.episodes_per_trial
            assert float(share[t, row]) == pytest.approx(expected, abs=1e-6)
    assert 0.5 < float(share[rollout.mask > 0].max()) < 1.0
    with torch.no_grad():
        policy, value = whole_trial(agent, rollout, task, share)
        other, later = whole_trial(agent, rollout, task, share + 0.5)
    assert torch.equal(policy.log_prob(rollout.acted.action), other.log_prob(rollout.acted.action))
    assert float((value - later).abs().min()) > 0.0


@pytest.mark.parametrize("critic", ["task", "task_and_time"])
@pytest.mark.parametrize("chunk_length", [None, 4])
def test_values_that_know_the_task_are_those_of_the_whole_trial(chunk_length: int | None, critic: str):
    """Made for some tasks and steps at a time, with the memory carried from part to part."""
    family = Corridor()
    agent = build(family, critic=critic, chunk_length=chunk_length, num_minibatches=3)
    task = family.sample_tasks(rng.key(0), 8)
    (rollout,) = run_trial(agent, family, task, rng.key(1))
    told = features(task)
    with torch.no_grad():
        whole = whole_trial(agent, rollout, told, agent._share(rollout.step))[1]
    torch.testing.assert_close(agent._told_values(rollout.step, told), whole)
