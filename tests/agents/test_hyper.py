"""Heads of RL² whose weights the memory makes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import Corridor, Reach
from space_families import Lock, Signals
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.rl2.hyper import GeneratedLayer, HyperHeads, with_one
from metarl.agents.rl2.network import RL2Network
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, episode_returns, run_trial
from metarl.core.tree import features
from metarl.learning.memories import MEMORIES
from metarl.testing import check_agent
from metarl.train import main

CPU = torch.device("cpu")


def config(**changes: Any) -> RL2Config:
    small = RL2Config(meta_batch_size=12, hidden_size=16, num_minibatches=1, update_epochs=1, heads="hyper")
    return dataclasses.replace(small, **changes)


def build(family: TaskFamily, **changes: Any) -> RL2:
    return config(**changes).build(family, 0, CPU)


def rollout_of(agent: RL2, family: TaskFamily, tasks: int = 12, seed: int = 0) -> Rollout:
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(seed), tasks), rng.key(seed))
    return rollout


def stirred(module: nn.Module) -> None:
    """Put random numbers in place of all parameters, so that no weight is 0."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("family", [Corridor(), Reach(), Lock(episodes_per_trial=3)], ids=lambda f: type(f).__name__)
def test_the_contract_of_agents(memory: str, family: TaskFamily):
    """Discrete, Box and MultiDiscrete actions, every memory."""
    check_agent(config(memory=memory), family)


@pytest.mark.parametrize("changes", [
    {"critic": "task"}, {"embed_size": 8, "head_size": 8, "critic": "task"}, {"chunk_length": 2}, {"hyper_size": 1},
    {"transition_input": True}, {"aux_coef": 0.1, "head_size": 8}, {"norm_obs": True},
], ids=str)  # fmt: skip
def test_the_contract_holds_with_options(changes: dict[str, Any]):
    check_agent(config(**changes), Corridor())


@pytest.mark.parametrize("parts", [False, True], ids=["image", "parts"])
@pytest.mark.parametrize("changes", [{}, {"head_size": 8, "embed_size": 8}], ids=str)
def test_the_contract_holds_with_images(changes: dict[str, Any], parts: bool):
    check_agent(config(meta_batch_size=8, **changes), Signals(parts))


def as_plain(hyper: RL2Network, plain: RL2Network) -> None:
    """Give a plain network the parameters of one with a hypernetwork, as they are for an embedding of 0."""
    heads = hyper.hyper
    assert heads is not None
    state = {name: value for name, value in hyper.state_dict().items() if not name.startswith("hyper.")}
    first = heads.first.coefficients[:, -1].split(heads.widths)
    last = heads.policy_last, heads.critic_last
    for name, table, layer in zip(("policy", "critic"), first, last, strict=True):
        state[f"{name}.of_memory.weight"] = torch.zeros(len(table), hyper.memory.hidden_size)
        state[f"{name}.of_memory.bias"], state[f"{name}.of_step.weight"] = table[:, -1], table[:, :-1]
        if layer is not None:
            table = layer.coefficients[:, -1]
            state[f"{name}.last.bias"], state[f"{name}.last.weight"] = table[:, -1], table[:, :-1]
    if heads.of_task is not None:
        state |= {f"critic.of_task.{name}": value for name, value in heads.of_task.state_dict().items()}
    plain.load_state_dict(state)


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("changes", [{}, {"head_size": 8}, {"head_size": 8, "critic": "task"}], ids=str)
def test_at_first_the_heads_are_plain_ones(family: TaskFamily, changes: dict[str, Any]):
    """Whatever the memory holds: the same policy and value as plain heads with these weights, on the step."""
    hyper, plain = build(family, **changes).net, build(family, heads="plain", **changes).net
    as_plain(hyper, plain)
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(7, 5, 16, generator=generator)
    x = torch.randn(7, 5, hyper.encoder.output_size, generator=generator)
    task = features(family.sample_tasks(rng.key(0), 5))
    for mine, theirs in zip(hyper.heads(output, x, task), plain.heads(output, x, task), strict=True):
        for a, b in zip(*((each,) if isinstance(each, Tensor) else each for each in (mine, theirs)), strict=True):
            torch.testing.assert_close(a, b)


def test_at_first_the_weights_are_those_that_a_plain_head_begins_with():
    """Orthogonal, with the gains of plain heads, and biases of 0."""
    heads = build(Corridor(), head_size=8).net.hyper
    assert heads is not None and heads.policy_last is not None and heads.critic_last is not None
    for table, gain in (
        *zip(heads.first.coefficients.split(heads.widths), (1.0, 1.0), strict=True),
        (heads.policy_last.coefficients, 0.01),
        (heads.critic_last.coefficients, 1.0),
    ):
        assert not table[:, :-1].any() and not table[:, -1, -1].any()
        weight = table[:, -1, :-1].detach()
        short = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(short, gain**2 * torch.eye(len(short)), rtol=0, atol=1e-6)


def test_learning_begins_with_the_hypernetworks_weights():
    """They are 0 and have a gradient, so that the memory matters after the first step."""
    family = Corridor()
    agent = build(family, head_size=8)
    before = agent.net.hyper.first.coefficients.detach().clone()
    agent.update([rollout_of(agent, family)])
    after = agent.net.hyper.first.coefficients
    assert not before[:, :-1].any() and after[:, :-1].any()


def one_row(layer: GeneratedLayer, embedding: Tensor, x: Tensor) -> Tensor:
    """The layer on one row: its weights are written down, then applied."""
    made = layer.coefficients[:, -1] + torch.einsum("gki,k->gi", layer.coefficients[:, :-1], embedding)
    return F.linear(x, made[:, :-1], made[:, -1])


