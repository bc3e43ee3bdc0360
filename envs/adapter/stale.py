"""Constants that an environment's constructor derives from others, and that go stale when those are changed later.

Gymnasium's CartPole computes ``total_mass`` from ``masscart`` once, in ``__init__``; changing the attribute
``masscart`` of an environment leaves it, so that the cart is heavy in name only. The source of the constructor shows
such assignments, and they can be done again.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

SPACES = ("action_space", "observation_space")
"""These are not computed again: the family's spaces are the same for all tasks."""


class Derived(NamedTuple):
    """An attribute that a constructor computes from a changed one."""

    name: str
    expression: str
    code: CodeType | None
    """The assignment; None if it cannot be done again, since it needs the constructor's arguments or is a space."""
    scope: dict[str, Any]
    """The globals of the constructor's module."""

    def compute(self, env: Any) -> None:
        """Do the assignment again on an environment."""
        if self.code is not None:
            exec(self.code, self.scope, {"self": env})


def derived_from(kind: type, names: Iterable[str]) -> list[Derived]:
    """Return what the constructors of a class derive from these attributes, directly or not, in the order of source.

    It sees plain assignments to ``self.name``; a class without Python source has none.
    """
    changed, found = set(names), list[Derived]()
    if not changed:
        return found
    for function in _constructors(kind):
        for target, value, own in _assignments(function):
            read = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute) and _is_self(node.value)}
            if read & changed and target not in changed:
                changed.add(target)
                code = _compiled(target, value) if not own and target not in SPACES else None
                found.append(Derived(target, ast.unparse(value), code, function.__globals__))
    return found


def _constructors(kind: type) -> Iterator[FunctionType]:
    """Yield the constructors of a class that are written in Python, those of its bases first."""
    for base in reversed(kind.__mro__):
        function = vars(base).get("__init__")
        if isinstance(function, FunctionType):
            yield function


def _assignments(function: FunctionType) -> Iterator[tuple[str, ast.expr, bool]]:
    """Yield (attribute, value, True if the value needs a local variable) of ``self.attribute = value``, in order."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    known = {*function.__globals__, *vars(builtins), "self"}
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        for target in targets:
            if value is not None and isinstance(target, ast.Attribute) and _is_self(target.value):
                names = {each.id for each in ast.walk(value) if isinstance(each, ast.Name)}
                yield target.attr, value, bool(names - known or names & {*function.__code__.co_varnames} - {"self"})


def _compiled(target: str, value: ast.expr) -> CodeType:
    left = ast.Attribute(ast.Name("self", ast.Load()), target, ast.Store())
    module = ast.Module([ast.Assign([left], value)], [])
    return compile(ast.fix_missing_locations(module), f"<{target}>", "exec")


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
