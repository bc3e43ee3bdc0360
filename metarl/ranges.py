"""Options with the values that they may take: a rule stands beside each default and is checked in one place.

>>> @dataclass
... class MineConfig(AgentConfig):
...     lr: Schedule = option(1e-3, between(0, 1))
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from metarl.errors import unknown

T = TypeVar("T")


class Rule(NamedTuple):
    """What a number has to be."""

    words: str
    """As it stands behind "must": ``be at least 1``."""
    holds: Callable[[float], bool]
    """Whether it holds for a number. Comparisons are written so that it does not for NaN."""


class OneOf(NamedTuple):
    """The names that a text may be."""

    names: tuple[str, ...]


def option(default: T, rule: Rule | OneOf) -> T:
    """A dataclass field with this default and a rule that `check_options` asks of its value."""
    field: Any = dataclasses.field(default=default, metadata={"rule": rule})
    return field


@dataclasses.dataclass(frozen=True)
class Part:
    """Base of a frozen dataclass of options that belong together and are one field of a configuration."""

    def __post_init__(self) -> None:
        check_options(self)


class Parts(NamedTuple):
    """The kinds of a part that a field may be, by their names; the first is the default."""

    kinds: dict[str, type[Part]]

    def name_of(self, value: Any) -> str:
        return next(name for name, kind in self.kinds.items() if type(value) is kind)


def part(**kinds: type[Part]) -> Any:
    """A dataclass field that holds a part of one of these kinds, the first by default."""
    first = next(iter(kinds.values()))
    return dataclasses.field(default=first(), metadata={"rule": Parts(kinds)})


def parts_of(config_class: Any) -> dict[str, Parts]:
    """The fields of a configuration that hold a part, and which kinds there are."""
    if not dataclasses.is_dataclass(config_class):
        return {}
    rules = {field.name: field.metadata.get("rule") for field in dataclasses.fields(config_class)}
    return {name: rule for name, rule in rules.items() if isinstance(rule, Parts)}


def make_parts(config: Any) -> None:
    """Put a part with its defaults where only its name was given. Raises ValueError for what is none."""
    for name, parts in parts_of(config).items():
        value = getattr(config, name)
        if isinstance(value, str) and value in parts.kinds:
            setattr(config, name, parts.kinds[value]())
        elif type(value) not in parts.kinds.values():
            raise ValueError(unknown(name, str(value), parts.kinds))


def between(low: float, high: float) -> Rule:
    """A number, or the values of a schedule, from `low` to `high`, both included."""
    return Rule(f"lie in [{low:g}, {high:g}]", lambda value: low <= value <= high)


def at_least(low: int) -> Rule:
    return Rule(f"be at least {low}", lambda value: value >= low)


def one_of(*names: str) -> OneOf:
    return OneOf(names)


POSITIVE = Rule("be positive", lambda value: value > 0)
POSITIVE_FINITE = Rule("be positive and finite", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Rule("be finite and not negative", lambda value: 0 <= value < math.inf)
SHARE = Rule("lie in (0, 1]", lambda value: 0 < value <= 1)
FRACTION = Rule("lie between 0 and 1", lambda value: 0 < value < 1)


def check_options(config: Any) -> None:
    """Raise ValueError, one sentence, for the first option of a dataclass whose value breaks its rule.

    None is allowed where it is the default. A rule holds for each number of a tuple and each value of a schedule
    ``[[progress, value], …]``, whose points have to be in the order of progress.
    """
    for field in dataclasses.fields(config):
        rule, value = field.metadata.get("rule"), getattr(config, field.name)
        if isinstance(rule, OneOf):
            if value not in rule.names:
                raise ValueError(unknown(field.name, value, rule.names))
        elif isinstance(rule, Rule):
            _check(field.name, value, rule, " or be null" if field.default is None else "")


def _check(name: str, value: Any, rule: Rule, or_null: str) -> None:
    if isinstance(value, tuple):
        if not all(map(rule.holds, value)):
            raise ValueError(f"{name} must {rule.words} each, got {list(value)}.")
    elif isinstance(value, list):
        if not value or not all(rule.holds(point[1]) for point in value):
            raise ValueError(f"{name} must {rule.words}, got {value}.")
        if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(value)):
            raise ValueError(f"{name}'s points must be in the order of training progress, got {value}.")
    elif value is not None and not rule.holds(value):
        raise ValueError(f"{name} must {rule.words}{or_null}, got {value}.")
