"""Parsing of command lines and YAML files to a run's configuration, and writing it as YAML.

``parse(args)`` reads ``--config FILE_OR_PRESET`` and overrides such as ``--agent.lr 1e-3``; without ``--config`` it
reads the default preset. `family` and `agent` are names, or a name and options: ``{name: RL2, lr: 0.001}`` (see
`metarl.training.config.names`). jsonargparse handles types, help and conversion; it gets one option at a time, so that
errors can be attributed to the option. Every mistake raises ConfigError with one sentence for the user.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from gymnasium import Space
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

import metarl.agents
import metarl.envs  # noqa: F401  (registers the families)
from metarl.core.errors import brief
from metarl.core.faults.memory import check_memory, row_numbers
from metarl.core.options import MISSING, Part, add_arguments, options_of, own_options, parts_of, paths_of, takes_any
from metarl.core.registry import build
from metarl.training.config.errors import ConfigError, may_be_null, no_option, no_value, shown, wrong_value
from metarl.training.config.file import (
    DEFAULT_PRESET,
    PRESETS,
    RUN_FILE,
    SEE_OPTIONS,
    check_regular,
    complete,
    find,
    is_there,
    presets,
)
from metarl.training.config.help import print_help
from metarl.training.config.line import OTHERS, Line, read_line
from metarl.training.config.names import BASES, Named, allow, home_of
from metarl.training.config.old import is_gone
from metarl.training.config.plain import check_plain, check_typed
from metarl.training.config.run_config import FIELDS, RESUMABLE, TrainConfig
from metarl.training.config.settings import Choice, Setting, choose, of_file, of_line

__all__ = ["PRESETS", "Parsed", "find", "parse", "presets", "read"]


@dataclass
class Parsed:
    """A parsed command line."""

    config: TrainConfig
    name: str
    """Name for the run directory: the config file's, or ``<agent>_<family>`` if they differ from the file's."""
    values: dict[str, Any]
    """The resolved configuration as plain data: every field with its value."""
    command: list[str]
    """The command line."""
    resume: Path | None = None
    """The run directory to continue."""
    auto_resume: bool = False
    """True to start the run in `config.run_dir`, continue it, or find that it is finished."""

    def text(self) -> str:
        """Return the complete resolved configuration, without run_dir, as YAML that repeats the run."""
        return complete(as_yaml(self.values | {"run_dir": None}))


def portable(parsed: Parsed) -> dict[str, Any]:
    """Return the values for an agent that is copied elsewhere, with paths made relative to the current folder.

    Only the last component of paths outside the current folder is kept. An agent that only acts reads none of them.
    """
    values = copy.deepcopy(parsed.values)
    for options, kind in ((values, TrainConfig), (values["agent"], type(parsed.config.agent))):
        for name, is_path in paths_of(kind).items():
            if isinstance(path := options.get(name), str) and is_path(path):
                near = Path(os.path.relpath(os.path.expanduser(path)))
                options[name] = f"./{near.name}" if ".." in near.parts else str(near)
    return values


def missing_paths(config: TrainConfig) -> str:
    """Return an addition to a message that says where the agent's missing paths were looked for, or ""."""
    found = []
    for name, is_path in paths_of(type(config.agent)).items():
        path = os.path.expanduser(getattr(config.agent, name))
        if is_path(path) and not os.path.isabs(path) and not os.path.exists(path):
            found.append(f" The path agent.{name} was looked for in {os.getcwd()!r}.")
    return "".join(found)


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that writes lists on one line: ``lr: [[0.0, 0.001], [1.0, 0.0]]``."""


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def as_yaml(values: dict[str, Any]) -> str:
    """Format plain data as readable YAML: in order, one line per field."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read(name: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read the configuration in a file or preset, with `overrides` as on the command line."""
    return parse(["--config", str(name), *overrides]).config


