"""The folder of a run: its name, the files that repeat the run, and the best agent so far."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from metarl.core.agent import LearningAgent
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.provenance import versions
from metarl.report.console import make_folder, new_folder
from metarl.training import checkpoint
from metarl.training.checkpoint import Counters
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import Parsed
from metarl.training.log import family_card


def make_run_dir(parsed: Parsed) -> Path:
    """Make and return the folder of the run. Raises ConfigError if it already holds a run or cannot be made."""
    if parsed.resume:
        return parsed.resume
    try:
        if parsed.config.run_dir is None:
            name = f"{parsed.name}_{parsed.config.seed}_{time.strftime('%Y%m%d-%H%M%S')}"
            return new_folder(Path("runs") / name)
        run_dir = Path(parsed.config.run_dir)
        if (run_dir / "config.yaml").exists():
            raise _taken(run_dir)
        make_folder(run_dir)
    except ConfigError:
        raise
    except ValueError as problem:
        raise ConfigError(str(problem)) from problem
    return run_dir


def _taken(run_dir: Path) -> ConfigError:
    how = f"continue it by --resume {shlex.quote(str(run_dir))}, or choose another --run_dir."
    return ConfigError(f"{str(run_dir)!r} already holds a run: {how}")


def write_run_files(run_dir: Path, parsed: Parsed) -> dict[str, str]:
    """Write the configuration, command and versions that repeat the run; return the texts for the log."""
    command = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shlex.join(parsed.command)}\n"
    try:
        with (run_dir / "config.yaml").open("w" if parsed.resume else "x", encoding="utf-8") as file:
            file.write(parsed.text())
    except FileExistsError as error:  # another run has just started in the same folder
        raise _taken(run_dir) from error
    with (run_dir / "command.txt").open("a", encoding="utf-8") as file:
        file.write(command)
    text = json.dumps(versions(), indent=1)
    (run_dir / "versions.json").write_text(text + "\n", encoding="utf-8")
    return {"command": command, "versions": text, "family": family_card(parsed.config.family)}


def keep_best(run_dir: Path, agent: LearningAgent, done: Counters, curves: Mapping[str, AdaptationCurve]) -> Counters:
    """Save the agent if its score on `valid` is the best of the run so far; return the updated counters."""
    if "valid" not in curves:
        return done
    score = float(curves["valid"].scores.mean(dtype="float64"))
    if not math.isfinite(score) or (done.best_score is not None and not score > done.best_score):
        return done
    done = replace(done, best_score=score, best_iteration=done.iteration)
    checkpoint.save_best(run_dir, agent, done)
    return done
