"""The only stateful environment: a batch of rows, each on its own task, for the K episodes of a trial.

There are three kinds of endings. `terminated`: the episode ended by the task's own rules. `truncated`: the horizon was
reached. End of the trial: a row has finished its K episodes; from then on its steps are padding and `alive` is False.
Between two episodes of a trial, `step` resets a row in the same call: the `Outcome` holds the last observation of the
episode that ended, and the next `Step` holds the first observation of the new episode, with the reward and the done of
the last step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.step import Step as Step
from metarl.core.checks import check_kind
from metarl.core.errors import NotReset, short
from metarl.core.family import AnyFamily, Key, State, Task
from metarl.core.faults.given import check_actions, check_is_family
from metarl.core.tree import num_rows, put, take, where
from metarl.core.units import no_action


class Outcome(NamedTuple):
    """The result of an action."""

    reward: Tensor  # (B,) float32
    terminated: Tensor  # (B,) bool
    truncated: Tensor  # (B,) bool
    final_obs: Tensor  # (B, *O) float32: the observation after the action, even if the episode ended with it


OF_A_TRIAL = frozenset((
    "alive", "episode", "state", "first_state", "final_state", "_step", "_start", "_began", "_reset_keys", "_step_keys",
    "_zeros", "_lockstep", "_due",
))  # fmt: skip
"""Attributes that an environment, including its fast twin, has only after its first `reset`."""


class BatchEnv:
    """An environment that plays `family` on `task` (a batch of rows), in trials of `episodes` episodes.

    `key` is a scalar, and row i draws from ``fold(key, first_row + i)``: a shard that starts at `first_row` has the
    same rows as the whole batch. Alternatively `key` is ``(B,)``, one key per row. Raises ValueError for `episodes`
    below 1 and for an invalid family or key. Before the first `reset`, everything else raises
    `gymnasium.error.ResetNeeded`.

    This class defines the semantics of a step. `make_env` makes an equivalent, faster environment.
    """

    def __init__(
        self, family: AnyFamily, task: Task, key: Key, episodes: int | None = None, first_row: int = 0
    ) -> None:
        check_is_family(family)
        check_kind(family, task)
        rng.check_is_key(key)
        self.family = family
        self.task = task
        self.num_envs = num_rows(task)
        self.episodes = family.episodes_per_trial if episodes is None else episodes
        if not hasattr(self.episodes, "__index__") or self.episodes < 1:
            raise ValueError(f"episodes must be a whole number of at least 1, got {short(episodes)}.")
        if key.ndim and key.shape != (self.num_envs,):
            raise ValueError(
                f"The key must be a scalar, or one for each of {self.num_envs} rows, got {tuple(key.shape)}."
            )
        self._key = key
        numbers = torch.arange(first_row, first_row + self.num_envs, device=key.device)
        self._keys = key if key.ndim else rng.fold(key, numbers)

    @property
    def max_steps(self) -> int:
        """Number of steps after which every row has finished its trial."""
        return self.episodes * self.family.horizon

    def reset(self) -> Step:
        """Start a trial in every row."""
        self._step = 0
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64, device=self._keys.device)
        # The values of `_step` when a row's trial began, and its episode.
        self._start: Tensor | int = self.episode
        self._began = self.episode
        self._reset_keys, self._step_keys = rng.fold(self._keys, 0), rng.fold(self._keys, 1)
        self.state: State = self.family.reset(self.task, rng.fold(self._reset_keys, self.episode))
        self.final_state = self.first_state = self.state
        nothing = self.episode.to(torch.float32)
        return Step(self.family.observe(self.task, self.state), self._no_action(), nothing, nothing)

    def step(self, action: Tensor) -> tuple[Outcome, Step]:
        """Act in every row; rows whose episode ended start their next one.

        `action` is ``(B, *A)``, int64 or, for a Box, float32; anything else raises ValueError. That its values are of
        the family's space is not checked here, but in the views (`gymnasium.make`, `gymnasium.make_vec`).
        """
        family, task = self.family, self.task
        check_actions(family.action_space, action, self.num_envs)
        key = rng.fold(self._step_keys, self._step - self._start)
        self.final_state, reward, terminated = family.step(task, self.state, action, key)
        self._step += 1
        late = self._step - self._began >= family.horizon
        done = terminated | late
        outcome = Outcome(reward, terminated, late & ~terminated, family.observe(task, self.final_state))
        self.episode, self._began = self.episode + done, torch.where(done, self._step, self._began)
        started = family.reset(task, rng.fold(self._reset_keys, self.episode))
        self.state = where(done, started, self.final_state)
        return outcome, Step(family.observe(task, self.state), action, reward, done.to(torch.float32))

    if not TYPE_CHECKING:  # to a type checker, a class with `__getattr__` has every attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Raise NotReset for attributes that the first `reset` sets, and AttributeError for any other."""
            raise not_there(self, name)

    def restart(self, rows: Tensor, task: Task, first_row: int = 0, key: Key | None = None) -> Step:
        """Start a new trial in some rows, for views that never end; return the first Step of only these rows.

        `rows` (M,) are their indices, and `task` has M rows. They draw like the rows `first_row`, `first_row` + 1, … of
        a batch that starts now, or from their own keys `key` (M,). The other rows continue. Afterwards `all_done` is no
        longer meaningful.
        """
        if key is None:
            key = rng.fold(self._key, torch.arange(first_row, first_row + len(rows), device=rows.device))
        self._keys = put(self._keys, rows, key)
        self._reset_keys, self._step_keys = rng.fold(self._keys, 0), rng.fold(self._keys, 1)
        zeros = torch.zeros_like(rows)
        self._began, self.episode = put(self._began, rows, zeros + self._step), put(self.episode, rows, zeros)
        self._start = put(torch.zeros_like(self.episode) + self._start, rows, zeros + self._step)
        state = self._begin(rows, task)
        self.task, self.state = put(self.task, rows, task), put(self.state, rows, state)
        nothing = zeros.to(torch.float32)
        return Step(self.family.observe(task, state), self._no_action()[rows], nothing, nothing)

    def _begin(self, rows: Tensor, task: Task) -> State:
        """Return the first states of new trials in `rows`; `task` has one row for each of them."""
        return self.family.reset(task, rng.fold(self._reset_keys[rows], torch.zeros_like(rows)))

    @property
    def alive(self) -> Tensor:
        """The rows whose trial is not over, bool (B,)."""
        return self.episode < self.episodes

    def all_done(self) -> bool:
        """Return True if every row has finished its trial."""
        return not bool(self.alive.any())

    def _no_action(self) -> Tensor:
        return no_action(self.family.action_space, self.num_envs, self._keys.device)


