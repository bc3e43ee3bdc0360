"""Configuration files, and the presets of the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from metarl.core.errors import brief, nearest, unknown
from metarl.core.faults.regular import NotRegular, read_regular
from metarl.training.config.errors import ConfigError
from metarl.training.config.regular import check_regular
from metarl.training.config.safe_yaml import LONGEST, Refused, load_yaml

__all__ = ["check_regular", "find", "load_yaml", "presets", "read_yaml"]

PRESETS = Path(__file__).parents[2] / "configs"


RUN_FILE = "config.yaml"
"""The configuration in a run directory."""


DEFAULT_PRESET = "rl2_navigation2d"


SEE_OPTIONS = "metarl train --help"
"""The command that shows all options and presets."""


END = "# complete"
"""The last line of a run's own config.yaml."""


OF_RUN = ("versions.json", "checkpoint.safetensors", "agent.safetensors")
"""Files that mark the config.yaml next to them as that of a run, which has every field."""


FIRST_FIELDS = (
    "family", "agent", "seed", "device", "total_iterations", "train_split", "eval_every", "eval_tasks", "eval_splits",
    "final_eval_tasks", "checkpoint_every", "run_dir", "num_threads",
)  # fmt: skip
"""Fields that the config.yaml of a run has had since the first version."""


SINCE_END = "keep_checkpoints"
"""A field that implies that the config.yaml of a run ends with `END`."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a config file. Raises ConfigError, with the line at which it is not valid YAML.

    The ``config.yaml`` of a run is opened without following links; other files may be links.
    """
    name = brief(str(path))
    try:
        text = read_regular(path, LONGEST, links=Path(path).name != RUN_FILE).decode("utf-8")
        data = load_yaml(text)
    except NotRegular as error:
        raise ConfigError(str(error)) from error
    except Refused as error:
        raise ConfigError(error.inside(f"the config file {name!r}")) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = brief(" ".join(f"{error.context or ''} {error.problem or ''}".split()), 140)
        raise ConfigError(f"The config file {name!r} is not valid YAML{where}: {what}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {name!r} is not a YAML text file.") from error
    except OSError as error:
        raise ConfigError(f"The config file {name!r} cannot be read: {error.strerror}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"The config file {name!r} must consist of 'key: value' pairs.")
    _check_complete(Path(path), text, data)
    return data


def complete(text: str) -> str:
    """Append the last line that marks the text of a run's config.yaml as complete."""
    return f"{text}{END}\n"


def _check_complete(path: Path, text: str, data: dict[str, Any]) -> None:
    """Raise ConfigError if the file belongs to a run and was truncated, so that fields would fall back to defaults."""
    if path.name != RUN_FILE or not any((path.parent / name).exists() for name in OF_RUN):
        return
    if text.rstrip().endswith(f"\n{END}"):
        return
    missing = [name for name in FIRST_FIELDS if name not in data]
    if missing or SINCE_END in data or not text.endswith("\n"):
        what = f"it has no {missing[0]!r}" if missing else f"its last line is not {END!r}"
        raise ConfigError(f"The config file {str(path)!r} of a run is incomplete: {what}. Use a copy of it.")


def presets() -> list[str]:
    """Return the names of the configurations that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def is_there(path: Path) -> bool:
    """Return True if the path is a file, a pipe or a device; False for a path that is too long."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def find(name: str) -> Path:
    """Return the config file for a path or a preset's name. Raises ConfigError, with the nearest preset's name."""
    path = Path(os.path.expanduser(name))
    if is_there(path):
        return path
    if name in presets():
        return PRESETS / f"{name}.yaml"
    if name.startswith("-"):
        raise ConfigError(f"{brief(name)!r} is not an option: options begin with two dashes, such as --agent.lr.")
    if os.path.isdir(path):
        raise ConfigError(
            f"{brief(name)!r} is a folder: give a config file or a preset, or continue a run with --resume."
        )
    if path.suffix in (".yaml", ".yml"):
        near = nearest(path.stem, presets(), "Presets", see=SEE_OPTIONS)
        raise ConfigError(f"There is no config file {brief(name)!r} and no preset {brief(path.stem)!r}. {near}")
    raise ConfigError(unknown("config file or preset", name, presets(), see=SEE_OPTIONS))
