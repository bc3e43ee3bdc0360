"""The file of a checkpoint: tensors and counters with a checksum, checked against the agent that loads them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metarl.core.agent import LearningAgent
from metarl.core.faults.memory import machine_memory
from metarl.core.faults.regular import NotRegular, read_regular
from metarl.core.tree import to_device
from metarl.learning.samplers.sampler import TaskSampler
from metarl.training.config.errors import ConfigError

FORMAT = 1
"""The version of the file format; it is increased whenever older files can no longer be read."""


KEYS = {"format", "counters", "sha256"}
"""Entries of a file's header; older files have no checksum."""


LARGEST = 2**53
"""The largest value of a counter."""


SAMPLER = "task_sampler."
"""Prefix of the names of tensors in the state of the task sampler."""


MOMENTS = ("exp_avg", "exp_avg_sq")
"""Quantities of an optimiser with the same shape as their parameter."""


@dataclass(frozen=True)
class Counters:
    """The progress of a run."""

    iteration: int = 0  # iterations done
    env_steps: int = 0  # environment steps of training, padding not counted
    seconds: float = 0.0  # of training, evaluations included
    best_score: float | None = None  # on `valid`, of the evaluations so far; None: there was none
    best_iteration: int = 0


class Damaged(ConfigError):
    """The error for a damaged checkpoint; the message is one sentence for the user."""


class Saved(NamedTuple):
    """The content of a file."""

    state: dict[str, Tensor]
    counters: Counters
    exact: bool  # it has a checksum, so its tensors are exactly the agent's; earlier versions may have had others
    sampler: dict[str, Tensor]  # the state of the task sampler; empty for one without a state


def pack(state: Mapping[str, Tensor], counters: Counters, sampler: Mapping[str, Tensor] | None = None) -> bytes:
    """Return the content of the file of an agent's tensors, the counters, and a task sampler's tensors."""
    state = {**state, **{f"{SAMPLER}{name}": value for name, value in (sampler or {}).items()}}
    # Copies: safetensors refuses tensors that share memory, such as views of one flat buffer of parameters.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    header = {"format": str(FORMAT), "counters": json.dumps(dataclasses.asdict(counters))}
    header["sha256"] = _digest(tensors, header["counters"])
    return safetensors.torch.save(tensors, header)


def read(path: Path, device: torch.device | str = "cpu") -> Saved:
    """Read a file. Raises Damaged, or ConfigError for a file with another version's format."""
    try:
        data = read_regular(path, machine_memory())
        state = to_device(safetensors.torch.load(data), device)
        header = _header(data)
    except NotRegular as error:
        raise Damaged(str(error)) from error
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = textwrap.shorten(str(error), 100, placeholder=" …")
        raise Damaged(f"The checkpoint {str(path)!r} cannot be read: {reason}.") from error
    stated = header.get("sha256")
    if header.keys() - KEYS or (stated is not None and stated != _digest(state, header.get("counters", ""))):
        raise Damaged(
            f"The checkpoint {str(path)!r} is damaged: its content does not match its checksum. Use a copy of it."
        )
    if header.get("format") != str(FORMAT):
        found = header.get("format", "unknown")[:20]
        raise ConfigError(f"The checkpoint {str(path)!r} has format {found}; this version of metarl reads {FORMAT}.")
    try:
        agent = {name: value for name, value in state.items() if not name.startswith(SAMPLER)}
        sampler = {name.removeprefix(SAMPLER): value for name, value in state.items() if name not in agent}
        return Saved(agent, _counters(header["counters"]), stated is not None, sampler)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Damaged(f"The checkpoint {str(path)!r} cannot be read: its counters are damaged.") from error


