"""Constants that an environment's constructor derives from others, which go stale when those change later.

Gymnasium's CartPole computes ``total_mass`` from ``masscart`` once, in ``__init__``; changing the attribute
``masscart`` later does not update it, so that the dynamics keep the old mass. The constructor's source shows
such assignments, and they can be repeated.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np

SPACES = ("action_space", "observation_space")
"""Attributes that are not recomputed: the family's spaces are the same for all tasks."""


class Derived(NamedTuple):
    """An attribute that a constructor computes from a changed one."""

    name: str
    expression: str
    code: CodeType | None
    """The assignment; None if it cannot be repeated: it needs local variables, is not a plain one, or sets a space."""
    scope: dict[str, Any]
    """The globals of the constructor's module."""

    def compute(self, env: Any) -> None:
        """Repeat the assignment on an environment."""
        if self.code is not None:
            exec(self.code, self.scope, {"self": env})

    def checked(self, env: Any) -> Derived:
        """Return this object, without the assignment if that does not reproduce the value of a new environment.

        This detects attributes that the constructor changes later or assigns under a condition.
        """
        try:
            again = eval(self.expression, self.scope, {"self": env})
            same = _same(again, getattr(env, self.name))
        except Exception:  # the environment's code may raise any exception
            same = False
        return self if same else self._replace(code=None)


@cache
def derived_from(kind: type, names: frozenset[str]) -> Sequence[Derived]:
    """Return what the constructors of a class derive, directly or indirectly, from these attributes, in source order.

    Assignments to ``self.name`` and to local variables are followed; the result is empty without Python source.
    """
    changed, found = set(names), list[Derived]()
    if not changed:
        return found
    for function in _constructors(kind):
        tainted = set[str]()  # local variables that depend on the attributes
        for targets, value, plain in _assignments(function):
            attributes, read = _names(value)
            if not (attributes & changed or read & tainted):
                continue
            for target in targets:
                of_self, local = _names(target)
                tainted |= local - {"self"}
                for name in sorted(of_self - changed):
                    changed.add(name)
                    again = plain and name not in SPACES and not read & _own(function)
                    code = _compiled(name, value) if again else None
                    found.append(Derived(name, ast.unparse(value), code, function.__globals__))
    return found


def _constructors(kind: type) -> Iterator[FunctionType]:
    """Yield the Python constructors of a class, those of its bases first."""
    for base in reversed(kind.__mro__):
        function = vars(base).get("__init__")
        if isinstance(function, FunctionType):
            yield function


def _assignments(function: FunctionType) -> Iterator[tuple[Sequence[ast.expr], ast.expr, bool]]:
    """Yield (targets, value, True for ``self.name = value``) of a function's assignments, in source order."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign))]
    for node in sorted(nodes, key=lambda each: (each.lineno, each.col_offset)):
        if node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            augmented = isinstance(node, ast.AugAssign)
            yield targets, node.value, len(targets) == 1 and isinstance(targets[0], ast.Attribute) and not augmented


def _names(node: ast.expr) -> tuple[set[str], set[str]]:
    """Return the attributes of ``self`` and the variables that an expression uses."""
    attributes, variables = set(), set()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            attributes.add(each.attr)
        elif isinstance(each, ast.Name):
            variables.add(each.id)
    return attributes, variables


def _own(function: FunctionType) -> set[str]:
    """Return the function's local names: arguments, local variables and closure variables."""
    return {*function.__code__.co_varnames, *function.__code__.co_cellvars, *function.__code__.co_freevars} - {"self"}


def _compiled(target: str, value: ast.expr) -> CodeType:
    left = ast.Attribute(ast.Name("self", ast.Load()), target, ast.Store())
    module = ast.Module([ast.Assign([left], value)], [])
    return compile(ast.fix_missing_locations(module), f"<{target}>", "exec")


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; objects other than numbers, text and lists are if their types are."""
    if isinstance(one, (int, float, str, tuple, list, np.ndarray, np.generic)):
        return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other))
    return type(one) is type(other)
