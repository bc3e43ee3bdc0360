"""Agents whose actions have several components (MultiDiscrete)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from space_families import Lock
from torch import Tensor

from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.maml import PPOStep, ReptileStep, TRPOStep
from metarl.agents.random import RandomAgent
from metarl.agents.sb3.config import PPOConfig
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.rollout import Rollout, episode_returns, run_trial
from metarl.evaluation.evaluator import evaluate
from metarl.fast import twins
from metarl.testing import check_agent

CPU = torch.device("cpu")
MAML = {"meta_batch_size": 6, "hidden_sizes": (8,), "fast_batch_size": 6}
PPO = {
    "meta_batch_size": 4,
    "fast_batch_size": 3,
    "hidden_sizes": (8,),
    "lstm_size": 8,
    "num_steps": 8,
    "batch_size": 32,
}
CONFIGS: dict[str, AgentConfig] = {
    "RL²": RL2Config(meta_batch_size=12, hidden_size=16),
    "RL², norm_obs": RL2Config(meta_batch_size=12, hidden_size=16, transition_input=True, norm_obs=True),
    "RL², reactive": RL2Config(meta_batch_size=12, hidden_size=16, memory="reactive"),
    **{f"MAML, {loss}": MAMLConfig(**MAML, inner_loss=loss) for loss in ("vpg", "likelihood_ratio", "dice")},
    "ProMP": MAMLConfig(**MAML, inner_loss="likelihood_ratio", inner_steps=2, outer=PPOStep(inner_kl_coef=0.1)),
    "MAML, all trusted": MAMLConfig(**MAML, outer=TRPOStep(trust="all"), activation="relu"),
    "Reptile": MAMLConfig(**MAML, outer=ReptileStep()),
    "PPO": PPOConfig(**PPO),
    "recurrent PPO": PPOConfig(**PPO, recurrent=True),
    "told PPO": PPOConfig(**PPO, task_input=True),
    "PPO, fine-tuned": PPOConfig(**PPO, test_steps=2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract_of_agents(name: str):
    check_agent(CONFIGS[name], Lock(episodes_per_trial=3))


def play(agent: Any, tasks: int, iteration: int) -> list[Rollout]:
    key = rng.fold(rng.key(1), iteration)
    return run_trial(agent, Lock(), Lock().sample_tasks(key, tasks), key)


def updated(config: AgentConfig, plain: bool) -> dict[str, Tensor]:
    """The agent's state after two iterations."""
    agent = config.build(Lock(), 0, CPU)
    for iteration in range(2):
        if plain:
            with twins.plain():
                agent.update(play(agent, config.meta_batch_size, iteration), iteration / 2)
        else:
            agent.update(play(agent, config.meta_batch_size, iteration), iteration / 2)
    return agent.state_dict()


@pytest.mark.parametrize("name", ["RL²", "MAML, dice", "ProMP"])
def test_the_fast_functions_are_the_plain_ones(name: str):
    fast, plain = (updated(CONFIGS[name], plain) for plain in (False, True))
    for key, value in fast.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def trained(config: AgentConfig, iterations: int) -> LearningAgent:
    agent = config.build(Lock(), 0, CPU)
    for iteration in range(iterations):
        agent.update(play(agent, config.meta_batch_size, iteration), iteration / iterations)
    return agent


def test_rl2_learns_to_open_the_lock():
    """Random play has 5/12 per try; the code is known after three tries at most."""
    agent = trained(RL2Config(meta_batch_size=64, hidden_size=32, lr=3e-3), 100)
    returns = episode_returns(play(agent, 300, 1000)[0], 6).mean(0)
    assert float(returns[0]) < 0.55 and float(returns[3:].min()) > 0.85


def test_maml_learns_to_open_the_lock():
    config = MAMLConfig(meta_batch_size=12, fast_batch_size=20, fast_lr=1.0, hidden_sizes=(16,))
    before, after = (episode_returns(round_, 1).mean() for round_ in play(trained(config, 15), 100, 1000))
    assert float(before) < 0.55 and float(after) > 0.75


def test_random_play_is_uniform():
    family = Lock()
    agent = RandomAgent(family)
    (rollout,) = play(agent, 2000, 0)
    action = rollout.acted.action.flatten(0, 1)
    assert action.dtype is torch.int64 and action.amin(0).tolist() == [1, 0] and action.amax(0).tolist() == [3, 1]
    counts = (2 * (action[:, 0] - 1) + action[:, 1]).bincount(minlength=6)
    share = counts / counts.sum()
    assert float((share - 1 / 6).abs().max()) < 0.02
    torch.testing.assert_close(rollout.acted.log_prob.exp(), torch.full_like(rollout.mask, 1 / 6))
    curve = evaluate(agent, family, split="train", tasks=500)
    assert abs(float(curve.mean().mean()) - 5 / 12) < 0.03
