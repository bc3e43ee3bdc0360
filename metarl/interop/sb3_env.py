"""stable-baselines3's `VecEnv` over a batch of rows, without a process or a Python loop per environment::

    from metarl.interop.sb3_env import SB3VecEnv
    env = SB3VecEnv("metarl/GridNavi-v0", num_envs=64, trial=True)
    RecurrentPPO("MlpLstmPolicy", env).learn(100_000)

Tasks, seeds, `trial=True` and observations are those of `metarl.interop.gym_env`. ``import metarl`` imports neither
this module nor stable-baselines3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
from torch import Tensor

from metarl.core import rng
from metarl.core.errors import short
from metarl.core.family import Task, TaskFamily
from metarl.core.rollout import NotFinite
from metarl.core.tree import features, take
from metarl.interop.actions import checked_actions
from metarl.interop.shown import infos_of
from metarl.interop.stream import TrialStream, family_of_view, joined


class SB3VecEnv(VecEnv):
    """`num_envs` rows of a family (an id, with its options as further keywords, or a TaskFamily).

    A row whose episode (or, with ``trial=True``, trial) ended starts its next one in the same step. Its info then has
    `terminal_observation`, and `success` also under SB3's name `is_success`. Every info has `TimeLimit.truncated` and
    the entries of `metarl.interop.gym_env`. A drawn task changes at each new episode (or trial).

    `env_method` calls ``set_task(task or None)``, `get_task`, `sample_tasks` (each row draws its own, as `GymEnv` does)
    and `render`; `get_attr` reads any attribute. Options of `set_options` are `task` or `split`, as in `GymEnv.reset`.
    With ``show_task=True`` the task's numbers are appended to observations, for agents that see the task. Actions
    are the family's own; stable-baselines3 itself trains only on Discrete and MultiDiscrete spaces that start at 0.
    """

    def __init__(
        self,
        family: str | TaskFamily,
        num_envs: int,
        split: str = "train",
        trial: bool = False,
        render_mode: str | None = None,
        show_task: bool = False,
        **family_options: Any,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {short(render_mode)}.")
        self.family = family_of_view(family, family_options, "SB3VecEnv", _OPTIONS)
        self.render_mode = render_mode
        self._stream = TrialStream(self.family, num_envs, split, trial, record=render_mode is not None)
        self._action: Tensor | None = None
        self._generator = np.random.default_rng()  # draws the seeds of `sample_tasks`
        self._show_task = show_task
        self.looking = False
        """True if steps are searched for `not_finite`."""
        self.not_finite: NotFinite | None = None
        """The first observation or reward since the last `reset` that was not finite."""
        space = self._stream.observation_space
        super().__init__(num_envs, _with_task(space, self.family) if show_task else space, self.family.action_space)

    def reset(self) -> np.ndarray:
        """Start an episode (or trial) in every row, after `seed(…)` from trial 0 of that seed."""
        seed = self._seeds[0]
        if seed is None and not self._stream.seeded:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed is not None:
            self._stream.seed(seed)
            self._generator = np.random.default_rng(seed)
        obs = self._stream.reset(**self._reset_options_given())
        self._reset_seeds()
        self._reset_options()
        self.not_finite = None
        if self.looking:
            self._look(obs, torch.zeros(self.num_envs))
        self.reset_infos = [{"episode_index": 0} for _ in range(self.num_envs)]
        return self._shown(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions ``(num_envs,)`` or ``(num_envs, A)`` for `step_wait`. Raises ValueError for invalid ones."""
        self._action = checked_actions(actions, self.action_space, self.num_envs)

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step; return observations, rewards (float32), dones (bool), and one info per row."""
        if self._action is None:
            raise ValueError("Call step_async(actions) first.")
        shown, self._action = self._stream.step(self._action), None
        if self.looking:
            self._look(shown.obs, shown.reward)
        done = shown.terminated | shown.truncated
        obs = self._shown(shown.obs)
        infos = infos_of(shown)
        for info, truncated in zip(infos, shown.truncated.tolist(), strict=True):
            info["TimeLimit.truncated"] = truncated
        if bool(done.any()):
            rows = done.nonzero().squeeze(1)
            for row in rows.tolist():
                infos[row]["terminal_observation"] = obs[row].copy()
                if "success" in infos[row]:
                    infos[row]["is_success"] = infos[row]["success"]
                self.reset_infos[row] = {"episode_index": 0}
            obs[rows.numpy()] = self._shown(self._stream.restart(rows), rows)
        return obs, shown.reward.numpy().copy(), done.numpy(), infos

    def close(self) -> None:
        """Do nothing: there are no resources to release."""

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Draw each row's trial so far; None without ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            return [None] * self.num_envs
        return [self._stream.picture(row) for row in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute, which all rows share, once per row. Raises AttributeError if there is none."""
        return [getattr(self, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raise AttributeError: rows have no attributes of their own."""
        raise AttributeError(f"Rows have no attribute {attr_name!r} of their own; env_method can set their tasks.")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call one of a row's methods (see the class) for each of `indices`. Raises AttributeError for other names."""
        if method_name not in _ROW_METHODS:
            raise AttributeError(f"A row has no method {method_name!r}, only {', '.join(_ROW_METHODS)}.")
        method = getattr(self, f"_{method_name}")
        return [method(row, *method_args, **method_kwargs) for row in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """Return False for every row: none is wrapped."""
        return [False] * len(self._rows(indices))

    def _look(self, obs: Tensor, reward: Tensor) -> None:
        """Record the first number that is not finite; checking a sum of squares is cheaper than each number."""
        x, r = obs.numpy().ravel(), reward.numpy().ravel()
        if self.not_finite is not None or math.isfinite(x.dot(x) + r.dot(r)):
            return
        for what, part in (("observation", obs), ("reward", reward)):
            broken = (~part.isfinite()).flatten(1).any(1) if part.ndim > 1 else ~part.isfinite()
            if self.not_finite is None and bool(broken.any()):
                place = self._stream.place(int(broken.nonzero()[0]))
                self.not_finite = NotFinite(what, place)

    def _shown(self, obs: Tensor, rows: Tensor | None = None) -> np.ndarray:
        """Return a copy of the observations of `rows` (default: all) in SB3's format."""
        if not self._show_task:
            return obs.numpy().copy()
        task = self._stream.playing()
        told = features(task if rows is None else take(task, rows))
        return torch.cat([obs.flatten(1), told], dim=1).numpy()

    def _set_task(self, row: int, task: Task | None) -> None:
        self._stream.set_task(task, torch.tensor([row]))

    def _get_task(self, row: int) -> Task:
        return take(self._stream.task(), slice(row, row + 1))

    def _sample_tasks(self, row: int, n: int, split: str | None = None, seed: int | None = None) -> list[Task]:
        return self._stream.sample_tasks(self._generator, n, split, seed)

    def _render(self, row: int) -> np.ndarray | None:
        return None if self.render_mode is None else self._stream.picture(row)

    def _rows(self, indices: VecEnvIndices) -> list[int]:
        return [range(self.num_envs)[row] for row in self._get_indices(indices)]

    def _reset_options_given(self) -> dict[str, Any]:
        """Convert the options of all rows to those of the stream. Raises ValueError if only some rows have one."""
        given: dict[str, Any] = {}
        for name in sorted({name for options in self._options for name in options}):
            if name not in ("task", "split") or not all(name in options for options in self._options):
                raise ValueError(f"options must be 'task' or 'split', and given for every row, got {name!r}.")
            given[name] = [options[name] for options in self._options]
        if "task" in given:
            given["task"] = joined(self.family, given["task"])
        if "split" in given:
            if len(set(given["split"])) > 1:
                raise ValueError(f"All rows must have the same split, got {sorted(set(given['split']))}.")
            given["split"] = given["split"][0]
        return given


def _with_task(space: spaces.Box, family: TaskFamily) -> spaces.Box:
    """Return the space of observations followed by the task's numbers, which are unbounded."""
    size = features(family.sample_tasks(rng.key(0), 1, family.splits[0])).shape[1]
    most = np.full(size, np.inf, dtype=np.float32)
    return spaces.Box(np.append(space.low.ravel(), -most), np.append(space.high.ravel(), most), dtype=np.float32)


_OPTIONS = ("num_envs", "split", "trial", "render_mode", "show_task")


_ROW_METHODS = ("set_task", "get_task", "sample_tasks", "render")
