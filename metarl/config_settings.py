"""What files and the command line say, option by option, and what that comes to when one is laid over the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metarl.config_classes import BASES, Named, find_class
from metarl.config_errors import ConfigError, shown
from metarl.config_file import load_yaml, read_yaml
from metarl.errors import unknown

OTHERS = ("config", "resume", "seeds", "quiet", "print_config", "help")
"""Options of the command line that are no fields of the configuration."""
SEE_OPTIONS = "python -m metarl.train --help"
"""The command that shows all options and presets."""
_EXAMPLES = {"family": "GridNavi", "agent": "RL2Config"}
_SPLITS = ("train_split", "eval_splits")


class Setting(NamedTuple):
    """What a file or the command line says of one option."""

    key: str  # agent.lr; with a + at its end it adds to a list
    value: Any  # data, of a file; a text or None (nothing), of the command line
    typed: bool = False  # on the command line


def split_args(args: Sequence[str]) -> list[tuple[str, str | None]]:
    """``--key value``, ``--key=value`` and bare words as (key, value) pairs; the value is None where there is none."""
    pairs: list[tuple[str, str | None]] = []
    for arg in args:
        if arg.startswith("--"):
            key, equals, value = arg.partition("=")
            pairs.append((key, value if equals else None))
        elif pairs and pairs[-1][0].startswith("--") and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], arg)
        else:
            pairs.append((arg, None))
    return pairs


def of_file(path: Path, fields: Sequence[str]) -> list[Setting]:
    """What a config file says, in its order. Raises ConfigError for what is no option."""
    settings: list[Setting] = []
    for key, value in read_yaml(path).items():
        if key not in fields:
            raise ConfigError(unknown("option", str(key), fields, see=SEE_OPTIONS))
        settings += _flat(key, value)
    return settings


def of_line(options: Sequence[tuple[str, str | None]], fields: Sequence[str]) -> Iterator[Setting]:
    """What the command line says, in its order. Raises ConfigError for what is no option."""
    for key, value in options:
        first, _, rest = key.partition(".")
        if first.removesuffix("+") not in fields or (rest and first not in BASES):
            raise ConfigError(unknown("option", key, (*fields, *OTHERS), see=SEE_OPTIONS))
        if first in BASES and rest in ("", "class_path", "init_args") and value is None:
            raise ConfigError(f"--{key} needs a value, such as --{first} {_EXAMPLES[first]}.")
        if first in BASES and value is not None and rest in ("", "init_args") and value.lstrip().startswith("{"):
            try:
                data = load_yaml(value)
            except yaml.YAMLError as error:
                raise ConfigError(f"--{key} is not valid YAML: {value!r}.") from error
            yield from _flat(first, {"init_args": data} if rest else data)
        else:
            yield Setting(f"{first}.{rest.removeprefix('init_args.')}" if rest else first, value, typed=True)


def _flat(key: str, value: Any) -> Iterator[Setting]:
    """The settings in what a file says of one field. Raises ConfigError for what is none."""
    if key not in BASES:
        yield Setting(key, value)
    elif not isinstance(value, dict):
        yield Setting(f"{key}.class_path", value)
    else:
        for inner, item in value.items():
            if inner not in ("class_path", "init_args"):
                raise ConfigError(unknown("key", str(inner), ("class_path", "init_args"), where=f" of {key}"))
            if inner == "class_path":
                yield Setting(f"{key}.class_path", item)
            elif isinstance(item, dict):
                yield from (Setting(f"{key}.{name}", argument) for name, argument in item.items())
            else:
                raise ConfigError(f"{key}.init_args must be options, each with its value, got {shown(item)}.")


class Choice(NamedTuple):
    """What several layers, each a file or the command line, come to."""

    named: dict[str, Named]  # the family and the agent
    settings: list[Setting]  # their options, and the run's
    replaced: bool  # whether a layer named another family or agent than one before it
    doubtful: set[str]  # fields that name splits of a family that was replaced


def choose(layers: Sequence[Sequence[Setting]]) -> Choice:
    """The family and the agent, and what goes for them.

    What a layer says of a family or an agent goes for that class alone: another one that a later layer names starts
    from its own defaults, not from what suits, or belongs to, the one before.
    """
    choice = Choice({}, [], False, set())
    for layer in layers:
        for name in BASES:
            given = [setting.value for setting in layer if setting.key in (name, f"{name}.class_path")]
            if given:
                now, before = find_class(name, given[-1]), choice.named.get(name)
                if before is not None and before.factory is not now.factory:
                    kept = [setting for setting in choice.settings if not setting.key.startswith(f"{name}.")]
                    doubtful = {*_SPLITS} if name == "family" else choice.doubtful
                    choice = choice._replace(settings=kept, replaced=True, doubtful=doubtful)
                choice.named[name] = now
        said = [setting for setting in layer if setting.key.removesuffix(".class_path") not in BASES]
        choice.settings.extend(said)
        choice.doubtful.difference_update(setting.key.removesuffix("+") for setting in said)
    if missing := [name for name in BASES if name not in choice.named]:
        raise ConfigError(f"The configuration names no {missing[0]}: set {missing[0]}.class_path.")
    return choice
