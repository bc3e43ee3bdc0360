"""ES and ES-MAML: the contract of agents, the gradient of a smoothed objective, and rows with their own policies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import Corridor, Reach, TwoDoors
from test_units import InUnits, train, weights
from torch import Tensor, nn

import metarl
from metarl.agents.es import ES, ESMAML, ESConfig, ESMAMLConfig
from metarl.agents.es.config import EvolutionConfig
from metarl.agents.es.population import Population, antithetic, centred_ranks, es_gradient, standardised
from metarl.agents.maml.rounds import make_samples
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import make_env
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, play_rounds, run_trial
from metarl.core.tree import columns, leaves, take
from metarl.testing import check_agent
from metarl.train import main

CPU = torch.device("cpu")


def es(family: TaskFamily, seed: int = 1, **changes: Any) -> ES:
    return ES(dataclasses.replace(ESConfig(meta_batch_size=3, population=6, hidden_size=8), **changes), family, seed)


def es_maml(family: TaskFamily, seed: int = 1, **changes: Any) -> ESMAML:
    small = ESMAMLConfig(meta_batch_size=3, population=4, fast_batch_size=3, hidden_sizes=(8,))
    return ESMAML(dataclasses.replace(small, **changes), family, seed)


def trial_of(agent: LearningAgent, family: TaskFamily, seed: int = 0, **options: Any) -> list[Rollout]:
    return run_trial(agent, family, family.sample_tasks(rng.key(seed), 3), rng.key(seed), **options)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=5), {"head_sizes": (5,), "common_noise": False}),
        (Corridor(), {"norm_obs": True, "transition_input": True, "optimizer": "sgd"}),
        (Reach(), {"shaping": "standardise", "weight_decay": 0.1}),
    ],
    ids=["bandit", "Corridor", "Reach"],
)
def test_the_contract_of_agents(family: TaskFamily, options: dict[str, Any]):
    check_agent(es(family, **options).config, family)


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Corridor", "Reach"])
@pytest.mark.parametrize("options", [{}, {"inner_steps": 2, "common_noise": False, "optimizer": "sgd"}], ids=str)
def test_the_contract_of_es_maml(family: TaskFamily, options: dict[str, Any]):
    check_agent(es_maml(family, **options).config, family)


# ---- The gradient ---------------------------------------------------------------------------------------------------


def estimates(objective: Any, theta: Tensor, sigma: float) -> Tensor:
    """Many estimates of the gradient at `theta`, each from four pairs: ``(5000, D)``."""
    noise = rng.normal(rng.fold(rng.key(3), torch.arange(20_000)), len(theta)).double().unflatten(0, (-1, 4))
    return torch.stack([es_gradient(objective(theta + sigma * antithetic(each)), each, sigma) for each in noise])


def check_unbiased(found: Tensor, gradient: Tensor) -> None:
    error = found.std(0) / len(found) ** 0.5
    assert bool(((found.mean(0) - gradient).abs() < 4.0 * error).all())
    assert bool((error < 0.1 * gradient.norm()).all())  # it can tell a wrong factor


def test_the_gradient_is_unbiased_on_a_quadratic():
    matrix, vector = rng.normal(rng.key(1), 16).reshape(4, 4).double(), rng.normal(rng.key(2), 4).double()
    theta = torch.tensor([0.5, -1.0, 0.3, 2.0], dtype=torch.float64)
    found = estimates(lambda x: ((x @ matrix) * x).sum(-1) + x @ vector + 7.0, theta, 0.3)
    check_unbiased(found, (matrix + matrix.T) @ theta + vector)


def test_the_gradient_is_that_of_the_smoothed_objective():
    """E[cos(w·(θ + σ ε))] = cos(w·θ) exp(-σ² ‖w‖² / 2), whose gradient is not that of the cosine."""
    w, theta = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.4, 0.1], dtype=torch.float64)
    sigma = 0.6
    smoothed = -w * torch.sin(w @ theta) * torch.exp(-0.5 * sigma**2 * w @ w)
    check_unbiased(estimates(lambda x: torch.cos(x @ w), theta, sigma), smoothed)


def test_a_step_climbs_a_quadratic():
    module = nn.Linear(3, 1)
    population = Population(module, EvolutionConfig(population=20, lr=0.05, sigma=0.1), rng.key(0))

    def values() -> Tensor:
        params = torch.cat([part.flatten(1) for part in population.perturbed_params.values()], dim=1)
        return -(params - 1.0).square().sum(1)

    for _ in range(200):
        population.step(values()[None], 0.0)
    assert all(bool(((p - 1.0).abs() < 0.1).all()) for p in module.parameters())


@pytest.mark.parametrize("shaping", [centred_ranks, standardised])
def test_fitness_is_shaped_alike_in_all_units(shaping: Any):
    fitness = rng.normal(rng.key(0), 9)
    shaped = shaping(fitness)
    torch.testing.assert_close(shaping(1000.0 * fitness + 3.0), shaped, rtol=0, atol=1e-4)
    assert float(shaped.sum().abs()) < 1e-5
    assert torch.equal(shaped.argsort(), fitness.argsort())
    assert torch.equal(shaping(torch.full((5,), 0.1)), torch.zeros(5))


def test_ranks_lie_between_the_halves_and_equal_returns_share_theirs():
    assert torch.equal(centred_ranks(torch.tensor([3.0, -1.0, 900.0])), torch.tensor([0.0, -0.5, 0.5]))
    assert torch.equal(centred_ranks(torch.tensor([2.0, 2.0, 1.0, 7.0, 2.0])), torch.tensor([0.0, 0.0, -0.5, 0.5, 0.0]))


# ---- The population -------------------------------------------------------------------------------------------------


def test_standardised_fitness_has_mean_0_and_standard_deviation_1():
    shaped = standardised(torch.tensor([3.0, 5.0, -2.0, 0.5], dtype=torch.float64))
    assert float(shaped.mean()) == pytest.approx(0.0, abs=1e-9)
    assert float(shaped.square().mean().sqrt()) == pytest.approx(1.0)


def test_the_metrics_are_those_of_the_mean_return_of_each_policy():
    module = nn.Linear(3, 1)
    population = Population(module, EvolutionConfig(population=6, lr=0.05), rng.key(0))
    returns = rng.normal(rng.fold(rng.key(1), torch.arange(4)), 6)
    fitness = returns.mean(0)
    found = population.step(returns, 0.0)
    assert found["loss/fitness_std"] == pytest.approx(float(fitness.std(correction=0)), rel=1e-5)
    halves = ((fitness[:3] - fitness[3:]) / 2.0).square().mean().sqrt()  # half the spread within a pair
    assert found["loss/pair_std"] == pytest.approx(float(halves), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_steps_are_those_of_the_optimiser_up_the_estimated_gradient(optimizer: str):
    """With the schedule of the learning rate, momentum and weight decay, next to torch's own on a copy."""
    module = nn.Linear(3, 1)
    options = EvolutionConfig(
        population=6, lr=[[0.0, 0.05], [1.0, 0.01]], optimizer=optimizer, momentum=0.7, weight_decay=0.3
    )
    population = Population(module, options, rng.key(0))
    theta = nn.Parameter(nn.utils.parameters_to_vector(module.parameters()).detach().clone())
    theirs: torch.optim.Optimizer = torch.optim.Adam([theta], weight_decay=0.3)
    if optimizer == "sgd":
        theirs = torch.optim.SGD([theta], momentum=0.7, weight_decay=0.3)
    for number in range(4):
        returns = rng.normal(rng.fold(rng.fold(rng.key(1), number), torch.arange(2)), 6)
        theta.grad = -es_gradient(centred_ranks(returns.mean(0)), population.noise, population.sigma)
        theirs.param_groups[0]["lr"] = 0.05 - 0.04 * number / 4
        theirs.step()
        assert population.step(returns, number / 4)["loss/lr"] == pytest.approx(0.05 - 0.04 * number / 4)
        torch.testing.assert_close(nn.utils.parameters_to_vector(module.parameters()).detach(), theta.detach())


