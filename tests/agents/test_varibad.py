"""VariBAD: the contract of agents, what its belief sees, what its losses teach, and that it learns to infer."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, Reach, TwoDoors
from test_units import POWERS, InUnits, train, weights
from torch import Tensor
from torch.func import functional_call

import metarl
from metarl.agents.belief.ppo import BeliefMemory
from metarl.agents.varibad import VariBAD, VariBADConfig
from metarl.agents.varibad.decoder import Decoder, Evidence
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import features, take, tree_map
from metarl.envs.grids.grid_navi import GridNavi
from metarl.testing import check_agent
from metarl.train import main
from metarl.training import checkpoint

CPU = torch.device("cpu")
GRID = {"reward_likelihood": "bernoulli", "reward_head": "per_observation"}
DECODERS = [
    {},
    {"reward_likelihood": "bernoulli"},
    {"reward_head": "per_observation"},
    GRID,
    {"decode": ("state", "task")},
    {"decode": ("reward", "state", "task"), "decoder_sizes": (5,)},
]


def config(**changes: Any) -> VariBADConfig:
    small = VariBADConfig(meta_batch_size=12, hidden_sizes=(16,), num_minibatches=1, update_epochs=1, gru_size=8)
    small = dataclasses.replace(small, vae_batch=6, vae_updates=2, buffer_size=30, decoder_sizes=(8,))
    return dataclasses.replace(small, **changes)


def rollout_of(agent: VariBAD, family: TaskFamily, rows: int = 12, seed: int = 0) -> Rollout:
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(seed), rows), rng.key(seed))
    return rollout


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (GridNavi(), GRID | {"critic": "task"}),
        (GridNavi(), {"stop_gradient": False, "decode": ("reward", "state", "task")}),
        (metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=5), {"reward_likelihood": "bernoulli"}),
        (metarl.make("metarl/TabularMDP-v0", episodes_per_trial=2), {"elbo_terms": 7, "decoded_steps": 5}),
        (Corridor(), {"norm_obs": True}),
        (Reach(), {"action_embed_size": 0, "norm_obs": True, "elbo_terms": 2}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, TaskFamily) else "",
)
def test_the_contract_of_agents(family: TaskFamily, options: dict[str, Any]):
    check_agent(config(**options), family)


def test_step_by_step_equals_the_whole_sequence():
    family = Corridor()
    agent = VariBAD(config(stop_gradient=False), family)
    rollout = rollout_of(agent, family)
    memory, inputs = agent.begin(12), agent.net.shown(agent._inputs(rollout))
    for t in range(len(rollout.mask)):
        seen, memory = agent._see(memory, take(rollout.step, t))
        torch.testing.assert_close(inputs[t], seen, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"stop_gradient": False}, {"norm_obs": True}], ids=str)
def test_the_likelihood_ratio_is_one_at_first(options: dict[str, Any]):
    family = Reach()
    agent = VariBAD(config(**options), family)
    for number in range(3):  # also once the scales of rewards and observations have moved
        rollout = rollout_of(agent, family, seed=number)
        batch, _ = agent._prepare(rollout, features(rollout.task), 1.0)
        policy, _ = agent.net(batch.inputs, features(rollout.task))
        torch.testing.assert_close(policy.log_prob(batch.action), rollout.acted.log_prob, rtol=0, atol=1e-5)
        agent.update([rollout])


@pytest.mark.parametrize("options", [{}, {"stop_gradient": False}], ids=str)
def test_policy_and_critic_see_beliefs_of_unit_size(options: dict[str, Any]):
    """Whatever the size of the latents: in standard deviations of the last trials' beliefs, by the present encoder."""
    family = Reach()
    agent = VariBAD(config(**options), family)
    with torch.no_grad():
        agent.belief.mean.weight.mul_(1e-3)
        agent.belief.logvar.bias.fill_(-20.0)
    rollout = rollout_of(agent, family)
    agent.update([rollout])
    seen = agent.net.shown(agent._inputs(rollout)).detach()[..., family.observation_space.shape[0] : -1]
    std, mean = torch.std_mean(seen[rollout.mask > 0], dim=0, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)
    torch.testing.assert_close(std, torch.ones_like(std), rtol=0, atol=1e-3)


