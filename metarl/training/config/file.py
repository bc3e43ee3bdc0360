"""Configuration files: YAML without duplicate keys, and the presets of the package."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from metarl.core.errors import nearest, unknown
from metarl.training.config.errors import ConfigError

PRESETS = Path(__file__).parents[2] / "configs"


DEFAULT_PRESET = "rl2_navigation2d"


SEE_OPTIONS = "python -m metarl.train --help"
"""The command that shows all options and presets."""


END = "# complete"
"""The last line of a run's own config.yaml."""


OF_RUN = ("versions.json", "checkpoint.safetensors", "agent.safetensors")
"""Files that show that the config.yaml next to them is a run's own, which has every field."""


FIRST_FIELDS = (
    "family", "agent", "seed", "device", "total_iterations", "train_split", "eval_every", "eval_tasks", "eval_splits",
    "final_eval_tasks", "checkpoint_every", "run_dir", "num_threads",
)  # fmt: skip
"""Fields that a run's own config.yaml has had since the first version."""


SINCE_END = "keep_checkpoints"
"""A field that the config.yaml of a run has only with `END` at its end."""


class _Twice(yaml.YAMLError):
    """A duplicate key in one mapping."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with three changes: duplicate keys are errors, ``1e-3`` is a number, and ``2026-01-31`` is a
    text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name for it)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first, line = lines.get((key.tag, key.value)), key.start_mark.line + 1
                if first is not None:
                    where = f"in line {first} and again in line {line}" if line != first else f"twice in line {line}"
                    raise _Twice(f"the key {key.value!r} stands {where}")
                lines[key.tag, key.value] = line
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)(e[-+]?\d+)?|\d[\d_]*e[-+]?\d+|\.inf|\.nan)$", re.I),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:
    """Parse a text of YAML. Raises yaml.YAMLError, also for a duplicate key."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a config file. Raises ConfigError (one sentence), with the line at which it is not valid YAML."""
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = load_yaml(text)
    except _Twice as error:
        raise ConfigError(f"In the config file {name!r} {error}: leave one of them.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise ConfigError(f"The config file {name!r} is not valid YAML{where}: {what}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {name!r} is not a text of YAML.") from error
    except OSError as error:
        raise ConfigError(f"The config file {name!r} cannot be read: {error.strerror}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"The config file {name!r} holds no 'key: value' pairs.")
    _check_complete(Path(path), text, data)
    return data


def complete(text: str) -> str:
    """Return the text of a run's own config.yaml with the line that shows that nothing is missing before it."""
    return f"{text}{END}\n"


def _check_complete(path: Path, text: str, data: dict[str, Any]) -> None:
    """Raise ConfigError if the file is a run's own and was cut off, so that defaults would take the place of fields."""
    if path.name != "config.yaml" or not any((path.parent / name).exists() for name in OF_RUN):
        return
    if text.rstrip().endswith(f"\n{END}"):
        return
    missing = [name for name in FIRST_FIELDS if name not in data]
    if missing or SINCE_END in data or not text.endswith("\n"):
        what = f"it has no {missing[0]!r}" if missing else f"its last line is not {END!r}"
        raise ConfigError(f"The config file {str(path)!r} of a run is incomplete: {what}. Use a copy of it.")


def presets() -> list[str]:
    """Return the names of the configurations that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def find(name: str) -> Path:
    """Return the config file of a path or of a preset's name. Raises ConfigError, with the nearest preset's name."""
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    if name in presets():
        return PRESETS / f"{name}.yaml"
    if path.suffix in (".yaml", ".yml"):
        near = nearest(path.stem, presets(), "Presets", see=SEE_OPTIONS)
        raise ConfigError(f"There is no config file {name!r}, nor a preset {path.stem!r}. {near}")
    raise ConfigError(unknown("config file or preset", name, presets(), see=SEE_OPTIONS))


def check_regular(run_dir: Path) -> None:
    """Raise ConfigError if a run directory holds a symbolic link, through which files elsewhere could be changed.

    The directory itself may be reached through one.
    """
    link = next((path for path in sorted(run_dir.rglob("*")) if path.is_symlink()), None)
    if link is not None:
        raise ConfigError(
            f"The run in {str(run_dir)!r} holds a symbolic link, {str(link.relative_to(run_dir))!r}: the files of a "
            "run must be regular files inside its folder, so that nothing elsewhere is read or changed: remove it."
        )