@pytest.mark.parametrize("make", [es, es_maml])
def test_a_policy_has_the_mean_return_of_its_own_rows(make: Any, monkeypatch: pytest.MonkeyPatch):
    """Rows are (task, policy), and with ES-MAML (task, policy, trajectory)."""
    agent, found = make(Corridor()), []
    trial = trial_of(agent, Corridor())
    rewards = [rng.normal(rng.key(number), rollout.mask.numel()) for number, rollout in enumerate(trial)]
    trial = [
        rollout._replace(outcome=rollout.outcome._replace(reward=reward.reshape(rollout.mask.shape)))
        for rollout, reward in zip(trial, rewards, strict=True)
    ]
    monkeypatch.setattr(agent.population, "step", lambda returns, progress: found.append(returns) or {})
    agent.update(trial)
    last, policies = trial[-1], agent.config.population
    each = last.mask.shape[1] // (3 * policies)  # trajectories of a task and a policy
    for task in range(3):
        for policy in range(policies):
            first = (task * policies + policy) * each
            rows = slice(first, first + each)
            wanted = (last.outcome.reward[:, rows] * last.mask[:, rows]).sum() / each
            assert float(found[0][task, policy]) == pytest.approx(float(wanted), rel=1e-4, abs=1e-5)


def test_scales_follow_the_mean_over_all_iterations():
    agent, means = es(Corridor(), norm_obs=True), []
    for seed in range(3):
        (rollout,) = trial_of(agent, Corridor(), seed)
        means.append(rollout.step.obs[rollout.mask > 0].mean(0))
        agent.update([rollout])
    torch.testing.assert_close(agent.net.encoder.centre, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [es, es_maml])
