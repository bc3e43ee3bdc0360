"""Faster steps with the same trials as `metarl.core.batch_env.BatchEnv`.

If no episode can end early, all rows end together, and the count of steps tells when. If few rows begin a new episode,
only these are reset; if no row does, none is. A family that draws nothing gets keys that need no computation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Outcome, Step
from metarl.core.family import Key, State, Task
from metarl.core.faults.given import check_actions
from metarl.core.tree import put, take, where


class FastEnv(BatchEnv):
    """The fast twin of `BatchEnv`."""

    def reset(self) -> Step:
        """Start a trial in every row."""
        device = self._keys.device
        self._step = 0
        self._start = 0  # a number, until `restart` makes it a tensor
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64, device=device)
        self._began = self.episode
        self._reset_keys, self._step_keys = rng.fold(self._keys, 0), rng.fold(self._keys, 1)
        self.state = self.family.reset(self.task, self._start_keys())
        self.final_state = self.first_state = self.state
        self._nowhere, self._everywhere = self.episode.to(torch.bool), self.episode == 0
        self._zeros = torch.zeros(self.num_envs, device=device)
        self._lockstep = not self.family.terminates  # whether all rows' episodes end at the same steps
        # No row is truncated before this step. On a GPU, updating this count would synchronise.
        self._due = self.family.horizon if device.type == "cpu" else 0
        return Step(self.family.observe(self.task, self.state), self._no_action(), self._zeros, self._zeros)

    def step(self, action: Tensor) -> tuple[Outcome, Step]:
        """Act in every row; rows whose episode ended start their next one."""
        family, task = self.family, self.task
        check_actions(family.action_space, action, self.num_envs)
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
        """Find the rows whose episode was truncated by this step, and those whose episode ended in any way."""
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
        """Replace the state of rows whose episode ended by a first state; return it, and False if no row changed."""
        family, task = self.family, self.task
        rows = None
        if self._lockstep:
            if done is self._nowhere:
                return state, False
        elif done.device.type == "cpu":  # on a GPU, reading `done` synchronises
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
        """Return the keys with which the rows (default: all) begin their episodes."""
        keys, episode = self._reset_keys, self.episode
        if not self.family.random_start:
            return keys if rows is None else keys[: len(rows)]
        return rng.fold(keys, episode) if rows is None else rng.fold(keys[rows], episode[rows])

    def restart(self, rows: Tensor, task: Task, first_row: int = 0, key: Key | None = None) -> Step:
        """Start a new trial in some rows, as `BatchEnv.restart` does."""
        self._lockstep = self._lockstep and len(rows) == self.num_envs and self._step % self.family.horizon == 0
        return super().restart(rows, task, first_row, key)

    def all_done(self) -> bool:
        """Tell whether every row has finished its trial; where no episode ends early, by the count of steps."""
        if self._step >= self.max_steps:
            return True
        if not self._zeros.is_cpu and torch.cuda.is_current_stream_capturing():
            return False  # a recording cannot read `alive`; steps beyond the last end are padding
        return self.family.terminates and not bool(self.alive.any())
