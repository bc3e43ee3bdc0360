"""Stepping of Gymnasium's own v5 robots by AsyncVectorEnv."""

from __future__ import annotations

from collections.abc import Callable

from gymnasium.vector import AsyncVectorEnv

from benchmarks.peers.mujoco_vector import stepping
from benchmarks.works import Work


def build(work: Work, threads: int) -> Callable[[], int]:
    """A process per row, which share the cores of this one; observations come through shared memory."""
    return stepping(work, AsyncVectorEnv)