def parse(args: Sequence[str] | Line) -> Parsed:
    """Parse a command line. Raises ConfigError; prints and exits on ``--help`` and ``--print_config``."""
    line = args if isinstance(args, Line) else read_line(args)
    allow(line.allow)
    files = _files(line)
    layers = [of_file(path, FIELDS) for path in files]
    declared = _declared(layers)
    choice = choose([*layers, [*of_line(line.options)]], declared, parts_of(TrainConfig))
    if "--help" in line.switches:
        print_help(choice.named)
        raise SystemExit(0)
    choice.settings.append(Setting("allow", _needed(choice, [*declared, *line.allow])))
    choice = choice._replace(settings=[_placed(setting, choice, files) for setting in choice.settings])
    parser = _parser(choice.named)
    given, plain = _convert(parser, choice)
    config = _build(choice, given)
    values = _values(parser, choice.named, {name: plain[name] for name in plain if name in given}, config)
    parsed = Parsed(config, files[-1].stem, values, ["python", "-m", "metarl.train", *line.words], line.resume)
    if "--print_config" in line.switches:
        print(parsed.text(), end="")
        raise SystemExit(0)
    if "--auto_resume" in line.switches:
        _check_auto_resume(parsed)
        parsed.auto_resume = True
    if choice.replaced or parsed.name == "config":  # something else than the file says, or a run that is repeated
        what = f"{choice.named['agent'].short}_{choice.named['family'].short}"
        parsed.name = re.sub(r"[^\w.+-]+", "_", what.lower())
    return parsed


def _files(line: Line) -> list[Path]:
    """Find the config files. Raises ConfigError for a missing one, and for options that --resume does not allow."""
    if line.resume is None:
        return [find(name) for name in line.files or [DEFAULT_PRESET]]
    _check_resume(line.resume, [*(["config"] if line.files else []), *(key for key, _ in line.options)])
    return [line.resume / "config.yaml"]


def _declared(layers: Sequence[Sequence[Setting]]) -> list[str]:
    """Return the packages that files name, without importing them. Raises ConfigError for a value that is no name."""
    found: dict[str, None] = {}
    for setting in (setting for layer in layers for setting in layer if setting.key == "allow"):
        if not isinstance(setting.value, list) or not all(isinstance(name, str) for name in setting.value):
            raise ConfigError(f"allow must be a list of strings, got {shown(setting.value)}.")
        found |= dict.fromkeys(setting.value)
    return list(found)


def _placed(setting: Setting, choice: Choice, files: Sequence[Path]) -> Setting:
    """Return a setting with a path relative to the current folder made absolute.

    The run can then be resumed from any folder. Paths that do not exist are kept as given, for the error message, and
    the file of a run is not changed, since it was written with absolute paths.
    """
    base, _, name = setting.key.rpartition(".")
    is_path = paths_of(choice.named[base].factory if base in choice.named else TrainConfig).get(name)
    text = setting.value if setting.data is not None else None
    own = setting.layer < len(files) and files[setting.layer].name == RUN_FILE
    if is_path is None or own or not isinstance(text, str) or not is_path(text):
        return setting
    place = os.path.abspath(os.path.expanduser(text))
    return setting._replace(value=place, typed=False) if os.path.exists(place) else setting


def _needed(choice: Choice, packages: Sequence[str]) -> list[str]:
    """Return the packages among `packages` and all imported ones that register the family or the agent."""
    found: dict[str, None] = {}
    for field_ in BASES:
        home = home_of(field_, choice.named[field_].name)
        if home.partition(".")[0] != "metarl":
            around = [package for package in packages if f"{home}.".startswith(f"{package}.")]
            near = [package for package in packages if package.partition(".")[0] == home.partition(".")[0]]
            found[[home, *near, *around][-1]] = None
    return list(found)


def _check_resume(run_dir: Path, keys: Sequence[str]) -> None:
    for key in keys:
        if key.removesuffix("+") not in RESUMABLE:
            raise ConfigError(f"--{brief(key, 20)} cannot be changed with --resume; these can: {', '.join(RESUMABLE)}.")
    if not is_there(run_dir / "config.yaml"):
        raise ConfigError(f"There is no run to resume in {brief(str(run_dir), 160)!r}: it has no config.yaml.")
    if (run_dir / "agent.safetensors").exists():
        raise ConfigError(
            f"{str(run_dir)!r} is a trained agent, not a run: start a run from it with "
            f"--init_from {shlex.quote(str(run_dir))}."
        )
    check_regular(run_dir, to_write=True)


