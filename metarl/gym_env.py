"""Gymnasium's view: `GymEnv` and `GymVectorEnv`, thin shells over batches of one and of many.

``import metarl`` makes every registered family a Gymnasium id, also those registered later::

    env = gymnasium.make("metarl:metarl/GridNavi-v0", split="train")               # an episode is an episode
    env = gymnasium.make("metarl:metarl/GridNavi-v0", trial=True)                  # an episode is a whole trial
    envs = gymnasium.make_vec("metarl:metarl/GridNavi-v0", num_envs=64, trial=True)

Keyword arguments beside those of `GymEnv` go to the family.

Which task? Each `reset` draws a new one from `split`. After ``set_task(task)`` every episode is on that task, until
``set_task(None)``. ``reset(options={"task": …})`` or ``reset(options={"split": …})`` overrule both until the next
`reset`. The task is in no observation and no info; `get_task` tells it.

Seeds: `reset(seed=…)` determines everything that follows, tasks and noise; the n-th reset after it starts trial n of
that seed (see `metarl.stream.TrialStream`). Without any seed the first reset takes one from the system's entropy.

With ``trial=True`` an observation is one vector: the family's observation, the previous action (one-hot if it is
Discrete; zeros at the trial's start), the previous reward, and 1 if an episode just ended (RL²'s inputs, Duan et al.
2016). The trial's end is `terminated`, and so is the end of an episode of one single step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

from metarl import rng
from metarl.family import Task, TaskFamily, has_picture, make, on_register, take, unknown
from metarl.stream import TrialStream, concatenate

_RENDER_FPS = 10


class GymEnv(gymnasium.Env[np.ndarray, Any]):
    """One environment of a family (an id or a TaskFamily); see the module's docstring.

    `info` holds `episode_index`: which episode of the trial the last action belonged to, from 0.
    ``render_mode="rgb_array"`` draws the trial so far. Raises ValueError for an unknown id, split or option.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": _RENDER_FPS}  # noqa: RUF012

    def __init__(
        self,
        family: str | TaskFamily,
        split: str = "train",
        trial: bool = False,
        render_mode: str | None = None,
        **family_options: Any,
    ) -> None:
        self.family = _family(family, family_options)
        self.metadata = {**self.metadata, "render_modes": _render_modes(self.family)}
        self.render_mode = _check_render_mode(self.family, render_mode)
        self._stream = TrialStream(self.family, 1, split, trial, record=render_mode is not None)
        self.observation_space = self._stream.observation_space
        self.action_space = self.family.action_space
        self._over = True

    def sample_tasks(self, n: int, split: str | None = None, seed: int | None = None) -> list[Task]:
        """`n` tasks, each to be given to `set_task`, of `split` (default: the environment's own).

        With a seed they are the rows of ``family.sample_tasks(rng.key(seed), n, split)``; without, they follow from
        the environment's own generator.
        """
        return _sample_tasks(self._stream, self.np_random, n, split, seed)

    def set_task(self, task: Task | None) -> None:
        """Play `task` (one row) from the next `reset` on; None: draw a new one at each `reset` again."""
        self._stream.set_task(task)
        self._over = True

    def get_task(self) -> Task:
        """The task of the current episode (one row), or the one set for the next. ValueError if there is none yet."""
        return self._stream.task()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode (or trial). `options` may hold a `task` or a `split`."""
        super().reset(seed=seed)
        _seed(self._stream, self, seed)
        obs = self._stream.reset(**_check_options(options))
        self._over = False
        return _numpy(obs)[0], {"episode_index": 0}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Act. Raises ResetNeeded after the end, or after `set_task`; ValueError for an action of the wrong shape."""
        if self._over:
            raise gymnasium.error.ResetNeeded("The episode is over, or a task was set: call reset() first.")
        shown = self._stream.step(_actions(np.asarray(action)[None], self.action_space, 1))
        terminated, truncated = bool(shown.terminated), bool(shown.truncated)
        self._over = terminated or truncated
        info = {"episode_index": int(shown.episode_index)}
        return _numpy(shown.obs)[0], float(shown.reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """The trial so far, uint8 ``(height, width, 3)``; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing: make the environment with render_mode='rgb_array'.")
            return None
        return self._stream.picture(0)


class GymVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` environments of a family side by side; the rest as in `GymEnv`.

    A row whose episode (or trial) ended starts its next one in the same step (AutoresetMode.SAME_STEP): the observation
    is the new one, and the infos hold `final_obs` and `final_info` of the rows where `_final_obs` is True. A drawn
    task changes there, a set one stays. Options of `reset` hold until the next call of `reset`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": _RENDER_FPS,
        "autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        family: str | TaskFamily,
        num_envs: int = 1,
        split: str = "train",
        trial: bool = False,
        render_mode: str | None = None,
        **family_options: Any,
    ) -> None:
        self.family = _family(family, family_options)
        self.num_envs = num_envs
        self.metadata = {**self.metadata, "render_modes": _render_modes(self.family)}
        self.render_mode = _check_render_mode(self.family, render_mode)
        self._stream = TrialStream(self.family, num_envs, split, trial, record=render_mode is not None)
        self.single_observation_space = self._stream.observation_space
        self.single_action_space = self.family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def sample_tasks(self, n: int, split: str | None = None, seed: int | None = None) -> list[Task]:
        """As `GymEnv.sample_tasks`."""
        return _sample_tasks(self._stream, self.np_random, n, split, seed)

    def set_task(self, task: Task | Sequence[Task] | None) -> None:
        """Play `task` from each row's next reset on: one row for all, num_envs rows, or a list of as many tasks."""
        self._stream.set_task(concatenate(task) if isinstance(task, list) else task)

    def get_task(self) -> Task:
        """The tasks being played (num_envs rows); between `set_task` and the next `reset`, those that were set."""
        return self._stream.task()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode (or trial) in every row."""
        super().reset(seed=seed)
        _seed(self._stream, self, seed)
        obs = self._stream.reset(**_check_options(options))
        return _numpy(obs), _episode_info(np.zeros(self.num_envs, dtype=np.int64))

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Act in every row. Raises ValueError for actions of the wrong shape."""
        shown = self._stream.step(_actions(np.asarray(actions), self.single_action_space, self.num_envs))
        obs, episode_index = _numpy(shown.obs), _numpy(shown.episode_index)
        done = shown.terminated | shown.truncated
        infos: dict[str, Any] = {}
        if bool(done.any()):
            rows, mask = done.nonzero().squeeze(1), _numpy(done)
            final_obs = np.full(self.num_envs, None, dtype=object)
            for row in rows.tolist():
                final_obs[row] = obs[row].copy()
            final_info = _episode_info(np.where(mask, episode_index, 0), mask)
            infos = {"final_obs": final_obs, "_final_obs": mask, "final_info": final_info, "_final_info": mask.copy()}
            obs[mask] = _numpy(self._stream.restart(rows))
            episode_index[mask] = 0
        infos |= _episode_info(episode_index)
        return obs, _numpy(shown.reward), _numpy(shown.terminated), _numpy(shown.truncated), infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture of each row's trial so far; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing: make the environment with render_mode='rgb_array'.")
            return None
        return tuple(self._stream.picture(row) for row in range(self.num_envs))


def register_gymnasium() -> None:
    """Make every registered family a Gymnasium id of the same name, now and whenever another one is registered."""
    on_register(_register)


def _register(id: str) -> None:
    # Strings and values only: nothing is captured, so no id can yield another one's family, and specs can be copied.
    single, vector = f"{__name__}:GymEnv", f"{__name__}:GymVectorEnv"
    spec = gymnasium.registry.get(id)
    if spec is None:
        gymnasium.register(id, entry_point=single, vector_entry_point=vector, kwargs={"family": id})
    elif spec.entry_point != single:
        raise ValueError(f"The Gymnasium id {id!r} is already taken by {spec.entry_point}.")


def _family(family: str | TaskFamily, options: dict[str, Any]) -> TaskFamily:
    if isinstance(family, str):
        return make(family, **options)
    if options:
        raise ValueError(f"{sorted(options)} cannot be changed in a family that exists: give them to its constructor.")
    return family


def _render_modes(family: TaskFamily) -> list[str]:
    return ["rgb_array"] if has_picture(family) else []


def _check_render_mode(family: TaskFamily, render_mode: str | None) -> str | None:
    known = _render_modes(family)
    if render_mode is not None and render_mode not in known:
        raise ValueError(unknown("render_mode", render_mode, known or ["None"], where=f" of {type(family).__name__}"))
    return render_mode


def _sample_tasks(
    stream: TrialStream, generator: np.random.Generator, n: int, split: str | None, seed: int | None
) -> list[Task]:
    seed = int(generator.integers(2**63 - 1)) if seed is None else seed
    tasks = stream.family.sample_tasks(rng.key(seed), n, stream.split if split is None else split)
    return [take(tasks, slice(i, i + 1)) for i in range(n)]


def _seed(stream: TrialStream, env: GymEnv | GymVectorEnv, seed: int | None) -> None:
    """Number the trials anew after a seed; at a first reset without one, the environment's generator gives it."""
    if seed is not None:
        stream.seed(seed)
    elif not stream.seeded:
        stream.seed(int(env.np_random.integers(2**63 - 1)))


def _check_options(options: dict[str, Any] | None) -> dict[str, Any]:
    for name in options or {}:
        if name not in ("task", "split"):
            raise ValueError(unknown("option of reset", name, ("task", "split")))
    return dict(options or {})


def _actions(actions: np.ndarray, space: spaces.Space, n: int) -> Tensor:
    """The actions of `n` rows as the family wants them. ValueError for a wrong shape or an index out of range."""
    shape = (n, *(space.shape or ()))
    if actions.shape != shape:
        raise ValueError(f"The actions of {n} rows must have the shape {shape}, got {actions.shape}.")
    if isinstance(space, spaces.Discrete):
        if not np.issubdtype(actions.dtype, np.integer) or actions.min() < 0 or actions.max() >= space.n:
            raise ValueError(f"An action is an integer from 0 to {space.n - 1}, got {actions.tolist()}.")
        return torch.as_tensor(actions.astype(np.int64))
    return torch.as_tensor(actions.astype(np.float32))


def _numpy(x: Tensor) -> np.ndarray:
    """A copy: what a user does to it changes nothing here."""
    return x.numpy().copy()


def _episode_info(index: np.ndarray, mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    mask = np.ones(len(index), dtype=bool) if mask is None else mask.copy()
    return {"episode_index": index, "_episode_index": mask}
