"""Agents on images, and on observations of several parts: RL² reads them, the others say that they do not."""

from __future__ import annotations

import pytest
import torch
from space_families import Signals

from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.sb3.config import PPOConfig
from metarl.core import rng
from metarl.core.agent import AgentConfig
from metarl.core.rollout import Rollout, episode_returns, run_trial
from metarl.testing import check_agent

CPU = torch.device("cpu")


@pytest.mark.parametrize("parts", [False, True], ids=["image", "parts"])
@pytest.mark.parametrize("options", [
    {}, {"norm_obs": True, "transition_input": True}, {"critic": "task", "embed_size": 8, "chunk_length": 2},
], ids=str)  # fmt: skip
def test_rl2_keeps_the_contract_of_agents(options: dict, parts: bool):
    check_agent(RL2Config(meta_batch_size=8, hidden_size=16, **options), Signals(parts))


def trained(family: Signals, iterations: int) -> Rollout:
    """Trials after some iterations of RL²."""
    config = RL2Config(meta_batch_size=64, hidden_size=64, lr=5e-3, gamma=0.0, ent_coef=0.003)
    agent = config.build(family, 0, CPU)
    for iteration in range(iterations):
        key = rng.fold(rng.key(5), iteration)
        tasks = family.sample_tasks(key, config.meta_batch_size)
        agent.update(run_trial(agent, family, tasks, key), iteration / iterations)
    key = rng.key(6)
    (rollout,) = run_trial(agent, family, family.sample_tasks(key, 200), key)
    return rollout


def test_rl2_learns_what_it_sees_and_what_is_hidden():
    """Random play has 0.5; who does not see the image, or does not remember the hidden side, has 0.75 at most."""
    returns = episode_returns(trained(Signals(), 35), 4)
    assert float(returns[:, 1:].mean()) > 0.9


def test_rl2_reads_every_part():
    """It chooses by the bright cell of the image, and by the sign of the vector."""
    rollout = trained(Signals(parts=True), 20)
    vector, image = rollout.step.obs.split([2, 144], dim=-1)
    bright = image.unflatten(-1, (12, 12)).amax(-2).argmax(-1)  # its column
    chosen = rollout.acted.action
    assert float(((chosen >> 1 & 1) == (bright >= 6)).float().mean()) > 0.9
    assert float(((chosen >> 2) == (vector[..., 0] > 0)).float().mean()) > 0.9


@pytest.mark.parametrize("parts", [False, True], ids=["image", "parts"])
@pytest.mark.parametrize("config", [MAMLConfig(), PPOConfig(), PPOConfig(recurrent=True)], ids=["MAML", "PPO", "LSTM"])
def test_the_others_refuse_images(config: AgentConfig, parts: bool):
    with pytest.raises(
        ValueError, match=r"needs vector observations, .* is an image of shape \(12, 12, 1\): choose RL2"
    ) as refused:
        config.build(Signals(parts), 0, CPU)
    assert "\n" not in str(refused.value)
