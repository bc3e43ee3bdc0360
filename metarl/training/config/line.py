"""The command line of `metarl.train`, split into files, actions and options of the run.

It accepts ``--key value``, ``--key=value`` and, for list options, ``--key one two``. A word that belongs to no option
is a config file or a preset. The module also formats the commands that continue a run or start it again.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metarl.core.errors import brief
from metarl.training.config.errors import ConfigError
from metarl.training.config.file import DEFAULT_PRESET

OTHERS = ("config", "resume", "auto_resume", "seeds", "quiet", "print_config", "help")
"""Options that are not fields of the configuration."""


SWITCHES = ("--help", "--print_config", "--quiet", "--auto_resume")


_LISTS = ("eval_splits", "hidden_sizes")


_KEYS, _VALUES = {"env": "family"}, {("device", "gpu"): "cuda"}
"""Keys and values of other libraries, mapped to those of metarl."""


class Line(NamedTuple):
    """A command line."""

    files: list[str]
    """The config files and presets, in order."""
    options: list[tuple[str, str | None]]
    """Options of the run, the family and the agent: key without dashes, and value (None if there is none)."""
    resume: Path | None
    """The run directory to continue."""
    seeds: int | None
    """Number of training seeds; None: only the configuration's own."""
    allow: list[str]
    """Packages that may be imported."""
    switches: frozenset[str]
    """The given `SWITCHES`."""
    words: list[str]
    """The words as typed, without ``--seeds`` and ``--quiet``."""

    def also(self, *words: str) -> Line:
        """Return this line with more words appended, such as those of one seed."""
        return read_line([*self.words, *words])

    @property
    def quiet(self) -> bool:
        return "--quiet" in self.switches


class _Option(NamedTuple):
    """One option as it was typed."""

    key: str  # with its dashes
    values: list[str]
    words: list[str]
    open: bool  # whether a word behind it is its value

    @property
    def value(self) -> str | None:
        return self.values[0] if self.values else None


def read_line(args: Sequence[str]) -> Line:
    """Parse a command line. Raises ConfigError for an option without a value or a switch with one."""
    line = Line([], [], None, None, [], frozenset(), [])
    for option in _options(args):
        key, value = option.key, option.value
        if key not in ("--seeds", "--quiet"):
            line.words.extend(option.words)
        if key in SWITCHES:
            if value is not None:
                raise ConfigError(f"{key} takes no value, got {brief(value)!r}.")
            line = line._replace(switches=line.switches | {key})
        elif key == "--seeds":
            line = line._replace(seeds=_count(value))
        elif key in _NEEDS:
            if not value:
                raise ConfigError(f"{key} needs {_NEEDS[key]}.")
            if key == "--resume":
                line = line._replace(resume=Path(os.path.expanduser(value)))
            else:
                (line.files if key == "--config" else line.allow).append(value)
        else:
            line.options.append(_of_run(option, line.allow))
    return line


_NEEDS = {
    "--config": f"a file or the name of a preset: {DEFAULT_PRESET} or another one of metarl train --help",
    "--resume": "the folder of the run to continue",
    "--allow": "the name of a package to import",
}


def _options(args: Sequence[str]) -> list[_Option]:
    found: list[_Option] = []
    for arg in args:
        if arg.startswith("--") or arg == "-h":
            key, equals, value = ("--help" if arg == "-h" else arg).partition("=")
            takes = not equals and key not in SWITCHES
            found.append(_Option(key, [value] if equals else [], [arg], takes))
        elif found and found[-1].open and (not found[-1].values or _is_list(found[-1].key)):
            found[-1].values.append(arg)
            found[-1].words.append(arg)
        else:
            found.append(_Option("--config", [arg], [arg], False))
    return found


def _of_run(option: _Option, allow: list[str]) -> tuple[str, str | None]:
    """Return an option of the run as (key, value). The module of ``module:id`` is added to `allow`."""
    key, value = option.key.removeprefix("--"), option.value
    first, dot, rest = key.partition(".")
    key = _KEYS.get(first, first) + dot + rest
    if value is None:
        return key, "true" if key == "profile" else None  # a switch, as users expect
    if _is_list(option.key):
        return key, _as_list(option.values)
    if key in ("family", "agent", "family.name", "agent.name") and ":" in value and not value.lstrip().startswith("{"):
        module, _, value = value.rpartition(":")
        allow.append(module)
    return key, _VALUES.get((key, value), value)


def _is_list(key: str) -> bool:
    return key.removeprefix("--").rpartition(".")[2].removesuffix("+") in _LISTS


def _as_list(values: Sequence[str]) -> str:
    """Convert ``test ood`` and ``test,ood`` to ``[test, ood]``."""
    text = (" " if values[0].startswith("[") or len(values) == 1 else ", ").join(values)
    return text if text.startswith(("[", "{")) or not text else f"[{text}]"


def _count(value: str | None) -> int:
    if value is None or not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        given = "nothing" if value is None else repr(brief(value))
        raise ConfigError(f"--seeds must be a whole number from 1 to 999999, got {given}.")
    return int(value)


def resume_command(run_dir: str | Path, allow: Sequence[str] = ()) -> str:
    """Return the command that continues a run with the packages in `allow`."""
    allowed = [word for package in allow for word in ("--allow", package)]
    return shlex.join(["python", "-m", "metarl.train", "--resume", str(run_dir), *allowed])


def below_here(path: str | Path) -> Path:
    """Return a path without the working directory that it begins with, to keep messages short."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def start_command(run_dir: str | Path, allow: Sequence[str] = ()) -> str:
    """Return the command that starts a run without a checkpoint again, in its folder."""
    run_dir = below_here(run_dir)
    allowed = [word for package in allow for word in ("--allow", package)]
    given = ["--config", str(Path(run_dir) / "config.yaml"), "--run_dir", str(run_dir), "--auto_resume", *allowed]
    return shlex.join(["python", "-m", "metarl.train", *given])
