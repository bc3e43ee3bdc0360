"""Bounds of an evaluation: the returns of random play and of the oracle on the same tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agents.random import RandomAgent
from metarl.agents.reference.catalogue import baseline, baselines_for
from metarl.core import rng
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Agent, episode_rewards, run_trial
from metarl.core.tree import num_rows, take, to_device
from metarl.evaluation.results import Array
from metarl.learning import ranks

BOUND_EPISODES = 20
"""Largest number of episodes per task that random and oracle play for the bounds."""


class Bounds(NamedTuple):
    """Returns and rewards of random and oracle on the same tasks; None where unknown."""

    random: Array | None  # (tasks,) return of an episode of the uniformly random policy
    oracle: Array | None  # (tasks,) best known return of an episode when the task is told
    random_steps: Array | None  # (tasks, horizon) mean reward of each step of an episode
    oracle_steps: Array | None


def bounds_of(family: TaskFamily, task: Task, root: Key, episodes: int, steps: bool, memory: tuple[int, int]) -> Bounds:
    """Return the family's exact bounds if it has them; otherwise, and for single steps, estimate them by playing.

    `episodes` episodes, at most `BOUND_EPISODES`, are played on each task. With `steps` the reward of every step is
    included. `memory` is the number of rows, and of bytes, that may be played at once.
    """
    episodes = min(episodes, BOUND_EPISODES)
    random = _optional(family.random_return(to_device(task, root.device)))
    oracle = _optional(family.oracle(to_device(task, root.device)))
    random_steps = oracle_steps = None
    if steps or random is None:
        key = rng.fold(root, 2)
        random_steps = _profile(lambda: RandomAgent(family, root.device), family, task, key, episodes, memory)
    if steps and "oracle" in baselines_for(family):
        key = rng.fold(root, 4)
        oracle_steps = _profile(lambda: baseline("oracle", family, root.device), family, task, key, episodes, memory)
    if oracle_steps is None and oracle is not None and family.horizon == 1:
        oracle_steps = oracle[:, None]
    if random is None and random_steps is not None:
        random = random_steps.sum(axis=1)
    return Bounds(random, oracle, random_steps, oracle_steps)


def _profile(
    make_agent: Callable[[], Agent], family: TaskFamily, task: Task, key: Key, episodes: int, memory: tuple[int, int]
) -> Array | None:
    """Return the mean reward at each step of an episode of an agent that does not learn, ``(tasks, horizon)``.

    None if the agent cannot be made for the family, such as random play in an unbounded action space.
    """
    try:
        agent = make_agent()
    except ValueError:
        return None
    parts, mine = [], ranks.part(num_rows(task))
    size = rows_at_once(family, episodes * family.horizon, *memory)
    for first in range(mine.start, mine.stop, size):
        part = to_device(take(task, slice(first, min(first + size, mine.stop))), key.device)
        (rollout,) = run_trial(agent, family, part, key, rounds=1, episodes=episodes, envs_per_task=1, first_task=first)
        parts.append(episode_rewards(rollout, episodes, family.horizon).mean(dim=1).cpu().numpy())
    return np.concatenate(list(itertools.chain(*ranks.all_gather(parts))))


def rows_at_once(family: TaskFamily, steps: int, most_rows: int, most_bytes: int) -> int:
    """Return the number of rows, at most `most_rows`, whose rollouts of `steps` steps fit into `most_bytes`."""
    observation = math.prod(family.observation_space.shape)
    action = math.prod(family.action_space.shape or ()) + 1
    per_step = 4 * (2 * observation + 2 * action + 8)
    return max(1, min(most_rows, most_bytes // (per_step * steps)))


def _optional(value: Tensor | None) -> Array | None:
    return None if value is None else value.to(torch.float32).cpu().numpy()
