"""The only row of a stream of trials, played without tensors (`metarl.fast.rows`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.family import AnyFamily, TaskFamily
from metarl.core.units import no_action
from metarl.fast.rows.env import RowEnv
from metarl.fast.rows.program import Playing, Program, Row, as_row
from metarl.fast.rows.skill import Skill, skill
from metarl.interop.flat import flatten
from metarl.interop.numbering import Numbering
from metarl.interop.shown import Counts

SingleStep = tuple[np.ndarray, float, bool, bool, dict[str, Any]]
"""Observation without the row's dimension, reward, terminated, truncated and info, as Gymnasium's `step` returns."""


class Single:
    """Plays the only row of a stream bitwise as the stream would.

    If that is not possible (yet), the stream plays the row itself.
    """

    def __init__(self, family: AnyFamily, trial: bool) -> None:
        self.family, self.trial = family, trial
        self._whole = trial or family.horizon == 1  # whether the end of a trial is `terminated`
        self._skill: Skill = skill(family)
        self._copies: dict[Any, tuple[Program, Playing]] = {}
        self._nothing = as_row(no_action(family.action_space, 1, torch.device("cpu")))[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_copies": {}}

    def play(self, env: BatchEnv | None, counts: Counts, action: Any) -> SingleStep | None:
        """Take a step with an action of `SingleAction`. Returns None, without side effects, if that is not possible."""
        if not isinstance(env, RowEnv) or not env.playable:
            return None
        flat = self._flat() if self.trial else None
        if self.trial and flat is None:
            return None
        try:
            played = env.play(action)
        except Exception:  # any exception of the family's code: plain steps will raise it again
            return None
        ended = played.terminated or played.truncated
        info: dict[str, Any] = {"episode_index": played.episode}
        if played.success is not None:
            info["success"] = played.success
        terminated, truncated = (played.over, False) if self._whole else (played.terminated, played.truncated)
        obs = played.final_obs if played.over else played.obs
        if flat is not None:
            inner = counts.add_one(played.reward, ended)
            if inner is not None:
                info["inner_episode"] = {"r": inner[0], "l": inner[1], "index": played.episode}
            (obs,) = flat(obs, action, played.reward, np.float32(ended))
        return obs[0, ...].copy(), float(played.reward), terminated, truncated, info

    def ready(self, env: BatchEnv | None) -> bool:
        """Return whether `begin` can be called."""
        return isinstance(env, RowEnv) and env.current and not (self.trial and self._flat() is None)

    def begin(self, env: BatchEnv | None, task: Row, key: Any) -> np.ndarray:
        """Start a trial on a row's task with its key; return the first observation ``(1, D)``."""
        assert isinstance(env, RowEnv)
        obs = env.begin(task, key)
        flat = self._flat() if self.trial else None
        if flat is not None:
            (obs,) = flat(obs, self._nothing, np.float32(0.0), np.float32(0.0))
        return obs

    def drawn(self, numbering: Numbering, split: str) -> tuple[Row, Any] | None:
        """Draw the next trial's task and key. Returns None, without side effects, if that needs tensors."""
        draw = self._draw(numbering, split)
        if draw is None:
            return None
        root, number = numbering.take(0)
        *task, key = draw(root.numpy()[()], np.int64(number))
        return tuple(task), key

    def _draw(self, numbering: Numbering, split: str) -> Playing | None:
        """Return the program that draws a trial's task and key."""
        if type(self.family).sample_tasks is not TaskFamily.sample_tasks:
            return None

        def calls() -> tuple[Any, ...]:
            numbers = ((rng.key(0), torch.tensor([number]), split) for number in (0, 1))
            return numbering.numbered, *numbers

        return self._copy(("trial", split), calls)

    def _flat(self) -> Playing | None:
        """Return the program of `flatten`."""
        family = self.family

        def flattened(*step: Tensor) -> Tensor:
            return flatten(Step(*step), family.action_space)

        def calls() -> tuple[Any, ...]:
            obs, one = torch.zeros(1, *family.observation_space.shape), torch.ones(1)
            action = no_action(family.action_space, 1, torch.device("cpu"))
            return flattened, *((obs + i, action + i, one * i, one * i) for i in (0, 1))

        return self._copy("flat", calls)

    def _copy(self, name: Any, calls: Callable[[], tuple[Any, ...]]) -> Playing | None:
        """Return this object's copy of a program, with its own memory."""
        program = self._skill.other(name, calls)
        if program is None:
            return None
        if name not in self._copies or self._copies[name][0] is not program:
            self._copies[name] = program, program.copy()
        return self._copies[name][1]
