"""Support for configurations of earlier versions: names of classes, their paths, and removed options."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, NamedTuple

from metarl.core.agent import agent_class, registered_agents
from metarl.core.options import parts_of
from metarl.core.registry import family_class, registered
from metarl.training.config.errors import ConfigError, shown

AGENTS = {"RL2Config": "RL2", "MAMLConfig": "MAML", "PPOConfig": "PPO"}
"""Configuration classes named in older files, with or without a path, and the agents' current names."""


class Gone(NamedTuple):
    """A removed option."""

    value: Any
    """The option's former default, which is now the only behaviour."""
    why: str = ""


GONE = {
    "RL2": {"reward_input_scale": Gone(1.0)},
    "MAML": {
        "policy": Gone(
            "mlp",
            "MAML differentiates its gradients a second time, which fast recurrent kernels cannot do; an agent that "
            "adapts in its memory is RL2.",
        ),
        "action_unit": Gone(None),
    },
    "PPO": {"target_kl": Gone(None)},
}
"""Removed options of agents. A file with such an option at its default is still valid."""


def is_gone(agent: str, option: str, value: Any) -> bool:
    """Return True if an agent's option was removed. Raises ConfigError if `value` is not its former default."""
    gone = GONE.get(agent, {}).get(option)
    if gone is None:
        return False
    if value != gone.value:
        why = f" {gone.why}" if gone.why else ""
        now = f"it is {shown(gone.value)}, got {shown(value)}"
        raise ConfigError(f"The agent {agent} has no option {option!r} any more: {now}.{why}")
    return True


MOVED = {"MAML": ("outer", ("trpo", "ppo", "reptile"))}
"""Agents whose options have moved into a part: the field of the part, and its kinds, the default first."""


def with_parts(agent: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Convert an agent's old options, such as ``{outer: ppo, clip_coef: 0.2}``, some of which have moved into a part.

    Options for kinds of the part that are not chosen had no effect and are dropped.
    """
    name = former_name("agent", agent) if isinstance(agent, str) else None
    if name not in MOVED:
        return options
    field, kinds = MOVED[name]
    parts = parts_of(agent_class(name))[field].kinds
    chosen = options.get(field, kinds[0])
    moved = {option.name for kind in parts.values() for option in dataclasses.fields(kind)}
    own = {option.name for option in dataclasses.fields(parts[chosen])} if chosen in parts else set()
    kept = {option: value for option, value in options.items() if option not in {*moved, field}}
    part = {option: value for option, value in options.items() if option in own}
    return kept | ({field: {"name": chosen, **part}} if field in options or part else {})


def former_name(field: str, name: str) -> str | None:
    """Return the id for a class, or the path of a class, that an older file names; None if there is none.

    The path of another project's class has an id once the class is registered.
    """
    module, _, cls = name.rpartition(".")
    ours = module.split(".")[0] == "metarl"
    if field == "agent":
        if (ours or not module) and cls in AGENTS:
            return AGENTS[cls]
        known = {id: agent_class(id) for id in registered_agents()}
    else:
        if ours and f"metarl/{cls}-v0" in registered():
            return f"metarl/{cls}-v0"
        known = _families_of_others() if module else {}
    return next((id for id, made in known.items() if _path(made) == name), None)


def _families_of_others() -> dict[str, Any]:
    found = {}
    for id in registered():
        if not id.startswith("metarl/"):
            with contextlib.suppress(ImportError, AttributeError):  # registered by its path, which leads nowhere
                found[id] = family_class(id)
    return found


def _path(factory: Any) -> str:
    return f"{getattr(factory, '__module__', '')}.{getattr(factory, '__qualname__', '')}"
