"""Stepping of envpool's HalfCheetah-v5: a C++ environment with its own threads, the same body in all rows."""

from __future__ import annotations

from collections.abc import Callable

import envpool  # type: ignore[import-not-found]
import numpy as np

from benchmarks.works import Work


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that goes on stepping all rows with random actions and returns the steps."""
    env = envpool.make(
        "HalfCheetah-v5",
        env_type="gymnasium",
        num_envs=work.rows,
        num_threads=threads,
        max_episode_steps=work.horizon,
        seed=0,
    )
    env.reset()
    steps = min(work.steps, 50)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (steps, work.rows, 6))

    def call() -> int:
        for action in actions:
            env.step(action)
        return steps * work.rows

    return call