def test_without_norm_latent_they_see_beliefs_as_they_are():
    family = Reach()
    agent = VariBAD(config(norm_latent=False), family)
    rollout = rollout_of(agent, family)
    agent.update([rollout])
    seen = agent._inputs(rollout)[..., family.observation_space.shape[0] : -1]
    beliefs = torch.cat(agent.belief.gaussian(agent.belief.sequence(agent.belief.raw(rollout.step))), dim=-1)
    torch.testing.assert_close(seen, beliefs, rtol=0, atol=1e-6)


def test_a_belief_never_sees_the_future():
    family = GridNavi(episodes_per_trial=2)
    agent = VariBAD(config(), family)
    raw = agent.belief.raw(rollout_of(agent, family).step).requires_grad_()
    for t in (0, 7, 20):
        spoiled = raw.detach().clone()
        spoiled[t + 1 :] = torch.randn_like(spoiled[t + 1 :])
        seen = agent.belief.sequence(spoiled)[: t + 1]
        beliefs = agent.belief.sequence(raw)
        assert torch.equal(seen, beliefs[: t + 1])
        (gradient,) = torch.autograd.grad(beliefs[t].square().sum(), raw)
        assert not gradient[t + 1 :].any() and bool(gradient[t].any()) and bool(gradient[0].any())


def test_what_an_embedding_of_no_units_hides_is_not_seen():
    family = GridNavi(episodes_per_trial=2)
    agent = VariBAD(config(action_embed_size=0), family)
    step = take(rollout_of(agent, family).step, 3)
    prior = agent.belief.prior(12)
    other = step._replace(prev_action=(step.prev_action + 1) % 5)
    assert torch.equal(agent.belief.posterior(prior, step), agent.belief.posterior(prior, other))
    other = step._replace(obs=step.obs + 1)
    assert not torch.equal(agent.belief.posterior(prior, step), agent.belief.posterior(prior, other))


def ppo_gradients(agent: VariBAD, rollout: Rollout) -> dict[str, Tensor | None]:
    """The gradients of one minibatch of PPO, for every parameter of the networks."""
    task = features(rollout.task)
    batch, _ = agent._prepare(rollout, task, 1.0)
    agent.net.zero_grad()
    agent._descend(batch, task, torch.tensor(0.0))
    return {name: parameter.grad for name, parameter in agent.net.named_parameters()}


@pytest.mark.parametrize("stop", [True, False])
def test_ppo_teaches_the_encoder_only_without_stop_gradient(stop: bool):
    family = GridNavi()
    agent = VariBAD(config(stop_gradient=stop, max_grad_norm=1e9), family)
    torch.nn.init.orthogonal_(agent.net.policy.head.linear.weight)
    before = {name: value.clone() for name, value in agent.net.named_parameters()}
    gradients = ppo_gradients(agent, rollout_of(agent, family))
    moved = {name for name, value in agent.net.named_parameters() if not torch.equal(value, before[name])}
    for name, gradient in gradients.items():
        taught = name.startswith(("policy.", "critic.")) or (name.startswith("belief.") and not stop)
        assert (gradient is not None and bool(gradient.any())) == (name in moved) == taught, name


def test_the_elbo_teaches_encoder_and_decoder_only():
    family = GridNavi()
    agent = VariBAD(config(decode=("reward", "state", "task")), family)
    agent.ring.add(rollout_of(agent, family))
    agent.belief.steps.follow_rewards(rollout_of(agent, family).outcome.reward, torch.ones(60, 12))
    before = {name: value.clone() for name, value in agent.net.named_parameters()}
    agent._elbo_step(*agent._replay(rng.key(0)))
    for name, value in agent.net.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith(("policy.", "critic.")), name


def test_steps_go_up_the_elbo():
    family = GridNavi()
    agent = VariBAD(config(), family)
    rollout = rollout_of(agent, family)
    agent.ring.add(rollout)
    agent.belief.steps.follow_rewards(rollout.outcome.reward, rollout.mask)
    batch = agent._replay(rng.key(0))
    found = [float(agent._elbo_step(*batch)[0]) for _ in range(10)]
    assert found[-1] > found[0]


