"""The only stateful environment: a batch of rows, each on its own task, for the K episodes of a trial.

Endings are three different things. `terminated`: the task's own ending. `truncated`: the horizon was reached. The end
of the trial: a row has finished its K episodes; from then on its steps are padding and `alive` is False. Between two
episodes of a trial a row starts again by itself, in the same call: the `Outcome` keeps the last observation of the
episode that ended, and the next `Step` shows the first one of the new episode, beside the reward and the ending that
led to it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl import rng
from metarl.family import AnyFamily, Key, State, Task
from metarl.tree import num_rows, put, take, where
from metarl.units import no_action


class Step(NamedTuple):
    """What an agent sees before it acts (RL²'s inputs, Duan et al. 2016)."""

    obs: Tensor  # (B, *O) float32
    prev_action: Tensor  # (B,) int64, or (B, A) float32; no action (see `no_action`) at the trial's start
    prev_reward: Tensor  # (B,) float32; 0 at the trial's start
    prev_done: Tensor  # (B,) float32; 1 right after an episode ended


class Outcome(NamedTuple):
    """What an action led to."""

    reward: Tensor  # (B,) float32
    terminated: Tensor  # (B,) bool
    truncated: Tensor  # (B,) bool
    final_obs: Tensor  # (B, *O) float32: the observation after the action, also where the episode ended with it


class BatchEnv:
    """`family` on `task` (a batch of rows) for trials of `episodes` episodes.

    `key` is a scalar; row i draws from ``fold(key, first_row + i)``, so that a shard that starts at `first_row` holds
    the same rows as the whole batch. Or `key` is ``(B,)``: each row's own. `alive` (B,) says which rows still have an
    episode to play.
    """

    def __init__(
        self, family: AnyFamily, task: Task, key: Key, episodes: int | None = None, first_row: int = 0
    ) -> None:
        self.family = family
        self.task = task
        self.num_envs = num_rows(task)
        self.episodes = family.episodes_per_trial if episodes is None else episodes
        if self.episodes < 1:
            raise ValueError(f"A trial has at least one episode, got episodes={episodes}.")
        self._key = key
        numbers = torch.arange(first_row, first_row + self.num_envs, device=key.device)
        self._keys = key if key.ndim else rng.fold(key, numbers)

    @property
    def max_steps(self) -> int:
        """Steps after which every row has finished its trial."""
        return self.episodes * self.family.horizon

    def reset(self) -> Step:
        """Start a trial in every row."""
        device = self._keys.device
        self._step = 0
        self._start: Tensor | int = 0  # the value of `_step` when a row's trial began; `restart` makes it a tensor
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64, device=device)
        self._began = self.episode  # the value of `_step` when a row's episode began
        self._reset_keys, self._step_keys = rng.fold(self._keys, 0), rng.fold(self._keys, 1)
        self.state: State = self.family.reset(self.task, self._start_keys())
        self.final_state = self.state
        self._nowhere, self._everywhere = self.episode.to(torch.bool), self.episode == 0
        self._zeros = torch.zeros(self.num_envs, device=device)
        self._lockstep = not self.family.terminates  # whether all rows' episodes end at the same steps
        # No row is truncated before this step. Elsewhere than on a CPU, to keep count is to wait for the device.
        self._due = self.family.horizon if device.type == "cpu" else 0
        return Step(self.family.observe(self.task, self.state), self._no_action(), self._zeros, self._zeros)

    def step(self, action: Tensor) -> tuple[Outcome, Step]:
        """Act in every row; rows whose episode ended start their next one."""
        family, task = self.family, self.task
        key = rng.fold(self._step_keys, self._step - self._start) if family.noisy else self._step_keys
        state, reward, terminated = family.step(task, self.state, action, key)
        self._step += 1
        truncated, done = self._endings(terminated)
        obs = final_obs = family.observe(task, state)
        self.final_state = state  # after the action, also where the episode ended with it
        state, changed = self._start_again(state, done)
        if changed:
            obs = family.observe(task, state)
            if self._due and self._step >= self._due:
                self._due = int(self._began.min()) + family.horizon
        self.state = state
        outcome = Outcome(reward, terminated, truncated, final_obs)
        return outcome, Step(obs, action, reward, done.to(torch.float32) if changed else self._zeros)

    def _endings(self, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows' episodes were truncated by this step, and which ended with it at all."""
        horizon = self.family.horizon
        if self._lockstep:  # the count of steps says when
            done = self._nowhere if self._step % horizon else self._everywhere
            return done, done
        if horizon == 1:
            return ~terminated, self._everywhere
        if self._step < self._due:
            return self._nowhere, terminated
        late = self._began <= self._step - horizon
        return late & ~terminated, late | terminated

    def _start_again(self, state: State, done: Tensor) -> tuple[State, bool]:
        """The state with the first one of a new episode where one ended, and whether it may have changed anywhere."""
        family, task = self.family, self.task
        rows = None
        if self._lockstep:
            if done is self._nowhere:
                return state, False
        elif done.device.type == "cpu":  # elsewhere, to look at `done` is to wait for the device
            rows = done.nonzero().squeeze(-1)
            if not len(rows):
                return state, False
        if rows is not None and len(rows) < 0.5 * self.num_envs:
            self.episode = self.episode.index_add(0, rows, torch.ones_like(rows))
            self._began = self._began.index_fill(0, rows, self._step)
            return put(state, rows, family.reset(take(task, rows), self._start_keys(rows))), True
        self.episode = self.episode + done
        self._began = torch.where(done, self._step, self._began)
        return where(done, family.reset(task, self._start_keys()), state), True

    def _start_keys(self, rows: Tensor | None = None) -> Key:
        """The keys with which the rows (all of them if none are given) begin their episodes."""
        keys, episode = self._reset_keys, self.episode
        if not self.family.random_start:
            return keys if rows is None else keys[: len(rows)]
        return rng.fold(keys, episode) if rows is None else rng.fold(keys[rows], episode[rows])

    def restart(self, rows: Tensor, task: Task, first_row: int = 0, key: Key | None = None) -> Step:
        """Start a new trial in some rows, for views that go on for ever; returns the first Step of these rows alone.

        `rows` (M,) are their indices and `task` has M rows; they draw as the rows `first_row`, `first_row` + 1, … of a
        batch that starts now, or from keys of their own, `key` (M,). The other rows go on as they were, and `all_done`
        no longer says anything.
        """
        if key is None:
            key = rng.fold(self._key, torch.arange(first_row, first_row + len(rows), device=rows.device))
        self._keys = put(self._keys, rows, key)
        self._lockstep = self._lockstep and len(rows) == self.num_envs and self._step % self.family.horizon == 0
        self._reset_keys, self._step_keys = rng.fold(self._keys, 0), rng.fold(self._keys, 1)
        zeros = torch.zeros_like(rows)
        self._began, self.episode = put(self._began, rows, zeros + self._step), put(self.episode, rows, zeros)
        self._start = put(torch.zeros_like(self.episode) + self._start, rows, zeros + self._step)
        state = self.family.reset(task, rng.fold(self._reset_keys[rows], zeros))
        self.task, self.state = put(self.task, rows, task), put(self.state, rows, state)
        nothing = zeros.to(torch.float32)
        return Step(self.family.observe(task, state), self._no_action()[rows], nothing, nothing)

    @property
    def alive(self) -> Tensor:
        """Rows whose trial is not over: bool (B,)."""
        return self.episode < self.episodes

    def all_done(self) -> bool:
        """Whether every row has finished its trial. Where no episode ends early this needs no look at the device."""
        if self._step >= self.max_steps:
            return True
        if not self._zeros.is_cpu and torch.cuda.is_current_stream_capturing():
            return False  # a recording cannot look; what it plays beyond the last end is padding
        return self.family.terminates and not bool(self.alive.any())

    def _no_action(self) -> Tensor:
        return no_action(self.family.action_space, self.num_envs, self._keys.device)
