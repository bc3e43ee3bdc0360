"""Trial after trial in a batch of rows: what the views for Gymnasium and stable-baselines3 have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

import metarl.fast  # noqa: F401  (registers the fast twins)
from metarl.core.batch_env import BatchEnv, Outcome, Step, make_env
from metarl.core.checks import checked_task
from metarl.core.errors import UnknownOption, unknown_option
from metarl.core.family import Sketch, State, Task, TaskFamily
from metarl.core.registry import make
from metarl.core.tree import concatenate, num_rows, put, take, where
from metarl.interop.numbering import Numbering

_MOST = float(np.finfo(np.float32).max)


def flat_space(family: TaskFamily) -> spaces.Box:
    """The space of `flatten`: observation, previous action, previous reward (unbounded), previous done."""
    obs = family.observation_space
    low, high = _bounds_shown(family.action_space)
    low = np.concatenate([obs.low.flatten(), low, [-_MOST, 0.0]]).astype(np.float32)
    high = np.concatenate([obs.high.flatten(), high, [_MOST, 1.0]]).astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def flatten(step: Step, action_space: gymnasium.Space) -> Tensor:
    """RL²'s inputs as one vector per row ``(B, D)``, which is in `flat_space`.

    A Discrete action is one-hot, and zero where none came before. An action beyond the bounds, which families clip, is
    shown clipped to them; a trial starts with the middle of the range (`no_action`).
    """
    action, reward = step.prev_action, step.prev_reward.clamp(-_MOST, _MOST)
    if isinstance(action_space, spaces.Discrete):
        index = torch.arange(int(action_space.n), device=action.device)
        action = action[:, None] - int(action_space.start) == index
    else:
        low, high = (torch.as_tensor(bound, device=action.device) for bound in _bounds_shown(action_space))
        action = torch.maximum(torch.minimum(action.flatten(1), high), low)
    parts = (step.obs, action, reward, step.prev_done)
    return torch.cat([part.reshape(len(part), -1).to(torch.float32) for part in parts], dim=1)


def _bounds_shown(space: gymnasium.Space) -> tuple[np.ndarray, np.ndarray]:
    """Of a previous action in `flatten`."""
    if isinstance(space, spaces.Discrete):
        return np.zeros(int(space.n), np.float32), np.ones(int(space.n), np.float32)
    assert isinstance(space, spaces.Box)
    return space.low.flatten(), space.high.flatten()


def checked_actions(actions: Any, space: gymnasium.Space, n: int, ignored: np.ndarray | None = None) -> Tensor:
    """The actions of `n` rows as the family wants them; those of the rows `ignored`, bool ``(n,)``, may be anything.

    Raises ValueError, one sentence, for a wrong shape, an index out of range or a number that is not finite.
    """
    actions, shape = np.asarray(actions), (n, *(space.shape or ()))
    if actions.shape != shape:
        raise ValueError(f"The actions of {n} rows must have the shape {shape}, got {actions.shape}.")
    looked_at = actions if ignored is None else actions[~ignored]
    if isinstance(space, spaces.Discrete):
        first, last = int(space.start), int(space.start + space.n) - 1
        good = np.issubdtype(actions.dtype, np.integer)
        if not good or bool(((looked_at < first) | (looked_at > last)).any()):
            raise ValueError(f"An action is an integer from {first} to {last}, got {looked_at.tolist()}.")
        made, filler = actions.astype(np.int64), np.asarray(first)
    else:
        assert isinstance(space, spaces.Box)
        if not np.issubdtype(actions.dtype, np.floating) and not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"An action is made of numbers, got values of the type {actions.dtype}.")
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is refused as that
            made, filler = actions.astype(np.float32), np.clip(0.0, space.low, space.high)
    if ignored is not None:
        made[ignored] = filler
    if not np.isfinite(made).all():
        raise ValueError(f"An action must be finite, got {looked_at.tolist()}.")
    return torch.as_tensor(made)


class Shown(NamedTuple):
    """One step as `TrialStream` shows it."""

    obs: Tensor  # (B, D) after the action, also where the episode ended with it
    reward: Tensor  # (B,) float32
    terminated: Tensor  # (B,) bool
    truncated: Tensor  # (B,) bool
    episode_index: Tensor  # (B,) int64: which episode of its trial the action belonged to, from 0
    success: Tensor | None  # (B,) bool: whether the task is solved after the action; None if the family does not say
    inner: Inner | None  # with ``trial=True``, where an episode inside of a trial ended with the step


class Inner(NamedTuple):
    """The episodes inside of trials."""

    ended: Tensor  # (B,) bool: whether one ended with the step
    returns: Tensor  # (B,) float64: its return
    lengths: Tensor  # (B,) int64: its steps


def infos_of(shown: Shown) -> list[dict[str, Any]]:
    """The info of each row, in Python's numbers; `metarl.interop.gym_env` says what is in it."""
    index, infos = shown.episode_index.tolist(), list[dict[str, Any]]()
    if shown.success is None:
        infos = [{"episode_index": number} for number in index]
    else:
        both = zip(index, shown.success.tolist(), strict=True)
        infos = [{"episode_index": number, "success": success} for number, success in both]
    if shown.inner is not None:
        for row in shown.inner.ended.nonzero().squeeze(1).tolist():
            returns, lengths = float(shown.inner.returns[row]), int(shown.inner.lengths[row])
            infos[row]["inner_episode"] = {"r": returns, "l": lengths, "index": index[row]}
    return infos