def test_what_comes_after_a_row_s_last_episode_counts_for_nothing(make: Any):
    agents = [make(Corridor()) for _ in range(2)]
    trials = [trial_of(agent, Corridor()) for agent in agents]
    assert any(not rollout.mask.all() for rollout in trials[0])
    spoiled = []
    for rollout in trials[1]:
        reward = torch.where(rollout.mask > 0, rollout.outcome.reward, 100.0 * torch.rand_like(rollout.mask))
        spoiled.append(rollout._replace(outcome=rollout.outcome._replace(reward=reward)))
    first, second = agents[0].update(trials[0]), agents[1].update(spoiled)
    assert first == second and torch.equal(weights(agents[0]), weights(agents[1]))


@pytest.mark.parametrize("make", [es, es_maml])
def test_pairs_are_antithetic_and_new_in_every_iteration(make: Any):
    family = Reach()
    agent, seen = make(family, sigma=[[0.0, 0.2], [1.0, 0.1]]), []
    for number, sigma in enumerate((0.2, 0.2, 0.15)):  # a schedule is one iteration late
        theta = nn.utils.parameters_to_vector(agent.population.parameters).detach()
        perturbed_params = torch.cat([part.flatten(1) for part in agent.population.perturbed_params.values()], dim=1)
        plus, minus = perturbed_params.chunk(2)
        noise = agent.population.noise.clone()
        assert torch.equal(plus, theta + torch.tensor(sigma) * noise)
        assert torch.equal(minus, theta - torch.tensor(sigma) * noise)
        assert abs(float(noise.std()) - 1.0) < 0.2 and all(not torch.equal(noise, other) for other in seen)
        seen.append(noise)
        agent.update(trial_of(agent, family), (0.0, 0.5)[min(number, 1)])


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["Corridor", "Reach"])
def test_a_row_plays_exactly_its_own_network(family: TaskFamily):
    agent = es(family, sigma=0.5, head_sizes=(5,), transition_input=True)
    (rollout,) = trial_of(agent, family)
    single, theta = es(family, sigma=0.5, head_sizes=(5,), transition_input=True), agent.population
    for p in range(6):
        sign, noise = (1.0, theta.noise[p]) if p < 3 else (-1.0, theta.noise[p - 3])
        mean = nn.utils.parameters_to_vector(theta.parameters)
        nn.utils.vector_to_parameters((mean + sign * 0.5 * noise).detach(), single.net.parameters())
        mine = columns(rollout._replace(task=()), torch.arange(p, 18, 6))  # rows are (task, policy)
        memory = single.begin(3)
        for t in range(len(mine.mask)):
            policy = single.action_distribution(memory, take(mine.step, t))
            own = single.net.policy.head.actions.to_own(mine.acted.action[t])
            torch.testing.assert_close(policy.log_prob(own), mine.acted.log_prob[t], rtol=1e-4, atol=1e-4)
            _, memory = single.act(memory, take(mine.step, t), rng.fold(rng.key(0), torch.arange(3)))
    apart = rollout.acted.log_prob[0].unflatten(0, (3, 6)).std(1)
    assert bool((apart > 1e-3).all())  # the policies differ