def evidence_of(agent: VariBAD, rollout: Rollout) -> tuple[Evidence, Tensor]:
    task = agent.net.standardised(features(rollout.task))
    return tree_map(lambda x: x.double() if x.is_floating_point() else x, agent.evidence(rollout)), task.double()


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_the_decoder_s_gradients_equal_finite_differences(options: dict[str, Any]):
    family = GridNavi(episodes_per_trial=1)
    agent = VariBAD(config(**options), family)
    evidence, task = evidence_of(agent, rollout_of(agent, family, rows=2))
    decoder = agent.net.decoder.double()
    m = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: decoder.log_likelihood(m, evidence, task), m)
    names, parameters = zip(*decoder.named_parameters(), strict=True)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self) -> Tensor:
            return self.decoder.log_likelihood(m.detach(), evidence, task)

    def of(*values: Tensor) -> Tensor:
        return functional_call(Whole(), {f"decoder.{n}": v for n, v in zip(names, values, strict=True)}, ())

    assert torch.autograd.gradcheck(of, parameters, fast_mode=True)


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_the_likelihood_of_a_trial_equals_a_loop_over_its_steps(options: dict[str, Any]):
    """Every step, past and future, of every trial under every m, and nothing of the padding."""
    family = GridNavi(episodes_per_trial=1) if "reward_head" in options else Corridor()
    agent = VariBAD(config(**options), family)
    rollout = rollout_of(agent, family, rows=3)
    agent.belief.steps.follow_rewards(rollout.outcome.reward, rollout.mask)
    evidence, task = evidence_of(agent, rollout)
    decoder: Decoder = agent.net.decoder.double()
    m = torch.randn(2, 3, 5, dtype=torch.float64)
    found = decoder.log_likelihood(m, evidence, task)
    for p in range(2):
        for row in range(3):
            z, total = m[p, row], torch.zeros((), dtype=torch.float64)
            for t in range(len(rollout.mask)):
                s, a, after, reward, _, mask = (part[t, row] for part in evidence)
                if not mask:
                    continue
                if decoder.cells is not None:
                    x, y = rollout.outcome.final_obs[t, row].to(torch.int64).tolist()
                    total = total + log_prob(decoder.reward(z)[5 * x + y], reward, decoder.binary)
                elif decoder.reward is not None:
                    joined = torch.cat([s, a, after])
                    total = total + log_prob(answer(decoder.reward, z, joined)[0], reward, decoder.binary)
                if decoder.state is not None:
                    total = total - ((answer(decoder.state, z, torch.cat([s, a])) - after) ** 2).mean()
            if decoder.task is not None:
                total = total - ((decoder.task(z) - task[row]) ** 2).mean()
            torch.testing.assert_close(found[p, row], total)


def answer(decoder: torch.nn.Module, z: Tensor, step: Tensor) -> Tensor:
    out: Tensor = decoder(z[None, None], step[None, None])[0, 0, 0]
    return out


def log_prob(out: Tensor, reward: Tensor, binary: bool) -> Tensor:
    if binary:
        return torch.distributions.Bernoulli(logits=out).log_prob((reward > 0).double())
    return -((out - reward) ** 2)


def test_sampled_terms_estimate_the_whole_elbo():
    """The mean over many draws of prefixes and steps, which are drawn from what was played, is that over all."""
    family = Corridor()
    whole, drawn = (VariBAD(config(elbo_terms=n, decoded_steps=n, vae_batch=12), family) for n in (None, 2))
    for agent in (whole, drawn):
        agent.ring.add(rollout_of(agent, family))
    trial = whole.ring.sample(rng.key(0), 12)
    counts = torch.zeros_like(trial.mask)
    for number in range(300):
        _, evidence, _, prefixes, weight, _ = drawn._replay(rng.fold(rng.key(1), number))
        assert evidence.mask.all() and weight.all() and prefixes.shape == (2, 12)
        mask = drawn.ring.sample(rng.fold(rng.fold(rng.key(1), number), 0), 12).mask
        assert mask.gather(0, prefixes).all(), "no padding is drawn"
        counts[: prefixes.max() + 1] += 1
    assert counts[-1].any()


