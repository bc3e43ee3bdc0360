"""The batch environment of one row, which plays NumPy programs: the same trials bit for bit.

torch takes about a microsecond for an operation on one number, and a step is dozens of them. After some steps the
family's step and reset are recorded once (`metarl.fast.rows.tape`) and written as NumPy programs. A family that cannot
be recorded, since it looks at a value or draws from a generator of its own, is played as before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.core.batch_env import Outcome, Step, not_there
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.faults.given import check_actions
from metarl.core.tree import leaves, num_rows
from metarl.fast.rows.program import Program, Row, as_row, as_tensors
from metarl.fast.rows.skill import skill
from metarl.fast.stepping import FastEnv


class Played(NamedTuple):
    """The result of an action in a row, as `Outcome` and `Step` have it, in NumPy's values."""

    obs: np.ndarray
    """The first observation of the next episode where one ended; in a trial that is over the last one again."""
    final_obs: np.ndarray
    reward: np.float32
    terminated: bool
    truncated: bool
    success: bool | None  # None if the family has none
    episode: int  # the number of the action's episode in its trial
    over: bool  # whether the trial is over


class _Now:
    """Where a trial is, as rows; `seen` are the tensors that somebody has asked for."""

    __slots__ = (
        "began", "episode", "final", "first", "key", "obs", "opened", "reset_key", "seen", "start", "state", "step_key",
        "task",
    )  # fmt: skip

    def __init__(self, task: Row, key: Any, reset_key: Any, step_key: Any, state: Row, obs: Any) -> None:
        self.task, self.key, self.reset_key, self.step_key = task, key, reset_key, step_key
        self.obs = obs  # in `state`
        self.opened = False  # by `begin`, with a key of its own
        self.state: Row | None = state  # None after the end of a trial, while nobody asks for its next episode
        self.final = self.first = state
        self.episode = self.began = self.start = 0
        self.seen: dict[str, Any] = {}


STATES = {"state": "state", "final_state": "final", "first_state": "first"}
NUMBERS = {
    "episode": "episode", "_began": "began", "_keys": "key", "_reset_keys": "reset_key", "_step_keys": "step_key"
}  # fmt: skip
TENSORS = frozenset((*STATES, *NUMBERS, "task", "_start"))
"""Attributes that `RowEnv` has as tensors only when somebody asks for them."""
MOVING = ("state", "final_state", "episode", "_began")


