"""The part of a configuration that the page "HParams" shows: what differs from the defaults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from metarl.core.agent import agent_class
from metarl.core.options import options_of, parts_of
from metarl.core.registry import family_class
from metarl.training.config.run_config import TrainConfig

ALWAYS = ("seed", "total_iterations")
"""Fields that are shown whatever they are."""
NEVER = ("run_dir",)
"""Fields that are not shown: TensorBoard names the run itself."""

Plain = bool | int | float | str


def shown(values: Mapping[str, Any]) -> dict[str, Plain]:
    """Return the fields of a resolved configuration that differ from their defaults, by their dotted names.

    The family and the agent are always there, by their names. A column that is empty for a run means the default.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in NEVER:
            continue
        if isinstance(value, Mapping):
            usual = options_of(_maker(name, value["name"]))
            given = {key: option for key, option in value.items() if key != "name"}
            found |= {f"{name}.{key}": x for key, x in given.items() if key not in usual or _other(x, usual[key])}
            if name not in _PARTS or value["name"] != next(iter(_PARTS[name].kinds)):
                found[name] = value["name"]
        elif name in ALWAYS or _other(value, _RUN.get(name)):
            found[name] = value
    return {name: x if isinstance(x, (bool, int, float, str)) else json.dumps(x) for name, x in found.items()}


_PARTS = parts_of(TrainConfig)
"""Parts of a run, such as the task sampler, with their kinds by name, the default one first."""
_RUN = {
    field.name: field.default_factory() if callable(field.default_factory) else field.default
    for field in dataclasses.fields(TrainConfig)
    if field.name not in ("family", "agent")
}


def _maker(part: str, name: str) -> Callable[..., Any]:
    """Return the class of a family, an agent or another part of a run, by its name."""
    if part in _PARTS:
        return _PARTS[part].kinds[name]
    return family_class(name) if part == "family" else agent_class(name)


def _other(value: Any, default: Any) -> bool:
    """Tell whether a plain value is another one than a default, which may be an object, such as an agent's part."""
    if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
        own = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
        return any(_other(x, own[key]) for key, x in value.items() if key in own)
    try:
        return bool(json.loads(json.dumps(default)) != value)
    except TypeError:  # what is not plain is no default of a file's
        return True