def test_rows_of_es_maml_adapt_their_own_initial_parameters():
    """Each pair of a task and a perturbed policy takes the policy-gradient step that it would take by itself."""
    family = Reach()
    agent = es_maml(family, sigma=0.3, fast_lr=0.7)
    task = family.sample_tasks(rng.key(0), 3)
    first, second = (played for played, _, _ in play_rounds(agent, family, task, rng.key(0)))
    adapted = agent.adapt(agent.begin(3), first)
    policy, head = agent.net.policy, agent.net.policy.head
    for pair in range(12):
        rows = torch.arange(3 * pair, 3 * pair + 3)
        start = {name: part[pair % 4] for name, part in agent.population.perturbed_params.items()}
        start = {name: part.clone().requires_grad_() for name, part in start.items()}
        mine = columns(first._replace(task=()), rows)
        own = head.actions.to_own(mine.acted.action)
        x = agent.net.scaling.scaled(mine.step.obs, 2)
        log_prob = torch.func.functional_call(policy, start, (x,)).log_prob(own)
        torch.testing.assert_close(log_prob, mine.acted.log_prob, rtol=1e-4, atol=1e-4)
        acted = mine.acted._replace(action=own)
        samples = make_samples(mine._replace(acted=acted), x, 1, gamma=0.99)
        gains = log_prob.T.flatten() * samples.advantage[0] * samples.weight[0]
        gradients = torch.autograd.grad(gains.sum(), list(start.values()))
        for name, part, gradient in zip(agent.adaptation.names, adapted.params, gradients, strict=True):
            torch.testing.assert_close(part[pair], start[name] + 0.7 * gradient, rtol=1e-4, atol=1e-5)
        after = {name: part[pair] for name, part in zip(agent.adaptation.names, adapted.params, strict=True)}
        later = columns(second._replace(task=()), rows)
        again = torch.func.functional_call(policy, after, (agent.net.scaling.scaled(later.step.obs, 2),))
        own = head.actions.to_own(later.acted.action)
        torch.testing.assert_close(again.log_prob(own), later.acted.log_prob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [es, es_maml])
def test_an_evaluation_plays_the_mean(make: Any):
    family = Reach()
    agent, calm = make(family, sigma=0.7), make(family, sigma=1e-9)
    options = {"envs_per_task": agent.protocol.test().envs_per_task, "rounds": 2}
    for a, b in zip(trial_of(agent, family, **options), trial_of(calm, family, **options), strict=True):
        assert torch.equal(a.acted.action, b.acted.action)


# ---- Common random numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("make", [es, es_maml])
def test_policies_that_are_alike_meet_the_same_noise(make: Any, common: bool):
    family = Corridor()
    agent = make(family, sigma=1e-9, common_noise=common)
    first = trial_of(agent, family)[0]
    policies, each = agent.config.population, 3 if isinstance(agent, ESMAML) else 1
    for part in (first.acted.action, first.outcome.reward, first.step.obs):
        rows = part.unflatten(1, (3, policies, each))
        assert bool((rows == rows[:, :, :1]).all()) == common
    if each > 1:  # but a policy's trajectories on a task differ
        trajectories = first.outcome.reward.unflatten(1, (3, policies, each))
        assert not torch.equal(trajectories[..., 0], trajectories[..., 1])


