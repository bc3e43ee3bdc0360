"""The manifest of an export: a JSON file with the program's inputs, outputs and origin."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from metarl.core.agent import LearningAgent
from metarl.core.family import AnyFamily, made_with
from metarl.core.units import action_units, no_action
from metarl.interop.export.program import KINDS, STEP, Program

MANIFEST = "manifest.json"
VERSION = 1
"""Version of the manifest's format."""

LIBRARIES = ("metarl", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def manifest_of(
    agent: LearningAgent, program: Program, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], **made: Any
) -> dict[str, Any]:
    """Return the manifest of a program with these example inputs and outputs; `made` are further entries."""
    *step, memory = inputs
    states = program.memory_names
    return {
        "version": VERSION,
        **made,
        "agent": agent.title,
        "trained": dict(agent.trained),
        "family": made_with(agent.family),
        "episodes": agent.protocol.episodes or agent.family.episodes_per_trial,
        "horizon": agent.family.horizon,
        "inputs": [_tensor(name, x) for name, x in zip((*STEP, *states), (*step, *memory), strict=True)],
        "outputs": [_tensor(name, x) for name, x in zip(program.outputs(), outputs, strict=True)],
        "memory": {name: f"next_{name}" for name in states},
        "start": start(agent.family) | {name: "zeros" for name in states},
        "policy": {"kind": program.kind, "draw": KINDS[program.kind].how, **_units(agent.family)},
        "observation_space": str(agent.family.observation_space),
        "action_space": str(agent.family.action_space),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def start(family: AnyFamily) -> dict[str, Any]:
    """Return the inputs of a trial's first step other than observation and memory, for one row."""
    return {"prev_action": no_action(family.action_space, 1)[0].tolist(), "prev_reward": 0.0, "prev_done": 0.0}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an export. Raises ValueError, one sentence, if there is none or it cannot be used."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"The folder {str(folder)!r} is not an export: it has no {MANIFEST}.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"The file {str(path)!r} cannot be read: it is not JSON.") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError(f"The file {str(path)!r} is not a manifest of version {VERSION}: export the agent again.")
    return found


def _tensor(name: str, x: Tensor) -> dict[str, Any]:
    return {"name": name, "shape": ["rows", *x.shape[1:]], "type": str(x.dtype).removeprefix("torch.")}


def _units(family: AnyFamily) -> dict[str, Any]:
    """Return the constants that are needed to sample an action."""
    space = family.action_space
    if isinstance(space, spaces.Box):
        centre, unit = action_units(space)
        bounds = {"low": space.low, "high": space.high}
        return {"centre": centre.tolist(), "unit": unit.tolist()} | {k: _bound(v) for k, v in bounds.items()}
    if isinstance(space, spaces.MultiDiscrete):
        return {"first": space.start.tolist(), "choices": space.nvec.tolist()}
    assert isinstance(space, spaces.Discrete)
    return {"first": int(space.start), "choices": int(space.n)}


def _bound(bound: np.ndarray) -> list[float | None]:
    """Return a bound for JSON; infinite entries become null."""
    return [float(x) if np.isfinite(x) else None for x in bound.tolist()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
