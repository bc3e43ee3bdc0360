"""Writing an export: a folder with the program and its manifest."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from metarl.core.agent import LearningAgent
from metarl.core.errors import unknown
from metarl.core.rollout import Memory
from metarl.fast.twins import plain
from metarl.interop.export.manifest import MANIFEST, manifest_of
from metarl.interop.export.program import STEP, Program, example
from metarl.interop.export.weights import prune, to_half, to_int8, without_traces
from metarl.learning.images import is_image, parts_of_space

FILES = {"onnx": "policy.onnx", "torch": "policy.pt2"}
"""Format → name of the program's file."""

WEIGHTS = ("float32", "float16", "int8")

NEEDED = "An export to ONNX needs onnx, onnxscript and onnxruntime: pip install 'metarl[export]'."


def export(
    agent: LearningAgent,
    folder: str | Path,
    format: str = "onnx",
    weights: str = "float32",
    pruned: float = 0.0,
    memory: Memory | None = None,
    note: str | None = None,
) -> Path:
    """Export the computation of one step of `agent` as a program with a manifest; return the program's file.

    `format` is onnx, or torch (a `torch.export.ExportedProgram`). `weights` are float32, or for ONNX also float16
    (rounded; the computation stays float32) or int8 (dynamic quantisation). `pruned` in [0, 1) is the fraction of each
    matrix's weights set to 0, smallest magnitudes first. `memory` is that of a trial, for an agent that adapts
    its parameters (`MAML`): its parameters are exported, by default the initial ones. `note` goes into the manifest.

    Raises ValueError if the agent cannot be exported, if options do not fit, or if a library is
    missing.
    """
    check_options(agent, format, weights, pruned)
    program = Program(agent.acting_module(agent.begin(1) if memory is None else memory))
    prune(program, pruned)
    inputs = example(program, agent.family, 2)
    with torch.no_grad(), plain(), _quiet():
        outputs = program(*inputs)
        rows = {0: torch.export.Dim("rows")}
        shapes = (*(rows for _ in STEP), tuple(rows for _ in inputs[-1]))
        exported = torch.export.export(program, inputs, dynamic_shapes=shapes).run_decompositions()
        made = _onnx(exported, program, weights) if format == "onnx" else None
    path = Path(folder) / FILES[format]
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, exported if made is None else made)
    found = manifest_of(
        agent, program, inputs, outputs, file=path.name, format=format, weights=weights, pruned=pruned, note=note
    )
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (path.parent / MANIFEST).write_text(text, encoding="utf-8")
    return path


def check_options(agent: LearningAgent, format: str, weights: str, pruned: float) -> None:
    """Raise ValueError if `export` does not support the agent or these options."""
    agent.acting_module(agent.begin(1))
    if format not in FILES:
        raise ValueError(unknown("format", format, FILES))
    if weights not in WEIGHTS:
        raise ValueError(unknown("weights", weights, WEIGHTS))
    if format == "torch" and weights != "float32":
        raise ValueError(f"weights must be float32 with the format torch, got {weights}: choose the format onnx.")
    if not 0.0 <= pruned < 1.0:
        raise ValueError(f"The pruned share must lie in [0, 1), got {pruned}.")
    parts = parts_of_space(agent.family.observation_space, agent.family.observation_parts)
    if any(is_image(part.space) for part in parts):
        raise ValueError(
            f"Only agents with vector observations can be exported, and those of {type(agent.family).__name__} are "
            "images."
        )
    if format == "onnx":
        try:
            import onnx  # noqa: F401  (extras)
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ValueError(NEEDED) from error


def _onnx(exported: Any, program: Program, weights: str) -> bytes:
    """Convert a program to ONNX, and compress its weights."""
    names: dict[str, Any] = {"input_names": [*STEP, *program.memory_names], "output_names": list(program.outputs())}
    translated = torch.onnx.export(exported, (), dynamo=True, verbose=False, external_data=False, **names)
    assert translated is not None
    model = without_traces(translated.model_proto)
    smaller = {"float32": lambda same: same, "float16": to_half, "int8": to_int8}[weights](model)
    content: bytes = without_traces(smaller).SerializeToString()
    return content


def _write(path: Path, made: Any) -> None:
    """Write a program to its file atomically."""
    partial = path.with_name(f".{path.name}")
    if isinstance(made, bytes):
        partial.write_bytes(made)
    else:
        with partial.open("wb") as file:
            torch.export.save(made, file)
    os.replace(partial, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's internal messages."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
