"""Trials as text: the rules of a family, observations as numbers or drawings, and the history within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from metarl.core.family import AnyFamily
from metarl.interop.docstrings import parts

SECTIONS = ("Actions", "Observations", "Rewards", "Endings")
"""Sections of a family's docstring that are part of its rules. The others reveal the tasks and the optimum."""
FEW_NUMBERS = 16
"""Largest observation that is written as numbers if the family has a text for it; larger ones are only that text."""


class Trial(NamedTuple):
    """A trial as text."""

    lines: tuple[str, ...] = ()  # the lines of all steps whose reward is known
    episode: int = 1
    step: int = 1
    acted: str = ""  # the line of the last action, until its reward is known

    def after(self, reward: float, done: bool) -> Trial:
        """Return the trial with the result of its last action."""
        line = f"{self.acted}, reward {number(reward)}{'; the episode ended' if done else ''}"
        episode, step = (self.episode + 1, 1) if done else (self.episode, self.step + 1)
        return Trial((*self.lines, line), episode, step)


def rule_of(family: AnyFamily) -> str:
    """Return the rules of a family from its docstring; they are the same for all of its tasks."""
    summary, sections = parts(type(family).__doc__ or "")
    paragraphs = [sections.get("Description", summary)]
    return "\n\n".join(paragraphs + [f"{name}:\n{sections[name]}" for name in SECTIONS if name in sections])


def number(x: float) -> str:
    """Write a number with at most four significant digits: ``0.3333``."""
    return f"{x + 0.0:.4g}"  # -0 is 0


def numbers(value: Any) -> str:
    """Write nested lists of numbers in brackets: ``[0, 1.5]``."""
    return f"[{', '.join(map(numbers, value))}]" if isinstance(value, list) else number(value)


def seen(family: AnyFamily, obs: Tensor) -> str:
    """Write one row's observation ``(*O,)``: its numbers, unless they are many, and the family's text for it."""
    words = family.observation_text(obs)
    if words is None:
        return numbers(obs.tolist())
    return f"\n{words}" if obs.numel() > FEW_NUMBERS else f"{numbers(obs.tolist())}\n{words}"


def remembered(family: AnyFamily, obs: Tensor) -> str:
    """Write one row's observation ``(*O,)`` on one line, for the history."""
    words = family.observation_text(obs) if obs.numel() > FEW_NUMBERS else None
    return numbers(obs.tolist()) if words is None else " / ".join(words.splitlines())


def within(lines: Sequence[str], budget: int) -> str:
    """Join the latest lines that fit into `budget` characters; a note says how many earlier ones are left out."""
    first, room = len(lines), budget
    while first > 0 and len(lines[first - 1]) + 1 <= room:
        first -= 1
        room -= len(lines[first]) + 1
    note = [f"({first} earlier line{'s'[: first != 1]} left out.)"] if first else []
    return "\n".join([*note, *lines[first:]])
