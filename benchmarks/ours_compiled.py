"""metarl's contender with compiled steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.ours import family_of, random_actions
from benchmarks.works import Work
from metarl.core import rng
from metarl.fast.compiled import CompiledEnv
from metarl.fast.runtime import tune


def build(work: Work, threads: int) -> Callable[[], int]:
    """One call steps all rows through a trial, 200 steps at most, with random actions drawn beforehand; all is kept.

    Raises RuntimeError where nothing can be compiled.
    """
    tune(threads)
    family, key = family_of(work), rng.key(0)
    env = CompiledEnv(family, family.sample_tasks(key, work.rows), key)
    steps = min(env.max_steps, 200)
    actions = torch.stack(random_actions(family, steps, work.rows))

    def call() -> int:
        env.reset()
        env.play(actions)
        if env.why_not is not None:
            raise RuntimeError(env.why_not)
        return steps * work.rows

    return call
