"""Stepping of Gymnasium's own v5 robots by SyncVectorEnv; `mujoco_async` has a process per row."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from benchmarks.works import BODIES, Work


def make(work: Work, row: int) -> gymnasium.Env:
    """One row: HalfCheetah-v5, or Walker2d-v5 with a body of its own, with the work's horizon."""
    if work.family != BODIES:
        return gymnasium.make("HalfCheetah-v5", max_episode_steps=work.horizon)
    env = gymnasium.make("Walker2d-v5", max_episode_steps=work.horizon, terminate_when_unhealthy=True)
    rng, model = np.random.default_rng(row), env.unwrapped.model  # type: ignore[attr-defined]
    factor = 1.5 ** rng.uniform(-3.0, 3.0, model.nbody - 1)
    model.body_mass[1:] *= factor
    model.body_inertia[1:] *= factor[:, None]
    model.geom_friction[:] *= 1.5 ** rng.uniform(-3.0, 3.0, model.geom_friction.shape)
    model.dof_damping[:] *= 1.3 ** rng.uniform(-3.0, 3.0, model.nv)
    return env


def build(work: Work, threads: int) -> Callable[[], int]:
    """One row after the other in this process; there is nothing for a second thread to do."""
    return stepping(work, SyncVectorEnv)


def stepping(work: Work, vector: Callable[..., VectorEnv]) -> Callable[[], int]:
    """A function that goes on stepping all rows with random actions and returns the steps."""
    warnings.filterwarnings("ignore")  # Gymnasium's advice on precision
    rows = [functools.partial(make, work, row) for row in range(work.rows)]
    env = vector(rows, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    space = env.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    steps = min(work.steps, 50)
    actions = np.random.default_rng(0).uniform(space.low, space.high, (steps, work.rows, *space.shape))

    def call() -> int:
        for action in actions.astype(np.float32):
            env.step(action)
        return steps * work.rows

    return call
