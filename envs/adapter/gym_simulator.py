"""One Gymnasium environment as a simulator, with the parameters of a task written into it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from metarl.core.errors import WrongResult, short
from metarl.envs.adapter.parameters import Parameter
from metarl.envs.adapter.simulator import Simulator, Stepped, TaskRow
from metarl.envs.adapter.spaces import Actions, Observations, Observed
from metarl.envs.adapter.stale import Derived, derived_from

Constructed = tuple[tuple[str, Any], ...]
"""The constructor's arguments that belong to a task, by name."""


@dataclass(frozen=True)
class GymMaker:
    """Makes environments of a specification for tasks that share their constructor arguments."""

    spec: EnvSpec
    arguments: dict[str, Any]
    parameters: tuple[Parameter, ...]
    observe: Observed | None = None
    success: str | None = None

    def __call__(self, constructed: Constructed) -> GymSimulator:
        return GymSimulator(self, self.make(constructed))

    def make(self, constructed: Constructed = ()) -> gymnasium.Env[Any, Any]:
        """Make the environment without a time limit: the family has its own."""
        arguments = self.arguments | dict(constructed)
        with without_warnings("mujoco" in str(self.spec.entry_point)):
            return gymnasium.make(self.spec, max_episode_steps=-1, disable_env_checker=True, **arguments)

    def drawing(self) -> GymMaker:
        """Return a maker of environments that can render."""
        return replace(self, arguments=self.arguments | {"render_mode": "rgb_array"})

    def at(self, *kinds: str) -> list[Parameter]:
        """Return the parameters whose place has one of these kinds."""
        return [each for each in self.parameters if each.place.kind in kinds]

    def derived(self, env: gymnasium.Env[Any, Any]) -> list[Derived]:
        """Return the attributes that the environment's constructor derives from those that a task changes."""
        kind: type = type(env.unwrapped)
        names = frozenset(each.place.path[0] for each in self.at("attribute"))
        return [each.checked(env.unwrapped) for each in derived_from(kind, names)]


class GymSimulator(Simulator):
    """An environment with the attributes, model, options and seed of its current task."""

    def __init__(self, maker: GymMaker, env: gymnasium.Env[Any, Any]) -> None:
        self.maker, self.env = maker, env
        self.observations = Observations(env.observation_space, maker.observe)
        self.actions = Actions(env.action_space)
        self.changed = maker.at("attribute", "model")
        self.nominal = {each.name: each.place.read(env) for each in self.changed}
        self.derived = maker.derived(env)
        self.physical = is_mujoco(env)
        self.model = Model(env) if maker.at("model") else None
        self._checked = False

    def reset(self, task: TaskRow, seed: int) -> np.ndarray:
        if self.model is not None:
            self.model.restore()
        for each in self.changed:
            each.place.write(self.env, self.nominal[each.name])
        for each in self.changed:  # in order, since places may overlap: all masses, then that of the foot
            each.place.write(self.env, self._wanted(each, task))
        for derived in self.derived:
            derived.compute(self.env.unwrapped)
        if self.model is not None:
            self.model.settle([each.place.path[-1] for each in self.maker.at("model")])
        options = {each.place.name: number(task[each.name]) for each in self.maker.at("option")}
        for each in self.maker.at("seed"):
            seed = int(task[each.name])
        wanted = {} if self._checked else {each.name: each.place.read(self.env) for each in self.changed}
        returned = self.env.reset(seed=seed, options=options or None)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise WrongResult(f"{self._name}.reset must return an observation and a dict of infos, {_got(returned)}")
        self._check(wanted)
        return self.observations(returned[0])

    def step(self, action: np.ndarray) -> Stepped:
        with without_warnings(self.physical):
            returned = self.env.step(self.actions(action))
        if not isinstance(returned, tuple) or len(returned) != 5:
            raise WrongResult(
                f"{self._name}.step must return five values (observation, reward, terminated, truncated, info), "
                f"{_got(returned)}"
            )
        obs, reward, *ends, info = returned
        terminated, truncated = (
            self._ended(name, end) for name, end in zip(("terminated", "truncated"), ends, strict=True)
        )
        return Stepped(self.observations(obs), self._reward(reward), terminated, truncated, self._solved(info))

    def render(self) -> np.ndarray:
        return np.asarray(self.env.render(), np.uint8)

    def close(self) -> None:
        self.env.close()

    @property
    def _name(self) -> str:
        """The name of the environment's class, for error messages."""
        return type(self.env.unwrapped).__name__

    def _reward(self, given: Any) -> float:
        """Return a reward of any array library as a float. Raises WrongResult if it is not a single number."""
        if type(given) is float:  # fast path: the most frequent case
            return given
        if not isinstance(given, str) and getattr(given, "ndim", 0) == 0:
            with contextlib.suppress(TypeError, ValueError):
                return float(given)
        raise WrongResult(f"{self._name}.step must return one number as the reward, got {short(given)}")

    def _ended(self, name: str, given: Any) -> bool:
        """Return `terminated` or `truncated` as a bool. Raises WrongResult for anything else, such as None."""
        if isinstance(given, (bool, int)) or math.prod(getattr(given, "shape", (0,))) == 1:  # NumPy's have a shape
            return bool(given)
        raise WrongResult(f"{self._name}.step must return {name} as True or False, got {short(given)}")

    def _solved(self, info: Any) -> bool:
        """Return the `success` entry of the info. Raises WrongResult if there is none."""
        wanted = self.maker.success
        if wanted is None:
            return False
        if not isinstance(info, Mapping) or wanted not in info:
            there = ", ".join(map(str, info)) if isinstance(info, Mapping) and info else "none"
            raise WrongResult(f"success is {wanted!r}, an entry that the infos of {self._name}.step lack: {there}")
        return bool(info[wanted])

    def _wanted(self, parameter: Parameter, task: TaskRow) -> Any:
        """Return the value of a place for a task: a number, or an array like the present one."""
        present, value = parameter.place.read(self.env), number(task[parameter.name])
        if parameter.place.factor:
            return present * value
        return np.full_like(present, value) if isinstance(present, np.ndarray) else value

    def _check(self, wanted: dict[str, Any]) -> None:
        """Raise ValueError, in the first episode, if the environment's reset undoes a change of the task."""
        if self._checked:
            return
        self._checked = True
        for each in self.changed:
            if not np.allclose(each.place.read(self.env), wanted[each.name], rtol=1e-6):
                raise ValueError(
                    f"{self._name}.reset sets {each.place.name} itself, so that the task does not reach it; put the "
                    "parameter elsewhere, such as constructor"
                )