def not_there(env: BatchEnv, name: str) -> AttributeError:
    """Return the error for an attribute that an environment does not have, or does not have yet."""
    if name in OF_A_TRIAL:
        return NotReset()
    return AttributeError(f"{type(env).__name__!r} object has no attribute {name!r}")


class OpaqueEnv(BatchEnv):
    """A `BatchEnv` for families with opaque states.

    It steps rows only while their trial lasts, and resets only rows whose episode ended. Padding has reward 0 and
    repeats the last observation.
    """

    def step(self, action: Tensor) -> tuple[Outcome, Step]:
        """Act in every row whose trial is not over; rows whose episode ended start their next one."""
        check_actions(self.family.action_space, action, self.num_envs)
        family, rows = self.family, self.alive.nonzero().squeeze(-1)
        key = rng.fold(self._step_keys, self._step - self._start)[rows]
        played = family.step(take(self.task, rows), take(self.state, rows), action[rows], key)
        self.final_state = put(self.state, rows, played[0])
        reward = torch.zeros(self.num_envs, device=self._keys.device).index_copy(0, rows, played[1])
        terminated = torch.zeros_like(self.alive).index_copy(0, rows, played[2])
        self._step += 1
        late = self.alive & (self._step - self._began >= family.horizon)
        done = terminated | late
        final_obs = family.observe(self.task, self.final_state)
        self.episode, self._began = self.episode + done, torch.where(done, self._step, self._began)
        self.state = self._next_episodes((done & self.alive).nonzero().squeeze(-1))
        outcome = Outcome(reward, terminated, late & ~terminated, final_obs)
        return outcome, Step(family.observe(self.task, self.state), action, reward, done.to(torch.float32))

    def _next_episodes(self, rows: Tensor) -> State:
        """Return the state after a step, with the next episode begun in `rows`."""
        if not len(rows):
            return self.final_state
        keys = rng.fold(self._reset_keys[rows], self.episode[rows])
        started = self.family.restart(take(self.task, rows), take(self.final_state, rows), keys)
        return put(self.final_state, rows, started)

    def _begin(self, rows: Tensor, task: Task) -> State:
        keys = rng.fold(self._reset_keys[rows], torch.zeros_like(rows))
        return self.family.restart(task, take(self.state, rows), keys)


_kind: Callable[..., BatchEnv] = BatchEnv


def make_env(family: AnyFamily, task: Task, key: Key, episodes: int | None = None, first_row: int = 0) -> BatchEnv:
    """Make a `BatchEnv`, an equivalent environment of a faster class (see `step_by`), or an `OpaqueEnv`."""
    return (OpaqueEnv if family.opaque else _kind)(family, task, key, episodes, first_row)


def step_by(kind: Callable[..., BatchEnv]) -> Callable[..., BatchEnv]:
    """Set the class or function with which `make_env` makes environments; return the previous one."""
    global _kind
    before, _kind = _kind, kind
    return before
