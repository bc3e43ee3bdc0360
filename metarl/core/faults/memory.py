"""Checks that what a user asks for fits into memory, before anything is allocated."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metarl.core.checks import pattern_task
from metarl.core.family import AnyFamily
from metarl.core.tree import leaves


@functools.cache
def machine_memory() -> float:
    """Return the memory limit of this process in bytes: the machine's or its container's; inf if unknown."""
    found = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a system without sysconf
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(ValueError, OSError):  # no container, or one without a limit: "max"
            found.append(float(Path(limit).read_text(encoding="ascii")))
    return min(found)


def check_memory(what: str, numbers: float, smaller: str) -> None:
    """Raise ValueError if this many float32 `numbers` fit neither into this machine's memory nor into its GPU's.

    Call it with the least memory needed, before anything is allocated. `smaller` names what the user can make smaller.
    """
    have = machine_memory()
    if 4 * numbers > have and torch.cuda.is_available():
        have = max(have, float(torch.cuda.get_device_properties(0).total_memory))
    if 4 * numbers > have:
        raise ValueError(
            f"{what} needs about {4e-9 * numbers:.3g} GB of memory, and this machine has {1e-9 * have:.3g} GB: "
            f"lower {smaller}."
        )


def row_numbers(family: AnyFamily) -> int:
    """Return how many numbers a rollout stores per step and row: observation, action, reward, log-probability …"""
    return math.prod(family.observation_space.shape or ()) + math.prod(family.action_space.shape or ()) + 6


def task_numbers(family: AnyFamily) -> int:
    """Return how many numbers one task has."""
    return sum(leaf.numel() for leaf in leaves(pattern_task(family)))


def check_network(options: Mapping[str, Any], family: AnyFamily) -> None:
    """Raise ValueError if the layers in an agent's options need more memory than there is."""
    sizes = _sizes(options)
    check_memory("The network", _parameters(sizes, family), " or ".join(sizes))


def _sizes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the units of an agent's layers, by option: ``hidden_size``, ``hidden_sizes``, ``lstm_size`` …"""
    found = {}
    for name, value in options.items():
        units = (value,) if isinstance(value, int) else value
        ours = (
            name.endswith(("_size", "_sizes"))
            and not {"batch", "buffer"} & {*name.split("_")}
            and isinstance(units, tuple)
        )
        if ours and units and all(type(unit) is int and unit > 0 for unit in units):
            found[name] = units
    return found


def _parameters(sizes: Mapping[str, tuple[int, ...]], family: AnyFamily) -> float:
    """Return a lower bound on the number of parameters and Adam moments of layers with these sizes."""
    inputs = math.prod(family.observation_space.shape or ()) or 1
    found = 0.0
    for name, units in sizes.items():
        first = units[0] if name in ("hidden_size", "lstm_size") else inputs  # a memory reads its own state
        found += sum(float(before) * after for before, after in itertools.pairwise((first, *units)))
    return 3 * found  # each parameter has two Adam moments