@pytest.mark.parametrize(("inputs", "outputs"), [(3, (6, 6)), (9, (4,)), (5, (1,)), (5, (6,))])
@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=["a step", "a sequence"])
def test_one_product_is_a_loop_over_rows(inputs: int, outputs: tuple[int, ...], shape: tuple[int, ...]):
    layer = GeneratedLayer(inputs, outputs, [1.0] * len(outputs), size=5).double()
    stirred(layer)
    generator = torch.Generator().manual_seed(0)
    e, x = (torch.randn(*shape, n, generator=generator, dtype=torch.float64) for n in (5, inputs))
    found = layer(with_one(e), x)
    assert found.shape == (*shape, sum(outputs))
    rows = [one_row(layer, *row) for row in zip(e.reshape(-1, 5), x.reshape(-1, inputs), strict=True)]
    torch.testing.assert_close(found, torch.stack(rows).reshape(found.shape))


def test_memory_and_step_meet_in_products():
    """A head that adds both could not answer to one by the sign of the other."""
    heads = HyperHeads(4, 3, 2, hidden=0, size=5, task_size=0)
    stirred(heads)
    memory, x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).t(), torch.eye(3)[:2]
    both = [[heads(m[None], s[None], None)[0] for s in x] for m in memory]
    assert not torch.allclose(both[0][0] - both[0][1], both[1][0] - both[1][1], atol=1e-3)


def test_the_gradient_is_that_of_finite_differences():
    """Of a sum over policy outputs and values, by every parameter, the memory's output and the step."""
    heads = HyperHeads(6, 4, 3, hidden=5, size=2, task_size=2).double()
    stirred(heads)
    generator = torch.Generator().manual_seed(0)
    output, x, task = (torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
                       for shape in ((3, 2, 6), (3, 2, 4), (2, 2)))  # fmt: skip
    names = [name for name, _ in heads.named_parameters()]

    def of_all(output: Tensor, x: Tensor, task: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(heads, named, (output, x, task))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(of_all, (output, x, task, *heads.parameters()))


@pytest.mark.parametrize("family", [Corridor(), Reach(), Lock()], ids=lambda f: type(f).__name__)
def test_the_likelihood_ratio_is_one_at_first(family: TaskFamily):
    agent = build(family, head_size=8)
    stirred(agent.net.hyper)
    rollout = rollout_of(agent, family)
    raw, _ = agent.net.encoder.raw(rollout.step, agent.net.encoder.initial(12))
    output, x, _ = agent.net.sequence(raw, None)
    policy, value = agent.net.heads(output, x, None)
    log_prob = policy.log_prob(agent.net.actions.to_own(rollout.acted.action))
    torch.testing.assert_close(log_prob * rollout.mask, rollout.acted.log_prob * rollout.mask, rtol=1e-5, atol=1e-5)
    said = agent._unscale(value) * rollout.mask
    torch.testing.assert_close(said, rollout.acted.value * rollout.mask, rtol=1e-5, atol=1e-5)
    assert agent.update([rollout])["loss/clip_fraction"] == 0.0


def test_a_restored_agent_goes_on_as_the_one_that_was_saved():
    family = Corridor()
    first, second = build(family, head_size=8), RL2(config(head_size=8), family, seed=9)
    first.update([rollout_of(first, family)])
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    second.key = first.key  # of another seed, which stands in the configuration
    later = rollout_of(first, family, seed=1)
    for agent in (first, second):
        agent.update([later], 0.5)
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_plain_heads_know_nothing_of_it():
    """The default, with the parameters and the training that it always had, whatever the size of the embedding."""
    family = Corridor()
    default = RL2Config(meta_batch_size=12, hidden_size=16)
    assert default.heads == "plain"
    agents = [dataclasses.replace(default, hyper_size=size).build(family, 0, CPU) for size in (25, 7)]
    rollout = rollout_of(agents[0], family)
    for agent in agents:
        agent.update([rollout])
    a, b = (agent.state_dict() for agent in agents)
    assert not any("hyper" in name for name in a)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("field", "value"), [("heads", "hyperr"), ("hyper_size", 0), ("hyper_size", -3)])
def test_impossible_options_are_refused(field: str, value: object):
    with pytest.raises(ValueError, match=field):
        build(Corridor(), **{field: value})


def test_a_size_beyond_all_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    assert main(["rl2_gridnavi", "--agent.heads=hyper", f"--agent.hyper_size={10**12}", "--quiet"]) == 2
    assert "The network needs about" in capsys.readouterr().err and not Path("runs").exists()


def test_it_learns_what_it_sees_and_what_is_hidden():
    """Random play has 0.5; who does not see the image, or does not remember the hidden side, has 0.75 at most."""
    family = Signals()
    agent = RL2Config(meta_batch_size=64, hidden_size=32, lr=5e-3, gamma=0.0, ent_coef=0.003, heads="hyper").build(
        family, 0, CPU
    )
    for n in range(35):
        agent.update([rollout_of(agent, family, tasks=64, seed=n)], n / 35)
    returns = episode_returns(rollout_of(agent, family, tasks=200, seed=1000), 4).mean(0)
    assert bool((returns[1:] > 0.85).all())


def test_an_action_that_comes_back_does_not_grow_like_a_power():
    """The previous action is an input, and generated weights may feed it back with a gain above 1."""
    agent = build(Reach(horizon=30), head_size=8)
    assert agent.net.hyper is not None
    stirred(agent.net.hyper)
    with torch.no_grad():
        for parameter in agent.net.hyper.parameters():
            parameter.mul_(5.0)
    largest = rollout_of(agent, agent.family).acted.action.abs().amax((1, 2))
    assert largest[:5].max() > 10.0, "strong enough to grow"
    assert largest[-10:].max() < 3.0 * largest[:10].max()
