"""Gymnasium interfaces: `GymEnv` and `GymVectorEnv`, thin wrappers around batches of one and of many rows.

``import metarl`` registers a Gymnasium id for every registered family, also for families registered later::

    env = gymnasium.make("metarl:metarl/GridNavi-v0", split="train")               # an episode is an episode
    env = gymnasium.make("metarl:metarl/GridNavi-v0", trial=True)                  # an episode is a whole trial
    envs = gymnasium.make_vec("metarl:metarl/GridNavi-v0", num_envs=64, trial=True)

Keyword arguments other than those of `GymEnv` and `GymVectorEnv` go to the family; an unknown one raises
`metarl.core.errors.UnknownOption`, a TypeError with Python's usual message.

Tasks: each `reset` draws a new one from `split`. After ``set_task(task)`` every episode is on that task, until
``set_task(None)``. ``reset(options={"task": …})`` or ``reset(options={"split": …})`` overrides both until the next
`reset`. Neither observations nor infos hold the task; `get_task` returns it.

Seeds: `reset(seed=…)` determines everything after it, tasks and noise; the n-th reset after it starts trial n of that
seed (see `metarl.interop.stream.TrialStream`). Without a seed, the first reset draws one from system entropy.

With ``trial=True`` an observation is one vector: the family's observation, the previous action (one-hot if it is
Discrete, one-hot for each component if it is MultiDiscrete, else clipped to the action space; at the trial's start
zeros, or the middle of a Box's range), the previous reward, and 1 if an episode just ended (RL²'s inputs, Duan et al.
2016). The end of a trial counts as `terminated`, and so does the end of an episode of one step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from metarl.core.errors import short, unknown
from metarl.core.family import Task, TaskFamily, has_picture
from metarl.interop.actions import SingleAction, checked_action, checked_actions
from metarl.interop.shown import Shown, infos_of
from metarl.interop.stream import TrialStream, family_of_view, joined, whole

_RENDER_FPS = 10


class GymEnv(gymnasium.Env[np.ndarray, Any]):
    """One environment of a family (an id or a TaskFamily); see the module's docstring.

    ``render_mode="rgb_array"`` draws the trial so far. Raises ValueError for an unknown id, split or option.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": _RENDER_FPS}  # noqa: RUF012
    _OPTIONS = ("split", "trial", "render_mode")
    _spec: EnvSpec | None = None

    def __init__(
        self,
        family: str | TaskFamily,
        split: str = "train",
        trial: bool = False,
        render_mode: str | None = None,
        **family_options: Any,
    ) -> None:
        self.family = family_of_view(family, family_options, "GymEnv", GymEnv._OPTIONS)
        self.metadata = {**self.metadata, "render_modes": _render_modes(self.family)}
        self.render_mode = _check_render_mode(self.family, render_mode)
        self._stream = TrialStream(self.family, 1, split, trial, record=render_mode is not None)
        self.observation_space = self._stream.observation_space
        self.action_space = self.family.action_space
        self._usual = SingleAction(self.action_space)
        self._over = True

    @property
    def spec(self) -> EnvSpec | None:
        """The spec of `gymnasium.make`, with the length of an episode (or trial) as `max_episode_steps`."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and spec.max_episode_steps is None:
            spec = copy.deepcopy(spec)
            spec.max_episode_steps = self._stream.longest
        self._spec = spec

    def sample_tasks(self, n: int, split: str | None = None, seed: int | None = None) -> list[Task]:
        """Draw `n` tasks for `set_task`, one row each, from `split` (default: the environment's own).

        With a seed they are the rows of ``family.sample_tasks(rng.key(seed), n, split)``; without one, the seed comes
        from the environment's generator.
        """
        return self._stream.sample_tasks(self.np_random, n, split, seed)

    def set_task(self, task: Task | None) -> None:
        """Play `task` (one row) from the next `reset` on; None: draw a new task at each `reset` again."""
        self._stream.set_task(task)
        self._over = True

    def get_task(self) -> Task:
        """Return the current task (one row), or the one set for the next `reset`. Raises ResetNeeded if none exists."""
        return self._stream.task()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode (or trial). `options` may hold a `task` or a `split`."""
        options, seed = _check_options(options), whole("seed", seed)
        super().reset(seed=seed)
        _seed(self._stream, self, seed)
        obs = self._stream.reset(**options)
        self._over = False
        return _numpy(obs)[0, ...], {"episode_index": 0}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Take a step. Raises ResetNeeded if a reset is due, and ValueError for an invalid action."""
        if self._over:
            raise gymnasium.error.ResetNeeded(
                "No episode has begun, it is over, or a task was set: call reset() first."
            )
        usual = self._usual(action)
        if usual is not None and (played := self._stream.play(usual)) is not None:
            self._over = played[2] or played[3]
            return played
        shown = self._stream.step(checked_action(action, self.action_space))
        terminated, truncated = bool(shown.terminated), bool(shown.truncated)
        self._over = terminated or truncated
        (info,) = infos_of(shown)
        return _numpy(shown.obs)[0, ...], float(shown.reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Draw the trial so far, uint8 ``(height, width, 3)``; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing: make the environment with render_mode='rgb_array'.")
            return None
        return self._stream.picture(0)


class GymVectorEnv(gymnasium.vector.VectorEnv):
    """A vector environment: `num_envs` environments of a family, each like a `GymEnv`.

    `autoreset_mode` (AutoresetMode or its value) says when a row is reset after the end of its episode (or trial):

    - NEXT_STEP, Gymnasium's default: in the next step, which ignores the row's action, rewards it with 0 and returns
      the new observation. The same trials are played as in SAME_STEP.
    - SAME_STEP: in the same step, which returns the new observation. The infos hold `final_obs` and `final_info` of the
      rows where `_final_obs` is True.
    - DISABLED: by ``reset(options={"reset_mask": mask})``, with a bool array ``(num_envs,)`` of the rows to reset. A
      step before that raises ResetNeeded.

    A drawn task changes with each new episode (or trial); a set task stays. ``max_episode_steps=n`` truncates longer
    episodes (or trials), as `gymnasium.make` does.

    Seeds: ``reset(seed=7)`` hands out trials 0, 1, 2 … of seed 7 to the rows, in the order in which they begin a trial.
    ``reset(seed=[7, 8, …])`` gives each row its own seed: row i then plays trials 0, 1, 2 … of its seed, like a
    `GymEnv` with that seed; a row whose seed is None continues as before. Options of `reset` hold until the next
    `reset` for the rows that it resets.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": _RENDER_FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _OPTIONS = ("num_envs", *GymEnv._OPTIONS, "autoreset_mode", "max_episode_steps")

    def __init__(
        self,
        family: str | TaskFamily,
        num_envs: int = 1,
        split: str = "train",
        trial: bool = False,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **family_options: Any,
    ) -> None:
        self.family = family_of_view(family, family_options, "GymVectorEnv", GymVectorEnv._OPTIONS)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        modes = _render_modes(self.family)
        self.metadata = {**self.metadata, "render_modes": modes, "autoreset_mode": self.autoreset_mode}
        self.render_mode = _check_render_mode(self.family, render_mode)
        self._stream = TrialStream(self.family, num_envs, split, trial, render_mode is not None, max_episode_steps)
        self.num_envs = self._stream.num_envs
        self.single_observation_space = self._stream.observation_space
        self.single_action_space = self.family.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)  # rows that need a reset before their next step

    def sample_tasks(self, n: int, split: str | None = None, seed: int | None = None) -> list[Task]:
        """Draw `n` tasks, as `GymEnv.sample_tasks` does."""
        return self._stream.sample_tasks(self.np_random, n, split, seed)

    def set_task(self, task: Task | Sequence[Task] | None) -> None:
        """Play `task` from each row's next reset on: one row for all, num_envs rows, or a list of as many tasks."""
        self._stream.set_task(self._joined(task))

    def get_task(self) -> Task:
        """Return the current tasks (num_envs rows); between `set_task` and the next `reset`, the tasks set."""
        return self._stream.task()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict]:
        """Start an episode (or trial) in every row, or in those of ``options["reset_mask"]``.

        `options` may also hold a `task` (as in `set_task`) or a `split`. Returns the observations of all rows, and
        the infos of those that were reset.
        """
        given = _check_options(options, "reset_mask")
        mask = _reset_mask(given.pop("reset_mask", None), self.num_envs)
        rows = mask.nonzero()[0]
        if "task" in given:
            given["task"] = self._joined(given["task"])
        self._seed(seed, rows)
        partly = None if len(rows) == self.num_envs else torch.from_numpy(rows)
        obs = _numpy(self._stream.reset(**given, rows=partly))
        if partly is None:
            self._obs = obs
        else:
            self._obs[mask] = obs
        self._ended[mask] = False
        return self._obs.copy(), _infos(None, np.zeros_like(mask), mask)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Take a step in every row. Raises ValueError for invalid actions, and ResetNeeded if a reset is due."""
        waiting, same_step = self._ended, self.autoreset_mode is AutoresetMode.SAME_STEP
        if self.autoreset_mode is AutoresetMode.DISABLED and waiting.any():
            rows = ", ".join(map(str, waiting.nonzero()[0]))
            how = "reset(options={'reset_mask': mask})"
            raise gymnasium.error.ResetNeeded(f"Reset the rows that have ended first, with {how}: {rows}.")
        some_wait = bool(waiting.any())
        action = checked_actions(actions, self.single_action_space, self.num_envs, waiting if some_wait else None)
        # If all rows are waiting for a reset, no step is played.
        shown = None if waiting.all() else self._stream.step(action)
        if shown is None:
            reward, terminated, truncated = np.zeros(self.num_envs, np.float32), ~waiting, ~waiting
        else:
            self._obs, reward = _numpy(shown.obs), _numpy(shown.reward)
            terminated, truncated = _numpy(shown.terminated), _numpy(shown.truncated)
            if some_wait:
                reward[waiting] = 0.0
                terminated[waiting] = truncated[waiting] = False
        ended = terminated | truncated
        fresh = ended if same_step else waiting
        infos = _infos(shown, ~waiting & ~fresh, fresh)
        if same_step and ended.any():
            infos = _final(self._obs, _infos(shown, ended, np.zeros_like(ended)), ended) | infos
        if fresh.any():
            self._obs[fresh] = _numpy(self._stream.restart(torch.from_numpy(fresh.nonzero()[0])))
        self._ended = ended & (not same_step)
        return self._obs.copy(), reward, terminated, truncated, infos

    def _joined(self, task: Any) -> Any:
        """Join a list of tasks, as returned by `sample_tasks`, to one batch."""
        return joined(self.family, task) if isinstance(task, list) or type(task) is tuple else task

    def _seed(self, seed: int | Sequence[int | None] | None, rows: np.ndarray) -> None:
        """Restart the numbering of trials: of all rows under one seed, or of each of the `rows` under its own."""
        if not isinstance(seed, (list, tuple, np.ndarray)) or getattr(seed, "ndim", 1) == 0:
            seed = whole("seed", seed)
            super().reset(seed=seed)
            _seed(self._stream, self, seed)
            return
        if len(seed) != self.num_envs:
            raise ValueError(f"A list of seeds must have one for each of the {self.num_envs} rows, got {len(seed)}.")
        seeds = [whole("seed", each) for each in seed]
        known = [each for each in seeds if each is not None]
        super().reset(seed=known[0] if known else None)
        _seed(self._stream, self, None)
        for row in rows.tolist():
            each = seeds[row]
            if each is not None:
                self._stream.seed_row(row, each)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw each row's trial so far; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing: make the environment with render_mode='rgb_array'.")
            return None
        return tuple(self._stream.picture(row) for row in range(self.num_envs))


def _render_modes(family: TaskFamily) -> list[str]:
    return ["rgb_array"] if has_picture(family) else []


def _check_render_mode(family: TaskFamily, render_mode: str | None) -> str | None:
    known = _render_modes(family)
    if render_mode is not None and render_mode not in known:
        raise ValueError(unknown("render_mode", render_mode, known or ["None"], where=f" of {type(family).__name__}"))
    return render_mode


def _seed(stream: TrialStream, env: GymEnv | GymVectorEnv, seed: int | None) -> None:
    """Restart the numbering of trials under a seed; a first reset without one draws it from the generator of `env`."""
    if seed is not None:
        stream.seed(seed)
    elif not stream.seeded:
        stream.seed(int(env.np_random.integers(2**63 - 1)))


def _check_options(options: dict[str, Any] | None, *more: str) -> dict[str, Any]:
    """Copy the options of `reset`. Raises ValueError for an unknown one."""
    known = ("task", "split", *more)
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"options must be a dict with {' or '.join(map(repr, known))}, got {short(options)}.")
    for name in options or {}:
        if name not in known:
            raise ValueError(unknown("option of reset", name, known))
    return dict(options or {})


def _reset_mask(mask: Any, n: int) -> np.ndarray:
    """Return the rows to reset, bool (n,); all for None. Raises ValueError for an invalid or an empty mask."""
    if mask is None:
        return np.ones(n, dtype=bool)
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (n,) or not mask.any():
        raise ValueError(
            f"reset_mask must be a bool array of shape ({n},) that is True somewhere, got {short(mask.tolist())}."
        )
    return mask


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(f"AutoresetMode.{each.name} ({each.value!r})" for each in AutoresetMode)
        raise ValueError(f"autoreset_mode must be one of {known}, got {short(mode)}.") from None


def _numpy(x: Tensor) -> np.ndarray:
    """Copy to NumPy, so that changes by the user have no effect here."""
    return x.numpy().copy()


def _infos(shown: Shown | None, stepped: np.ndarray, fresh: np.ndarray) -> dict[str, Any]:
    """Return the infos in Gymnasium's vector format, of rows that were `stepped` and rows `fresh` from a reset."""
    if shown is None or not stepped.any():
        return _masked({"episode_index": np.zeros(len(fresh), dtype=np.int64)}, fresh)
    infos = _masked({"episode_index": _where(stepped, shown.episode_index)}, stepped | fresh)
    if shown.success is not None:
        infos |= _masked({"success": _where(stepped, shown.success)}, stepped)
    if shown.inner is not None:
        over = stepped & shown.inner.ended.numpy()
        if over.any():
            numbers = {"r": shown.inner.returns, "l": shown.inner.lengths, "index": shown.episode_index}
            inner = {name: _where(over, values) for name, values in numbers.items()}
            infos |= _masked({"inner_episode": _masked(inner, over)}, over)
    return infos


def _where(rows: np.ndarray, values: Tensor) -> np.ndarray:
    """Copy the values in these rows, with zeros elsewhere."""
    found = _numpy(values)
    found[~rows] = 0
    return found


def _masked(values: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Add to each value a mask of the rows that have it, by Gymnasium's convention ``_name``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {name: value, f"_{name}": mask.copy()}
    return found


def _final(obs: np.ndarray, infos: dict[str, Any], ended: np.ndarray) -> dict[str, Any]:
    """Return the last observations and infos of the rows that ended and were reset in this step."""
    final_obs = np.full(len(ended), None, dtype=object)
    for row in ended.nonzero()[0]:
        final_obs[row] = obs[row].copy()
    return _masked({"final_obs": final_obs, "final_info": infos}, ended)
