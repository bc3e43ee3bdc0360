"""Pure stepping of Navigation2D by Gymnasium's SyncVectorEnv over a plain NumPy environment."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from benchmarks.peers.numpy_envs import PointEnv
from benchmarks.works import Work

STEPS = 10  # of one call: two hundred would take a quarter of a minute


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that goes on stepping all rows and returns the steps. There is nothing for a second thread to do."""
    make = functools.partial(PointEnv, work.horizon)
    env = SyncVectorEnv([make] * work.rows, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    steps = min(work.steps, STEPS)
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (steps, work.rows, 2)).astype(np.float32)

    def call() -> int:
        for action in actions:
            env.step(action)
        return steps * work.rows

    return call
