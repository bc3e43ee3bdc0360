"""The programs of a family: of its step, of its reset, and of whatever else depends on it alone."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.family import AnyFamily, Key, State, Task
from metarl.fast.rows.program import Program, learned
from metarl.fast.rows.tape import NotRecorded
from metarl.fast.stepping import FastEnv

PATIENCE = 100
"""Steps of a family in batches of one row before they are recorded, which takes as long as some hundred steps."""
CHANGES = 3
"""Changes of a family's attributes after which it is no longer recorded again."""


class Skill:
    """The programs of a family. `why_not` is None until a reason is known why there are none."""

    def __init__(self, family: AnyFamily) -> None:
        self.family = family
        self.why_not: str | None = None
        self.step: Program | None = None
        self.begin: Program | None = None
        self.open: Program | None = None
        self._steps = self._changes = 0
        self._seen = dict(vars(family))
        self._others: dict[Any, Program | None] = {}

    def __reduce__(self) -> tuple[Callable[[AnyFamily], Skill], tuple[AnyFamily]]:
        return skill, (self.family,)  # programs are made again

    def ready(self, env: FastEnv, action: Tensor) -> bool:
        """Tell whether there are programs; they are made when the family has been stepped often enough."""
        if self.why_not is not None:
            return False
        if self.step is None:
            self._steps += 1
            if self._steps > PATIENCE:
                self._learn(env, action)
        return self.step is not None

    def fresh(self) -> None:
        """Forget the programs if the family's attributes have changed since they were made."""
        now = vars(self.family)
        if len(now) == len(self._seen) and all(now[name] is value for name, value in self._seen.items()):
            return
        self._seen, self.step, self._others = dict(now), None, {}
        self._changes += 1
        if self._changes > CHANGES:
            self.why_not = "its attributes change"

    def other(self, name: Any, calls: Callable[[], tuple[Any, ...]]) -> Program | None:
        """Return the program of another function that depends on the family alone; None if there can be none.

        `calls` gives the function and the arguments of some calls of it; it is asked once.
        """
        if name not in self._others:
            self._others[name] = None
            with contextlib.suppress(Exception):  # a family's code may raise anything
                self._others[name] = learned(*calls())
        return self._others[name]

    def _learn(self, env: FastEnv, action: Tensor) -> None:
        task, keys, age = env.task, env._keys, torch.as_tensor(env._step - env._start).reshape(1)
        try:
            after = self.stepped(task, env.state, action, env._step_keys, age)[0]
            both = enumerate((env.state, after))
            step = learned(self.stepped, *((task, state, action, env._step_keys, age + i) for i, state in both))
            self.begin = learned(self.begun, *((task, env._reset_keys, env.episode + i) for i in range(2)))
            self.open = learned(self.opened, *((task, keys + i) for i in range(2)))
            self.step = step
        except Exception as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Note the reason. A family's code may raise anything; what is wrong shows in plain steps, too."""
        said = str(error).partition("\n")[0]
        self.why_not = said if isinstance(error, NotRecorded) else f"{type(error).__name__}: {said}"

    def stepped(self, task: Task, state: State, action: Tensor, keys: Key, age: Tensor) -> tuple[Any, ...]:
        """Step, observe, and ask for success."""
        family = self.family
        after, reward, terminated = family.step(task, state, action, rng.fold(keys, age) if family.noisy else keys)
        return after, reward, terminated, family.observe(task, after), family.success(task, after)

    def begun(self, task: Task, keys: Key, episode: Tensor) -> tuple[State, Tensor]:
        """Begin an episode."""
        state = self.family.reset(task, rng.fold(keys, episode) if self.family.random_start else keys)
        return state, self.family.observe(task, state)

    def opened(self, task: Task, keys: Key) -> tuple[Key, Key, State, Tensor]:
        """Begin a trial: the keys of its episodes and of its steps, and its first episode."""
        reset_keys, step_keys = rng.fold(keys, 0), rng.fold(keys, 1)
        return reset_keys, step_keys, *self.begun(task, reset_keys, torch.zeros_like(keys))


def skill(family: AnyFamily) -> Skill:
    """Return the skill of a family, shared by all its environments if the family can be hashed."""
    try:
        hash(family)
    except TypeError:
        return Skill(family)
    return _shared_skill(family)


_shared_skill = functools.lru_cache(maxsize=64)(Skill)
