"""Training from Python: `metarl.run`."""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.core.errors import short
from metarl.report.console import make_console, silent_console
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import parse
from metarl.training.loop import OnIteration, Run, train


def run(
    config: str | Path | None = None, *, on_iteration: OnIteration | None = None, quiet: bool = True, **overrides: Any
) -> Run:
    """Train an agent like ``python -m metarl.train``, and return it with its curves::

        run = metarl.run("rl2_gridnavi", seed=3, total_iterations=40, agent={"lr": 1e-3})
        run.agent, run.curves["test"].mean(), run.directory

    `config` is a preset or a YAML file; by default the default preset. The overrides are the options of the command
    line: fields of the configuration (``seed=3``), the options of the agent and the family as dictionaries
    (``agent={"lr": 1e-3}``), another agent or family by name (``family="GridNavi"``), ``allow=["theirs"]`` for the
    packages that register them, ``resume=RUN_DIR`` to continue a run exactly, and ``auto_resume=True`` with `run_dir`
    to start a run, continue it, or find that it is finished. The same configuration gives the same run as on the
    command line, bit for bit, and the run's folder contains the command.

    `on_iteration` is called after every iteration with its number, from 1, and its metrics (``train/…``, ``loss/…``,
    ``time/…`` and, if it was evaluated, ``eval/<split>/…``). If it returns a true value, training ends there: the
    checkpoint is written and the final evaluation is played. Nothing is printed unless `quiet` is False. The run's logs
    (TensorBoard, ``metrics.jsonl``) are in its folder, and problems with its results are reported as warnings.

    From then on torch uses the process-wide settings of the program (`metarl.fast.runtime.tune`). On Ctrl-C the
    iteration finishes and the run is saved before KeyboardInterrupt is raised; SIGTERM and SIGHUP do the same before
    SystemExit.

    Raises ConfigError, a ValueError with one sentence, for mistakes in the configuration or the family, and
    `metarl.training.divergence.Diverged` if a metric is not finite; the last checkpoint is kept.
    """
    if on_iteration is not None and not callable(on_iteration):
        raise TypeError(
            f"on_iteration must be a function of the iteration's number and metrics, got {short(on_iteration)}."
        )
    parsed = parse([*([] if config is None else ["--config", str(config)]), *_as_options(overrides)])
    ended = train(parsed, silent_console() if quiet else make_console(width=120), _warn, on_iteration)
    if ended.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.signal:
        raise SystemExit(128 + ended.signal)
    return ended


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)


def _as_options(overrides: Mapping[str, Any]) -> Iterator[str]:
    """Yield the overrides as words of the command line."""
    for name, value in overrides.items():
        if name in ("family", "agent") and isinstance(value, Mapping):
            yield from (f"--{name}.{option}={_text(f'{name}.{option}', inner)}" for option, inner in value.items())
        elif name in ("family", "agent") and not isinstance(value, str | Mapping):
            raise ConfigError(f"{name} must be a name or a dictionary of options, got {type(value).__name__}.")
        elif name == "allow" and not isinstance(value, str):
            if not isinstance(value, (list, tuple)):
                raise ConfigError(f"allow must be a list of packages, got {type(value).__name__}.")
            yield from (f"--allow={_text(name, package)}" for package in value)
        elif name == "auto_resume" and isinstance(value, bool):
            yield from ["--auto_resume"] * value  # a switch
        else:
            yield f"--{name}={_text(name, value)}"


def _text(name: str, value: Any) -> str:
    """Format a value as it would be typed."""
    if isinstance(value, str | Path):
        return str(value)
    try:
        return json.dumps(value)
    except TypeError as error:
        kind = type(value).__name__
        raise ConfigError(f"{name} must be a number, a string, or a list or dictionary of them, got {kind}.") from error
