"""Pure stepping of Navigation2D in JAX: the whole rollout is one compiled scan, for actions drawn beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random

from benchmarks.works import Work


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that steps all rows through a trial and returns the steps. Everything an agent would see is kept."""
    goal = random.uniform(random.key(0), (work.rows, 2)) - 0.5
    actions = random.uniform(random.key(1), (work.steps, work.rows, 2), minval=-0.1, maxval=0.1)
    run = jax.jit(lambda goal, actions: rollout(goal, actions, work.horizon))

    def call() -> int:
        jax.block_until_ready(run(goal, actions))
        return work.steps * work.rows

    return call


def rollout(goal: Any, actions: Any, horizon: int) -> Any:
    """Observations after each action and after the restarts, rewards, both endings: ``(T, B, …)`` each."""

    def step(carry: Any, action: Any) -> Any:
        position, time, episode = carry
        final = position + jnp.clip(action, -0.1, 0.1)
        offset = final - goal
        reward = -jnp.sqrt((offset * offset).sum(-1))
        time = time + 1
        terminated = (jnp.abs(offset) < 0.01).all(-1)
        truncated = (time >= horizon) & ~terminated
        done = terminated | truncated
        obs = jnp.where(done[:, None], 0.0, final)
        return (obs, jnp.where(done, 0, time), episode + done), (obs, final, reward, terminated, truncated, episode)

    zeros = jnp.zeros(goal.shape[0], jnp.int32)
    return lax.scan(step, (jnp.zeros_like(goal), zeros, zeros), actions)
