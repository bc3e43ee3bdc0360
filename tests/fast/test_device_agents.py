"""Every agent that learns, with its main options, on a GPU that is pretended: see `pretended`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from pretended import CPU, GPU, LOADS, PretendedGPU
from torch.utils import _pytree as pytree

from metarl.agents import (
    BeliefConfig,
    ESConfig,
    ESMAMLConfig,
    MAMLConfig,
    PEARLConfig,
    R2D2Config,
    RecurrentSACConfig,
    RL2Config,
    VariBADConfig,
)
from metarl.agents.maml import PPOStep, TRPOStep
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.family import TaskFamily
from metarl.core.rollout import run_trial
from metarl.core.tree import to_device
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.points.navigation import Navigation2D
from metarl.fast.capture import Captured
from metarl.learning.memories import MEMORIES

BANDIT, GRID, POINT = BernoulliBandit(5, 4), GridNavi(episodes_per_trial=2), Navigation2D(3, 2)
GRID.horizon = 6
Case = tuple[AgentConfig, TaskFamily]


def rl2(**options: Any) -> RL2Config:
    few = {"meta_batch_size": 4, "hidden_size": 8, "update_epochs": 1, "num_minibatches": 2}
    return RL2Config(**(few | options))


def r2d2(**options: Any) -> R2D2Config:
    few = {"meta_batch_size": 4, "hidden_size": 8, "batch_size": 4, "learning_starts": 4, "updates_per_iteration": 2}
    return R2D2Config(**(few | options))


def sac(**options: Any) -> RecurrentSACConfig:
    few = {"meta_batch_size": 4, "hidden_size": 8, "head_sizes": (8,), "batch_size": 4, "learning_starts": 4}
    return RecurrentSACConfig(**(few | {"updates_per_iteration": 2} | options))


def pearl(**options: Any) -> PEARLConfig:
    few = {"meta_batch_size": 4, "hidden_sizes": (8,), "encoder_sizes": (8,), "batch_size": 8, "task_batch": 3}
    return PEARLConfig(**(few | {"learning_starts": 4, "updates_per_iteration": 2, "context_size": 4} | options))


def varibad(**options: Any) -> VariBADConfig:
    few = {"meta_batch_size": 4, "gru_size": 8, "update_epochs": 1, "num_minibatches": 2, "vae_batch": 3}
    return VariBADConfig(**(few | options))


def belief(**options: Any) -> BeliefConfig:
    return BeliefConfig(**({"meta_batch_size": 4, "hidden_sizes": (8,), "update_epochs": 1} | options))


def maml(**options: Any) -> MAMLConfig:
    few = {"meta_batch_size": 2, "fast_batch_size": 2, "hidden_sizes": (8,), "outer": TRPOStep(cg_iters=2)}
    return MAMLConfig(**(few | options))


PARTS: dict[str, Any] = {"replay_whole": 4, "sequence_length": 4, "burn_in": 2}  # of trials, in place of whole ones
ALL: dict[str, Any] = {"critic": "task", "aux_coef": 1.0, "embed_size": 4, "head_size": 4, "chunk_length": 3}
AGENTS: dict[str, Case] = {
    **{f"RL2 {memory}": (rl2(memory=memory, **ALL), BANDIT) for memory in MEMORIES},
    **{f"RL2 {memory} points": (rl2(memory=memory, **ALL, norm_obs=True), POINT) for memory in MEMORIES},
    "RL2 grid": (rl2(), GRID),
    "RL2 hyper": (rl2(**ALL, heads="hyper"), POINT),
    "RL2 hyper bandit": (rl2(**ALL, heads="hyper"), BANDIT),
    "Belief bandit": (belief(), BANDIT),
    "Belief grid": (belief(critic="task", norm_obs=True), GRID),
    "Belief points": (belief(target_kl=0.1), POINT),
    "VariBAD bandit": (varibad(), BANDIT),
    "VariBAD all": (varibad(decode=("reward", "state", "task"), stop_gradient=False, norm_obs=True), POINT),
    "VariBAD cells": (varibad(reward_likelihood="bernoulli", reward_head="per_observation", elbo_terms=3), GRID),
    "VariBAD drawn": (varibad(elbo_terms=2, decoded_steps=3, critic="task", norm_latent=False), POINT),
    "SAC discrete": (sac(), BANDIT),
    "SAC points": (sac(critic="task", norm_obs=True, random_repeat=3.0, bootstrap_end=True), POINT),
    "SAC chunks": (sac(chunk_length=3, burn_in=2, num_critics=4, target_critics=2), POINT),
    "TD3": (sac(algorithm="td3", policy_frequency=2), POINT),
    **{f"SAC {memory}": (sac(memory=memory), BANDIT) for memory in ("lstm", "transformer", "reactive")},
    "PEARL discrete": (pearl(), BANDIT),
    "PEARL points": (pearl(norm_obs=True, next_obs=True), POINT),
    "FOCAL": (pearl(embedding_loss="contrastive", distance="cosine"), POINT),
    "PEARL siamese": (pearl(embedding_loss="siamese", inference="nearest", prototypes=3), POINT),
    "PEARL nearest": (pearl(inference="nearest", prior_rounds=2), POINT),
    "ES": (ESConfig(meta_batch_size=3, population=4, hidden_size=8), BANDIT),
    "ES points": (
        ESConfig(
            meta_batch_size=3,
            population=4,
            hidden_size=8,
            shaping="standardise",
            optimizer="sgd",
            norm_obs=True,
            head_sizes=(4,),
            transition_input=True,
            weight_decay=0.1,
        ),
        POINT,
    ),
    "ES-MAML": (ESMAMLConfig(meta_batch_size=2, population=4, fast_batch_size=2), BANDIT),
    "ES-MAML points": (ESMAMLConfig(meta_batch_size=2, population=4, fast_batch_size=2, common_noise=False), POINT),
    **{f"R2D2 {memory}": (r2d2(memory=memory), BANDIT) for memory in MEMORIES},
    "R2D2 parts": (r2d2(**PARTS, norm_obs=True, target_network_frequency=1), GRID),
    **{f"R2D2 {memory} parts": (r2d2(memory=memory, **PARTS), GRID) for memory in ("lstm", "fast_weights")},
    "MAML": (maml(), BANDIT),
    "MAML points": (maml(norm_obs=True, baseline="network", critic_epochs=2), POINT),
    "ProMP": (maml(outer=PPOStep(inner_kl_coef=0.1), inner_loss="likelihood_ratio"), POINT),
    "ProMP bandit": (maml(outer=PPOStep(inner_kl_coef=0.1), inner_loss="likelihood_ratio"), BANDIT),
    "MAML by PPO": (maml(outer="ppo", rates="per_parameter", meta_rounds="all"), POINT),
    "MAML by PPO bandit": (maml(outer="ppo", rates="per_parameter", meta_rounds="all"), BANDIT),
    "MAML in chunks": (maml(outer=TRPOStep(trust="all", cg_iters=2), task_chunk=1, rates="per_parameter"), BANDIT),
    "Reptile": (maml(outer="reptile"), POINT),
    "Meta-SGD": (maml(rates="per_parameter", norm_adv=False), POINT),
    "E-MAML": (maml(exploration=1.0, meta_rounds="all", outer=TRPOStep(trust="all", cg_iters=2), task_chunk=1), POINT),
    "DiCE": (maml(inner_loss="dice", adapted="head"), POINT),
}


def learned(config: AgentConfig, family: TaskFamily, device: torch.device, seed: int = 0) -> LearningAgent:
    """An agent after an update by the same trial on every device."""
    task = family.sample_tasks(rng.key(0), config.meta_batch_size)
    trial = run_trial(config.build(family, seed, CPU), family, task, rng.key(1))
    agent = config.build(family, seed, device)
    agent.update(pytree.tree_map(lambda leaf: leaf.to(device), trial))
    return agent


def scheduled(config: AgentConfig) -> AgentConfig:
    """The configuration with every schedule sloping: what a recording took for a constant shows."""
    slopes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type == "Schedule" and isinstance(value, float):
            slopes[field.name] = [(0.0, value), (1.0, 0.5 * value)]
    return dataclasses.replace(config, **slopes)


@LOADS
@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_learns(name: str, gpu: PretendedGPU):
    """Its first update is that of a CPU, and its recordings go on being right, also after its state was loaded."""
    config, family = scheduled(AGENTS[name][0]), AGENTS[name][1]
    here, there = config.build(family, 0, CPU), config.build(family, 0, GPU)
    task = family.sample_tasks(rng.key(0), config.meta_batch_size)
    trial = run_trial(here, family, task, rng.key(1))
    wanted = here.update(trial)
    assert there.update(pytree.tree_map(lambda leaf: leaf.to(GPU), trial)) == pytest.approx(wanted, rel=1e-2, abs=1e-3)
    play = Captured(lambda task, key: run_trial(there, family, task, key), GPU)
    for _ in range(2):
        trial = play(to_device(task, GPU), rng.key(1, GPU))
    there.update(trial, 0.5)
    there.load_state_dict({name: value.to(CPU) for name, value in there.state_dict().items()})
    there.update(play(to_device(task, GPU), rng.key(2, GPU)), 0.75)
    assert all(map(gpu.was_recorded, (play, *there.captured.values())))
