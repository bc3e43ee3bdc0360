"""What comes before the first `reset`: every environment says the same, in the way that Gymnasium's users expect."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, TwoDoors

import metarl
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, OpaqueEnv, make_env
from metarl.fast.rows.env import RowEnv
from metarl.fast.stepping import FastEnv
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.interop.sb3_env import SB3VecEnv

KINDS = [BatchEnv, FastEnv, OpaqueEnv, RowEnv, make_env]
USES: dict[str, Callable[[Any], Any]] = {
    "step": lambda env: env.step(torch.zeros(env.num_envs, dtype=torch.int64)),
    "all_done": lambda env: env.all_done(),
    "alive": lambda env: env.alive,
    "state": lambda env: env.state,
    "final_state": lambda env: env.final_state,
    "episode": lambda env: env.episode,
    "restart": lambda env: env.restart(torch.tensor([0]), env.family.sample_tasks(rng.key(0), 1)),
}
VIEWS: dict[str, Callable[[int, bool], Any]] = {
    "gym": lambda rows, trial: GymEnv("metarl/GridNavi-v0", trial=trial, render_mode="rgb_array"),
    "vector": lambda rows, trial: GymVectorEnv("metarl/GridNavi-v0", rows, trial=trial, render_mode="rgb_array"),
    "vector, not drawn": lambda rows, trial: GymVectorEnv("metarl/GridNavi-v0", rows, trial=trial),
    "made vector": lambda rows, trial: gymnasium.make_vec("metarl/GridNavi-v0", num_envs=rows),
    "sb3": lambda rows, trial: SB3VecEnv("metarl/GridNavi-v0", rows, trial=trial, render_mode="rgb_array"),
    "sb3, not drawn": lambda rows, trial: SB3VecEnv("metarl/GridNavi-v0", rows, trial=trial),
}


def refuses(use: Callable[[], Any]) -> None:
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"[Cc]all reset\(\) first") as caught:
        use()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", [Corridor(), TwoDoors()], ids=["Corridor", "TwoDoors"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("use", USES)
def test_a_batch_environment_needs_a_reset(use: str, kind: Callable[..., BatchEnv], family: metarl.TaskFamily):
    for rows in (1, 3):
        refuses(lambda rows=rows: USES[use](kind(family, family.sample_tasks(rng.key(0), rows), rng.key(1))))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_what_a_reset_makes_needs_one(kind: Callable[..., BatchEnv]):
    env = kind(Corridor(), Corridor().sample_tasks(rng.key(0), 1), rng.key(1))
    assert not hasattr(env, "state") and env.max_steps == env.episodes * env.family.horizon
    with pytest.raises(AttributeError, match="has no attribute 'stat'"):
        env.stat  # noqa: B018
    assert pickle.loads(pickle.dumps(env)).num_envs == 1
    env.reset()
    assert hasattr(env, "state") and not env.all_done()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_view_needs_a_reset(view: str, trial: bool, rows: int):
    env = VIEWS[view](rows, trial)
    action = np.int64(0) if view == "gym" else np.zeros(rows, dtype=np.int64)
    refuses(lambda: env.step(action))
    if "sb3" in view:
        refuses(lambda: env.env_method("get_task"))
    elif view != "made vector":
        refuses(env.get_task)
    if view in ("gym", "vector"):
        refuses(env.render)
    env.reset()
    env.step(action)


def test_an_error_of_reset_stays_a_value_error():
    """As it was before it was Gymnasium's, too."""
    with pytest.raises(ValueError, match="reset"):
        GymVectorEnv("metarl/GridNavi-v0", 2).get_task()
