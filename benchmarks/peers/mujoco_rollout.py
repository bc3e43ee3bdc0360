"""Stepping of Gymnasium's robots by `mujoco.rollout` alone: physics, without rewards, endings or observations."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from benchmarks.peers.mujoco_vector import make
from benchmarks.works import BODIES, Work


def build(work: Work, threads: int) -> Callable[[], int]:
    """A call per action."""
    return stepping(work, threads, 1)


def stepping(work: Work, threads: int, actions_per_call: int) -> Callable[[], int]:
    """A function that goes on stepping all rows; after `work.horizon` actions they start again."""
    env = make(work, 0).unwrapped
    skip, first = env.frame_skip, env.model  # type: ignore[attr-defined]
    others = range(1, work.rows if work.family == BODIES else 1)
    models = [first, *(make(work, row).unwrapped.model for row in others)]  # type: ignore[attr-defined]
    models = models if len(models) > 1 else [first] * work.rows
    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
    data = [mujoco.MjData(first) for _ in range(threads)]
    start = np.empty((work.rows, mujoco.mj_stateSize(first, spec)))
    for row in start:
        mujoco.mj_resetData(first, data[0])
        mujoco.mj_getState(first, data[0], row, spec)
    pool = Rollout(nthread=threads if threads > 1 else 0)
    count = min(work.steps, 40)
    low, high = first.actuator_ctrlrange.T
    actions = np.random.default_rng(0).uniform(
        low, high, (count // actions_per_call, work.rows, actions_per_call, first.nu)
    )
    state, done = start, 0

    def call() -> int:
        nonlocal state, done
        for action in actions:
            states, _ = pool.rollout(models, data, state, np.repeat(action, skip, axis=1))
            state, done = states[:, -1], done + actions_per_call
            if done >= work.horizon:
                state, done = start, 0
        return len(actions) * actions_per_call * work.rows

    return call
