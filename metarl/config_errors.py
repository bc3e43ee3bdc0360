"""What was wrong with a configuration, in one sentence that names the nearest right name.

Parsing itself is jsonargparse's. Only when it has failed is the input looked through again, for the wrong name.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from metarl.agent import AgentConfig
from metarl.family import TaskFamily, family_class, registered, unknown

BASES: dict[str, type] = {"family": TaskFamily, "agent": AgentConfig}
"""The fields that hold a class, and what it must be a subclass of."""


class ConfigError(ValueError):
    """A mistake in what the user asked for; the message is a sentence for the user."""


def family_id(name: str) -> str | None:
    """The registered id that `name` stands for; None if `name` is something else, such as a class path.

    `name` may be an id, the name inside an id (``GridNavi``), or ``module:id``, which imports the module first.
    Raises ConfigError for a name that looks like an id and is none.
    """
    module, _, id = name.rpartition(":")
    if module:
        _import(module)
    if id in registered():
        return id
    if "/" in id:
        raise ConfigError(unknown("task family", id, registered()))
    ours = [known for known in registered() if re.sub(r"-v\d+$", "", known.partition("/")[2]) == id]
    return ours[-1] if ours else None


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


def explain(message: str, args: Sequence[str], fields: Sequence[str]) -> str:
    """One sentence for a parser's `message` about the command line `args`, whose top-level names are `fields`."""
    try:
        return _wrong_name(args, fields) or _shortened(message)
    except ConfigError as error:
        return str(error)


def _wrong_name(args: Sequence[str], fields: Sequence[str]) -> str | None:
    """The sentence about the first option or class that does not exist."""
    given = list(_given(args))
    classes: dict[str, type] = {}
    for key, value in given:
        field = key.removesuffix(".class_path")
        if field in BASES and isinstance(value, str):
            classes[field] = _class(field, value)
        elif field in BASES and value is not None:
            return f"{key} must be the name of a class, got {value!r}."
        elif key.removesuffix(".init_args") in BASES:
            return f"{key} must be options, each with its value, got {value!r}."
    for key, _ in given:
        field, *rest = key.removesuffix("+").split(".")
        if field not in fields:
            return unknown("option", key, (*fields, "config", "resume", "seeds", "quiet", "print_config", "help"))
        rest = [part for part in rest if part not in ("init_args", "class_path", "help", "dict_kwargs")]
        if rest and field not in classes:
            return unknown("key", rest[0], ("class_path", "init_args"), where=f" of {field}")
        if rest:
            options = [name for name in inspect.signature(classes[field]).parameters if name not in ("args", "kwargs")]
            if rest[0] not in options:
                return unknown("option", rest[0], options, where=f" of {field} {classes[field].__name__}")
    missing = [field for field in BASES if field not in {key.split(".")[0] for key, _ in given}]
    return f"The configuration names no {missing[0]}: set {missing[0]}.class_path." if missing else None


def _given(args: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What files and command line say, as (dotted key, value) in their order."""
    for key, value in split_args(args):
        if key == "--config" and value is not None:
            yield from _flat(_read(value))
        elif key not in ("--config", "--resume", "--print_config", "--help", "-h"):
            yield key.removeprefix("--"), value


def _read(path: str) -> dict[str, Any]:
    """What a config file holds. Raises ConfigError that says where it is not YAML."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise ConfigError(f"The config file {path!r} is not valid YAML{where}: {what}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {path!r} is not a text of YAML.") from error
    except OSError as error:
        raise ConfigError(f"The config file {path!r} cannot be read: {error.strerror}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"The config file {path!r} holds no 'key: value' pairs.")
    return data


def _flat(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if key in BASES and isinstance(value, dict):
            for inner, item in value.items():
                if inner == "init_args" and isinstance(item, dict):
                    yield from ((f"{key}.{name}", argument) for name, argument in item.items())
                else:
                    yield f"{key}.{inner}", item
        else:
            yield str(key), value


def _class(field: str, path: str) -> type:
    """The class that a class path or a short name stands for. Raises ConfigError if there is none that fits."""
    base = BASES[field]
    id = family_id(path) if field == "family" else None
    if id is not None:
        return family_class(id)
    known = {cls.__name__: cls for cls in _subclasses(base) if not inspect.isabstract(cls)}
    module, _, name = path.rpartition(".")
    names = sorted({re.sub(r".*/|-v\d+$", "", id) for id in registered()} | set(known) if field == "family" else known)
    if not module:
        if path not in known:
            raise ConfigError(unknown(f"{field} class", path, names))
        return known[path]
    cls = getattr(_import(module), name, None)
    if cls is None:
        there = [key for key, value in vars(_import(module)).items() if isinstance(value, type)] or names
        raise ConfigError(unknown(f"{field} class", name, sorted(set(there) & set(names) or there), f" in {module}"))
    if isinstance(cls, type) and not issubclass(cls, base):
        raise ConfigError(f"{field}: {path} is not a {base.__name__}.")
    if not isinstance(cls, type):
        raise ConfigError(f"{field}: {path} is not a class.")
    return cls


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            where = f"neither in {str(Path.cwd())!r} nor among the installed packages"
            raise ConfigError(f"There is no module {module!r}, {where}.") from error
        raise ConfigError(f"The module {module!r} needs {error.name!r}, which is not installed.") from error
    except Exception as error:
        raise ConfigError(f"The module {module!r} cannot be imported: {type(error).__name__}: {error}.") from error


def _subclasses(base: type) -> list[type]:
    direct: list[type] = base.__subclasses__()
    return [*direct, *(cls for child in direct for cls in _subclasses(child))]


def _shortened(message: str) -> str:
    """The parser's message with its frame taken off: which option, what was expected, what was given."""
    path = ".".join(re.findall(r'Parser key "([\w.]+)"', message))
    got = re.search(r"(?:Given value|Got value): (.*)", message)
    expected = re.search(r"Subtypes: \[(.*)\]", message) or re.search(r"Expected a (.*?)(?:\.|$)", message, re.M)
    text = re.sub(r"<class '([\w.]+)'>", r"\1", expected.group(1)) if expected else ""
    if path and got and text:
        text = "a list, such as [a, b]" if text in ("list", "tuple") else text
        kind = text.replace("NoneType", "null").replace(", null", " or null").replace("float, list", "float or list")
        return f"{path} must be {kind}, got {got.group(1)!r}."
    return re.sub(r'^Parser key "[\w.]+": ', "", " ".join(message.split()).rstrip(".")) + "."
