"""Evaluation of trained and untrained agents by the protocol of the benchmark."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agents.family_extras import baselines_for
from metarl.agents.reference.catalogue import baseline
from metarl.core.rollout import Agent
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.provenance import versions
from metarl.report.efficiency.history import POINT, read_records
from metarl.studies.bench.protocol import BASELINES, SEED, Problem
from metarl.studies.bench.rows import Row, read, write
from metarl.training import checkpoint
from metarl.training.config import parsing
from metarl.training.runs import run

EVALUATIONS = 12
"""Most evaluations during training per row."""
POINTS = 12
"""Most curve points per such evaluation."""
COSTLY_TASKS = 20
"""Most tasks for an agent that trains on each of them."""
OTHER_FAMILIES = ("maml_half_cheetah_vel",)
"""Presets that have the name of a problem but train on another family: Finn et al.'s tasks, not Rakelly et al.'s."""
Say = Callable[[str], Any]


def preset_of(agent: str, problem: Problem) -> str | None:
    """Return the preset that trains an agent for a problem; None if there is none."""
    name = f"{agent}_{problem.name}"
    return name if name in parsing.presets() and name not in OTHER_FAMILIES else None


def play(
    agents: Sequence[str], problems: Sequence[Problem], seeds: int, runs: Path, out: Path, train: bool, say: Say
) -> list[Row]:
    """Evaluate agents on problems: of finished runs, of the package, and, with `train`, of new runs.

    A run is ``RUNS/<preset>_<seed>``, for the seeds 1 to `seeds`. What has been evaluated is kept in ``OUT/rows`` until
    the run has a newer checkpoint, so an interrupted call can be repeated to continue. An agent without a preset for a
    problem, or, without `train`, without a run of a seed, has no row there.
    """
    found = list[Row]()
    (out / "rows").mkdir(parents=True, exist_ok=True)
    for problem in problems:
        for agent in agents:
            if agent in BASELINES:
                there = agent == "random" or agent in baselines_for(problem.family())
                found += [_kept(out, agent, problem, 0, None, say)] if there else []
                continue
            preset = preset_of(agent, problem)
            for seed in range(1, seeds + 1) if preset is not None else ():
                source = _source(str(preset), seed, runs, train, say)
                found += [_kept(out, agent, problem, seed, source, say)] if source is not None else []
    return found


def _source(preset: str, seed: int, runs: Path, train: bool, say: Say) -> Path | str | None:
    """Return the run directory of a preset and seed, trained first if necessary, or the name of a shipped agent."""
    folder = runs / f"{preset}_{seed}"
    shipped = f"pretrained:{preset}"
    begun = checkpoint.newest(folder) is not None
    if begun and (folder / "evaluation" / "table.txt").exists():
        return folder
    if seed == 1 and not begun and shipped in checkpoint.pretrained():
        return shipped
    if not train:
        return None
    say(f"training {preset}, seed {seed}")
    run(preset, seed=seed, run_dir=str(folder), auto_resume=True)
    return folder


def _kept(out: Path, agent: str, problem: Problem, seed: int, source: Path | str | None, say: Say) -> Row:
    """Return a row from the file of an earlier call, or compute and store it; without a source, of a baseline."""
    path = out / "rows" / f"{agent}_{problem.name}_{seed}.json"
    changed = (source / checkpoint.CHECKPOINT).stat().st_mtime if isinstance(source, Path) else 0.0
    if path.exists() and path.stat().st_mtime >= changed:
        (row,) = read(path)
        return row
    say(f"evaluating {agent} on {problem.name}, seed {seed}")
    made = _of_baseline(agent, problem) if source is None else _of_run(agent, problem, seed, source)
    write([made], path)
    (row,) = read(path)  # rounded as in a later call
    return row


def _of_baseline(agent: str, problem: Problem) -> Row:
    """Evaluate a baseline, which is not trained."""
    family = problem.family()
    return _row(agent, problem, 0, baseline(agent, family), 0, None, [])


def _of_run(agent: str, problem: Problem, seed: int, source: Path | str) -> Row:
    """Evaluate a trained agent."""
    trained = checkpoint.load(source)
    progress = dict(trained.trained or {})
    steps = int(progress.get("env_steps", 0))
    seconds, training = _training(source, problem) if isinstance(source, Path) else (None, [])
    return _row(agent, problem, seed, trained, steps, seconds, training)


def _row(
    name: str, problem: Problem, seed: int, agent: Agent, steps: int, seconds: float | None, training: list[list[float]]
) -> Row:
    tasks = min(problem.tasks, COSTLY_TASKS) if agent.costly else problem.tasks
    curve = evaluate(agent, problem.family(), problem.split, tasks, seed=SEED, step_curve=False)
    mean, (low, high) = curve.mean(), curve.interval()
    bounds = curve.bounds
    return Row(
        agent=name, problem=problem.name, seed=seed, rounds=curve.rounds, labels=list(curve.labels),
        episodes=_floats(curve.episodes), env_steps=_floats(curve.env_steps), mean=_floats(mean),
        low=_finite(low, mean), high=_finite(high, mean), last=_floats(curve.returns[0, :, -1]), noise=_noise(curve),
        random=bounds["random"],
        oracle=bounds.get("oracle"), repeats=curve.repeats, train_steps=steps, train_seconds=seconds,
        training=training, hardware=hardware(), versions=dict(versions()),
    )  # fmt: skip


def _noise(curve: AdaptationCurve) -> float | None:
    return None if curve.noise is None else float(curve.noise[0, -3])


def _floats(values: Any) -> list[float]:
    return [float(value) for value in np.asarray(values, dtype=np.float64)]


def _finite(ends: Any, mean: Any) -> list[float]:
    """Return the ends of intervals; the mean itself for a single task, which has no interval."""
    return _floats(np.where(np.isfinite(ends), ends, mean))


def _training(folder: Path, problem: Problem) -> tuple[float | None, list[list[float]]]:
    """Return the training seconds, and the evaluation curves during training: on `valid`, else the problem's split."""
    try:
        records = read_records(folder)
    except ValueError:
        return None, []
    seconds = sum(record.get("time/collect", 0.0) + record.get("time/update", 0.0) for record in records)
    rows = []
    for record in records:
        tags = [tag for tag in record if (match := POINT.fullmatch(tag)) and match[1] in ("valid", problem.split)]
        split = "valid" if any(tag.startswith("eval/valid/") for tag in tags) else problem.split
        values = [record[tag] for tag in sorted(tags) if tag.startswith(f"eval/{split}/")]
        if values and all(isinstance(value, (int, float)) for value in values):
            rows.append([float(record["env_steps"]), *map(float, _thinned(values, POINTS))])
    return seconds, _thinned(rows, EVALUATIONS)


def _thinned(values: list[Any], most: int) -> list[Any]:
    """Return at most this many of the values, including the first and the last, denser at the beginning."""
    if len(values) <= most:
        return values
    places = np.unique(np.geomspace(1, len(values), most).round().astype(int)) - 1
    return [values[place] for place in places]


def hardware() -> str:
    """Return the name of the processor and its number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text(errors="replace").splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {os.cpu_count()} cores"
