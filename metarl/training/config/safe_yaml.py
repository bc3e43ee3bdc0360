"""YAML for configurations: plain data without duplicate keys, read in bounded time and memory.

A file may come from somebody else. Its length, its depth and its number of values (with aliases expanded) are therefore
limited, and numbers that YAML reads differently from people are rejected.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from metarl.core.errors import brief

LONGEST = 1_000_000
"""Largest size of a file in bytes; that of a run has about 2,000."""


MOST_VALUES = 10_000
DEEPEST = 30
DIGITS = 50


class Refused(yaml.YAMLError):
    """An error for text that is valid YAML but not a configuration; `what` completes a message that begins "In …"."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.line = what, line

    def inside(self, where: str) -> str:
        """Return the complete message, for a text called `where`."""
        return f"In {where if self.line is None else f'line {self.line} of {where}'} {self.what}."


class Misleading(Refused):
    """An error for a number that YAML reads differently from people; as a string it would be harmless."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, for plain data: ``1e-3`` is a number, and ``2026-01-31`` is a string."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name for it)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.values = 0
        self.sizes: dict[int, int] = {}  # values in a finished node, by its identity

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, unless there are too many nodes or they are nested too deeply."""
        alias, line = self.check_event(yaml.AliasEvent), self.peek_event().start_mark.line + 1
        self.depth += 1
        if self.depth > DEEPEST:
            raise Refused(f"values are nested more than {DEEPEST} levels deep: a configuration needs four", line)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if not alias:
            self.sizes[id(node)] = 1 + sum(self.sizes[id(child)] for child in _children(node))
        elif id(node) not in self.sizes:
            raise Refused("an alias refers to the value that contains it: write out the value", line)
        self.values += self.sizes[id(node)] if alias else 1
        if self.values > MOST_VALUES:
            raise Refused(
                f"there are more than {MOST_VALUES:,} values, counting those of aliases: leave most of them out"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first, line = lines.get((key.tag, key.value)), key.start_mark.line + 1
                if first is not None:
                    where = f"in line {first} and again in line {line}" if line != first else f"twice in line {line}"
                    raise Refused(f"the key {brief(key.value)!r} appears {where}: keep one of them")
                lines[key.tag, key.value] = line
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Make an int. Raises Misleading for ``010`` (8 to YAML), ``1:30`` (90 to YAML) and very long numbers."""
        text, line = str(self.construct_scalar(node)), node.start_mark.line + 1
        if len(text) > DIGITS:
            raise Misleading(f"a number has {len(text):,} digits: at most {DIGITS} are read", line)
        value: int = super().construct_yaml_int(node)
        if ":" in text or re.match(r"[-+]?0[0-7_]", text):
            base = "base 60" if ":" in text else "base 8"
            others = "" if ":" in text else f" or {text.replace('_', '').lstrip('+-').lstrip('0') or 0}"
            raise Misleading(
                f"{text} means {value} to YAML ({base}): write {value}{others}, or {text!r} for a string", line
            )
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Make a float. Raises Misleading for a number that overflows to infinity."""
        value: float = super().construct_yaml_float(node)
        text, line = str(self.construct_scalar(node)), node.start_mark.line + 1
        if math.isinf(value) and "inf" not in text.lower():
            raise Misleading(f"{brief(text)} is larger than any number: write .inf if infinity is meant", line)
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", getattr(_Loader, f"construct_yaml_{_kind}"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)(e[-+]?\d+)?|\d[\d_]*e[-+]?\d+|\.inf|\.nan)$", re.I),
    list("-+0123456789."),
)


def _children(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def load_yaml(text: str) -> Any:
    """Parse YAML text. Raises yaml.YAMLError; `Refused` for valid YAML that is not a configuration."""
    if len(text) > LONGEST:
        raise Refused(f"there are more than {LONGEST:,} characters: a configuration has about 2,000")
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # ``!!bool maybe``, ``!!int ""``
        raise Refused("a value does not have the type of its tag: leave out the tag") from error
