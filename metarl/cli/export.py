"""A program for a small device, from a trained agent::

    metarl export RUN_DIR [--format onnx] [--int8] [--check]
    metarl export pretrained:rl2_gridnavi --fp16
    metarl export pretrained:maml_navigation2d --steps 1 --split test --task 3

The folder that is written holds the program, a manifest that says what goes in and out, and the configuration of the
run, so that ``metarl evaluate FOLDER`` plays the program. ONNX needs the extra `export`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from metarl.cli import usage
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.errors import unknown
from metarl.core.faults.results import shown_task
from metarl.core.rollout import Memory, play_rounds
from metarl.core.tree import take
from metarl.evaluation.arguments import check_size
from metarl.evaluation.evaluator import EVALUATION, choose_tasks
from metarl.evaluation.files import replace_file
from metarl.fast.runtime import tune
from metarl.interop.export.checking import Check, check
from metarl.interop.export.manifest import MANIFEST, read_manifest
from metarl.interop.export.writing import check_options, export
from metarl.report.console import in_words, make_console, make_folder
from metarl.training.checkpoint import PRETRAINED, find, load
from metarl.training.config.names import allow
from metarl.training.config.regular import check_regular


class Adapted(NamedTuple):
    """The adapted parameters with which an agent that adapts in rounds is exported."""

    memory: Memory | None  # None: the agent updates its memory while it acts
    note: str | None


def program(arguments: Sequence[str]) -> int:
    """Run ``metarl export …`` as the main program of this process."""
    tune()
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns 0, or 2 after one sentence for a user error or a failed check."""
    options = usage.export().read(arguments)
    console = make_console(options.quiet)
    try:
        allow(options.allow)
        _export(options, console)
    except (ValueError, OSError) as mistake:
        print(f"metarl export: {in_words(mistake) if isinstance(mistake, OSError) else mistake}", file=sys.stderr)
        return 2
    return 0


def _export(options: Any, console: Console) -> None:
    """Write the program, check it on request, and report. Raises ValueError if the check fails."""
    if (find(options.run) / MANIFEST).is_file():
        raise ValueError(f"{options.run!r} is already an export: give the run that it was made from.")
    agent = load(options.run, "cpu", options.which)
    weights = "int8" if options.int8 else "float16" if options.fp16 else "float32"
    check_options(agent, options.format, weights, options.prune)
    if options.tolerance is not None and not (options.check and 0 <= options.tolerance < float("inf")):
        raise ValueError(f"--tolerance must be at least 0 and needs --check, got {options.tolerance:g}.")
    memory, note = _adapted(agent, options)
    folder = options.out or _default_folder(options.run, _asked(options, agent, weights, note is not None))
    make_folder(folder)
    path = export(agent, folder, options.format, weights, options.prune, memory, note)
    replace_file(folder / "config.yaml", (find(options.run) / "config.yaml").read_text(encoding="utf-8"))
    if options.check:
        found = check(agent, folder, memory, options.seed, options.tolerance)
        console.print(in_one_line(found), markup=False, highlight=False, soft_wrap=True)
        if not found.passed:
            raise ValueError(
                f"The program differs from the agent by {max(found.difference, found.greedy):.2g}, beyond the "
                f"tolerance of {found.tolerance:.2g}."
            )
    said = f" {note}:" if note else ""
    console.print(f"Written to {path}:{said} {path.stat().st_size:,} bytes", markup=False, soft_wrap=True)
    inputs = ", ".join(each["name"] for each in read_manifest(folder)["inputs"])
    console.print(
        f"Inputs: {inputs}. What they are, and how to draw an action: {MANIFEST}", markup=False, soft_wrap=True
    )


def in_one_line(found: Check) -> str:
    """Return the result of a check as text."""
    return (
        f"Over {found.steps:,} steps the policies differ by at most {found.difference:.1e}; the greedy actions agree "
        f"at {found.alike:.1%} of them."
    )


def _adapted(agent: LearningAgent, options: Any) -> Adapted:
    """Adapt an agent to a task, if it adapts in rounds. Raises ValueError if the options do not fit the agent."""
    protocol, family = agent.protocol.test(), agent.family
    given = [name for name in ("steps", "split", "task") if getattr(options, name) is not None]
    if protocol.rounds == 1:
        if given:
            raise ValueError(
                f"{agent.title} adapts while it acts and is exported without a task: leave out --{given[0]}."
            )
        return Adapted(None, None)
    steps = protocol.rounds - 1 if options.steps is None else options.steps
    split = options.split or ("test" if "test" in family.splits else family.splits[-1])
    number = options.task or 0
    if split not in family.splits:
        raise ValueError(unknown("split", split, family.splits, where=f" of {type(family).__name__}"))
    if steps < 0 or number < 0:
        raise ValueError(f"--steps and --task must not be negative, got {steps} and {number}.")
    check_size(family, split, number + 1)  # all tasks up to the requested one are drawn
    root = rng.fold(rng.key(options.seed), EVALUATION)
    tasks, distinct = choose_tasks(family, root, split, number + 1)
    if distinct is not None and number >= distinct:
        raise ValueError(f"--task must be from 0 to {distinct - 1} on the split {split}, got {number}.")
    task = take(tasks, slice(number, number + 1))
    memory: Memory = None
    for played in play_rounds(
        agent,
        family,
        task,
        rng.fold(root, 1),
        rounds=steps + 1,
        envs_per_task=protocol.envs_per_task,
        first_task=number,
    ):
        memory = played.memory
    times = f"{steps} {agent.step_name}{'s'[: steps != 1]}"
    return Adapted(memory, f"{agent.title} after {times} on task {number} of {split}, {shown_task(task, 0)}")


def _asked(options: Any, agent: LearningAgent, weights: str, adapted: bool) -> str:
    """Name a folder by the options: ``last_200_onnx_int8``."""
    parts = [options.which, agent.trained.get("iteration", ""), options.format, weights]
    parts += ["pruned", options.prune] if options.prune else []
    for name in ("steps", "split", "task", "seed") if adapted else ():
        if getattr(options, name) is not None:
            parts += [name, getattr(options, name)]
    return re.sub(r"[^\w.+-]", "_", "_".join(map(str, parts)))[:120]  # text from the checkpoint must not form a path


def _default_folder(run: str, asked: str) -> Path:
    if run.startswith("pretrained:"):
        return Path("runs") / f"export_{run.removeprefix('pretrained:')}" / asked
    if Path(run).resolve().is_relative_to(PRETRAINED.resolve()):  # nothing is written into the package
        return _default_folder(f"pretrained:{Path(run).resolve().name}", asked)
    check_regular(Path(run), to_write=True)
    return Path(run) / "exports" / asked
