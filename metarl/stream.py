"""Trial after trial in a batch of rows: what the views for Gymnasium and stable-baselines3 have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl import rng
from metarl.batch_env import BatchEnv, Step, put, where
from metarl.family import State, Task, TaskFamily, num_rows, take, unknown
from metarl.sketch import Sketch


def flat_space(family: TaskFamily) -> gymnasium.spaces.Box:
    """The space of `flatten`: observation, previous action, previous reward (unbounded), previous done."""
    obs, action = family.observation_space, family.action_space
    if isinstance(action, gymnasium.spaces.Discrete):
        low, high = np.zeros(int(action.n)), np.ones(int(action.n))
    else:  # a trial starts with the action 0
        low, high = np.minimum(action.low, 0.0).flatten(), np.maximum(action.high, 0.0).flatten()
    most = np.finfo(np.float32).max
    low = np.concatenate([obs.low.flatten(), low, [-most, 0.0]]).astype(np.float32)
    high = np.concatenate([obs.high.flatten(), high, [most, 1.0]]).astype(np.float32)
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


def flatten(step: Step, action_space: gymnasium.Space) -> Tensor:
    """RL²'s inputs as one vector per row ``(B, D)``: a Discrete action is one-hot, and zero where none came before."""
    action = step.prev_action
    if isinstance(action_space, gymnasium.spaces.Discrete):
        action = action[:, None] == torch.arange(int(action_space.n), device=action.device)
    parts = (step.obs, action, step.prev_reward, step.prev_done)
    return torch.cat([part.reshape(len(part), -1).to(torch.float32) for part in parts], dim=1)


def concatenate(tasks: Sequence[Task]) -> Task:
    """Several tasks of one family as one, row after row."""
    first = tasks[0]
    if isinstance(first, Tensor):
        return torch.cat(list(tasks))
    return type(first)(*(concatenate(field) for field in zip(*tasks, strict=True)))


class Shown(NamedTuple):
    """One step as `TrialStream` shows it."""

    obs: Tensor  # (B, D) after the action, also where the episode ended with it
    reward: Tensor  # (B,) float32
    terminated: Tensor  # (B,) bool
    truncated: Tensor  # (B,) bool
    episode_index: Tensor  # (B,) int64: which episode of its trial the action belonged to, from 0


