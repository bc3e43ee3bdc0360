"""Any registered Gymnasium environment as a task family."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
from gymnasium.envs.registration import EnvSpec

from metarl.core import rng
from metarl.core.errors import short, truth, unknown, whole_number
from metarl.core.family import Key
from metarl.envs.adapter.gym_simulator import Constructed, GymMaker, is_mujoco, number
from metarl.envs.adapter.parameters import Parameter, Parameters
from metarl.envs.adapter.simulated import SimulatorFamily, rows_of
from metarl.envs.adapter.simulator import TaskRow
from metarl.envs.adapter.spaces import Actions, Observations, observed
from metarl.envs.mujoco.scene import robots_are_drawn

BRINGERS = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Prefix of ids → the package, tested with metarl, whose import registers them."""

LONGER_POLES = {
    "length": {
        "where": "attribute:length",
        "factor": True,
        "train": {"log_uniform": [1 / 1.5, 1.5]},
        "ood": {"log_uniform": [[1 / 3, 1 / 1.5], [1.5, 3.0]]},
    }
}
"""The parameters of the default environment."""


class GymFamily(SimulatorFamily[Any]):
    """Any registered Gymnasium environment, with some of its numbers as the task; by default CartPole's pole length.

    Description:
        Each row runs in its own environment, in this process or in worker processes::

            family = metarl.make("metarl/Gym-v0", env="LunarLander-v3", shows_task=True, parameters={
                "gravity": {"where": "constructor", "train": {"uniform": [-11, -4]}, "ood": {"uniform": [-4, -1]}},
            })

        A state is opaque; `SimulatorFamily` lists the limitations. The noise of an episode comes from
        ``reset(seed=…)``.

    What varies:
        The numbers named in `parameters`: `GymTask`, with one field for each. ``where`` says where a number goes:

        - ``constructor``: an argument of the constructor; each task then has its own environment.
        - ``attribute:path``, such as ``attribute:unwrapped.gravity`` or ``attribute:limits[0]``. Constants that the
          constructor computes from it are recomputed (CartPole's ``total_mass`` from ``masscart``); if that is not
          possible, a warning names the constant.
        - ``option:name``: an entry of ``reset(options=…)``.
        - ``seed``: the seed of every reset, so that the layout, and with it the noise of the episodes, is the same
          throughout a trial.
        - ``model:field`` of a MuJoCo environment: ``model:body_mass``, ``model:body_mass[torso]``,
          ``model:opt.gravity[2]``. Moments of inertia scale with a body's mass.

        ``constructor``, ``attribute`` and ``option`` without a name use the parameter's name. With ``factor: true``,
        the number multiplies the environment's own value.

    Splits:
        Each parameter has a distribution for `train`, and one for each split that differs from it:
        ``{uniform: [low, high]}``, ``{log_uniform: [low, high]}``, each also with a list of intervals;
        ``{choice: [values]}``; ``{integers: [first, last]}``; or a number.

        - `train`, `valid`, `test`: fresh draws, unless a parameter has other values for one of them. A split whose
          numbers all have finitely many values is enumerated; `test` must then have its own values.
        - `ood`, if a parameter has it: disjoint from `train` in at least one parameter. By default, 1/3 to 2/3 and 1.5
          to 3 times the length.

    Actions:
        Those of the environment: Discrete, MultiDiscrete or Box. Box actions are clipped to the bounds.

    Observations:
        Those of the environment, as float32. Discrete ones become zeros and ones; the entries of a Dict or Tuple, or
        those that `observe` names, are joined (`observation_parts`). `observe` can give an entry its own bounds,
        ``{image: [0, 10], direction: null}``, for images that contain small numbers.

    Rewards:
        Those of the environment.

    Endings:
        Terminated when the environment terminates; truncated after `horizon` steps, by default the limit of its
        registration, or its ``max_steps``.

    Optimum:
        Unknown.

    Source:
        Towers et al. 2024, "Gymnasium: A Standard Interface for Reinforcement Learning Environments"; the default's
        physics: Barto, Sutton & Anderson 1983.

    Version history:
        v0: first version.

    `arguments` are passed to the constructor for every task. `success` names the entry of ``info`` that says whether a
    task is solved. `shows_task` declares that the first observation depends on the task. The other options are those of
    `SimulatorFamily`.

    The id may name a module (``module:Name-v0``) only if it is already imported: import it first, or pass
    ``--allow module``. Raises ValueError for an invalid option.
    """

    def __init__(
        self,
        env: str = "CartPole-v1",
        parameters: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        observe: Sequence[str] | Mapping[str, Any] | None = None,
        horizon: int | None = None,
        episodes_per_trial: int = 2,
        success: str | None = None,
        shows_task: bool = False,
        workers: int = 0,
        max_rows: int = 64,
        frames: bool = False,
        early_ends: bool = False,
    ) -> None:
        spec = find(env)
        if parameters is None and env == "CartPole-v1":
            parameters = LONGER_POLES
        if parameters is None:
            raise ValueError("parameters must name the numbers of a task, such as {gravity: {where: constructor, …}}.")
        self._tasks = Parameters(parameters)
        _check_arguments(arguments, self._tasks.all)
        self.env, self.parameters, self.arguments = env, dict(parameters), dict(arguments) if arguments else None
        self.observe_given, self.success_given = observe, success
        self.splits = self._tasks.splits  # type: ignore[misc]
        self.valid_apart = self._tasks.valid_apart  # type: ignore[misc]
        self.shows_task = truth("shows_task", shows_task)  # type: ignore[misc]
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        entries = None if observe is None else observed(observe)
        maker = GymMaker(spec, _plain(arguments or {}), tuple(self._tasks.all), entries, success)
        super().__init__(maker.drawing() if frames else maker, workers, max_rows, frames, early_ends)
        self._look(maker, horizon)

    def kind(self, task: TaskRow) -> Constructed:
        return tuple(
            (each.place.name, number(task[each.name])) for each in self._tasks.all if each.place.kind == "constructor"
        )

    def draw_tasks(self, keys: Key, split: str) -> Any:
        return self._tasks.draw(keys, split)

    def enumerate_tasks(self, split: str) -> Any | None:
        return self._tasks.enumerate(split)

    def check_task(self, task: Any) -> None:
        self._tasks.check_task(task)

    @property
    def no_picture(self) -> str:
        if self.renders and self._mujoco and not robots_are_drawn():
            return "MuJoCo has no OpenGL to draw with; set MUJOCO_GL=egl on a machine without a screen."
        return super().no_picture

    def drawable(self) -> Self:
        twin = super().drawable()
        assert isinstance(self.maker, GymMaker)
        twin.maker = self.maker.drawing()
        return twin

    def success(self, task: Any, state: Any) -> Any:
        return None if self.success_given is None else state.success

    def _look(self, maker: GymMaker, horizon: int | None) -> None:
        """Read the spaces and the horizon from an environment with a training task, and try every place."""
        env = self._made(maker)
        try:
            for each in maker.at("model"):
                _check_model(self.env, env, each)
            for each in maker.at("attribute", "model"):
                each.place.read(env)
            observations, actions = Observations(env.observation_space, maker.observe), Actions(env.action_space)
            self.observation_space, self.action_space = observations.space, actions.space
            self._mujoco = is_mujoco(env)
            self.renders = "rgb_array" in env.metadata.get("render_modes", ())
            self.observation_parts = observations.parts
            self.horizon = _horizon(self.env, env, maker.spec, horizon)
            for derived in maker.derived(env):
                if derived.code is None:
                    warnings.warn(
                        f"{type(env.unwrapped).__name__} computes {derived.name} from a number of the task "
                        f"({short(derived.expression)}), and it keeps its former value when the task changes.",
                        stacklevel=3,
                    )
        finally:
            env.close()

    def _made(self, maker: GymMaker) -> gymnasium.Env[Any, Any]:
        row = rows_of(self.sample_tasks(rng.key(0), 1, "train"))[0]
        try:
            return maker.make(self.kind(row))
        except Exception as error:  # a constructor may raise anything
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self.env} cannot be made with {maker.arguments | dict(self.kind(row))}: {said}"
            ) from error


