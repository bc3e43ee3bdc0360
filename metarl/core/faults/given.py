"""Checks of what users pass in: families, agents, devices, and the results of an agent's `act`."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core.errors import short
from metarl.core.family import TaskFamily
from metarl.core.faults.results import described, dtype_name


def no_family(given: Any) -> str:
    """Return the message for an argument that is not a complete task family; empty if it is."""
    if isinstance(given, TaskFamily):
        return _not_whole(given)
    advice = ""
    if isinstance(given, type):
        advice = f": it is a class; create an instance, such as {given.__name__}()"
    elif isinstance(given, str):
        advice = ": metarl.make makes the family of an id, such as 'metarl/GridNavi-v0'"
    elif isinstance(getattr(getattr(given, "unwrapped", None), "family", None), TaskFamily):
        advice = ": it is an environment, whose family is env.unwrapped.family"
    elif isinstance(given, gymnasium.Env):
        advice = ": metarl.make('metarl/Gym-v0', env=ID, parameters=…) makes a family of a registered environment"
    return f"A task family is needed, got {short(given)}{advice}."


def _not_whole(family: TaskFamily[Any, Any]) -> str:
    """Return the message for what a family lacks; empty if it is complete."""
    name = type(family).__name__
    for attribute in ("observation_space", "action_space", "horizon", "episodes_per_trial"):
        if getattr(family, attribute, None) is None:
            return f"{name} has no {attribute}: set it in the class or in its constructor."
    if not isinstance(family.observation_space, spaces.Box):
        return f"{name}.observation_space must be a float32 Box, got {short(family.observation_space)}."
    if not isinstance(family.action_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)):
        kinds = "Discrete, or a one-dimensional MultiDiscrete or float32 Box"
        return f"{name}.action_space must be {kinds}, got {short(family.action_space)}."
    for attribute in ("horizon", "episodes_per_trial"):
        number = getattr(family, attribute)
        if not hasattr(number, "__index__") or number < 1:
            return f"{name}.{attribute} must be an int of at least 1, got {short(number)}."
    return ""


def check_is_family(given: Any) -> None:
    """Raise ValueError unless the argument is a task family with all its spaces and lengths."""
    if sentence := no_family(given):
        raise ValueError(sentence)


def check_is_agent(given: Any) -> None:
    """Raise TypeError unless the argument is an agent."""
    if hasattr(given, "protocol") and not isinstance(given, type):
        return
    advice = ""
    if isinstance(given, str):
        advice = ": metarl.load makes the agent of a run directory or a name"
    elif hasattr(given, "build") and not isinstance(given, type):
        advice = ": a configuration makes one by build(family, seed, device)"
    elif hasattr(given, "policy") and hasattr(given, "predict"):
        advice = ": metarl.agents.sb3.agent.SB3Model(model, family) makes one of a model of stable-baselines3"
    raise TypeError(f"agent must be an agent, such as metarl.load returns, got {short(given)}{advice}.")


def wrong_acted(agent: Any, returned: Any, space: gymnasium.Space[Any], rows: int) -> str:
    """Return the message for a result of `act` that is not an Acted with `rows` rows and a memory; empty if it is."""
    name = f"{type(agent).__name__}.act"
    fields = ("action", "log_prob", "value")
    pair = isinstance(returned, tuple) and len(returned) == 2
    if not pair or not all(hasattr(returned[0], field) for field in fields):
        several = isinstance(returned, tuple)
        got = f"({', '.join(type(x).__name__ for x in returned)})" if several else type(returned).__name__
        return f"{name} must return an Acted and the memory, got {got}."
    floating = isinstance(space, spaces.Box)
    for field, dims in zip(fields, (space.shape or (), (), ()), strict=True):
        x = getattr(returned[0], field)
        if not isinstance(x, Tensor):
            return f"{name} must give {field} as a tensor, got {type(x).__name__}."
        kind = torch.int64 if field == "action" and not floating else torch.float32
        if x.dtype != kind or x.shape != (rows, *dims):
            wanted = f"{dtype_name(kind)} of shape {(rows, *dims)}"
            return f"{name} must give {field} as {wanted}, got {described(x)}."
    return ""


def check_actions(space: gymnasium.Space[Any], action: Any, rows: int) -> None:
    """Raise ValueError unless `action` is a tensor of one action for each row, of the type that the space has.

    A tensor of another shape may broadcast, and one of another type may change the precision of a family's physics;
    both would silently give wrong results. Values are not checked: on a GPU that would wait for the device.
    """
    shape, dtype = (rows, *(space.shape or ())), torch.float32 if isinstance(space, spaces.Box) else torch.int64
    if not isinstance(action, Tensor) or action.shape != shape or action.dtype != dtype:
        wanted = f"a tensor of {dtype_name(dtype)} of shape {shape}, an action for each row"
        raise ValueError(f"action must be {wanted}, got {described(action)}.")


def device_here(given: torch.device | str) -> torch.device:
    """Return the device for a torch name or "auto". Raises ValueError for a device that this machine does not have."""
    there = torch.cuda.is_available()
    try:
        found = torch.device(("cuda" if there else "cpu") if given == "auto" else given)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'cpu', 'cuda' or 'auto', got {short(given)}.") from error
    if found.type == "cuda" and not there:
        raise ValueError("device is 'cuda', but torch finds no CUDA device here: use 'cpu' or 'auto'.")
    return found