class TrialStream:
    """Trial after trial in `num_envs` rows: what interfaces that know no trials are views of.

    With ``trial=False`` an episode is an episode (alone in its trial) and the observation is the family's own. With
    ``trial=True`` it is a whole trial and the observation is `flatten`'s: at the borders inside a trial it shows the
    first observation of the next episode beside done = 1 and the last reward. A trial's end terminates; so does the
    end of an episode of one single step, after which there is nothing to estimate.

    Trials are numbered in the order in which they begin. Number n of a seed is row n of
    ``BatchEnv(family, family.sample_tasks(fold(key(seed), 0), …, split), fold(key(seed), 1))``, however many rows
    the stream has: one row after the other and side by side give the same trials.
    """

    def __init__(
        self, family: TaskFamily, num_envs: int, split: str = "train", trial: bool = False, record: bool = False
    ) -> None:
        if split not in family.splits:
            raise ValueError(unknown("split", split, family.splits, where=f" of {type(family).__name__}"))
        if num_envs < 1:
            raise ValueError(f"There must be at least one environment, got num_envs={num_envs}.")
        self.family, self.num_envs, self.split, self.trial, self.record = family, num_envs, split, trial, record
        self.observation_space = flat_space(family) if trial else family.observation_space
        self._fixed: Task | None = None  # tasks that were set, and the rows where one was
        self._is_fixed = torch.zeros(num_envs, dtype=torch.bool)
        self._option_task: Task | None = None  # these two hold until the next `reset`
        self._option_split: str | None = None
        self._coming = False  # whether tasks were set since the last `reset`
        self._env: BatchEnv | None = None
        self.seeded = False
        # The states of each row's trial, and whether an episode begins there; how many of them its sketch has.
        self._visited: list[list[tuple[State, bool]]] = [[] for _ in range(num_envs)]
        self._sketches: dict[int, tuple[Sketch, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sketches": {}}  # images do not go into copies, which draw their own

    def seed(self, seed: int) -> None:
        """Begin the numbering of trials anew, under `seed`."""
        root = rng.key(seed)
        self._task_key, self._noise_key = rng.fold(root, 0), rng.fold(root, 1)
        self._count = 0
        self.seeded = True

    def set_task(self, task: Task | None, rows: Tensor | None = None) -> None:
        """Play `task` in `rows` (default: all) from their next trial on; None: draw tasks again.

        `task` has one row, which is played in all the rows, or one for each. Raises ValueError otherwise.
        """
        rows = torch.arange(self.num_envs) if rows is None else rows
        self._option_task = self._option_split = None
        self._coming = True
        if task is None:
            self._is_fixed = put(self._is_fixed, rows, torch.zeros(len(rows), dtype=torch.bool))
            return
        task = self._spread(task, len(rows))
        whole = self._spread(take(task, slice(0, 1)), self.num_envs) if self._fixed is None else self._fixed
        self._fixed = put(whole, rows, task)
        self._is_fixed = put(self._is_fixed, rows, torch.ones(len(rows), dtype=torch.bool))

    def task(self) -> Task:
        """The tasks being played; between `set_task` for all rows and the next `reset`, those that were set.

        Raises ValueError if there are none yet.
        """
        if self._coming and bool(self._is_fixed.all()):
            return self._fixed
        return self._playing().task

    def playing(self) -> Task:
        """The tasks being played now. Raises ValueError before the first `reset`."""
        return self._playing().task

    def reset(self, task: Task | None = None, split: str | None = None) -> Tensor:
        """Start a trial in every row and return the first observations ``(B, D)``.

        `task` or `split` are used instead of what was set, for all trials until the next call. Raises ValueError if
        both are given.
        """
        if task is not None and split is not None:
            raise ValueError("Give a task or a split, not both: a task is played whatever split it came from.")
        self._option_task = None if task is None else self._spread(task, self.num_envs)
        self._option_split = split
        self._coming = False
        tasks = self._next_tasks(torch.arange(self.num_envs))
        self._env = BatchEnv(self.family, tasks, self._noise_key, None if self.trial else 1, first_row=self._count)
        self._count += self.num_envs
        step = self._env.reset()
        if self.record:
            self._begin_pictures(range(self.num_envs))
        return self._view(step)

    def step(self, action: Tensor) -> Shown:
        """Act in every row. Rows whose episode (or trial) ended need `restart` before the next step."""
        env = self._playing()
        episode_index = env.episode
        outcome, step = env.step(action)
        ended = ~env.alive
        if self.record:
            self._remember(step.prev_done.to(torch.bool) & ~ended)
        at_end = ended.reshape(-1, *[1] * (outcome.final_obs.ndim - 1))
        obs = self._view(step._replace(obs=torch.where(at_end, outcome.final_obs, step.obs)))
        if self.trial or self.family.horizon == 1:
            return Shown(obs, outcome.reward, ended, torch.zeros_like(ended), episode_index)
        return Shown(obs, outcome.reward, outcome.terminated, outcome.truncated, episode_index)

    def restart(self, rows: Tensor) -> Tensor:
        """Start a new trial in the rows of the given indices; returns their first observations ``(M, D)``."""
        env = self._playing()
        step = env.restart(rows, self._next_tasks(rows), self._count)
        self._count += len(rows)
        if self.record:
            self._begin_pictures(rows.tolist())
        return self._view(step)

    def picture(self, row: int) -> np.ndarray:
        """The current trial of a row so far: uint8 ``(height, width, 3)``. Needs ``record=True``."""
        if row not in self._sketches:
            task = take(self._playing().task, slice(row, row + 1))
            episodes = self.family.episodes_per_trial if self.trial else 1
            self._sketches[row] = self.family.sketch(task, episodes), 0
        sketch, known = self._sketches[row]
        visited = self._visited[row]
        for state, first in visited[known:]:
            sketch.add(state, first)
        self._sketches[row] = sketch, len(visited)
        return sketch.image()

    def _playing(self) -> BatchEnv:
        if self._env is None:
            raise ValueError("Call reset() first.")
        return self._env

    def _next_tasks(self, rows: Tensor) -> Task:
        split = self._option_split or self.split
        drawn = self.family.sample_tasks(self._task_key, len(rows), split, first=self._count)
        if self._option_task is not None:
            return take(self._option_task, rows)
        if self._option_split is not None or self._fixed is None:
            return drawn
        return where(self._is_fixed[rows], take(self._fixed, rows), drawn)

    def _spread(self, task: Task, n: int) -> Task:
        """`task` as `n` rows, from one row or from as many. Raises ValueError for anything else."""
        known, given = type(self.family.sample_tasks(rng.key(0), 1, self.split)), type(task)
        if given is not known:
            raise ValueError(f"A task of {type(self.family).__name__} is a {known.__name__}, got {given.__name__}.")
        rows = num_rows(task)
        if rows not in (1, n):
            raise ValueError(f"The task must have {'one row' if n == 1 else f'one row or {n}'}, got {rows} rows.")
        return take(task, torch.zeros(n, dtype=torch.int64) if rows == 1 else torch.arange(n))

    def _view(self, step: Step) -> Tensor:
        return flatten(step, self.family.action_space) if self.trial else step.obs

    def _remember(self, border: Tensor) -> None:
        """Add the states that the last step led to: two of them at a border inside a trial."""
        env = self._playing()
        for row, visited in enumerate(self._visited):
            visited.append((take(env.final_state, slice(row, row + 1)), False))
            if border[row]:
                visited.append((take(env.state, slice(row, row + 1)), True))

    def _begin_pictures(self, rows: Iterable[int]) -> None:
        """Forget the trials of the rows that have just begun another one."""
        for row in rows:
            self._visited[row] = [(take(self._playing().state, slice(row, row + 1)), True)]
            self._sketches.pop(row, None)
