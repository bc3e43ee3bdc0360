"""Constants that an environment's constructor derives from others, and that go stale when those are changed later.

Gymnasium's CartPole computes ``total_mass`` from ``masscart`` once, in ``__init__``; changing the attribute
``masscart`` of an environment leaves it, so that the cart is heavy in name only. The source of the constructor shows
such assignments, and they can be done again.
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
"""These are not computed again: the family's spaces are the same for all tasks."""


class Derived(NamedTuple):
    """An attribute that a constructor computes from a changed one."""

    name: str
    expression: str
    code: CodeType | None
    """The assignment; None if it cannot be done again, since it needs local variables, is no plain one, or a space."""
    scope: dict[str, Any]
    """The globals of the constructor's module."""

    def compute(self, env: Any) -> None:
        """Do the assignment again on an environment."""
        if self.code is not None:
            exec(self.code, self.scope, {"self": env})

    def checked(self, env: Any) -> Derived:
        """Return this one, without the assignment if that does not give what a newly made environment has.

        This finds what the constructor changes afterwards, or assigns under a condition.
        """
        try:
            again = eval(self.expression, self.scope, {"self": env})
            same = _same(again, getattr(env, self.name))
        except Exception:  # the expression is the environment's
            same = False
        return self if same else self._replace(code=None)


@cache
def derived_from(kind: type, names: frozenset[str]) -> Sequence[Derived]:
    """Return what the constructors of a class derive from these attributes, directly or not, in the order of source.

    It follows assignments to ``self.name`` and to local variables; a class without Python source has none.
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
    """Yield the constructors of a class that are written in Python, those of its bases first."""
    for base in reversed(kind.__mro__):
        function = vars(base).get("__init__")
        if isinstance(function, FunctionType):
            yield function


def _assignments(function: FunctionType) -> Iterator[tuple[Sequence[ast.expr], ast.expr, bool]]:
    """Yield (targets, value, True for ``self.name = value``) of a function's assignments, in the order of source."""
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
    """Return the attributes of ``self`` that an expression names, and its variables."""
    attributes, variables = set(), set()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            attributes.add(each.attr)
        elif isinstance(each, ast.Name):
            variables.add(each.id)
    return attributes, variables


def _own(function: FunctionType) -> set[str]:
    """Return the names that only the function knows: its arguments and local variables, and those of a closure."""
    return {*function.__code__.co_varnames, *function.__code__.co_cellvars, *function.__code__.co_freevars} - {"self"}


def _compiled(target: str, value: ast.expr) -> CodeType:
    left = ast.Attribute(ast.Name("self", ast.Load()), target, ast.Store())
    module = ast.Module([ast.Assign([left], value)], [])
    return compile(ast.fix_missing_locations(module), f"<{target}>", "exec")


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal; two objects that are no numbers, text or lists of them are if of one type."""
    if isinstance(one, (int, float, str, tuple, list, np.ndarray, np.generic)):
        return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other))
    return type(one) is type(other)
