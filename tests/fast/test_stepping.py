"""The fast batch environment steps the trials that the plain one defines, bit for bit."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
import torch
from registered_families import IDS
from small_families import Corridor, Length

import metarl
from metarl.core import rng, tree
from metarl.core.batch_env import BatchEnv, OpaqueEnv, make_env
from metarl.fast import twins
from metarl.fast.compiled import CompiledEnv
from metarl.fast.rows.env import RowEnv
from metarl.fast.stepping import FastEnv

ROWS = 5


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True))


def some_actions(space: gymnasium.Space, step: int) -> torch.Tensor:
    keys = rng.fold(rng.fold(rng.key(7), step), torch.arange(ROWS))
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(keys, 1, int(space.n)).squeeze(-1) + int(space.start)
    return 2.0 * rng.uniform(keys, space.shape[0]) - 1.0


@pytest.mark.parametrize("name", IDS)
def test_trials_of_every_family(name: str):
    """Across the ends of episodes, and after a restart of some rows."""
    family = metarl.make(name)
    task = family.sample_tasks(rng.key(0), ROWS)
    envs = [kind(family, task, rng.key(1)) for kind in (BatchEnv, FastEnv)]
    assert same(*(env.reset() for env in envs))
    ends = [family.horizon - 2] if family.horizon > 60 else []  # near the end of a long episode
    for number in range(40):
        if number == 20:
            rows = torch.tensor([1, 3])
            fresh = tree.take(task, rows)
            assert same(*(env.restart(rows, fresh, first_row=ROWS) for env in envs))
        if number == 30 and ends:
            for env in envs:
                env._step += ends[0] - 30
                if isinstance(env, FastEnv):
                    env._due = 0
        action = some_actions(family.action_space, number)
        assert same(*(env.step(action) for env in envs)), number
        assert same(envs[0].alive, envs[1].alive) and same(envs[0].final_state, envs[1].final_state)


def test_which_is_made():
    family, task = Corridor(), Length(torch.tensor([1, 2]))
    assert type(make_env(family, task, rng.key(0))) is FastEnv
    with twins.plain():
        assert type(make_env(family, task, rng.key(0))) is BatchEnv


@pytest.mark.parametrize("kind", [FastEnv, CompiledEnv, RowEnv, OpaqueEnv])
def test_every_environment_refuses_actions_that_would_broadcast(kind: type[BatchEnv]):
    rows = 1 if kind is RowEnv else 3
    env = kind(Corridor(), Length(torch.full((rows,), 4)), rng.key(0))
    env.reset()
    with pytest.raises(ValueError, match=rf"action must be a tensor of int64 of shape \({rows},\), an action for each"):
        env.step(torch.tensor(1))
    if kind is CompiledEnv:
        with pytest.raises(ValueError, match="action must be a tensor of int64"):
            env.play(torch.ones(2, 1, dtype=torch.int64))