@pytest.mark.parametrize("options", [{}, GRID, {"decode": ("reward", "state", "task"), "elbo_terms": 3}], ids=str)
def test_a_process_that_holds_none_of_the_drawn_trials_goes_on(options: dict[str, Any]):
    """Its gradients are 0, and with several processes the others' are added."""
    family = GridNavi(episodes_per_trial=1)
    agent = VariBAD(config(**options), family)
    agent.ring.add(rollout_of(agent, family))
    none = torch.zeros(0, dtype=torch.int64)
    agent.ring._draw = lambda key, n: (none, none)  # type: ignore[method-assign]
    before = weights(agent)
    assert agent._train_vae(0.0)["loss/elbo"] == 0.0
    assert torch.equal(weights(agent), before)


def test_padding_changes_nothing():
    family = Corridor()
    agents = [VariBAD(config(decode=("reward", "state")), family) for _ in range(2)]
    rollout = rollout_of(agents[0], family)
    padding = rollout.mask == 0
    assert bool(padding.any())
    spoiled = rollout._replace(
        outcome=rollout.outcome._replace(
            reward=torch.where(padding, 7.0, rollout.outcome.reward),
            final_obs=torch.where(padding[..., None], 3.0, rollout.outcome.final_obs),
        )
    )
    for agent, seen in zip(agents, (rollout, spoiled), strict=True):
        agent.update([seen])
    torch.testing.assert_close(*(weights(agent) for agent in agents))


@pytest.mark.parametrize("units", POWERS, ids=str)
@pytest.mark.parametrize("options", [{}, {"norm_obs": True, "decode": ("reward", "state", "task")}], ids=str)
def test_powers_of_two_change_no_bit(units: dict[str, float], options: dict[str, Any]):
    plain, other = Reach(), InUnits(**units)
    agents = [VariBAD(config(critic="task", **options), family, 1) for family in (plain, other)]
    for agent, family in zip(agents, (plain, other), strict=True):
        train(agent, family, 3, 12)
    assert torch.equal(*(weights(agent) for agent in agents))


def test_cells_are_numbered_once_each():
    family = GridNavi()
    agent = VariBAD(config(**GRID), family)
    cells = agent.net.decoder.cells
    assert cells is not None and cells.count == 25
    every = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
    assert cells(every).tolist() == list(range(25))


class Unbounded(Reach):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Pictured(Reach):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (8, 8, 3), np.float32)


@pytest.mark.parametrize(
    ("family", "options", "sentence"),
    [
        (Unbounded(), {"reward_head": "per_observation"}, r"needs at most [\d,]+ different observations"),
        (Pictured(), {}, "VariBAD needs vector observations, and .* has images"),
    ],
    ids=["no cells", "images"],
)
def test_families_that_do_not_fit_are_refused(family: TaskFamily, options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        config(**options).build(family, 0, CPU)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"decode": ("goal",)}, "decode must be reward, state or task each"),
        ({"decode": ()}, "decode must contain at least one of reward, state, task"),
        ({"state_embed_size": 0, "action_embed_size": 0, "reward_embed_size": 0}, "must not all be 0"),
        ({"num_minibatches": 13}, "num_minibatches must not exceed meta_batch_size = 12"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        config(**options)


def test_a_buffer_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"The ring of trials needs about .* lower buffer_size"):
        config(buffer_size=10**13).build(GridNavi(), 0, CPU)


def test_the_map_of_goals_is_what_the_decoder_expects():
    family = GridNavi()
    agent = VariBAD(config(**GRID), family)
    rollout = rollout_of(agent, family, rows=3)
    memory = agent.begin(3)
    for t in range(4):
        _, memory = agent._see(memory, take(rollout.step, t))
    points = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
    found = agent.goal_map(memory, points)
    assert found.shape == (3, 25) and bool(((found > 0) & (found < 1)).all())
    mean = agent.belief.gaussian(memory.belief).mean
    torch.testing.assert_close(found, agent.net.decoder.reward(mean).sigmoid().detach())


