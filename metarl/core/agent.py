"""Base classes of trainable agents and their configurations, and schedules over training."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.step import Step
from metarl.core.distributions import Distribution
from metarl.core.errors import unknown
from metarl.core.family import AnyFamily
from metarl.core.faults.given import check_is_family, device_here
from metarl.core.faults.memory import check_network
from metarl.core.faults.verbs import VERBS, add_checks, unchecked
from metarl.core.options import at_least, check_options, make_parts, option
from metarl.core.rollout import Agent, Memory, NotFinite, Rollout

Schedule = float | list[tuple[float, float]]
"""A number, or points ``[[progress, value], …]`` with progress from 0 (start) to 1 (end), joined by straight lines."""


def at(schedule: Schedule, progress: float) -> float:
    """Return the value of a schedule after the fraction `progress` of training; constant beyond its end points."""
    if isinstance(schedule, (int, float)):
        return float(schedule)
    earlier = schedule[0]
    for later in schedule:
        if progress < later[0]:
            share = (progress - earlier[0]) / (later[0] - earlier[0]) if later[0] > earlier[0] else 0.0
            return earlier[1] + max(share, 0.0) * (later[1] - earlier[1])
        earlier = later
    return earlier[1]


@dataclass
class AgentConfig:
    """Base class of agent configurations. Subclasses add their fields.

    ``__post_init__`` checks the rule of every option; a subclass that overrides it must call this one.
    """

    meta_batch_size: int = option(512, at_least(1))
    """Tasks per iteration."""

    agent_class: ClassVar[type[LearningAgent] | str | None] = None
    """The class of the configured agent, set by ``class RL2(LearningAgent, config=RL2Config)``. A string
    ``"module:Class"`` is imported when an agent is built, for agents whose library is slow to import."""

    def __post_init__(self) -> None:
        """Check all options, and convert lists to tuples and names to parts. Raises ValueError for a broken rule."""
        for field in dataclasses.fields(self):
            if isinstance(field.default, tuple):
                setattr(self, field.name, tuple(getattr(self, field.name)))
        make_parts(self)
        check_options(self)

    def build(self, family: AnyFamily, seed: int = 0, device: torch.device | str = "cpu") -> LearningAgent:
        """Make an untrained agent for the spaces of `family`, initialised from `seed`, on `device`.

        Raises ValueError if `family`, `seed` or `device` is invalid.
        """
        check_is_family(family)
        rng.key(seed)  # raises ValueError
        device = device_here(device)
        if self.agent_class is None:
            name = type(self).__name__
            raise TypeError(
                f"{name} has no agent: define `class Agent(LearningAgent, config={name})`, or implement `build`."
            )
        make: Any = self.agent_class
        if isinstance(make, str):
            module, _, name = make.partition(":")
            make = getattr(importlib.import_module(module), name)
        check_network(vars(self), family)
        agent: LearningAgent = make(self, family, seed, device)
        return agent


class LearningAgent(Agent):
    """Base class of trainable agents: the four verbs, and what `metarl.training.checkpoint` needs to save them."""

    config: AgentConfig
    family: AnyFamily
    device: torch.device
    told: bool = False
    """True if the policy uses the task that `begin` receives: an oracle, to compare learners with."""
    trained: Mapping[str, Any] = MappingProxyType({})
    """The agent's training progress: ``seed``, ``iteration``, ``env_steps``; empty before training."""
    ring: Any = None
    """The replay buffer of an off-policy agent, a `metarl.learning.trial_ring.TrialRing`, which the trainer saves in
    separate files; None for on-policy agents."""

    def __init_subclass__(cls, config: type[AgentConfig] | None = None) -> None:
        """Make ``config.build`` build agents of this class, and add argument checks to its verbs."""
        super().__init_subclass__()
        add_checks(cls, VERBS)
        if config is not None:
            config.agent_class = cls

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={getattr(self.config, field.name)!r}"
            for field in dataclasses.fields(self.config)
            if getattr(self.config, field.name) != _default(field)
        ]
        return f"<{type(self).__name__}({', '.join(changed)}) for {self.family!r} on {self.device}>"

    @property
    def title(self) -> str:
        """The agent's name in tables and figures."""
        return type(self).__name__

    @property
    def values(self) -> Callable[[Rollout], Tensor] | None:
        """The critic: a function that returns the value of each step of a round, float32 ``(T, B)``; None without one.

        A value estimates the return from the step to the end of the round, in the units of rewards.
        """
        return None

    @property
    def captured(self) -> Mapping[str, Any]:
        """The parts of `update` that a GPU may replay as CUDA graphs (`metarl.fast.capture.Captured`), by name."""
        return {}

    def memory_features(self, memory: Memory, step: Step) -> Mapping[str, Tensor] | None:
        """Return the memory after `step` as vectors, by the names of its parts; None if the agent cannot be probed.

        `memory` is the memory before the step, as passed to `act`, and is not modified. Each part is float32
        ``(B, F)``, with the same F at every step. ``metarl probe`` reads the first part by default.
        """
        return None

    def action_distribution(self, memory: Memory, step: Step) -> Distribution | None:
        """Return the distribution that `act` samples from, over the actions of `ActionUnits`; None if unknown."""
        return None

    def acting_module(self, memory: Memory) -> Any:
        """Return the policy of `act`, without sampling, as a `metarl.learning.acting.ActingModule` for export.

        `memory` is the memory of a single trial from `begin` or `adapt`; an agent that adapts its parameters exports
        those that it contains. Raises ValueError for an agent that cannot be exported.
        """
        name = type(self.config).__name__.removesuffix("Config")
        raise ValueError(f"{name} cannot be exported: RL2, MAML, VariBAD and RecurrentSAC can.")

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that training changes (parameters, optimiser, counters) as a flat dictionary of tensors."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        raise NotImplementedError

    def starting_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state to start from, given another agent's; by default that one.

        A subclass replaces parts that need not match, such as a critic, by its own if they do not.
        """
        return state

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Initialise from another agent's `state_dict`, except for the optimiser and the number of updates.

        Raises RuntimeError or KeyError, like `load_state_dict`, if the agents do not match.
        """
        mine = self.state_dict()
        begins_anew = [name for name in state if name.startswith("optimizer.") or name == "updates"]
        self.load_state_dict(mine | {name: value for name, value in state.items() if name not in begins_anew})

    def export(self, folder: Path) -> None:
        """Write a file for another library to the checkpoint's `folder`; by default nothing."""


