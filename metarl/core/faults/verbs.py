"""Argument checks for the verbs of all agents and task samplers, in one place.

A class of agents gets the checks when it is defined, so that no agent has to repeat them and agents of other projects
have them, too. They look only at types and shapes, never at values, so they are cheap and need no copy from a GPU.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from metarl.core.beliefs.step import Step
from metarl.core.errors import short
from metarl.core.faults.results import described
from metarl.core.rollout import Rollout

Made = TypeVar("Made", bound=Callable[..., Any])


class Argument(NamedTuple):
    """An argument of a method, and its check."""

    name: str
    number: int
    sentence: Callable[[Any, Any], str]
    """Given the object and the argument, returns the message for what is wrong; empty if nothing is."""


def add_checks(cls: type, checks: Mapping[str, tuple[Argument, ...]]) -> None:
    """Make the methods that a class defines raise ValueError for a wrong argument."""
    for name, arguments in checks.items():
        method = vars(cls).get(name)
        if inspect.isfunction(method) and not hasattr(method, "checked"):
            setattr(cls, name, _checked(method, arguments))


def unchecked(method: Made) -> Made:
    """Mark a method that `add_checks` skips."""
    vars(method)["checked"] = False
    return method


def _checked(method: Callable[..., Any], arguments: tuple[Argument, ...]) -> Callable[..., Any]:
    @functools.wraps(method)
    def looked_at(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name, number, sentence in arguments:
            if number < len(args):
                wrong = sentence(self, args[number])
            elif name in kwargs:
                wrong = sentence(self, kwargs[name])
            else:  # the argument is missing, and the call itself will raise
                continue
            if wrong:
                raise ValueError(wrong)
        return method(self, *args, **kwargs)

    vars(looked_at)["checked"] = True
    return looked_at


def _is_count(given: Any, least: int) -> bool:
    """Return True for a Python or NumPy integer of at least `least`."""
    return isinstance(given, (int, np.integer)) and not isinstance(given, bool) and int(given) >= least


def _count(agent: Any, given: Any) -> str:
    if _is_count(given, least=0):
        return ""
    return f"{_name(agent)}.begin takes the number of tasks, such as agent.begin(4), got {short(given)}."


def _step(agent: Any, given: Any) -> str:
    what = f"{_name(agent)}.act takes a Step, such as BatchEnv.reset() returns"
    if not isinstance(given, Step):
        return f"{what}, got {_seen(given)}."
    if (family := getattr(agent, "family", None)) is None:
        return ""
    shape = (len(given.prev_reward), *family.observation_space.shape) if given.prev_reward.ndim == 1 else None
    if given.obs.shape == shape:
        return ""
    wanted = f"(B, {', '.join(map(str, family.observation_space.shape))})"
    return f"{what}, with observations {wanted} and rewards (B,), got {described(given.obs)}."


def _key(agent: Any, given: Any) -> str:
    if isinstance(given, Tensor) and given.dtype == torch.int64 and given.ndim == 1:
        return ""
    got = "a single one" if isinstance(given, Tensor) and given.dtype == torch.int64 and not given.ndim else None
    return (
        f"{_name(agent)}.act takes a key for each row, such as metarl.core.rng.fold(key, torch.arange(B)), "
        f"got {got or _seen(given)}."
    )


def _round(agent: Any, given: Any) -> str:
    if isinstance(given, Rollout):
        return _of_spaces(agent, given)
    several = ": it learns from one round of a trial at a time" if isinstance(given, (list, tuple)) else ""
    return f"{_name(agent)}.adapt takes a Rollout, got {_seen(given)}{several}."


def _trial(agent: Any, given: Any) -> str:
    what = f"{_name(agent)}.update takes a trial, a list of rollouts as run_trial returns it"
    rounds = agent.protocol.rounds
    if isinstance(given, Rollout):
        whole = "[rollout]" if rounds == 1 else "all rounds of the trial"
        return f"{what}, got one Rollout: give {whole}."
    if sentence := _no_trial(what, given):
        return sentence
    if rounds == 1 and len(given) > 1:
        return f"{what}, of a single round, got {len(given)} rollouts: give each as a trial, [rollout]."
    return next(filter(None, (_of_spaces(agent, rollout) for rollout in given)), "")


def _no_trial(what: str, given: Any) -> str:
    if not isinstance(given, (list, tuple)) or isinstance(given, Rollout):
        return f"{what}, got {_seen(given)}."
    if not given:
        return f"{what}, got an empty one."
    others = [each for each in given if not isinstance(each, Rollout)]
    return f"{what}, got a {_name(given)} with {_seen(others[0])}." if others else ""


def _of_spaces(agent: Any, rollout: Rollout) -> str:
    """Return the message for a rollout with the spaces of another family."""
    family = getattr(agent, "family", None)
    if family is None or rollout.step.obs.shape[2:] == family.observation_space.shape:
        return ""
    made, got = family.observation_space.shape, tuple(rollout.step.obs.shape[2:])
    return f"This {_name(agent)} was made for observations of shape {made}, but those of the rollout have {got}."


def _scored(sampler: Any, given: Any) -> str:
    return _no_trial(f"{_name(sampler)}.score takes a trial, a list of rollouts as run_trial returns it", given)


def _proposal(sampler: Any, given: Any) -> str:
    if hasattr(given, "tasks") and hasattr(given, "learn"):
        return ""
    return f"{_name(sampler)}.score takes the Proposal whose trial it is, as propose returns it, got {_seen(given)}."


def _root(sampler: Any, given: Any) -> str:
    if isinstance(given, Tensor) and given.dtype == torch.int64 and not given.ndim:
        return ""
    return f"{_name(sampler)}.propose takes one key, such as metarl.core.rng.key(seed) returns, got {_seen(given)}."


def _number(sampler: Any, given: Any) -> str:
    if _is_count(given, least=1):
        return ""
    return f"{_name(sampler)}.propose takes the number of tasks, at least 1, got {short(given)}."


def _name(given: Any) -> str:
    return type(given).__name__


def _seen(given: Any) -> str:
    """Describe an argument: tensors, lists and tuples by type and shape, anything else by its value."""
    if isinstance(given, (Tensor, list, tuple)):
        return described(given)
    return short(given)


VERBS = {
    "begin": (Argument("num_tasks", 0, _count),),
    "act": (Argument("step", 1, _step), Argument("key", 2, _key)),
    "adapt": (Argument("rollout", 1, _round),),
    "update": (Argument("trial", 0, _trial),),
}
"""The checks of an agent."""


SAMPLING = {
    "propose": (Argument("key", 0, _root), Argument("n", 1, _number)),
    "score": (Argument("proposal", 0, _proposal), Argument("trial", 1, _scored)),
}
"""The checks of a task sampler."""
