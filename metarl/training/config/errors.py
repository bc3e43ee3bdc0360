"""Error messages about configurations: the option, its type, and the given value."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from metarl.core.errors import brief, nearest, printable, unknown

_WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a string", "strings"),
    types.NoneType: ("null", "null"),
    dict: ("options, each with its value", "options"),
    list: ("a list, such as [a, b]", "lists"),
    tuple: ("a list, such as [a, b]", "lists"),
}


class ConfigError(ValueError):
    """A user's mistake; the message is one sentence for the user, on one line."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


_MEANT = {
    "learning_rate": "lr",
    "meta_lr": "lr",
    "outer_lr": "lr",
    "inner_lr": "fast_lr",
    "discount": "gamma",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "clip_range": "clip_coef",
    "clip_eps": "clip_coef",
    "entropy_coef": "ent_coef",
    "value_coef": "vf_coef",
    "hidden_dim": "hidden_size",
    "n_epochs": "update_epochs",
    "ppo_epochs": "update_epochs",
    "num_tasks": "meta_batch_size",
    "iterations": "total_iterations",
    "num_iterations": "total_iterations",
    "preset": "config",
    "n_seeds": "seeds",
}
"""Names of options in other libraries, and their names here."""


def no_option(key: str, known: Iterable[str], where: str = "", see: str = "", inside: Iterable[str] = ()) -> str:
    """Return the message for an unknown option, with the option that was probably meant or the nearest ones.

    The suggestions include options `inside` the family or the agent (``agent.lr``).
    """
    known, inside = list(known), list(inside)
    meant = _MEANT.get(key, key)
    near = [option for option in (*known, *inside) if meant in (option, option.partition(".")[2])]
    if not near:
        return unknown("option", key, known, where, see)
    others = nearest(key, known, see=see).rpartition("? ")[2]
    return f"Unknown option{where}: {brief(key)!r}. Did you mean {near[0]!r}? {others}"


def wrong_value(key: str, hint: Any, value: Any) -> str:
    """Return the message for an option `key` of type `hint` with the wrong `value`."""
    return f"{brief(key)} must be {in_words(hint)}, got {shown(value)}."


def no_value(key: str, hint: Any) -> str:
    """Return the message for an option on the command line without a value."""
    return f"--{brief(key)} needs a value: {in_words(hint)}."


def in_words(hint: Any, many: bool = False) -> str:
    """Describe a type in the words of YAML: ``a number or a list of pairs of numbers``."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint][many]
    if _alternatives(hint):
        return " or ".join(dict.fromkeys(in_words(part, many) for part in parts))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple and parts[-1:] != (Ellipsis,):
        kind = in_words(parts[0], many=True) if len(set(parts)) == 1 else "values"
        names = ("a pair of", "pairs of") if len(parts) == 2 else (f"a list of {len(parts)}", f"lists of {len(parts)}")
        return f"{names[many]} {kind}"
    if origin in (list, tuple, set):
        return f"{'lists' if many else 'a list'} of {in_words(parts[0], many=True)}"
    if origin is dict:
        return _WORDS[dict][many]
    name = getattr(hint, "__name__", str(hint))
    return f"values of {name}" if many else f"a value of {name}"


def may_be_null(hint: Any) -> bool:
    """Return True if null is a value of this type."""
    return hint in (Any, object, None, types.NoneType) or any(map(may_be_null, _alternatives(hint)))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def shown(value: Any) -> str:
    """Write a value as YAML on one line, a long one shortened; a text in quotes."""
    if isinstance(value, str):
        return repr(brief(value))
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    except yaml.YAMLError:  # an object of Python, given in Python
        text = repr(value)
    return brief(text.removesuffix("...\n").strip())