class Learned(NamedTuple):
    """The result of one iteration of an agent with its own training loop."""

    metrics: dict[str, float]  # ``train/return``, ``loss/…``
    env_steps: int  # environment steps taken


class OwnLoopAgent(LearningAgent):
    """An agent with its own training loop, such as that of another library: `learn` replaces `update`.

    It is evaluated, saved and loaded like any other agent.
    """

    not_finite: NotFinite | None = None
    """The first non-finite number in the last `learn`, if the agent knows it."""

    def prepare(self, split: str, load: Callable[[str], Agent]) -> None:
        """Load what `learn` needs besides the family, before a run on tasks of `split`; by default nothing.

        `load` returns a trained agent on this agent's device, given a run directory or ``pretrained:NAME``. Raises
        ValueError if something is missing.
        """

    @abstractmethod
    def learn(self, split: str, progress: float = 0.0) -> Learned:
        """Do one iteration: draw tasks of `split`, play, learn. `progress` in [0, 1) is the fraction of training."""

    @unchecked
    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        """Raise TypeError: such an agent learns only from episodes that `learn` plays."""
        raise TypeError(f"{type(self).__name__} plays its own episodes while it learns: call learn(split, progress).")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return an optimiser's state as tensors ``optimizer.<parameter>.<quantity>``; `names` are in parameter order."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{names[index]}.{quantity}": torch.as_tensor(value)
        for index, quantities in state.items()
        for quantity, value in quantities.items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, names: list[str], state: dict[str, Tensor]) -> None:
    """Load a state from `optimizer_state`; entries with other names are ignored."""
    full = optimizer.state_dict()
    full["state"] = {}
    for index, name in enumerate(names):
        prefix = f"optimizer.{name}."
        quantities = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
        if quantities:
            full["state"][index] = quantities
    optimizer.load_state_dict(full)


_REGISTRY: dict[str, type[AgentConfig]] = {}


_REGISTERED_IN: dict[str, str] = {}


def register_agent(name: str, config_class: type[AgentConfig]) -> None:
    """Register the agent that `config_class` builds under `name`, e.g. ``"Mine"``.

    Configuration files and the command line then accept ``agent: Mine``. Registering the same class again has no
    effect. Raises ValueError for another class under a taken name, for a name with characters other than letters,
    digits and ``_+/-``, and for a class that is not an AgentConfig, builds no agent, or has a field called `name`.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d][\w+/-]*", name):
        raise ValueError(f"An agent's name must consist of letters, digits and _+/-, such as 'Mine', got {name!r}.")
    if not isinstance(config_class, type) or not issubclass(config_class, AgentConfig):
        raise ValueError(f"The agent {name!r} needs a configuration class, a subclass of AgentConfig.")
    if config_class.agent_class is None and config_class.build is AgentConfig.build:
        raise ValueError(
            f"{config_class.__name__} has no agent yet: register it below `class Agent(LearningAgent, "
            f"config={config_class.__name__})`."
        )
    if any(field.name == "name" for field in dataclasses.fields(config_class)):
        raise ValueError(f"{config_class.__name__} has a field called 'name', which names the agent itself: rename it.")
    if name in _REGISTRY and _path(_REGISTRY[name]) != _path(config_class):
        raise ValueError(f"The agent's name {name!r} is already taken by {_path(_REGISTRY[name])}.")
    _REGISTRY[name] = config_class
    _REGISTERED_IN[name] = sys._getframe(1).f_globals.get("__name__", "__main__")


def registered_agents() -> list[str]:
    """Return the names of all registered agents, sorted."""
    return sorted(_REGISTRY)


def agent_registered_in(name: str) -> str:
    """Return the module that registered a name; importing it registers the name."""
    return _REGISTERED_IN[name]


def agent_class(name: str) -> type[AgentConfig]:
    """Return the configuration class of a registered agent. Raises ValueError for an unknown name."""
    if name not in _REGISTRY:
        raise ValueError(unknown("agent", name, registered_agents()))
    return _REGISTRY[name]


def _path(config_class: type) -> str:
    """Identify a class by a path that a reload of its module does not change."""
    return f"{config_class.__module__}:{config_class.__qualname__}"