def _got(returned: Any) -> str:
    """Describe a return value that is not the expected tuple."""
    return f"got {len(returned)} values" if isinstance(returned, tuple) else f"got {short(returned)}"


def is_mujoco(env: gymnasium.Env[Any, Any]) -> bool:
    """Return whether an environment has a MuJoCo model."""
    return hasattr(getattr(env.unwrapped, "model", None), "body_mass")


def without_warnings(physical: bool) -> AbstractContextManager[None]:
    """Keep MuJoCo, if it is in use, from printing warnings and writing a log."""
    if not physical:
        return nullcontext()
    import mujoco

    from metarl.envs.mujoco.simulator import quiet

    return quiet(mujoco)


class Model:
    """The model of a MuJoCo environment, whose fields tasks change."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        import mujoco

        self.mujoco, self.model, self.data = mujoco, env.unwrapped.model, env.unwrapped.data  # type: ignore[attr-defined]
        self.mass, self.inertia = self.model.body_mass.copy(), self.model.body_inertia.copy()

    def restore(self) -> None:
        """Restore the original masses and moments of inertia of the bodies."""
        self.model.body_mass[:], self.model.body_inertia[:] = self.mass, self.inertia

    def settle(self, fields: Sequence[str]) -> None:
        """Recompute the values that depend on the changed fields.

        Moments of inertia scale with their body's mass, unless the task sets them. Raises ValueError for impossible
        masses or moments of inertia.
        """
        if "body_mass" in fields and "body_inertia" not in fields:
            ratio = np.divide(self.model.body_mass, self.mass, out=np.ones_like(self.mass), where=self.mass > 0)
            self.model.body_inertia[:] = self.inertia * ratio[:, None]
        smallest, middle, largest = np.sort(self.model.body_inertia[1:], axis=1).T
        if (self.model.body_mass[1:] < 0).any() or (smallest < 0).any() or (smallest + middle < largest * 0.999).any():
            raise ValueError(
                "the task gives a body a mass or moments of inertia that no body has: none is negative, and none is "
                "larger than the other two together"
            )
        self.mujoco.mj_setConst(self.model, self.data)


def number(value: Any) -> int | float:
    """Return a task parameter as a Python number: for a float32, its shortest decimal representation."""
    return int(value) if np.issubdtype(np.asarray(value).dtype, np.integer) else float(str(np.float32(value)))


__all__ = ["GymMaker", "GymSimulator"]