def find(env: Any) -> EnvSpec:
    """Return the specification of a registered id. Raises ValueError if the id is not registered."""
    if not isinstance(env, str):
        raise ValueError(
            f"env must be the id of a Gymnasium environment, such as 'CartPole-v1', got {short(env)}: one of your own "
            "gets an id by gymnasium.register(id, entry_point=…)."
        )
    module, _, name = env.rpartition(":")
    if module and module not in sys.modules:
        raise ValueError(f"The module of {env!r} is not imported: import {module} first, or give --allow {module}.")
    bringer = next((package for first, package in BRINGERS.items() if name.startswith(first)), None)
    if bringer is not None and bringer not in sys.modules:
        if importlib.util.find_spec(bringer) is None:
            raise ValueError(f"{name} needs {bringer}, which is not installed: pip install 'metarl[{bringer}]'.")
        importlib.import_module(bringer)
    if name not in gymnasium.registry:
        raise ValueError(unknown("Gymnasium environment", name, gymnasium.registry, see="gymnasium.pprint_registry()"))
    return gymnasium.registry[name]


def _check_arguments(arguments: Any, parameters: Sequence[Parameter]) -> None:
    """Raise ValueError if the arguments are not a dictionary, or if a task parameter would override one."""
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ValueError(f"arguments must be a dictionary of the constructor's arguments, got {short(arguments)}.")
    for each in parameters:
        if each.place.kind == "constructor" and each.place.name in (arguments or {}):
            raise ValueError(
                f"The constructor's argument {each.place.name!r} is given twice, in arguments and as the parameter "
                f"{each.name} of the task: leave it out of arguments."
            )


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments. Raises ValueError for one that could name a file or a module."""
    for name, value in arguments.items():
        if isinstance(value, str) and (value.startswith((".", "~")) or any(sign in value for sign in "/\\:")):
            raise ValueError(
                f"arguments.{name} must not name a file or a module, got {short(value)}: register the environment with "
                "it under an id of your own."
            )
    return dict(arguments)


def _check_model(id: str, env: gymnasium.Env[Any, Any], parameter: Parameter) -> None:
    if not is_mujoco(env):
        raise ValueError(f"{parameter.name}: {id} has no model, since it is not a MuJoCo environment.")


def _horizon(id: str, env: gymnasium.Env[Any, Any], spec: EnvSpec, given: int | None) -> int:
    found = given if given is not None else spec.max_episode_steps or getattr(env.unwrapped, "max_steps", None)
    if found is None:
        raise ValueError(f"{id} has no step limit of its own: set horizon, the steps of an episode.")
    return whole_number("horizon", found)


__all__ = ["GymFamily"]
