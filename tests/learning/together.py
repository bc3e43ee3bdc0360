"""Three updates of some agents, by one process or by several: ``python together.py OUT`` is one of several.

Numbers are double precision here, so that only a wrong sum can make a difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import metarl
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
from metarl.agents.maml import PPOStep, ReptileStep, SupervisedStep, TRPOStep
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.rollout import run_trial
from metarl.core.tree import take, tree_map
from metarl.learning import ranks

TASKS = 7
"""A number that no number of processes divides."""

POINTS, BANDIT = "metarl/Navigation2D-v0", "metarl/BernoulliBandit-v0"

# Conjugate gradients amplify rounding (docs/equality.md), so TRPO has few of them here.
TRPO = TRPOStep(cg_iters=4)

REPLAY: dict[str, Any] = {
    "learning_starts": 10, "updates_per_iteration": 3, "batch_size": 5, "hidden_size": 8, "head_sizes": (8,),
}  # fmt: skip

AGENTS: dict[str, tuple[AgentConfig, str]] = {
    "RL2": (RL2Config(num_minibatches=2, update_epochs=2, hidden_size=16), POINTS),
    "RL2, scales that follow": (RL2Config(num_minibatches=3, hidden_size=16, norm_obs=True, norm_adv=False), POINTS),
    "RL2, inference loss": (RL2Config(num_minibatches=2, hidden_size=16, aux_coef=0.1), POINTS),
    "RL2, hypernetwork": (RL2Config(num_minibatches=2, hidden_size=16, head_size=4, heads="hyper"), POINTS),
    "RL2, chunks": (RL2Config(num_minibatches=2, hidden_size=16, chunk_length=3), BANDIT),
    "R2D2": (R2D2Config(hidden_size=16, learning_starts=8, updates_per_iteration=3, batch_size=4, lr=0.01), BANDIT),
    "R2D2, stored states": (
        R2D2Config(
            meta_batch_size=TASKS,
            hidden_size=16,
            learning_starts=8,
            updates_per_iteration=2,
            batch_size=4,
            buffer_size=15,
            replay_whole=4,
            sequence_length=4,
            burn_in=2,
            norm_obs=True,
        ),
        "metarl/GridNavi-v0",
    ),
    "PPO on the belief": (BeliefConfig(num_minibatches=2, hidden_sizes=(16,), critic="task"), BANDIT),
    "Recurrent SAC": (RecurrentSACConfig(**REPLAY, norm_obs=True, critic="task", num_critics=3), POINTS),
    "Recurrent SAC, discrete": (RecurrentSACConfig(**REPLAY, policy_frequency=2), BANDIT),
    "Recurrent TD3, chunks": (RecurrentSACConfig(**REPLAY, algorithm="td3", chunk_length=7), POINTS),
    "PEARL": (
        PEARLConfig(
            learning_starts=10,
            updates_per_iteration=3,
            task_batch=5,
            batch_size=8,
            context_size=6,
            rounds=2,
            encoder_sizes=(8,),
            hidden_sizes=(8,),
            buffer_size=50,
            norm_obs=True,
        ),
        POINTS,
    ),
    "PEARL, contrastive": (
        PEARLConfig(
            learning_starts=10,
            updates_per_iteration=2,
            task_batch=5,
            batch_size=8,
            context_size=6,
            rounds=2,
            encoder_sizes=(8,),
            hidden_sizes=(8,),
            buffer_size=50,
            embedding_loss="contrastive",
            inference="nearest",
        ),
        POINTS,
    ),
    "VariBAD": (
        VariBADConfig(
            num_minibatches=2, hidden_sizes=(16,), gru_size=8, buffer_size=10, vae_batch=9, stop_gradient=False
        ),
        POINTS,
    ),
    "VariBAD, sampled terms": (
        VariBADConfig(num_minibatches=2, gru_size=8, elbo_terms=4, decoded_steps=5, norm_obs=True, decode=("task",)),
        BANDIT,
    ),
    "ES": (ESConfig(population=6, hidden_size=8, norm_obs=True), POINTS),
    "ES-MAML": (ESMAMLConfig(population=4, fast_batch_size=2, hidden_sizes=(8,)), POINTS),
    "MAML by TRPO": (MAMLConfig(fast_batch_size=3, outer=TRPO, norm_obs=True), POINTS),
    "MAML, learned baseline": (MAMLConfig(fast_batch_size=3, outer=TRPO, baseline="network"), POINTS),
    "E-MAML, chunks of tasks": (
        MAMLConfig(fast_batch_size=3, inner_steps=2, exploration=1.0, task_chunk=3, norm_adv=False, outer=TRPO),
        POINTS,
    ),
    "ProMP": (
        MAMLConfig(
            fast_batch_size=3,
            inner_loss="likelihood_ratio",
            outer=PPOStep(num_minibatches=2, update_epochs=2, inner_kl_coef=1e-3),
        ),
        POINTS,
    ),
    "MAML, supervised": (
        MAMLConfig(
            fast_batch_size=1,
            inner_loss="supervised",
            outer=SupervisedStep(num_minibatches=2, update_epochs=2),
        ),
        "metarl/Sinusoid-v0",
    ),
    "Reptile": (MAMLConfig(fast_batch_size=3, outer=ReptileStep()), POINTS),
}


def learn(config: AgentConfig, family_id: str) -> dict[str, Any]:
    """Make three updates on `TASKS` tasks, of which this rank plays its part; return state and metrics."""
    family = metarl.make(family_id)
    agent = _in_double(config.build(family, 1, torch.device("cpu")))
    mine, metrics, rewards = ranks.part(TASKS), [], []
    for number in range(3):
        key = rng.fold(rng.key(5), number)
        tasks = family.sample_tasks(rng.fold(key, 0), TASKS)
        trial = run_trial(agent, family, take(tasks, mine), rng.fold(key, 1), first_task=mine.start)
        rewards.append([rollout.outcome.reward for rollout in trial])
        metrics.append(agent.update(_double(trial), number / 3))
    state = {name: value.clone() for name, value in agent.state_dict().items()}
    return {"state": state, "metrics": metrics, "rewards": rewards}


def _in_double(agent: LearningAgent) -> LearningAgent:
    """Let the agent compute in double precision, and play in single precision, which families know."""
    agent.net.double()
    for name, value in vars(agent).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            setattr(agent, name, value.double())
    act, adapt = agent.act, agent.adapt

    def act_in_single(*args: Any) -> Any:
        acted, memory = act(*args)
        return tree_map(lambda x: x.float() if x.dtype == torch.float64 else x, acted), memory

    agent.act, agent.adapt = act_in_single, lambda memory, rollout: adapt(memory, _double(rollout))
    return agent


def _double(tree: Any) -> Any:
    return tree_map(lambda x: x.double() if x.dtype == torch.float32 else x, tree)


def main(out: str) -> None:
    torch.set_num_threads(1)
    ranks.start(torch.device("cpu"))
    found = {name: learn(*agent) for name, agent in AGENTS.items()}
    torch.save(found, Path(out) / f"{ranks.rank()}.pt")
    ranks.stop()


if __name__ == "__main__":
    main(sys.argv[1])
