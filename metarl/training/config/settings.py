"""Settings from files and the command line, and their combination: later settings override earlier ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metarl.core.errors import brief, unknown
from metarl.core.options import Parts, parts_of
from metarl.training.config.errors import ConfigError, no_option, shown
from metarl.training.config.file import SEE_OPTIONS, read_yaml
from metarl.training.config.names import BASES, Named, find_named
from metarl.training.config.old import with_parts
from metarl.training.config.safe_yaml import Refused, load_yaml

_EXAMPLES = {"family": "GridNavi", "agent": "RL2"}


_SPLITS = ("train_split", "eval_splits")


_NAMES = tuple(f"{name}.name" for name in BASES)


class Setting(NamedTuple):
    """One option's value in a file or on the command line."""

    key: str  # agent.lr; with a + at its end it adds to a list
    value: Any  # data in a file; on the command line a text, or None for no value
    typed: bool = False  # True on the command line
    layer: int = 0  # index of its file; the command line is the last layer

    @property
    def data(self) -> Any:
        """Return the value as data; typed text that is not valid YAML stays a string."""
        try:
            return load_yaml(self.value) if self.typed and self.value is not None else self.value
        except yaml.YAMLError:
            return self.value


def of_file(path: Path, fields: Sequence[str]) -> list[Setting]:
    """Return the settings of a config file, in order. Raises ConfigError for an unknown option."""
    settings: list[Setting] = []
    for key, value in read_yaml(path).items():
        if key not in fields:
            raise ConfigError(no_option(str(key), fields, see=SEE_OPTIONS))
        settings += _flat(key, value)
    return settings


def of_line(options: Sequence[tuple[str, str | None]]) -> Iterator[Setting]:
    """Yield the settings of the command line, in order. Raises ConfigError for a family or agent without a name."""
    for key, value in options:
        first, _, rest = key.partition(".")
        if first not in BASES or rest not in ("", "name"):
            yield Setting(key, value, typed=True)
        elif value is None:
            raise ConfigError(f"--{key} needs a value, such as --{first} {_EXAMPLES[first]}.")
        elif not rest and value.lstrip().startswith("{"):
            try:
                data = load_yaml(value)
            except Refused as error:
                raise ConfigError(error.inside(f"the value of --{key}")) from error
            except yaml.YAMLError as error:
                raise ConfigError(f"--{key} is not valid YAML: {brief(value)!r}.") from error
            yield from _flat(first, data)
        else:
            yield Setting(f"{first}.name", value, typed=True)


def _flat(key: str, value: Any) -> Iterator[Setting]:
    """Yield the settings in a file's value of one field: a name, or a name and options."""
    if key not in BASES:
        yield Setting(key, value)
    elif not isinstance(value, dict):
        yield Setting(f"{key}.name", value)
    else:
        for name, item in value.items():
            if name == "class_path":  # older files, from before there were names
                yield Setting(f"{key}.name", item)
            elif name != "init_args":
                yield Setting(f"{key}.{name}", item)
            elif isinstance(item, dict):
                options = with_parts(value.get("class_path"), item) if key == "agent" else item
                yield from (Setting(f"{key}.{option}", argument) for option, argument in options.items())
            else:
                raise ConfigError(f"{key}.init_args must be options, each with its value, got {shown(item)}.")


def _found(name: str, value: Any, declared: Sequence[str], must: bool) -> Named | None:
    """Find a family or an agent. Return None for an unknown name, unless it `must` exist (no later layer names one)."""
    try:
        return find_named(name, value, declared)
    except ConfigError:
        if must:
            raise
        return None


class Choice(NamedTuple):
    """The combination of several layers, each of which is a file or the command line."""

    named: dict[str, Named]  # the family and the agent, then parts of the agent (agent.outer) and of the run
    settings: list[Setting]  # their options, and the run's
    replaced: bool  # whether a layer named another family or agent than one before it
    doubtful: set[str]  # fields that name splits of a family that was replaced


def choose(
    layers: Sequence[Sequence[Setting]], declared: Sequence[str] = (), run_parts: Mapping[str, Parts] | None = None
) -> Choice:
    """Choose the family and the agent, the parts of the agent and the run (`run_parts`), and their settings.

    The settings of a family or an agent apply only to it: if a later layer names another one, that starts from its own
    defaults. `declared` are packages that files name. Raises ConfigError if there is no family or no agent.
    """
    choice = Choice({}, [], False, set())
    before: dict[str, Named | None] = {}
    for number, layer in enumerate(layers):
        later = {setting.key for more in layers[number + 1 :] for setting in more}
        for name in BASES:
            given = [setting.value for setting in layer if setting.key == f"{name}.name"]
            if given:
                now = _found(name, given[-1], declared, must=f"{name}.name" not in later)
                if name in before and before[name] != now:
                    kept = [setting for setting in choice.settings if not setting.key.startswith(f"{name}.")]
                    doubtful = {*_SPLITS} if name == "family" else choice.doubtful
                    choice = choice._replace(settings=kept, replaced=True, doubtful=doubtful)
                before[name] = now
        said = [setting._replace(layer=number) for setting in layer if setting.key not in _NAMES]
        choice.settings.extend(said)
        choice.doubtful.difference_update(setting.key.removesuffix("+") for setting in said)
    choice.named.update({name: named for name, named in before.items() if named is not None})
    if missing := [name for name in BASES if name not in choice.named]:
        raise ConfigError(f"The configuration names no {missing[0]}: set {missing[0]}.name.")
    for field, parts in parts_of(choice.named["agent"].factory).items():
        choice = _choose_part(choice, f"agent.{field}", parts.kinds)
    for field, parts in (run_parts or {}).items():
        choice = _choose_part(choice, field, parts.kinds)
    return choice


def _choose_part(choice: Choice, key: str, kinds: Mapping[str, type]) -> Choice:
    """Choose the kind of a part and its settings; another kind starts from its own defaults, like another agent."""
    chosen, kept = next(iter(kinds)), list[Setting]()
    for _, layer in itertools.groupby(choice.settings, key=lambda setting: setting.layer):
        said = [inner for setting in layer for inner in _of_part(setting, key)]
        names = [setting for setting in said if setting.key in (key, f"{key}.name")]
        if any(setting.value is None for setting in names):
            raise ConfigError(f"--{key} needs a value, one of {', '.join(kinds)}.")
        if names:
            name = names[-1].data
            if not isinstance(name, str) or name.lower() not in kinds:
                raise ConfigError(unknown(key, str(name), kinds))
            if name.lower() != chosen:
                chosen, kept = name.lower(), [setting for setting in kept if not setting.key.startswith(f"{key}.")]
        kept += [setting for setting in said if setting.key != f"{key}.name"]
    return choice._replace(settings=kept, named=choice.named | {key: Named(kinds[chosen], chosen)})


def _of_part(setting: Setting, key: str) -> list[Setting]:
    """Split a setting of a whole part (a name, or a name and options) into settings; return others unchanged."""
    if setting.key != key or (setting.typed and setting.value is None):
        return [setting]
    data = setting.data
    if isinstance(data, dict):
        return [setting._replace(key=f"{key}.{name}", value=value, typed=False) for name, value in data.items()]
    return [setting._replace(key=f"{key}.name", value=data, typed=False)]
