"""Options of factories, and the rules that their values must satisfy.

A factory is a class or any other callable that makes an object. Options can be passed on: a subclass passes its
``**kwargs`` to its parent, a function passes them to the class that it calls, and `functools.partial` sets some. Names
of such options are found as far as the source shows them; the call reveals the rest.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
import dataclasses
import itertools
import math
from typing import NamedTuple, TypeVar

from metarl.core.errors import short, unknown

Factory = Callable[..., Any]


MISSING = inspect.Parameter.empty
"""The default of a required option."""


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


_ANY = (inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),)


def options_of(factory: Factory) -> dict[str, Any]:
    """Return the options of `factory` and their defaults (`MISSING` if required), followed by those it passes on."""
    own = own_options(factory)
    if not takes_any(factory):
        return own
    from jsonargparse import ArgumentParser  # slow to import, and rarely needed

    return own | {k: v for k, v in add_arguments(ArgumentParser(), factory, "x").items() if k not in own}


def own_options(factory: Factory) -> dict[str, Any]:
    """Return the options in the factory's own signature, and their defaults."""
    return {p.name: p.default for p in _parameters(factory) if p.kind in _BY_NAME}


def takes_any(factory: Factory) -> bool:
    """Return True if the factory takes ``**kwargs`` and so may have options that its signature does not show."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in _parameters(factory))


def refused(error: TypeError, given: Collection[str]) -> str | None:
    """Return the option among `given` that a call rejected, because it is unknown or already set; None otherwise."""
    found = re.search(r"(?:unexpected keyword argument|multiple values for (?:keyword )?argument) '(\w+)'", str(error))
    return found[1] if found and found[1] in given else None


def add_arguments(
    parser: ArgumentParser, factory: Factory, key: str, skip: Collection[str] = (), group: bool = True
) -> dict[str, Any]:
    """Add the options of `factory` to `parser` as ``--key.name`` with their types; return names and defaults.

    The parser requires none of them; calling the factory reveals which are missing.
    """
    if isinstance(factory, partial):
        positional = [p.name for p in _parameters(factory.func)][: len(factory.args)]
        found = add_arguments(parser, factory.func, key, {*skip, *positional}, group)
        fixed = {name: value for name, value in factory.keywords.items() if name in found}
        parser.set_defaults({f"{key}.{name}": value for name, value in fixed.items()})
        return found | fixed
    found = _add(parser, factory, key, skip, group)
    onward = _passes_on_to(factory)
    if onward is not None and takes_any(factory) and found.keys() <= own_options(factory).keys():
        found |= add_arguments(parser, onward, key, {*skip, *found}, group=False)
    return found


def _add(parser: ArgumentParser, factory: Factory, key: str, skip: Collection[str], group: bool) -> dict[str, Any]:
    before = len(parser._actions)
    how: dict[str, Any] = {"as_group": group, "skip": {*skip}, "fail_untyped": False}
    if isinstance(factory, type):
        parser.add_class_arguments(factory, key, instantiate=False, **how)
    else:
        parser.add_function_arguments(factory, key, **how)
    found = {}
    for action in parser._actions[before:]:
        if action.dest != key:  # skip the action of the group itself
            found[action.dest.removeprefix(f"{key}.")] = MISSING if action.required else action.default
            action.required = False
    return found


def _passes_on_to(factory: Factory) -> Factory | None:
    """Return the factory that gets unknown ``**kwargs``: the parent class, or the class that a function returns."""
    if isinstance(factory, type):
        later = factory.__mro__[next(i for i, cls in enumerate(factory.__mro__) if "__init__" in vars(cls)) + 1 :]
        return next((cls for cls in later if "__init__" in vars(cls) and cls is not object), None)
    if inspect.ismethod(factory):
        return factory.__self__ if isinstance(factory.__self__, type) else None
    try:
        made = typing.get_type_hints(factory).get("return")
    except (NameError, TypeError):  # names that only type checkers know, or not a function
        return None
    return made if isinstance(made, type) else None


def _parameters(factory: Factory) -> Collection[inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters.values()
    except ValueError:  # written in C
        return _ANY


T = TypeVar("T")


class Rule(NamedTuple):
    """A rule that a value must satisfy."""

    words: str
    """The rule in words that follow "must": ``be at least 1``."""
    holds: Callable[[Any], bool]
    """Returns True for a value that satisfies the rule; False for NaN."""
    is_path: Callable[[str], bool] | None = None
    """For an option that may be a path: returns True for a string that is a path. None: no value is a path."""


class OneOf(NamedTuple):
    """The allowed values of a string option."""

    names: tuple[str, ...]


def option(default: T, rule: Rule | OneOf) -> T:
    """Make a dataclass field with a default and a rule that `check_options` checks."""
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclasses.dataclass(frozen=True)
class Part:
    """Base of frozen dataclasses that group related options into one field of a configuration."""

    def __post_init__(self) -> None:
        check_options(self)


class Parts(NamedTuple):
    """The part classes that a field accepts, by name; the first is the default."""

    kinds: dict[str, type[Part]]

    def name_of(self, value: Any) -> str:
        return next(name for name, kind in self.kinds.items() if type(value) is kind)


def part(**kinds: type[Part]) -> Any:
    """Make a dataclass field that holds a part of one of these classes, by default of the first."""
    first = next(iter(kinds.values()))
    return dataclasses.field(default=first(), metadata={"rule": Parts(kinds)})


def parts_of(config_class: Any) -> dict[str, Parts]:
    """Return the fields of a configuration that hold a part, with the part classes that each accepts."""
    if not dataclasses.is_dataclass(config_class):
        return {}
    rules = {field.name: field.metadata.get("rule") for field in dataclasses.fields(config_class)}
    return {name: rule for name, rule in rules.items() if isinstance(rule, Parts)}


def paths_of(config_class: Any) -> dict[str, Callable[[str], bool]]:
    """Return the fields of a configuration that may hold a path, each with a function that recognises paths."""
    if not dataclasses.is_dataclass(config_class):
        return {}
    rules = {field.name: field.metadata.get("rule") for field in dataclasses.fields(config_class)}
    return {name: rule.is_path for name, rule in rules.items() if isinstance(rule, Rule) and rule.is_path is not None}


def make_parts(config: Any) -> None:
    """Replace the name of a part by the part with its defaults. Raises ValueError for any other value."""
    for name, parts in parts_of(config).items():
        value = getattr(config, name)
        if isinstance(value, str) and value in parts.kinds:
            setattr(config, name, parts.kinds[value]())
        elif type(value) not in parts.kinds.values():
            raise ValueError(unknown(name, str(value), parts.kinds))


def between(low: float, high: float) -> Rule:
    """Make the rule that a number, or each value of a schedule, lies between `low` and `high`, inclusive."""
    return Rule(f"lie in [{low:g}, {high:g}]", lambda value: low <= value <= high)


def at_least(low: int) -> Rule:
    return Rule(f"be at least {low}", lambda value: value >= low)


def one_of(*names: str) -> OneOf:
    return OneOf(names)


POSITIVE = Rule("be positive", lambda value: value > 0)


POSITIVE_FINITE = Rule("be positive and finite", lambda value: 0 < value < math.inf)


NOT_NEGATIVE = Rule("be finite and not negative", lambda value: 0 <= value < math.inf)


SHARE = Rule("lie in (0, 1]", lambda value: 0 < value <= 1)


def is_run_path(name: str) -> bool:
    """Return True if the name of a trained agent is the path of a run directory, not ``pretrained:NAME``."""
    return name != "" and not name.startswith("pretrained:")


RUN = Rule("be a run directory or pretrained:NAME", lambda value: isinstance(value, str) and value != "", is_run_path)


FRACTION = Rule("lie between 0 and 1", lambda value: 0 < value < 1)


def check_options(config: Any) -> None:
    """Raise ValueError for the first option of a dataclass whose value breaks its rule.

    None is allowed if it is the default. A rule applies to each number of a tuple and each value of a schedule
    ``[[progress, value], …]``, whose points must be sorted by progress.
    """
    for field in dataclasses.fields(config):
        rule, value = field.metadata.get("rule"), getattr(config, field.name)
        _check_kind(field, value)
        if isinstance(rule, OneOf):
            if value not in rule.names:
                raise ValueError(unknown(field.name, value, rule.names))
        elif isinstance(rule, Rule):
            _check(field.name, value, rule, " or be null" if field.default is None else "")


def _check_kind(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise ValueError for a value that is not an integer in an int field, or not a bool in a bool field."""
    if field.type in ("int", int) and (isinstance(value, bool) or not hasattr(value, "__index__")):
        raise ValueError(f"{field.name} must be a whole number, got {short(value)}.")
    if field.type in ("bool", bool) and not isinstance(value, bool):
        raise ValueError(f"{field.name} must be True or False, got {short(value)}.")


def _check(name: str, value: Any, rule: Rule, or_null: str) -> None:
    try:
        _check_rule(name, value, rule, or_null)
    except (TypeError, IndexError):  # a string, or points that are not pairs
        raise ValueError(f"{name} must {rule.words}{or_null}, got {short(value)}.") from None


def _check_rule(name: str, value: Any, rule: Rule, or_null: str) -> None:
    if isinstance(value, tuple):
        if not all(map(rule.holds, value)):
            raise ValueError(f"{name} must {rule.words} each, got {short(list(value))}.")
    elif isinstance(value, list):
        if not value or not all(rule.holds(point[1]) for point in value):
            raise ValueError(f"{name} must {rule.words}, got {short(value)}.")
        if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(value)):
            raise ValueError(f"{name}'s points must be in the order of training progress, got {short(value)}.")
    elif value is not None and not rule.holds(value):
        raise ValueError(f"{name} must {rule.words}{or_null}, got {short(value)}.")
