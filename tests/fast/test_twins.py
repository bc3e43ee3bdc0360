"""Which function runs, and that whole updates are the same with the plain ones."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from small_families import Corridor, Reach
from torch import Tensor

from metarl.agents import MAMLConfig, RecurrentSACConfig, RL2Config
from metarl.agents.maml import PPOStep, TRPOStep
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, make_env
from metarl.core.family import TaskFamily
from metarl.core.rollout import run_trial
from metarl.fast import twins
from metarl.fast.stepping import FastEnv
from metarl.learning.losses import clipped_surrogate

CONFIGS = {
    "RL²": RL2Config(meta_batch_size=12, hidden_size=16, num_minibatches=2, critic="task", aux_coef=0.1),
    "recurrent SAC": RecurrentSACConfig(
        meta_batch_size=6, hidden_size=8, head_sizes=(8,), updates_per_iteration=2, learning_starts=0, batch_size=4
    ),
    "MAML with PPO": MAMLConfig(
        meta_batch_size=6, hidden_sizes=(8, 8), fast_batch_size=4, inner_steps=2, outer=PPOStep(inner_kl_coef=0.1)
    ),
    "MAML with TRPO": MAMLConfig(meta_batch_size=6, hidden_sizes=(8, 8), fast_batch_size=4, outer=TRPOStep()),
}


def updated(config: Any, family: TaskFamily, plain: bool) -> dict[str, Tensor]:
    """The agent's state after two iterations."""
    agent = config.build(family, 0, torch.device("cpu"))
    with twins.plain() if plain else contextlib.nullcontext():
        for number in range(2):
            key = rng.fold(rng.key(1), number)
            tasks = family.sample_tasks(key, config.meta_batch_size)
            agent.update(run_trial(agent, family, tasks, key), number / 2)
    state: dict[str, Tensor] = agent.state_dict()
    return state


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", ["RL²", "recurrent SAC", "MAML with PPO"])
def test_an_update_is_that_of_the_plain_functions(name: str, family: TaskFamily):
    fast, plain = (updated(CONFIGS[name], family, plain) for plain in (False, True))
    assert fast.keys() == plain.keys()
    for key, value in fast.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_a_trust_region_step_is_about_that_of_the_plain_functions():
    """Ten steps of conjugate gradients in float32 multiply the last bit, so only the direction is compared."""
    config, family = CONFIGS["MAML with TRPO"], Reach()
    start = config.build(family, 0, torch.device("cpu")).state_dict()
    names = [name for name in start if name.startswith("net.policy.")]
    fast, plain = (
        torch.cat([(state[name] - start[name]).flatten() for name in names])
        for state in (updated(config, family, plain) for plain in (False, True))
    )
    assert float(fast.norm()) > 0.01 and float(torch.cosine_similarity(fast, plain, dim=0)) > 0.99


def test_the_fast_clipped_surrogate_is_the_plain_one():
    generator = torch.Generator().manual_seed(0)
    new, old, advantage = (torch.randn(5, 7, dtype=torch.float64, generator=generator) for _ in range(3))
    mask = (torch.rand(5, 7, dtype=torch.float64, generator=generator) > 0.3).double()
    found = []
    for plain in (False, True):
        log_prob = (0.3 * new).requires_grad_()
        with twins.plain() if plain else contextlib.nullcontext():
            loss, metrics = clipped_surrogate(log_prob, 0.3 * old, advantage, mask, 0.2)
        found.append([loss, *metrics.values(), *torch.autograd.grad(2.0 * loss, log_prob)])
    for fast, defined in zip(*found, strict=True):
        torch.testing.assert_close(fast, defined, rtol=0, atol=1e-12)
    assert 0.0 < float(found[0][2]) < 1.0, "some ratios are clipped"


def test_which_function_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(twins, "_FAST", {})

    @twins.twin("double")
    def double(x: Tensor, by: float = 2.0) -> str:
        return "plain"

    one = torch.ones(1)
    assert double(one) == "plain", "there is no fast twin yet"
    twins.register("double", lambda x, by=2.0: "fast", on=("cpu",), suits=lambda x, by=2.0: by == 2.0)
    assert double(one) == double((one, one)) == "fast"
    assert double(one, by=3.0) == "plain", "it does not suit"
    assert double(one.to("meta")) == "plain", "it is for another kind of device"
    with twins.plain(), twins.plain("double"):
        assert double(one) == "plain"
    assert double(one) == "fast"
    with pytest.raises(ValueError, match=r"Unknown part: 'dubble'\. Did you mean 'double'"), twins.plain("dubble"):
        pass


def test_stepping_is_a_part_of_its_own():
    family = Corridor()
    task = family.sample_tasks(rng.key(0), 2)
    with twins.plain("tanh"):
        assert type(make_env(family, task, rng.key(0))) is FastEnv
    with twins.plain(twins.STEPPING):
        assert type(make_env(family, task, rng.key(0))) is BatchEnv
    assert type(make_env(family, task, rng.key(0))) is FastEnv
