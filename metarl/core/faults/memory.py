"""Checks that what is asked for fits into memory, before anything is allocated."""

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
    """Return the bytes of memory that this process may have: the machine's, or its container's; inf if unknown."""
    found = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a system without sysconf
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(ValueError, OSError):  # no container, or one without a limit: "max"
            found.append(float(Path(limit).read_text(encoding="ascii")))
    return min(found)


def check_memory(what: str, numbers: float, smaller: str) -> None:
    """Raise ValueError if float32 `numbers` are more than the memory of this machine, and of its GPU, can hold.

    It is called with the least that is needed, before anything is allocated. `smaller` names what to make smaller.
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
    """Return the numbers of one step of one row in a rollout: observation, action, reward, log-probability …"""
    return math.prod(family.observation_space.shape or ()) + math.prod(family.action_space.shape or ()) + 6


def task_numbers(family: AnyFamily) -> int:
    """Return the numbers in one task."""
    return sum(leaf.numel() for leaf in leaves(pattern_task(family)))


def check_network(options: Mapping[str, Any], family: AnyFamily) -> None:
    """Raise ValueError if layers of the sizes that an agent's options say need more memory than there is."""
    sizes = _sizes(options)
    check_memory("The network", _parameters(sizes, family), " or ".join(sizes))


def _sizes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the units of an agent's layers, by the option: ``hidden_size``, ``hidden_sizes``, ``lstm_size`` …"""
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
    """Return the least number of parameters and optimiser's moments that layers of these sizes have."""
    inputs = math.prod(family.observation_space.shape or ()) or 1
    found = 0.0
    for name, units in sizes.items():
        first = units[0] if name in ("hidden_size", "lstm_size") else inputs  # a memory reads itself
        found += sum(float(before) * after for before, after in itertools.pairwise((first, *units)))
    return 3 * found  # Adam's two moments next to each
