"""A task family under stress: a wrapper with noise, delayed rewards, repeated actions, or a task switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import AnyFamily, Key, TaskFamily
from metarl.core.registry import make
from metarl.core.tree import num_rows, take, to_device, tree_map, where

SAME = (
    "observation_space", "action_space", "observation_parts", "episodes_per_trial", "splits", "terminates",
    "counts_success", "shows_task", "max_rows", "valid_apart",
)  # fmt: skip
"""Attributes that are taken from the wrapped family."""
INNER, OBSERVATION, REWARD = 0, 1, 2
"""RNG addresses within a step: of the wrapped family, and of the noise."""


class StressedTask(NamedTuple):
    """A task, and its replacement at the switch (the same task without a switch)."""

    first: Any
    second: Any


class StressedState(NamedTuple):
    """The state of the wrapped family, and that of the stress."""

    inner: Any
    episode: Tensor  # (B,) int64: finished episodes of the trial
    since: Tensor  # (B,) int64: steps of this episode
    noise: Tensor  # (B, N) float32: noise of this observation; N = 0 without
    owed: Tensor  # (B, D) float32: delayed rewards, the next one first


class Stressed(TaskFamily[StressedTask, StressedState]):
    """A family under stress. With the default options it equals the wrapped family bit for bit.

    The agent does not observe the stress: spaces and splits are unchanged. Episodes and trials keep their length,
    except with `action_repeat`.
    """

    noisy: ClassVar[bool] = True
    random_start: ClassVar[bool] = True
    opaque: ClassVar[bool] = True  # so that a new episode gets the state of the previous one, which tracks the trial

    def __init__(
        self,
        family: AnyFamily | str = "metarl/GridNavi-v0",
        obs_noise: float | Sequence[float] = 0.0,
        reward_noise: float = 0.0,
        delay: int = 0,
        action_repeat: int = 1,
        switch: bool = False,
    ) -> None:
        """Wrap `family`, or the one of this id.

        `obs_noise` and `reward_noise` are standard deviations of normal noise in the units of the family, added to
        every observation (one for each of its numbers, or one for all), within the bounds of its space, and to every
        reward. Rewards come `delay` steps late, also across episodes, and the rest is paid at the last step of the
        trial, so that the trial's return is unchanged. Each action is taken `action_repeat` times, and its rewards
        are added up; an episode has as many fewer steps. With `switch` the task changes once: with the middle episode
        of the trial, or in the middle of the episode if there is only one. Raises ValueError for invalid options, and
        for repeats or a switch with a simulator, whose states can be stepped once and belong to one task.
        """
        self.inner: AnyFamily = make(family) if isinstance(family, str) else family
        size = torch.Size(self.inner.observation_space.shape).numel()
        deviations = torch.as_tensor(obs_noise, dtype=torch.float32).expand(size).clone()
        if not (bool((deviations >= 0.0).all()) and reward_noise >= 0.0 and delay >= 0):
            raise ValueError("obs_noise, reward_noise and delay must not be negative.")
        if not 1 <= action_repeat <= self.inner.horizon:
            raise ValueError(f"action_repeat must be 1 to {self.inner.horizon}, an episode, got {action_repeat}.")
        if self.inner.opaque and (action_repeat > 1 or switch):
            raise ValueError(f"action_repeat and switch need a family without a simulator, got {self.inner!r}.")
        self.family, self.obs_noise, self.reward_noise = family, obs_noise, reward_noise
        self.delay, self.action_repeat, self.switch = delay, action_repeat, switch
        self._deviations = deviations if bool((deviations > 0.0).any()) else None
        for name in SAME:
            setattr(self, name, getattr(self.inner, name))
        self.horizon = -(-self.inner.horizon // action_repeat)

    def draw_tasks(self, keys: Key, split: str) -> StressedTask:
        first = self._inner_tasks(keys, split)
        return StressedTask(first, self._inner_tasks(rng.fold(keys, 1), split) if self.switch else first)

    def _inner_tasks(self, keys: Key, split: str) -> Any:
        every = self.inner.tasks_of(split)
        if every is None:
            return self.inner.draw_tasks(keys, "train" if split == "valid" and not self.valid_apart else split)
        return take(to_device(every, keys.device), rng.integers(keys, 1, num_rows(every)).squeeze(-1))

    def enumerate_tasks(self, split: str) -> StressedTask | None:
        every = None if self.switch else self.inner._enumerated(split)
        return None if every is None else StressedTask(every, every)

    def reset(self, task: StressedTask, key: Key) -> StressedState:
        owed = torch.zeros(len(key), self.delay, device=key.device)
        return self._begun(key, self.inner.reset(task.first, key), torch.zeros_like(key), owed)

    def restart(self, task: StressedTask, state: StressedState, key: Key) -> StressedState:
        episode = state.episode + 1
        played = self._played(task, episode, torch.zeros_like(episode))
        return self._begun(key, self.inner.restart(played, state.inner, key), episode, state.owed)

    def _begun(self, key: Key, inner: Any, episode: Tensor, owed: Tensor) -> StressedState:
        """Return the state at the start of an episode."""
        noise = self._noise(rng.fold(rng.fold(key, OBSERVATION), 0))
        return StressedState(inner, episode, torch.zeros_like(episode), noise, owed)

    def observe(self, task: StressedTask, state: StressedState) -> Tensor:
        obs = self.inner.observe(self._played(task, state.episode, state.since), state.inner)
        if self._deviations is None:
            return obs
        space = self.observation_space
        low, high = (torch.as_tensor(bound, device=obs.device) for bound in (space.low, space.high))
        return torch.clamp(obs + state.noise.reshape(obs.shape), low, high)

    def step(
        self, task: StressedTask, state: StressedState, action: Tensor, key: Key
    ) -> tuple[StressedState, Tensor, Tensor]:
        played = self._played(task, state.episode, state.since)
        inner, reward, terminated = self._repeated(played, state, action, key)
        if self.reward_noise:
            reward = reward + self.reward_noise * rng.normal(rng.fold(key, REWARD), 1).squeeze(-1)
        since = state.since + 1
        owed = state.owed
        if self.delay:
            owed = torch.cat([owed, reward[:, None]], dim=1)
            over = (state.episode + 1 >= self.episodes_per_trial) & (terminated | (since >= self.horizon))
            reward = torch.where(over, owed.sum(1), owed[:, 0])
            owed = owed[:, 1:]
        noise = self._noise(rng.fold(key, OBSERVATION))
        return StressedState(inner, state.episode, since, noise, owed), reward, terminated

    def _repeated(self, task: Any, state: StressedState, action: Tensor, key: Key) -> tuple[Any, Tensor, Tensor]:
        """Take an action `action_repeat` times, until the episode ends: state, sum of the rewards, terminated."""
        inner, reward, ended = self.inner.step(task, state.inner, action, key)
        for repeat in range(1, self.action_repeat):
            late = state.since * self.action_repeat + repeat >= self.inner.horizon
            following, more, terminated = self.inner.step(task, inner, action, rng.fold(rng.fold(key, INNER), repeat))
            over = ended | late
            inner = where(over, inner, following)
            reward, ended = reward + torch.where(over, 0.0, more), ended | (terminated & ~over)
        return inner, reward, ended

    def _played(self, task: StressedTask, episode: Tensor, since: Tensor) -> Any:
        """Return the current task: the second one after the switch."""
        if not self.switch:
            return task.first
        if self.episodes_per_trial > 1:
            switched = episode >= self.episodes_per_trial // 2
        else:
            switched = since >= self.horizon // 2
        return where(switched, task.second, task.first)

    def _noise(self, key: Key) -> Tensor:
        """Draw the noise of the next observation, ``(B, N)``."""
        if self._deviations is None:
            return torch.zeros(len(key), 0, device=key.device)
        return self._deviations.to(key.device) * rng.normal(key, len(self._deviations))

    def success(self, task: StressedTask, state: StressedState) -> Tensor | None:
        return self.inner.success(self._played(task, state.episode, state.since), state.inner)

    def oracle(self, task: StressedTask) -> Tensor | None:
        """Return the mean of both tasks' oracles, weighted by their episodes; None if it is undefined."""
        single = self.switch and self.episodes_per_trial == 1
        first, second = self.inner.oracle(task.first), self.inner.oracle(task.second)
        if self._deviations is not None or self.action_repeat > 1 or single or first is None or second is None:
            return None
        share = self.episodes_per_trial // 2 / self.episodes_per_trial if self.switch else 1.0
        return share * first + (1.0 - share) * second

    def check_task(self, task: StressedTask) -> None:
        self.inner.check_task(task.first)
        self.inner.check_task(task.second)

    @property
    def no_picture(self) -> str:
        return "draw the family that it wraps."


def unchanged(task: Any) -> StressedTask:
    """Return tasks without a switch."""
    return StressedTask(task, task)


def switched(task: Any) -> StressedTask:
    """Return tasks that switch to the next one in the list (the last to the first)."""
    return StressedTask(task, tree_map(lambda leaf: leaf.roll(-1, 0), task))
