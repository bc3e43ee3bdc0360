"""A check of an export: compares the program with the original agent, step by step over one trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step, make_env
from metarl.core.rollout import Memory
from metarl.core.units import ActionUnits
from metarl.fast.twins import plain
from metarl.interop.export.manifest import read_manifest
from metarl.interop.export.playing import OnnxAgent
from metarl.interop.export.program import Program
from metarl.interop.export.weights import prune
from metarl.interop.export.writing import FILES

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""Largest accepted difference, by the type of the weights."""

ROWS = 4
"""Trials that are played in parallel."""


class Check(NamedTuple):
    """Result of a check. Differences are in probability, or in units of half the range of actions."""

    difference: float  # largest difference between the policies of the program and the exported networks
    greedy: float  # largest loss in probability against the agent's greedy action, or distance from it
    alike: float  # fraction of steps with the agent's greedy action (for a Box: within the tolerance)
    steps: int  # compared steps, summed over rows
    tolerance: float
    pruned: float

    @property
    def passed(self) -> bool:
        """True unless a difference exceeds the tolerance or is NaN; a pruned agent may act differently."""
        same = bool(self.pruned) or self.greedy <= 2.0 * self.tolerance
        return self.difference <= self.tolerance and same


def check(
    agent: LearningAgent,
    folder: str | Path,
    memory: Memory | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> Check:
    """Play a trial of `agent` on training tasks, and run the export in `folder` on the same steps.

    The program keeps its own memory, so that errors accumulate as on a device. `memory` is the one that was
    exported. Raises ValueError, one sentence, if the export cannot be opened.
    """
    manifest = read_manifest(Path(folder))
    tolerance = TOLERANCE[manifest["weights"]] if tolerance is None else tolerance
    reference = Program(agent.acting_module(agent.begin(1) if memory is None else memory))
    prune(reference, manifest["pruned"])
    run = _runner(agent, Path(folder), manifest)
    found, actions = list[Tensor](), ActionUnits(agent.family.action_space)
    key = rng.key(seed)
    task = agent.family.sample_tasks(key, ROWS)
    env = make_env(agent.family, task, rng.fold(key, 1), manifest["episodes"])
    rows = rng.fold(rng.fold(key, 2), torch.arange(ROWS))
    acting = memory if memory is not None and not reference.memory_names else agent.begin(ROWS)
    of_file = of_reference = reference.initial(ROWS)
    step = env.reset()
    with torch.no_grad():
        while not env.all_done():
            seen = Step(*(x.cpu() for x in step))
            outputs = run(seen, of_file)
            with plain():
                numbers = reference(*seen, of_reference)
            expected = dict(zip(reference.outputs(), numbers, strict=True))
            of_file, of_reference = (
                tuple(each[f"next_{name}"] for name in reference.memory_names) for each in (outputs, expected)
            )
            greedy, _ = agent.act(acting, step, rows, greedy=True)
            acted, acting = agent.act(acting, step, rng.fold(rows, len(found)))
            lost = _lost(outputs, greedy.action.cpu(), actions)
            found.append(torch.stack([_apart(outputs, expected, actions), lost]))
            _, step = env.step(acted.action)
    difference, lost = torch.stack(found).movedim(1, 0).flatten(1)
    alike = (lost <= (tolerance if actions.continuous else 0.0)).to(torch.float32).mean()
    return Check(
        float(difference.amax()), float(lost.amax()), float(alike), len(lost), tolerance, float(manifest["pruned"])
    )


def _runner(
    agent: LearningAgent, folder: Path, manifest: dict[str, Any]
) -> Callable[[Step, tuple[Tensor, ...]], dict[str, Tensor]]:
    """Return a function that maps a step and a memory to the program's outputs by name."""
    if manifest["format"] == "onnx":
        played = OnnxAgent(folder, agent.family)
        return lambda step, memory: played.run(dict(zip(manifest["memory"], memory, strict=True)), step)
    program = torch.export.load(folder / FILES["torch"]).module()
    names = [each["name"] for each in manifest["outputs"]]
    return lambda step, memory: dict(zip(names, program(*step, memory), strict=True))


def _apart(outputs: dict[str, Tensor], expected: dict[str, Tensor], actions: ActionUnits) -> Tensor:
    """Return the distance of two policies in each row, ``(B,)``: the largest over their parameters."""
    if "log_probs" in expected:
        return (outputs["log_probs"].exp() - expected["log_probs"].exp()).abs().flatten(1).amax(-1)
    own = {"action": actions.unit} | ({"std": _unit_of_std(expected, actions)} if "std" in expected else {})
    apart = [(outputs[name] - expected[name]).abs() / unit for name, unit in own.items()]
    return torch.stack(apart).amax(0).amax(-1)


def _unit_of_std(outputs: dict[str, Tensor], actions: ActionUnits) -> Tensor:
    """Return the unit of a program's standard deviation: that of actions, or 1 before squashing."""
    return actions.unit if torch.equal(outputs["mean"], outputs["action"]) else torch.ones_like(actions.unit)


def _lost(outputs: dict[str, Tensor], greedy: Tensor, actions: ActionUnits) -> Tensor:
    """Return how far the agent's greedy actions are from those of the program, ``(B,)``."""
    if actions.continuous:
        return ((outputs["action"] - greedy).abs() / actions.unit).amax(-1)
    probs, own = outputs["log_probs"].exp(), actions.to_own(greedy)
    return (probs.amax(-1) - probs.gather(-1, own[..., None]).squeeze(-1)).reshape(len(probs), -1).amax(-1)