@pytest.mark.parametrize("make", [es, es_maml])
def test_a_shard_of_the_tasks_plays_what_all_would(make: Any):
    family = Corridor()
    agent, task = make(family), family.sample_tasks(rng.key(0), 3)
    whole = run_trial(agent, family, task, rng.key(4))
    part = run_trial(agent, family, take(task, slice(1, 3)), rng.key(4), first_task=1)
    rows = torch.arange(agent.protocol.envs_per_task, 3 * agent.protocol.envs_per_task)
    for all_rows, mine in zip(whole, part, strict=True):
        both = (columns(tree._replace(task=()), slice_) for tree, slice_ in ((all_rows, rows), (mine, rows - rows[0])))
        for a, b in zip(*(leaves(tree) for tree in both), strict=True):
            torch.testing.assert_close(a[: len(b)], b[: len(a)], rtol=1e-5, atol=1e-5)


# ---- Training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.0}], ids=str)
def test_a_resume_is_exact_also_of_the_schedule(options: dict[str, Any]):
    family = Reach()
    schedule = [[0.0, 0.3], [1.0, 0.1]]
    first, second = (es(family, seed, sigma=schedule, norm_obs=True, **options) for seed in (1, 1))
    first.update(trial_of(first, family), 0.5)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for agent in (first, second):
        agent.update(trial_of(agent, family, 1), 0.7)
    assert all(torch.equal(a, b) for a, b in zip(*(leaves(x.state_dict()) for x in (first, second)), strict=True))
    assert torch.equal(first.population.noise, second.population.noise)


@pytest.mark.parametrize("units", [{"reward": 2.0**10}, {"obs": 2.0**-6}, {"action": 2.0**6, "shift": 0.0}], ids=str)
@pytest.mark.parametrize("make", [es, es_maml])
def test_powers_of_two_change_no_bit(make: Any, units: dict[str, float]):
    plain, other = Reach(), InUnits(**units)
    a, b = make(plain), make(other)
    train(a, plain, 3, rows=3)
    train(b, other, 3, rows=3)
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)


def test_it_learns_to_remember_the_door():
    family = TwoDoors()
    agent = es(family, meta_batch_size=16, population=32, hidden_size=8, lr=0.1, sigma=0.2)
    found = train(agent, family, 80, rows=16)  # per episode: 0.5 at random, at best 0.875
    assert sum(found[-10:]) / 10 > 0.75 > 0.6 > sum(found[:5]) / 5


def test_es_maml_learns_to_adapt():
    family = Reach()
    agent = es_maml(family, population=16, fast_batch_size=6, lr=0.05)
    found = train(agent, family, 40, rows=3)
    assert sum(found[-5:]) > 0.6 * sum(found[:3]) / 3 * 5  # returns are negative


def test_a_run_from_the_command_line(tmp_path: Path):
    run = ["--family=metarl/BernoulliBandit-v0", "--family.episodes_per_trial=4", "--agent=ES", "--agent.population=4",
           "--agent.meta_batch_size=4", "--total_iterations=2", "--final_eval_tasks=0", f"--run_dir={tmp_path / 'run'}",
           "--quiet"]  # fmt: skip
    assert main(run) == 0
    assert isinstance(metarl.load(tmp_path / "run"), ES)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--agent.population=7", "population must be an even number of at least 2, got 7"),
        ("--agent.sigma=0", "sigma must be positive"),
    ],
)
def test_a_mistake_gets_a_sentence(option: str, sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--family=metarl/BernoulliBandit-v0", "--agent=ES", option]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_rows_of_an_evaluation_must_not_look_like_those_of_training():
    with pytest.raises(ValueError, match=r"test_fast_batch_size must not be population \* fast_batch_size"):
        ESMAMLConfig(population=4, fast_batch_size=3, test_fast_batch_size=12)


def test_a_greedy_round_of_the_population_depends_on_no_key():
    family = Corridor()
    agent, task = es_maml(family), family.sample_tasks(rng.key(0), 3)
    rows = take(task, torch.arange(3).repeat_interleave(12))
    step = make_env(family, rows, rng.key(1)).reset()
    found = [agent.act(agent.begin(3), step, rng.fold(rng.key(n), torch.arange(36)), greedy=True)[0] for n in (1, 2)]
    assert torch.equal(found[0].action, found[1].action)
