"""PPO on the exact belief: the contract of agents, what it sees, and that it learns what dynamic programming plans."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from small_families import Corridor

import metarl
from metarl.agents.belief import BeliefConfig, BeliefPPO
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import features
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi
from metarl.testing import check_agent
from metarl.train import main

CPU = torch.device("cpu")


def config(**changes: Any) -> BeliefConfig:
    small = BeliefConfig(meta_batch_size=12, hidden_sizes=(16,), num_minibatches=1, update_epochs=1)
    return dataclasses.replace(small, **changes)


def rollout_of(agent: BeliefPPO, family: TaskFamily, rows: int = 12, seed: int = 0) -> Rollout:
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(seed), rows), rng.key(0))
    return rollout


@pytest.mark.parametrize("family", ["GridNavi", "BernoulliBandit", "TwoStep", "TabularMDP", "TMaze"])
@pytest.mark.parametrize("critic", ["belief", "task"])
def test_the_contract_of_agents(family: str, critic: str):
    check_agent(config(critic=critic), metarl.make(f"metarl/{family}-v0"))


def test_the_share_of_the_trial_and_the_belief_are_what_it_sees():
    family = GridNavi(episodes_per_trial=3)
    agent = BeliefPPO(config(), family)
    rollout = rollout_of(agent, family)
    batch, _ = agent._prepare(rollout, torch.zeros(12, 2), 1.0)
    share = torch.arange(45) / 45
    torch.testing.assert_close(batch.inputs[..., -1], share[:, None].expand(-1, 12))
    belief = agent.belief.prior(12)
    for t in range(45):
        belief = agent.belief.posterior(belief, Step(*(part[t] for part in rollout.step)))
        assert torch.equal(batch.inputs[t, :, 2:-1], agent.belief.features(belief))


@pytest.mark.parametrize("norm_obs", [False, True])
def test_the_likelihood_ratio_is_one_at_first(norm_obs: bool):
    family = GridNavi()
    agent = BeliefPPO(config(norm_obs=norm_obs), family)
    for number in range(3):  # also once the scales of observations have moved
        rollout = rollout_of(agent, family, seed=number)
        batch, _ = agent._prepare(rollout, features(rollout.task), 1.0)
        log_prob = agent.net.policy(batch.inputs).log_prob(batch.action)
        torch.testing.assert_close(log_prob, rollout.acted.log_prob, rtol=0, atol=1e-6)
        agent.update([rollout])


def test_advantages_have_mean_0_and_standard_deviation_1():
    family = GridNavi()
    agent = BeliefPPO(config(), family)
    rollout = rollout_of(agent, family)
    batch, _ = agent._prepare(rollout, features(rollout.task), 0.9)
    assert float(batch.advantage.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(batch.advantage.std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_observations_are_scaled_by_those_seen():
    family = GridNavi()
    agent = BeliefPPO(config(norm_obs=True), family)
    rollout = rollout_of(agent, family)
    agent.update([rollout])
    seen = agent.net.scaling.scaled(rollout.step.obs.flatten(0, 1), 1)
    torch.testing.assert_close(seen.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(2), rtol=0, atol=1e-5)


def test_padding_changes_no_gradient():
    family = metarl.make("metarl/TMaze-v0", corridor_length=1)
    family.episodes_per_trial = 3
    agents = [BeliefPPO(config(update_epochs=2), family) for _ in range(2)]
    rollout = rollout_of(agents[0], family)
    padding = rollout.mask == 0
    assert bool(padding.any())
    spoiled = rollout._replace(outcome=rollout.outcome._replace(
        reward=torch.where(padding, 7.0, rollout.outcome.reward)))  # fmt: skip
    for agent, seen in zip(agents, (rollout, spoiled), strict=True):
        agent.update([seen])
    for a, b in zip(agents[0].net.parameters(), agents[1].net.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("split", ["valid", "test", "ood"])
def test_it_plays_tasks_that_its_prior_does_not_know(split: str):
    family = GridNavi()
    agent = BeliefPPO(config(split="train"), family)
    task = family.sample_tasks(rng.key(0), 20, split)
    for rollout in run_trial(agent, family, task, rng.key(1)):
        assert bool(rollout.acted.log_prob.isfinite().all())


def test_families_without_a_belief_are_refused():
    with pytest.raises(ValueError, match=r"^The agent Belief needs an exact belief about the tasks of 'train', and .*"):
        config().build(Corridor(), 0, CPU)
    with pytest.raises(ValueError, match="split"):
        config(split="nowhere").build(GridNavi(), 0, CPU)


def test_the_program_says_so_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--family=metarl/CartPole-v0", "--agent=Belief"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "The agent Belief needs an exact belief" in said
    assert not list(tmp_path.rglob("config.yaml"))


def test_the_number_of_minibatches():
    with pytest.raises(ValueError, match="num_minibatches must not exceed meta_batch_size = 12, got 13"):
        config(num_minibatches=13)


@functools.cache
def planned(wins: tuple[int, ...], losses: tuple[int, ...], left: int) -> float:
    """The Bayes-optimal return of the pulls that are left, by dynamic programming over counts."""
    if left == 0:
        return 0.0
    return max(pull_value(wins, losses, arm, left) for arm in range(len(wins)))


def pull_value(wins: tuple[int, ...], losses: tuple[int, ...], arm: int, left: int) -> float:
    p = (wins[arm] + 1) / (wins[arm] + losses[arm] + 2)
    more = lambda counts: tuple(n + (i == arm) for i, n in enumerate(counts))  # noqa: E731
    return p * (1 + planned(more(wins), losses, left - 1)) + (1 - p) * planned(wins, more(losses), left - 1)


def value_of(agent: BeliefPPO, pulls: int) -> float:
    """The exact expected return of the agent's greedy policy on two arms, over all histories."""
    total, key = 0.0, rng.fold(rng.key(0), torch.zeros(1, dtype=torch.int64))
    start = BatchEnv(agent.family, agent.family.sample_tasks(rng.key(0), 1), rng.key(0)).reset()
    open_ends = [(1.0, agent.begin(1), start, (0, 0), (0, 0))]
    for _ in range(pulls):
        later = []
        for chance, memory, step, wins, losses in open_ends:
            acted, memory = agent.act(memory, step, key, greedy=True)
            arm = int(acted.action)
            p = (wins[arm] + 1) / (wins[arm] + losses[arm] + 2)
            total += chance * p
            for reward, share in ((1.0, p), (0.0, 1 - p)):
                after = Step(step.obs, acted.action, torch.tensor([reward]), torch.ones(1))
                won = tuple(n + int(reward) * (i == arm) for i, n in enumerate(wins))
                lost = tuple(n + (1 - int(reward)) * (i == arm) for i, n in enumerate(losses))
                later.append((chance * share, memory, after, won, lost))
        open_ends = later
    return total


def test_it_learns_what_dynamic_programming_plans():
    """Two arms, four pulls: the greedy policy is Bayes-optimal, to the last digit."""
    family, pulls = BernoulliBandit(num_arms=2, episodes_per_trial=4), 4
    lr, ent = [(0.0, 0.01), (1.0, 0.0)], [(0.0, 0.02), (1.0, 0.0)]
    agent = BeliefPPO(BeliefConfig(meta_batch_size=2048, hidden_sizes=(32, 32), lr=lr, ent_coef=ent), family)
    before = value_of(agent, pulls)
    for number in range(100):
        key = rng.fold(rng.key(1), number)
        trial = run_trial(agent, family, family.sample_tasks(rng.fold(key, 0), 2048), rng.fold(key, 1))
        agent.update(trial, number / 100)
    best = planned((0, 0), (0, 0), pulls)
    assert before < best - 0.02
    assert value_of(agent, pulls) == pytest.approx(best, abs=1e-9)
