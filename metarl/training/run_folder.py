"""The folder of a run: its name, its lock, the files that repeat the run, and the best agent so far."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.core.agent import LearningAgent
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.files import remove_partial, replace_file
from metarl.evaluation.provenance import versions
from metarl.report.console import make_folder, new_folder
from metarl.training import checkpoint
from metarl.training.checkpoint import AGENT, BEST, CHECKPOINT, Counters
from metarl.training.config.errors import ConfigError, shown
from metarl.training.config.line import start_command
from metarl.training.config.parsing import Parsed, parse
from metarl.training.config.plain import flat
from metarl.training.config.regular import check_regular
from metarl.training.config.run_config import RESUMABLE, TrainConfig
from metarl.training.final_evaluation import TABLE
from metarl.training.lock import locked
from metarl.training.log.pages import family_card
from metarl.training.state_file import Damaged
from metarl.training.stopping import reached

PACKAGE = Path(__file__).parents[1]


_UNSAVED = ("metrics.jsonl", "events.out.tfevents.*", BEST, "trace.json", "*.partial", "replay/*.safetensors")
"""Files of a run that are meaningless without a checkpoint."""


@contextlib.contextmanager
def claim(parsed: Parsed, say: Callable[[str], None]) -> Iterator[Path]:
    """Make or find the folder of the run, and hold its lock while the run is written.

    The folder has a checkpoint if and only if the run continues from it. `say` gets a line if the file system has no
    locks. Raises ConfigError if another process writes to the folder, it has another run, there is nothing to resume,
    or it cannot be made.
    """
    run_dir = parsed.resume or _make(parsed)
    check_place(run_dir)
    with locked(run_dir, say):
        if parsed.auto_resume:
            check_same(run_dir, parsed)
            if checkpoint.newest(run_dir) is None:
                _remove_unsaved(run_dir)
        elif parsed.resume is None and ((run_dir / "config.yaml").exists() or checkpoint.newest(run_dir)):
            raise _taken(run_dir)
        elif parsed.resume is not None and checkpoint.newest(run_dir) is None:
            raise ConfigError(
                f"The run in {str(run_dir)!r} has no checkpoint to continue from; start it again, which removes its "
                f"curves, with: {start_command(run_dir, parsed.config.allow)}"
            )
        yield run_dir


def saved_run(parsed: Parsed) -> Path | None:
    """Return the folder of the run that `parsed` continues; None for a new run."""
    folder = Path(parsed.config.run_dir) if parsed.auto_resume and parsed.config.run_dir else parsed.resume
    return folder if folder is not None and checkpoint.newest(folder) else None


def finished(run_dir: Path, config: TrainConfig) -> bool:
    """Return True if the run has ended and was evaluated, and its files are undamaged."""
    if not (run_dir / CHECKPOINT).exists():
        return False
    try:
        _, done = checkpoint.load_state(run_dir)
    except Damaged:  # it may go on from the one before
        return False
    return bool(reached(config, done)) and (not config.final_eval_tasks or _evaluated(run_dir, config))


def _evaluated(run_dir: Path, config: TrainConfig) -> bool:
    folder = run_dir / "evaluation"
    try:
        for split in config.family.splits:
            AdaptationCurve.load(folder / split)
    except (ValueError, OSError):
        return False
    return (folder / TABLE).exists()


def check_same(run_dir: Path, parsed: Parsed) -> None:
    """Raise ConfigError, which names the first difference, if the folder has a run with another configuration."""
    check_regular(run_dir)
    kept, saved = run_dir / "config.yaml", checkpoint.newest(run_dir)
    if (run_dir / AGENT).exists():
        raise ConfigError(f"{str(run_dir)!r} is a trained agent, not a run: choose another --run_dir.")
    if not kept.exists() and saved:
        raise ConfigError(
            f"The run in {str(run_dir)!r} has a checkpoint, but no config.yaml: choose another --run_dir."
        )
    if not kept.exists() or (not saved and _is_part(kept, parsed.text())):
        return
    if (found := first_difference(run_dir, parsed)) is None:
        return
    different, there, here = found
    change = f"--resume {shlex.quote(str(run_dir))} --{different} {here}"
    how = (
        f"choose another --run_dir, or change it with {change}"
        if different in RESUMABLE
        else "choose another --run_dir"
    )
    what = f"{different} is {there} there, and {here} was asked for"
    raise ConfigError(f"{str(run_dir)!r} holds a run of another configuration ({what}): {how}.")


def first_difference(run_dir: Path, parsed: Parsed) -> tuple[str, str, str] | None:
    """Return the first field in which the run in the folder differs from `parsed`, with both values.

    Returns None if the configurations are equal.
    """
    other, asked = flat(parse([f"--config={run_dir / 'config.yaml'}"]).values), flat(parsed.values)
    for key in [*asked, *other]:
        if key != "run_dir" and not _same(asked.get(key), other.get(key)):
            there, here = (shown(each[key]) if key in each else "missing" for each in (other, asked))
            return key, there, here
    return None


def _same(asked: Any, there: Any) -> bool:
    """Return True if two values are equal; relative paths of earlier versions are resolved from their folder."""
    if isinstance(asked, str) and isinstance(there, str) and os.path.isabs(asked):
        return os.path.abspath(os.path.expanduser(there)) == asked
    return bool(asked == there)


def check_place(run_dir: Path) -> None:
    """Raise ConfigError for a folder inside the installed package, or a name that cannot be encoded."""
    try:
        str(run_dir).encode()
    except UnicodeEncodeError as error:  # TensorBoard could write nothing there
        raise ConfigError(
            f"The folder {str(run_dir)!r} has a name that is not valid text: choose another --run_dir."
        ) from error
    paths = {Path(os.path.abspath(run_dir)), run_dir.resolve()}
    if any(path.is_relative_to(root) for path in paths for root in (PACKAGE, PACKAGE.resolve())):
        raise ConfigError(f"The folder {str(run_dir)!r} is inside the package metarl itself: choose another --run_dir.")


def _make(parsed: Parsed) -> Path:
    """Make and return the folder of a run that is not resumed. Raises ConfigError if it cannot be made."""
    name = f"{parsed.name}_{parsed.config.seed}_{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = Path("runs") / name if parsed.config.run_dir is None else Path(parsed.config.run_dir)
    check_place(run_dir)
    try:
        if parsed.config.run_dir is None:
            return new_folder(run_dir)
        if run_dir.is_dir():
            check_regular(run_dir, to_write=True)
        make_folder(run_dir)
    except ValueError as problem:
        raise ConfigError(str(problem)) from problem
    return run_dir


def _taken(run_dir: Path) -> ConfigError:
    how = f"continue it with --resume {shlex.quote(str(run_dir))}"
    if checkpoint.newest(run_dir) is None:
        how = "it has no checkpoint, so start it again by adding --auto_resume"
    return ConfigError(f"{str(run_dir)!r} already holds a run: {how}, or choose another --run_dir.")


def _is_part(path: Path, text: str) -> bool:
    """Return True if a file's content is `text` or the beginning of it, as a killed program may leave it."""
    return text.encode().startswith(path.read_bytes().replace(os.linesep.encode(), b"\n"))


def _remove_unsaved(run_dir: Path) -> None:
    for pattern in _UNSAVED:
        for path in run_dir.glob(pattern):
            path.unlink()


def write_run_files(run_dir: Path, parsed: Parsed) -> dict[str, str]:
    """Write the configuration, command and versions that repeat the run; return the texts for the log.

    A continued run is unfinished again, so the final table, which marks a finished run, is removed.
    """
    goes_on = bool(parsed.resume or parsed.auto_resume)
    if goes_on:
        remove_partial(run_dir)
    command = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shlex.join(parsed.command)}\n"
    (run_dir / "evaluation" / TABLE).unlink(missing_ok=True)
    try:
        replace_file(run_dir / "config.yaml", parsed.text(), new=not goes_on)
    except FileExistsError as error:  # another run has just started in the same folder
        raise _taken(run_dir) from error
    before = (run_dir / "command.txt").read_bytes() if (run_dir / "command.txt").is_file() else b""
    replace_file(run_dir / "command.txt", before + command.encode(errors="surrogateescape"))
    text = json.dumps(versions(), indent=1)
    replace_file(run_dir / "versions.json", text + "\n")
    command = command.encode(errors="replace").decode()  # a file of the line whose name is no text
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