def test_the_map_of_goals_is_in_the_family_s_units():
    plain, other = Reach(), InUnits(reward=8.0, obs=4.0)
    maps = []
    for family, unit in ((plain, 1.0), (other, 4.0)):
        agent = VariBAD(config(), family)
        train(agent, family, 1, 12)
        maps.append(agent.goal_map(agent.begin(2), unit * torch.tensor([[0.0, 0.5], [-1.0, 1.0], [0.25, 0.0]])))
    assert maps[0].shape == (2, 3)
    torch.testing.assert_close(8.0 * maps[0], maps[1])
    with pytest.raises(ValueError, match="needs a decoder of rewards"):
        blind = VariBAD(config(decode=("state",)), plain)
        blind.goal_map(blind.begin(1), torch.zeros(1, 2))


def log_likelihoods(agent: VariBAD, rollout: Rollout) -> Tensor:
    """The log-likelihood of whole trials under the mean of the belief after each step, ``(T, B)``."""
    with torch.no_grad():
        mean = agent.belief.gaussian(agent.belief.sequence(agent.belief.raw(rollout.step))).mean
        task = agent.net.standardised(features(rollout.task))
        return agent.net.decoder.log_likelihood(mean, agent.evidence(rollout), task)


def test_it_learns_to_infer_and_what_to_do_with_it():
    """Two doors: after one choice all is known. The best return is 3.5 of 4, that of any constant policy 2."""
    family = TwoDoors()
    options: dict[str, Any] = {"reward_likelihood": "bernoulli", "kl_weight": 0.01, "vae_lr": 5e-3, "latent_size": 2}
    agent = VariBAD(
        config(meta_batch_size=64, update_epochs=4, lr=5e-3, vae_updates=6, vae_batch=32, buffer_size=500, **options),
        family,
    )
    for number in range(60):
        key = rng.fold(rng.key(1), number)
        trial = run_trial(agent, family, family.sample_tasks(rng.fold(key, 0), 64), rng.fold(key, 1))
        agent.update(trial, number / 60)
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(7), 500), rng.key(8))
    assert float(rollout.outcome.reward.sum(0).mean()) > 3.2
    after = log_likelihoods(agent, rollout).mean(1)
    assert float(after[0]) < 4 * -0.3, "before the first choice it is a guess"
    assert float(after[1]) > float(after[0]) + 0.7 and float(after[-1]) > 4 * -0.15


SMALL = [
    "--family=metarl/GridNavi-v0", "--agent=VariBAD", "--agent.meta_batch_size=8", "--agent.num_minibatches=2",
    "--agent.buffer_size=20", "--agent.vae_batch=5", "--agent.vae_updates=2", "--agent.reward_head=per_observation",
    "--eval_every=2", "--eval_tasks=5", "--eval_splits=[valid]", "--final_eval_tasks=0", "--device=cpu", "--quiet",
]  # fmt: skip


def same_checkpoint(one: str, other: str) -> bool:
    (a, done), (b, too) = checkpoint.load_state(one), checkpoint.load_state(other)
    return done.iteration == too.iteration and a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_a_resume_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The ring of 20 trials is full after three iterations of 8."""
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--run_dir=whole", "--total_iterations=4"]) == 0
    assert main([*SMALL, "--run_dir=half", "--total_iterations=4", "--max_env_steps=900", "--checkpoint_every=1"]) == 0
    assert checkpoint.load_state("half")[1].iteration == 2
    shutil.copytree("half", "robbed")
    assert main(["--resume=half", "--max_env_steps=null", "--quiet"]) == 0
    assert same_checkpoint("whole", "half")
    states = [checkpoint.load_state("half", which=which)[0] for which in ("best", "last")]
    assert all(not name.startswith("optimizer.") for name in states[0]) and metarl.load("half").ring.added == 0
    assert not any(name.startswith("step.") for state in states for name in state)
    shutil.rmtree("robbed/replay")
    capsys.readouterr()
    assert main(["--resume=robbed", "--max_env_steps=null", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'robbed' cannot continue" in said and "Copy the folder 'replay'" in said


def test_the_memory_is_that_of_an_agent_on_a_belief():
    agent = VariBAD(config(), GridNavi())
    memory = agent.begin(4)
    assert isinstance(memory, BeliefMemory) and memory.belief.shape == (4, 8)
    step = Step(torch.zeros(4, 2), torch.full((4,), -1), torch.zeros(4), torch.zeros(4))
    _, after = agent.act(memory, step, rng.fold(rng.key(0), torch.arange(4)))
    assert not torch.equal(after.belief, memory.belief)