def _check_auto_resume(parsed: Parsed) -> None:
    if parsed.resume is not None:
        raise ConfigError("--auto_resume replaces --resume: repeat the run's first command, with its --run_dir.")
    if parsed.config.run_dir is None:
        raise ConfigError("--auto_resume needs --run_dir: the folder in which the same command finds its run again.")


def _parser(chosen: Mapping[str, Named]) -> ArgumentParser:
    """Make a parser for all options of the run, the family and the agent, none of which is required."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_class_arguments(TrainConfig, None, instantiate=False, skip={*BASES, *parts_of(TrainConfig)})
    for name, named in chosen.items():
        add_arguments(parser, named.factory, name, skip={*parts_of(named.factory)})
    return parser


def _convert(parser: ArgumentParser, choice: Choice) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert the settings to the options' types and to plain data, both as ``{"seed": 1, "agent": {"lr": 0.001}}``.

    Raises ConfigError for an unknown option or a wrong value.
    """
    hints = {action.dest: getattr(action, "_typehint", Any) for action in parser._actions}
    found: dict[str, Namespace] = {}  # option → its value so far
    for setting in choice.settings:
        first, _, rest = setting.key.partition(".")
        if first == "agent" and is_gone(choice.named[first].name, rest, setting.data):
            continue
        option = _option(setting.key.removesuffix("+"), choice.named, hints)
        if option not in hints:  # passed on, as far as we can see; the class will know
            hints[option] = Any
            parser.add_argument(f"--{option}", type=Any)
        if setting.typed and setting.value is None:
            raise ConfigError(no_value(setting.key, hints[option]))
        if setting.typed:
            check_typed(setting.key, hints[option], setting.value)
        check_plain(setting.key, hints[option], setting.data)
        try:
            found[option] = _parsed(parser, setting, found.get(option, Namespace()), hints[option])
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            raise ConfigError(wrong_value(setting.key, hints[option], setting.value)) from error
    namespace = Namespace()
    for option, value in found.items():
        namespace[option] = value[option]
    plain = json.loads(parser.dump(namespace, format="json", skip_unset=False, skip_validation=True))
    return parser.instantiate(namespace).as_dict(), plain


def _parsed(parser: ArgumentParser, setting: Setting, before: Namespace, hint: Any) -> Namespace:
    """Parse the value of one option, added to its value `before` if the key ends with +.

    Raises ArgumentError, TypeError or ValueError for a wrong value.
    """
    if setting.typed:
        return parser.parse_args([f"--{setting.key}={setting.value}"], before, defaults=False)
    if setting.value is None and not may_be_null(hint):
        raise TypeError(f"{setting.key} is null")  # which jsonargparse takes for an option that is not given
    data = copy.deepcopy(setting.value)  # it is converted in place
    for name in reversed(setting.key.split(".")):
        data = {name: data}
    return parser.parse_object(data, before, defaults=False)


def _option(key: str, chosen: Mapping[str, Named], known: Mapping[str, Any]) -> str:
    """Return the option that a key, or the beginning of a key, names. Raises ConfigError if there is none."""
    if key in known:
        return key
    first = next((name for name in reversed([*chosen]) if key.startswith(f"{name}.")), "")
    rest = key.removeprefix(f"{first}.")
    if not first:
        raise ConfigError(no_option(key, (*FIELDS, *OTHERS), inside=known, see=SEE_OPTIONS))
    name, _, part = rest.partition(".")
    option, factory = f"{first}.{name}", chosen[first].factory
    whole = known.get(option, Any)
    if (option not in known and not takes_any(factory)) or (part and whole in _WHOLE):
        where, see = f" of {first} {chosen[first].short}", _see(first, chosen[first])
        inside = [known_key.removeprefix(f"{first}.") for known_key in known if known_key.startswith(f"{first}.")]
        raise ConfigError(no_option(rest, options_of(factory), where, see=see, inside=inside))
    return option


