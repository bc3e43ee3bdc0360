"""Successive trials in a batch of rows: the base of the interfaces for Gymnasium and stable-baselines3."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import metarl.fast  # noqa: F401  (registers the fast twins)
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Outcome, Step, make_env
from metarl.core.checks import checked_task
from metarl.core.errors import NotReset, UnknownOption, WrongResult, short, truth, unknown_option
from metarl.core.family import Task, TaskFamily
from metarl.core.faults.diagnosis import describe_row, raise_explained
from metarl.core.faults.given import check_is_family
from metarl.core.faults.memory import check_memory, row_numbers, task_numbers
from metarl.core.faults.results import shown_task, wrong_observation
from metarl.core.registry import make
from metarl.core.tree import concatenate, num_rows, put, take, where
from metarl.fast.rows.program import as_row
from metarl.interop.flat import flat_space, flatten
from metarl.interop.numbering import Numbering
from metarl.interop.recorder import Recorder
from metarl.interop.shown import Counts, Shown, shown_alone
from metarl.interop.single import Single, SingleStep

TASK_NUMBERS = 150
"""Memory overhead of a separate tensor, in numbers, for the size of a list of tasks."""

CHECKED_STEPS = 32
"""Number of steps after a reset that are all checked for shapes and types; later, every 32nd step is."""


class TrialStream:
    """A stream of trials in `num_envs` rows, for interfaces that have no trials.

    With ``trial=False`` an episode of the interface is one of the family (a trial of one episode), and the observation
    is the family's own. With ``trial=True`` it is a whole trial, and the observation is that of `flatten`: between two
    episodes of the trial it holds the first observation of the next episode, done = 1 and the last reward. The end of a
    trial counts as terminated; so does the end of an episode of one step, after which there is no value to
    estimate. `max_steps` truncates longer episodes or trials.

    Trials are numbered in the order in which they begin. Trial n of a seed is row n of
    ``BatchEnv(family, family.sample_tasks(fold(key(seed), 0), …, split), fold(key(seed), 1))``. So the trials of a seed
    do not depend on the number of rows. Rows may have seeds of their own (`seed_row`), each with its own numbering.
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
                raise ValueError(f"{name} must be a whole number of at least one, got {name}={short(count)}.")
        check_memory(f"A batch of {num_envs} rows", float(num_envs) * 2 * row_numbers(family), "num_envs")
        self.family = family.drawable() if record else family
        self.num_envs, self.split, self.trial, self.record = int(num_envs), split, truth("trial", trial), record
        self.observation_space = flat_space(family) if trial else family.observation_space
        self.max_steps = None if max_steps is None else int(max_steps)
        self._fixed: Task | None = None  # tasks of `set_task`, and the rows that use them
        self._is_fixed = torch.zeros(self.num_envs, dtype=torch.bool)
        self._option_task: Task | None = None  # these three hold until the next `reset`
        self._option_split: str | None = None
        self._has_option = torch.zeros(self.num_envs, dtype=torch.bool)
        self._shape = (self.num_envs, *family.observation_space.shape)
        self._steps = 0  # since the last `reset` of all rows
        self._coming = False  # whether tasks were set since the last `reset`
        self._env: BatchEnv | None = None
        self._counts = Counts(self.num_envs)
        self._numbering = Numbering(family)
        alone = self.num_envs == 1 and not record and max_steps is None and not family.opaque
        self._single = Single(family, trial) if alone else None
        self.recorder = Recorder(family, self.num_envs, family.episodes_per_trial if trial else 1)

    @property
    def longest(self) -> int:
        """The largest number of steps of an episode (or trial)."""
        steps = self.family.horizon * (self.family.episodes_per_trial if self.trial else 1)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def seeded(self) -> bool:
        """True after a `seed`."""
        return self._numbering.seeded

    def seed(self, seed: int) -> None:
        """Restart the numbering of trials under `seed`, for all rows."""
        self._numbering.share(seed)

    def seed_row(self, row: int, seed: int) -> None:
        """From its next trial on, let a row play the trials of its own `seed`, like a stream of one row."""
        self._numbering.separate(row, seed)

    def set_task(self, task: Task | None, rows: Tensor | None = None) -> None:
        """Play `task` in `rows` (default: all) from their next trial on; None: draw tasks again.

        `task` has one row for all rows, or one for each. Raises ValueError otherwise, or for a task that the family
        cannot play (`metarl.core.checks`).
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
        """Return the current tasks; between `set_task` for all rows and the next `reset`, the tasks that were set.

        Raises NotReset if there are none yet.
        """
        if self._coming and bool(self._is_fixed.all()):
            return self._fixed
        return self._playing().task

    def playing(self) -> Task:
        """Return the tasks being played now. Raises NotReset before the first `reset`."""
        return self._playing().task

    def sample_tasks(
        self, generator: np.random.Generator, n: int, split: str | None = None, seed: int | None = None
    ) -> list[Task]:
        """Draw `n` tasks of one row each from a split (None: the stream's); without a seed, `generator` draws one.

        Raises ValueError if `n` or the seed is not an integer, or the tasks do not fit in memory.
        """
        n, seed = whole("n", n) or 0, whole("seed", seed)
        check_memory(f"A list of {n} tasks", float(n) * (task_numbers(self.family) + TASK_NUMBERS), "n")
        seed = int(generator.integers(2**63 - 1)) if seed is None else seed
        tasks = self.family.sample_tasks(rng.key(seed), n, self.split if split is None else split)
        return [take(tasks, slice(i, i + 1)) for i in range(n)]

    def reset(self, task: Task | None = None, split: str | None = None, rows: Tensor | None = None) -> Tensor:
        """Start a trial in every row, or in some, and return the first observations of these rows ``(M, D)``.

        `task` or `split` replaces that of these rows for all their trials until the next call. Raises ValueError if
        both are given, or if the first call is not for all rows.
        """
        if task is not None and split is not None:
            raise ValueError("Give a task or a split, not both: a task is played whatever split it came from.")
        if split is not None:
            self.family.num_tasks(split)  # raises ValueError if there is no such split
        if rows is not None and self._env is None:
            raise ValueError("The first reset must reset all rows.")
        self._option_task = None if task is None else self._spread(task, self.num_envs)
        self._option_split = split
        every = torch.ones(self.num_envs, dtype=torch.bool)
        self._has_option = every if rows is None else put(~every, rows, every[rows])
        self._coming = False
        if rows is not None:
            return self.restart(rows)
        if (first := self._begin_single()) is not None:
            self._steps = 0
            return first
        tasks, keys = self._next(torch.arange(self.num_envs))
        self._env, self._steps = make_env(self.family, tasks, keys, None if self.trial else 1), 0
        step = self._first(self._env.reset, self.num_envs)
        self._counts = Counts(self.num_envs)
        if self.record:
            self.recorder.begin(range(self.num_envs), self._env.state)
        return self._view(step)

    def _begin_single(self) -> Tensor | None:
        """Start a trial in the only row without a `BatchEnv`. Returns None, without side effects, if impossible."""
        if self._single is None or not self._single.ready(self._env):
            return None
        drawn = None
        if self._fixed is None and self._option_task is None and self._option_split is None:
            drawn = self._single.drawn(self._numbering, self.split)
        if drawn is None:
            task, keys = self._next(torch.arange(1))
            drawn = as_row(task), as_row(keys)[0]
        self._counts = Counts(1)
        return torch.from_numpy(self._single.begin(self._env, *drawn).copy())

    def play(self, action: Any) -> SingleStep | None:
        """Take a step in the only row without tensors (`Single`). Returns None, without side effects, if impossible."""
        found = None if self._single is None else self._single.play(self._env, self._counts, action)
        self._steps += found is not None
        return found

    def step(self, action: Tensor) -> Shown:
        """Take a step in every row. Rows whose episode (or trial) ended are undefined until `restart`."""
        if self._single is not None and (found := self.play(as_row(action)[0])) is not None:
            return shown_alone(*found)
        env = self._playing()
        episode_index = env.episode
        self._steps += 1
        outcomes: list[Outcome] = []
        try:
            outcome, step = env.step(action)
            outcomes.append(outcome)
            right = not self._checking or self._right(outcome, step)
        except Exception as error:  # a family's code may raise any exception
            raise_explained(error, env, [], outcomes, action, self._steps)
        if not right:
            raise_explained(None, env, [], outcomes, action, self._steps)
        ended = ~env.alive
        if self.record:
            self.recorder.add(env, border=step.prev_done.to(torch.bool) & ~ended)
        at_end = ended.reshape(-1, *[1] * (outcome.final_obs.ndim - 1))
        obs = self._view(step._replace(obs=torch.where(at_end, outcome.final_obs, step.obs)))
        success = self.family.success(env.task, env.final_state)
        inner = self._counts.add(outcome) if self.trial else None
        terminated, truncated = outcome.terminated, outcome.truncated
        if self.trial or self.family.horizon == 1:
            terminated, truncated = ended, torch.zeros_like(ended)
        if self.max_steps is not None:
            truncated = truncated | (self._counts.elapse() >= self.max_steps)
        return Shown(obs, outcome.reward, terminated, truncated, episode_index, success, inner)

    def restart(self, rows: Tensor) -> Tensor:
        """Start a new trial in the rows of these indices; return their first observations ``(M, D)``."""
        env = self._playing()
        if (first := self._begin_single()) is not None:
            return first
        tasks, keys = self._next(rows)
        step = self._first(lambda: env.restart(rows, tasks, key=keys), len(rows))
        self._counts.forget(rows)
        if self.record:
            self.recorder.begin(rows.tolist(), env.state)
        return self._view(step)

    def _first(self, start: Callable[[], Step], rows: int) -> Step:
        """Start trials. Raises WrongResult for a wrong first observation or state."""
        step = None
        try:
            step = start()
        except Exception as error:  # a family's code may raise any exception
            raise_explained(error, self._playing(), [], [], None, self._steps)
        if not self._checking:
            return step
        cpu = torch.device("cpu")
        sentence = wrong_observation(self.family, step.obs, rows, cpu, ".observe after reset")
        if sentence is not None:
            wrong = WrongResult(sentence)
            wrong.places.append(f"step {self._steps}, where a trial begins: {shown_task(self._playing().task, 0)}")
            raise wrong
        return step

    @property
    def _checking(self) -> bool:
        """True in steps whose results are checked."""
        return self._steps <= CHECKED_STEPS or not self._steps % CHECKED_STEPS

    def place(self, row: int) -> str:
        """Describe the current step, a row and its task, for an error message."""
        return f"step {self._steps}, {describe_row(self._playing(), row)}"

    def _right(self, outcome: Outcome, step: Step) -> bool:
        """Return whether a step's results have the right shapes and types; values are not checked."""
        reward, terminated, final_obs, obs = outcome.reward, outcome.terminated, outcome.final_obs, step.obs
        return (
            reward.dtype is final_obs.dtype is obs.dtype is torch.float32
            and reward.is_cpu
            and terminated.is_cpu
            and obs.is_cpu
            and terminated.dtype is torch.bool
            and reward.shape == terminated.shape == (self.num_envs,)
            and final_obs.shape == obs.shape == self._shape
        )

    def picture(self, row: int) -> np.ndarray:
        """Draw the current trial of a row so far: uint8 ``(height, width, 3)``. Needs ``record=True``."""
        return self.recorder.picture(row, take(self._playing().task, slice(row, row + 1)))

    def _playing(self) -> BatchEnv:
        if self._env is None:
            raise NotReset
        return self._env

    def _next(self, rows: Tensor) -> tuple[Task, Tensor]:
        """Return tasks and keys of the trials that begin in the rows. A set task also consumes a trial number."""
        optional, split = self._has_option[rows], self._option_split or self.split
        if split == self.split or bool(optional.all()):
            drawn, keys = self._numbering.next(rows, split)
        else:  # row by row, with the same numbers
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
        """Return `task` with `n` rows, from one row or from `n`. Raises ValueError for any other number."""
        task = checked_task(self.family, task)
        rows = num_rows(task)
        if rows not in (1, n):
            raise ValueError(f"The task must have {'one row' if n == 1 else f'one row or {n}'}, got {rows} rows.")
        return _repeated(task, n) if rows == 1 else task

    def _view(self, step: Step) -> Tensor:
        return flatten(step, self.family.action_space) if self.trial else step.obs


def family_of_view(family: str | TaskFamily, options: dict[str, Any], view: str, own: Sequence[str]) -> TaskFamily:
    """Return the family of an interface: `family`, or that of an id with `options`; `own` are the interface's keywords.

    Raises UnknownOption for a keyword that neither accepts, and ValueError if there is no such family.
    """
    if isinstance(family, str):
        try:
            return make(family, **options)
        except UnknownOption as error:
            raise unknown_option(family, error.name, (*own, *error.known), f"help({view})") from None
    check_is_family(family)
    if options:
        said = "give a family's options to its constructor."
        raise UnknownOption(f"{view} got an unexpected keyword argument {next(iter(options))!r}: {said}")
    return family


def whole(name: str, number: Any) -> int | None:
    """Convert an integer of any library to int; None stays. Raises ValueError for anything else, or if negative."""
    if number is None:
        return None
    try:
        whole = operator.index(number)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {short(number)}.")
    if whole >= 2**63:
        raise ValueError(f"{name} must be at most 2^63 - 1, got {short(whole)}.")
    return whole


def joined(family: TaskFamily, tasks: Sequence[Task]) -> Task:
    """Concatenate a user's list of tasks to one batch. Raises ValueError as `checked_task` does."""
    if not len(tasks):
        raise ValueError("A list of tasks must hold at least one.")
    return concatenate([checked_task(family, task) for task in tasks])


def _repeated(task: Task, n: int) -> Task:
    """Repeat a task of one row `n` times."""
    return take(task, torch.zeros(n, dtype=torch.int64))