def _header(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its first 8 bytes are the length of the JSON text after them."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]).get("__metadata__") or {}


def _digest(state: Mapping[str, Tensor], counters: str) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all tensors, and of the counters, in hexadecimal."""
    found = hashlib.sha256(counters.encode())
    for name, value in sorted(state.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _counters(text: str) -> Counters:
    """Parse counters. Raises ValueError or TypeError if one is missing, unknown, or out of range."""
    plain: Any = json.loads(text, parse_constant=_refuse)
    found = Counters(**plain)
    whole = (found.iteration, found.env_steps, found.best_iteration)
    score = 0.0 if found.best_score is None else found.best_score
    if (
        not {"iteration", "env_steps", "seconds"} <= plain.keys()
        or not all(type(count) is int and 0 <= count <= LARGEST for count in whole)
        or found.best_iteration > found.iteration
        or not all(type(number) in (int, float) and math.isfinite(number) for number in (found.seconds, score))
        or not 0 <= found.seconds <= LARGEST
    ):
        raise ValueError("a counter is out of range")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


Kinds = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shapes and types of tensors by their names."""


def kinds(state: Mapping[str, Tensor]) -> Kinds:
    """Return the shapes and types of tensors."""
    return {name: (tuple(value.shape), value.dtype) for name, value in state.items()}


def without_optimiser(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state that an agent needs for acting."""
    return {name: value for name, value in state.items() if not name.startswith("optimizer.")}


def put(saved: Saved, agent: LearningAgent, method: Callable[[dict[str, Tensor]], None]) -> str | None:
    """Load a state into an agent with this method of the agent; return why that is not possible, or None."""
    fresh = kinds(without_optimiser(agent.state_dict()))  # a fresh optimiser has no tensors yet
    try:
        method(saved.state)
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        saved = saved._replace(exact=True)  # also of an earlier version: something that it needs is not there
        reason = misfit(saved._replace(state=without_optimiser(saved.state)), fresh) or _wrong_optimiser(saved.state)
        return reason or textwrap.shorten(" ".join(str(error).split()), 120, placeholder=" …").rstrip(".")
    return None


def put_sampler(saved: Saved, sampler: TaskSampler) -> str | None:
    """Load the state in a file into a task sampler; return why that is not possible, or None."""
    try:
        sampler.load_state_dict(saved.sampler)
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        name = type(sampler).__name__
        lacks = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else " ".join(str(error).split())
        return textwrap.shorten(f"the task sampler {name} cannot continue from it: {lacks}", 160, placeholder=" …")
    return None


def misfit(saved: Saved, agent: Kinds) -> str | None:
    """Describe the first tensor in which a file and an agent differ; None if they match."""
    file = kinds(saved.state)
    for name in sorted(file.keys() & agent.keys()):
        if file[name] != agent[name]:
            return f"{_short(name)} is {_said(file[name])}, but the agent's is {_said(agent[name])}"
    if saved.exact and (missing := sorted(agent.keys() - file.keys())):
        return f"{_several(missing)} missing"
    if saved.exact and (extra := sorted(file.keys() - agent.keys())):
        return f"{_several(extra)} not part of the agent"
    return _wrong_optimiser(saved.state)


def _wrong_optimiser(state: Mapping[str, Tensor]) -> str | None:
    """Describe a tensor that no optimiser could have, such as moments of another shape; None if there is none."""
    for name, value in state.items():
        parameter, _, quantity = name.removeprefix("optimizer.").rpartition(".")
        own = state.get(f"net.{parameter}") if name.startswith("optimizer.") else None
        if own is not None and quantity in MOMENTS and value.shape != own.shape:
            return f"{_short(name)} is {tuple(value.shape)}, but the parameter is {tuple(own.shape)}"
        if name == "updates" or (name.startswith("optimizer.") and quantity == "step"):
            if value.numel() != 1 or not 0 <= float(value) <= LARGEST:
                return f"{_short(name)} is not a number of updates"
    return None


def _short(name: str) -> str:
    return repr(name if len(name) <= 50 else f"{name[:49]}…")


def _several(names: list[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"{_short(names[0])}{more}"


def _said(kind: tuple[tuple[int, ...], torch.dtype]) -> str:
    return f"{str(kind[1]).removeprefix('torch.')} {kind[0]}"[:60]
