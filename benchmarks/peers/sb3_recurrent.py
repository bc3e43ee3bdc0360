"""RL² by sb3-contrib's RecurrentPPO on metarl's rows as a `VecEnv`; the settings are those of `metarl.agents.rl2`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.ours import family_of
from benchmarks.works import Work
from metarl.interop.sb3_env import SB3VecEnv


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that runs one iteration and returns its steps."""
    return training(work, threads, SB3VecEnv(family_of(work), work.rows, trial=True))


def training(work: Work, threads: int, env: VecEnv) -> Callable[[], int]:
    """One call is one iteration: as many steps of every row as a trial has, then the epochs of minibatches.

    Actor and critic share one LSTM, as ours share the GRU. Where an episode ends early, the next trial begins in the
    same iteration, so that every step counts.
    """
    torch.set_num_threads(threads)
    per_iteration = work.steps * work.rows
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        learning_rate=1e-3,
        n_steps=work.steps,
        batch_size=per_iteration // work.minibatches,
        n_epochs=work.epochs,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        ent_coef=0.01,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={
            "lstm_hidden_size": work.hidden,
            "shared_lstm": True,
            "enable_critic_lstm": False,
            "net_arch": [],
        },
        seed=0,
        device="cpu",
    )

    def call() -> int:
        before = model.num_timesteps
        model.learn(per_iteration, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return call
