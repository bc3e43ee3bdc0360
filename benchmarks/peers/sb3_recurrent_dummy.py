"""RL² by sb3-contrib's RecurrentPPO the stock way: DummyVecEnv over one plain NumPy environment per task."""

from __future__ import annotations

import functools
from collections.abc import Callable

from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.peers.numpy_envs import trial_env
from benchmarks.peers.sb3_recurrent import training
from benchmarks.works import Work


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that runs one iteration and returns its steps."""
    return training(work, threads, DummyVecEnv([functools.partial(trial_env, work)] * work.rows))