class TrialStream:
    """Trial after trial in `num_envs` rows: what interfaces that know no trials are views of.

    With ``trial=False`` an episode is an episode (alone in its trial) and the observation is the family's own. With
    ``trial=True`` it is a whole trial and the observation is `flatten`'s: at the borders inside a trial it shows the
    first observation of the next episode beside done = 1 and the last reward. A trial's end terminates; so does the
    end of an episode of one single step, after which there is nothing to estimate. `max_steps` truncates what takes
    longer.

    Trials are numbered in the order in which they begin. Number n of a seed is row n of
    ``BatchEnv(family, family.sample_tasks(fold(key(seed), 0), …, split), fold(key(seed), 1))``, however many rows
    the stream has: one row after the other and side by side give the same trials. Rows may have seeds of their own
    (`seed_row`), each of which numbers trials for itself.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        split: str = "train",
        trial: bool = False,
        record: bool = False,
        max_steps: int | None = None,
    ) -> None:
        family.num_tasks(split)  # raises ValueError if there is no such split
        for name, count in (("num_envs", num_envs), ("max_episode_steps", 1 if max_steps is None else max_steps)):
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
                raise ValueError(f"{name} must be a whole number of at least one, got {name}={count!r}.")
        self.family, self.num_envs, self.split, self.trial, self.record = family, int(num_envs), split, trial, record
        self.observation_space = flat_space(family) if trial else family.observation_space
        self.max_steps = None if max_steps is None else int(max_steps)
        self._fixed: Task | None = None  # tasks that were set, and the rows where one was
        self._is_fixed = torch.zeros(self.num_envs, dtype=torch.bool)
        self._option_task: Task | None = None  # these three hold until the next `reset`
        self._option_split: str | None = None
        self._has_option = torch.zeros(self.num_envs, dtype=torch.bool)
        self._coming = False  # whether tasks were set since the last `reset`
        self._env: BatchEnv | None = None
        self._numbering = Numbering(family)
        # The states of each row's trial, and whether an episode begins there; how many of them its sketch has.
        self._visited: list[list[tuple[State, bool]]] = [[] for _ in range(self.num_envs)]
        self._sketches: dict[int, tuple[Sketch, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sketches": {}}  # images do not go into copies, which draw their own

    @property
    def longest(self) -> int:
        """Steps after which an episode (or trial) is over at the latest."""
        steps = self.family.horizon * (self.family.episodes_per_trial if self.trial else 1)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def seeded(self) -> bool:
        """Whether there was a `seed`."""
        return self._numbering.seeded

    def seed(self, seed: int) -> None:
        """Begin the numbering of trials anew, under `seed`, for all rows."""
        self._numbering.share(seed)

    def seed_row(self, row: int, seed: int) -> None:
        """Let a row play the trials of a seed of its own from its next one on: what a stream of one row would play."""
        self._numbering.separate(row, seed)

    def set_task(self, task: Task | None, rows: Tensor | None = None) -> None:
        """Play `task` in `rows` (default: all) from their next trial on; None: draw tasks again.

        `task` has one row, which is played in all the rows, or one for each. Raises ValueError otherwise, or for a task
        that the family cannot play (`metarl.core.checks`).
        """
        rows = torch.arange(self.num_envs) if rows is None else rows
        task = None if task is None else self._spread(task, len(rows))
        self._option_task = self._option_split = None
        self._coming = True
        if task is None:
            self._is_fixed = put(self._is_fixed, rows, torch.zeros(len(rows), dtype=torch.bool))
            return
        whole = _repeated(take(task, slice(0, 1)), self.num_envs) if self._fixed is None else self._fixed
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

    def reset(self, task: Task | None = None, split: str | None = None, rows: Tensor | None = None) -> Tensor:
        """Start a trial in every row, or in some, and return the first observations of these rows ``(M, D)``.

        `task` or `split` are used in these rows instead of what was set, for all their trials until the next call.
        Raises ValueError if both are given, or if the first call is not for all rows.
        """
        if task is not None and split is not None:
            raise ValueError("Give a task or a split, not both: a task is played whatever split it came from.")
        if split is not None:
            self.family.num_tasks(split)  # raises ValueError if there is no such split
        if rows is not None and self._env is None:
            raise ValueError("The first reset must be of all rows.")
        self._option_task = None if task is None else self._spread(task, self.num_envs)
        self._option_split = split
        every = torch.ones(self.num_envs, dtype=torch.bool)
        self._has_option = every if rows is None else put(~every, rows, every[rows])
        self._coming = False
        if rows is not None:
            return self.restart(rows)
        tasks, keys = self._next(torch.arange(self.num_envs))
        self._env = make_env(self.family, tasks, keys, None if self.trial else 1)
        step = self._env.reset()
        self._returns = torch.zeros(self.num_envs, dtype=torch.float64)
        self._lengths, self._elapsed = torch.zeros(2, self.num_envs, dtype=torch.int64)
        if self.record:
            self._begin_pictures(range(self.num_envs))
        return self._view(step)

    def step(self, action: Tensor) -> Shown:
        """Act in every row. Rows whose episode (or trial) ended need `restart` before what they show means anything."""
        env = self._playing()
        episode_index = env.episode
        outcome, step = env.step(action)
        ended = ~env.alive
        if self.record:
            self._remember(step.prev_done.to(torch.bool) & ~ended)
        at_end = ended.reshape(-1, *[1] * (outcome.final_obs.ndim - 1))
        obs = self._view(step._replace(obs=torch.where(at_end, outcome.final_obs, step.obs)))
        success = self.family.success(env.task, env.final_state)
        inner = self._count(outcome) if self.trial else None
        terminated, truncated = outcome.terminated, outcome.truncated
        if self.trial or self.family.horizon == 1:
            terminated, truncated = ended, torch.zeros_like(ended)
        if self.max_steps is not None:
            self._elapsed = self._elapsed + 1
            truncated = truncated | (self._elapsed >= self.max_steps)
        return Shown(obs, outcome.reward, terminated, truncated, episode_index, success, inner)

    def restart(self, rows: Tensor) -> Tensor:
        """Start a new trial in the rows of the given indices; returns their first observations ``(M, D)``."""
        env = self._playing()
        tasks, keys = self._next(rows)
        step = env.restart(rows, tasks, key=keys)
        nothing = torch.zeros_like(rows)
        self._returns = put(self._returns, rows, nothing.to(torch.float64))
        self._lengths, self._elapsed = (put(counts, rows, nothing) for counts in (self._lengths, self._elapsed))
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

    def _count(self, outcome: Outcome) -> Inner | None:
        """Add a step to the episodes of the trials; those that ended with it, if any did, begin anew from nothing."""
        self._returns, self._lengths = self._returns + outcome.reward, self._lengths + 1
        ended = outcome.terminated | outcome.truncated
        if not bool(ended.any()):
            return None
        inner = Inner(ended, self._returns, self._lengths)
        self._returns, self._lengths = torch.where(ended, 0.0, inner.returns), torch.where(ended, 0, inner.lengths)
        return inner

    def _next(self, rows: Tensor) -> tuple[Task, Tensor]:
        """The tasks and keys of the trials that begin in the rows. A number is used up even where a task was set."""
        optional, split = self._has_option[rows], self._option_split or self.split
        if split == self.split or bool(optional.all()):
            drawn, keys = self._numbering.next(rows, split)
        else:  # row by row, which changes no number
            splits = [split if has else self.split for has in optional.tolist()]
            each = [self._numbering.next(row, split) for row, split in zip(rows.split(1), splits, strict=True)]
            drawn, keys = concatenate([task for task, _ in each]), torch.cat([key for _, key in each])
        if self._fixed is not None:
            overruled = optional & (self._option_split is not None)
            drawn = where(self._is_fixed[rows] & ~overruled, take(self._fixed, rows), drawn)
        if self._option_task is not None:
            drawn = where(optional, take(self._option_task, rows), drawn)
        return drawn, keys

    def _spread(self, task: Task, n: int) -> Task:
        """`task` as `n` rows, from one row or from as many. Raises ValueError for anything else."""
        task = checked_task(self.family, task)
        rows = num_rows(task)
        if rows not in (1, n):
            raise ValueError(f"The task must have {'one row' if n == 1 else f'one row or {n}'}, got {rows} rows.")
        return _repeated(task, n) if rows == 1 else task

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


def family_of_view(family: str | TaskFamily, options: dict[str, Any], view: str, own: Sequence[str]) -> TaskFamily:
    """The family of a view: one that exists, or that of an id with `options`; `own` are the view's own keywords.

    Raises UnknownOption for a keyword that neither takes.
    """
    if isinstance(family, str):
        try:
            return make(family, **options)
        except UnknownOption as error:
            raise unknown_option(family, error.name, (*own, *error.known), f"help({view})") from None
    if options:
        said = "the options of a family that exists go to its constructor."
        raise UnknownOption(f"{view} got an unexpected keyword argument {next(iter(options))!r}: {said}")
    return family


def joined(family: TaskFamily, tasks: Sequence[Task]) -> Task:
    """A list of tasks that a user gives as one task, row after row. Raises ValueError as `checked_task`."""
    if not len(tasks):
        raise ValueError("A list of tasks must hold at least one.")
    return concatenate([checked_task(family, task) for task in tasks])


def _repeated(task: Task, n: int) -> Task:
    """One row as `n`."""
    return take(task, torch.zeros(n, dtype=torch.int64))