_WHOLE = (int, float, str, bool)
"""Types of options that have no parts."""


def _see(field: str, named: Named) -> str:
    """Return the command that shows the options of an agent or a family."""
    return f"metarl train --{field} {named.short} --help"


def _build(choice: Choice, given: dict[str, Any]) -> TrainConfig:
    """Make the configuration with its family and agent, with defaults for options that are not given.

    Drops from `given` the splits of a replaced family if the new family does not have them. Raises ConfigError for
    options that the family or the agent rejects.
    """
    try:
        for key in choice.named.keys() - BASES.keys():
            base, _, field_ = key.rpartition(".")
            options = given.setdefault(base, {}) if base else given
            options[field_] = _make(key, choice.named[key], options.get(field_, {}))
        made = {name: _make(name, choice.named[name], given.get(name, {})) for name in BASES}
        for name in choice.doubtful & given.keys():
            splits = [given[name]] if isinstance(given[name], str) else given[name]
            if not {*splits} <= {*made["family"].splits, "valid"}:
                del given[name]
        return TrainConfig(**{name: given[name] for name in FIELDS if name in given} | made)
    except ConfigError:
        raise
    except (ValueError, TypeError, ImportError) as error:  # of a family's or an agent's constructor
        raise ConfigError(" ".join(str(error).split())) from error


def _make(field: str, named: Named, options: Mapping[str, Any]) -> Any:
    """Make the family, the agent's configuration, or a part of it. Raises ConfigError for a missing option."""
    for name, default in own_options(named.factory).items():
        if default is MISSING and name not in options:
            raise ConfigError(f"The {field} {named.short} needs the option {name!r}: set {field}.{name}.")
    try:
        made = build(named.factory, options, f"{field} {named.short}", BASES.get(field, Part), see=_see(field, named))
        if field == "family" and isinstance(getattr(made, "observation_space", None), Space):
            steps = made.horizon if type(made.horizon) is int else 1
            numbers = float(row_numbers(made)) * steps + float(getattr(made.action_space, "n", 0))
            check_memory(f"An episode of {named.short}", numbers, f"the options of {field}")
        return made
    except TypeError as error:
        if isinstance(error, ValueError):  # an unknown option, in a sentence of its own
            raise
        raise ConfigError(f"The {field} {named.short} cannot be made: {' '.join(str(error).split())}.") from error


def _values(
    parser: ArgumentParser, chosen: Mapping[str, Named], plain: Mapping[str, Any], config: TrainConfig
) -> dict[str, Any]:
    """Return the resolved configuration as plain data, in the order of the fields."""
    values: dict[str, Any] = {}
    defaults = parser.get_defaults(skip_validation=True).as_dict()
    for name in FIELDS:
        if name in chosen:
            made, factory = getattr(config, name), chosen[name].factory
            options = _defaults(defaults.get(name, {}), factory, made) | plain.get(name, {})
            ordered = sorted(options, key=[*options_of(factory), *options].index)
            values[name] = {"name": chosen[name].name} | {key: options[key] for key in ordered}
            for field_ in parts_of(factory):
                part = defaults[name][field_] | plain.get(name, {}).get(field_, {})
                values[name][field_] = {"name": chosen[f"{name}.{field_}"].name} | json.loads(json.dumps(part))
        else:
            values[name] = plain.get(name, defaults.get(name))
    return values


def _defaults(defaults: Mapping[str, Any], factory: Any, made: Any) -> dict[str, Any]:
    """Return the defaults of a factory's options as plain data, so that a run can be repeated after they change.

    The default of an option that the factory passes on is used only if the object `made` has this value, since the
    factory may pass on another one. Values that are not plain data are left out.
    """
    own, found = own_options(factory), {}
    for name, value in defaults.items():
        with contextlib.suppress(TypeError):  # of JSON's
            plain, there = json.loads(json.dumps(value)), getattr(made, name, MISSING)
            if name in own or (type(there) is type(value) and there == value):
                found[name] = plain
    return found