class RowEnv(FastEnv):
    """The `FastEnv` of one row on the CPU that plays the family's programs once there are any.

    While it does, its tensors are made when they are asked for. A state, task or episode that is set counts, and so
    does what `FastEnv` does to them. `play` and `begin` are `step` and `reset` without tensors, for views of a single
    environment; they may be called while `playable` is true.
    """

    def __init__(
        self, family: AnyFamily, task: Task, key: Key, episodes: int | None = None, first_row: int = 0
    ) -> None:
        super().__init__(family, task, key, episodes, first_row)
        self._skill, self._kind = skill(family), task
        self._now: _Now | None = None
        self._copied: Program | None = None
        self._skill.fresh()

    @property
    def playable(self) -> bool:
        """True when the family has programs."""
        return self._skill.step is not None

    @property
    def current(self) -> bool:
        """True when the family has programs that are of its attributes as they are now: to be asked before `begin`."""
        self._skill.fresh()
        return self.playable

    @property
    def why_not(self) -> str | None:
        """The reason why steps are not played by programs; None if they are or will be."""
        return self._skill.why_not

    def step(self, action: Tensor) -> tuple[Outcome, Step]:
        """Act in the row; if its episode ended, the next one starts."""
        check_actions(self.family.action_space, action, self.num_envs)
        if action.requires_grad or not self._skill.ready(self, action):
            return super().step(action)
        try:
            played = self.play(*as_row(action))
        except Exception:  # a family's code may raise anything: plain steps say it in its own words
            return super().step(action)
        done = played.terminated or played.truncated
        reward, terminated, truncated = (
            torch.from_numpy(np.array([value])) for value in (played.reward, played.terminated, played.truncated)
        )
        final_obs = torch.from_numpy(played.final_obs.copy())  # it may be a constant of the program
        obs = torch.from_numpy(self._next_obs().copy()) if done else final_obs
        outcome = Outcome(reward, terminated, truncated, final_obs)
        return outcome, Step(obs, action, reward, torch.full((1,), float(done)))

    def play(self, action: Any) -> Played:
        """Act; `action` is its only value, NumPy's scalar or an array ``(1, …)``."""
        now, own = self._now, self.__dict__
        if now is None or "state" in own or "task" in own or "episode" in own:
            now = self._enter()
        if now.state is None:
            self._begin_episode(now)
        assert now.state is not None
        if now.seen:
            for name in MOVING:
                now.seen.pop(name, None)
        age, size, episode = np.int64(self._step - now.start), self._size, now.episode
        result = self._step_copy(*now.task, *now.state, action, now.step_key, age)
        reward, terminated, obs, *success = result[size:]
        self._step += 1
        now.state = now.final = result[:size]
        now.obs = final_obs = self._shown(obs)
        late, over = self._step - now.began >= self.family.horizon, False
        if late or terminated:
            now.episode, now.began = episode + 1, self._step
            over = now.episode >= self.episodes
            if over:
                now.state = None
            else:
                self._begin_episode(now)
        succeeded = bool(success[0]) if success else None
        truncated = late and not terminated
        return Played(now.obs, final_obs, reward, bool(terminated), truncated, succeeded, episode, over)

    def begin(self, task: Row, key: Any) -> np.ndarray:
        """Begin a trial on the task of a row, with its key; return the first observation ``(1, …)``."""
        self._copy_programs()
        reset_key, step_key, *state, obs = self._open_copy(*task, key)
        self._drop_tensors()
        self._step, self._lockstep, self._due = 0, not self.family.terminates, self.family.horizon
        self._now = _Now(task, key, reset_key, step_key, tuple(state), self._shown(obs))
        self._now.opened = True
        return self._next_obs()

    def _begin_episode(self, now: _Now) -> None:
        """Start the next episode of the trial, or of the padding after it."""
        *state, obs = self._begin_copy(*now.task, now.reset_key, np.int64(now.episode))
        now.state, now.obs = tuple(state), self._shown(obs)

    def _shown(self, obs: Any) -> np.ndarray:
        """Return an observation ``(1, …)``, which may be a scalar before."""
        return obs if isinstance(obs, np.ndarray) else np.array(obs).reshape(self._obs_shape)

    def _next_obs(self) -> np.ndarray:
        """Return the first observation of the episode that has just begun."""
        now = self._now
        assert now is not None
        if now.state is None:
            self._begin_episode(now)
        obs: np.ndarray = now.obs
        return obs

    def _enter(self) -> _Now:
        """Read the tensors into rows."""
        self._copy_programs()
        (key,), (reset_key,), (step_key,) = map(as_row, (self._keys, self._reset_keys, self._step_keys))
        now = _Now(as_row(self.task), key, reset_key, step_key, as_row(self.state), None)
        now.final, now.first = as_row(self.final_state), as_row(self.first_state)
        now.episode, now.began, now.start = int(self.episode), int(self._began), int(self._start)
        now.seen["task"] = self._kind = self.task
        self._drop_tensors()
        self._now = now
        return now

    def _copy_programs(self) -> None:
        """Have programs of its own, with their memory."""
        step, begin, start = self._skill.step, self._skill.begin, self._skill.open
        assert step is not None and begin is not None and start is not None
        if self._copied is not step:
            self._copied, self._step_copy = step, step.copy()
            self._begin_copy, self._open_copy = begin.copy(), start.copy()
            self._size, self._obs_shape = len(leaves(step.result[0])), step.result[3].shape

    def _drop_tensors(self) -> None:
        for name in TENSORS:
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        """Make a tensor from its row."""
        now = self.__dict__.get("_now")
        if name not in TENSORS or now is None:
            raise not_there(self, name)
        if name not in now.seen:
            now.seen[name] = self._made(name, now)
        return now.seen[name]

    def _made(self, name: str, now: _Now) -> Any:
        if name == "_start":
            return now.start
        if name == "task":
            self._kind = as_tensors(now.task, self._kind)
            return self._kind
        if name in NUMBERS:
            return torch.from_numpy(np.array([getattr(now, NUMBERS[name])], np.int64))
        if now.state is None:
            self._begin_episode(now)
        assert self._copied is not None
        return as_tensors(getattr(now, STATES[name]), self._copied.result[0])

    def restart(self, rows: Tensor, task: Task, first_row: int = 0, key: Key | None = None) -> Step:
        """Start a new trial in the row, as `BatchEnv.restart` does."""
        if self._now is not None and self._now.opened:
            self._key = self._keys
        return super().restart(rows, task, first_row, key)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: tensors, and no programs."""
        own = {name: value for name, value in self.__dict__.items() if name not in COPIES}
        return (
            own
            | {name: getattr(self, name) for name in TENSORS if hasattr(self, name)}
            | {"_copied": None, "_now": None}
        )

    def all_done(self) -> bool:
        """Tell whether the row has finished its trial."""
        if self._now is None or "episode" in self.__dict__:
            return super().all_done()
        return self._now.episode >= self.episodes


COPIES = ("_step_copy", "_begin_copy", "_open_copy", "_copied")


def fastest(family: AnyFamily, task: Task, key: Key, episodes: int | None = None, first_row: int = 0) -> FastEnv:
    """Make a `RowEnv` for one row on the CPU, and a `FastEnv` for others."""
    kind = RowEnv if key.is_cpu and num_rows(task) == 1 else FastEnv
    return kind(family, task, key, episodes, first_row)
