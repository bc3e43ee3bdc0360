"""The registry of agents: the names by which files and the command line know them."""

from __future__ import annotations

import dataclasses
import re
import sys

from metarl.agent import AgentConfig
from metarl.errors import unknown

_REGISTRY: dict[str, type[AgentConfig]] = {}
_REGISTERED_IN: dict[str, str] = {}


def register_agent(name: str, config_class: type[AgentConfig]) -> None:
    """Make the agent that `config_class` builds known as `name`, e.g. ``"Mine"``.

    Files and the command line then take ``agent: Mine``. Registering the same class again is harmless. Raises
    ValueError for another class under a taken name, for a name with other characters than letters, digits and ``_+/-``,
    and for a class that is no AgentConfig, builds no agent, or has a field called `name`.
    """
    if not re.fullmatch(r"[^\W\d][\w+/-]*", name):
        raise ValueError(f"An agent's name is made of letters, digits and _+/-, such as 'Mine', got {name!r}.")
    if not isinstance(config_class, type) or not issubclass(config_class, AgentConfig):
        raise ValueError(f"The agent {name!r} needs a class of its configuration: a subclass of AgentConfig.")
    if config_class.agent_class is None and config_class.build is AgentConfig.build:
        raise ValueError(
            f"{config_class.__name__} configures no agent yet: register it below `class Agent(LearningAgent, "
            f"config={config_class.__name__})`."
        )
    if any(field.name == "name" for field in dataclasses.fields(config_class)):
        raise ValueError(f"{config_class.__name__} has a field called 'name', which names the agent itself: rename it.")
    if name in _REGISTRY and _path(_REGISTRY[name]) != _path(config_class):
        raise ValueError(f"The agent's name {name!r} is already taken by {_path(_REGISTRY[name])}.")
    _REGISTRY[name] = config_class
    _REGISTERED_IN[name] = sys._getframe(1).f_globals.get("__name__", "__main__")


def registered_agents() -> list[str]:
    """The names of all registered agents, sorted."""
    return sorted(_REGISTRY)


def agent_registered_in(name: str) -> str:
    """The module that registered a name: whoever imports it has the name too."""
    return _REGISTERED_IN[name]


def agent_class(name: str) -> type[AgentConfig]:
    """The class of a registered agent's configuration. Raises ValueError that names the nearest name if none is."""
    if name not in _REGISTRY:
        raise ValueError(unknown("agent", name, registered_agents()))
    return _REGISTRY[name]


def _path(config_class: type) -> str:
    """The same for a class and for what a reload makes of it."""
    return f"{config_class.__module__}:{config_class.__qualname__}"
