"""The same as `mujoco_rollout` with twenty actions per call, which no agent that looks could use."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.mujoco_rollout import stepping
from benchmarks.works import Work


def build(work: Work, threads: int) -> Callable[[], int]:
    """Twenty actions per call."""
    return stepping(work, threads, 20)
