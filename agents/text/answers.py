"""Actions as text: how prompts list them, and how answers are parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gymnasium import spaces

from metarl.core.family import AnyFamily
from metarl.core.units import component_sizes

LISTED = 50
"""Largest number of unnamed actions that a prompt lists; beyond it, only the first and the last are given."""

Action = int | tuple[int, ...]


def actions_of(family: AnyFamily, names: Sequence[str] | None = None) -> OneAction | SeveralActions:
    """Return the actions of a family as text, with `names` instead of the family's own.

    Raises ValueError for continuous actions, and for names that are not distinct, one for each action.
    """
    space, kind = family.action_space, type(family).__name__
    if isinstance(space, spaces.Discrete):
        return OneAction(int(space.start), int(space.n), family.action_names if names is None else tuple(names))
    sizes = component_sizes(space)
    if not isinstance(space, spaces.MultiDiscrete) or sizes is None:
        raise ValueError(f"TextAgent needs finitely many actions, and those of {kind} are {space}.")
    if names is not None:
        raise ValueError(f"actions must be None, since those of {kind} are {len(sizes)} numbers each.")
    return SeveralActions([range(first, first + n) for first, n in zip(space.start.tolist(), sizes, strict=True)])


class OneAction:
    """The `number` actions of a Discrete space, from `first` on: each has a number, and a name if `names` are given."""

    def __init__(self, first: int, number: int, names: Sequence[str] | None = None) -> None:
        self.numbers, self.names = range(first, first + number), None if names is None else tuple(names)
        self.words = {str(action): action for action in self.numbers}
        if names is not None:
            named = {name.strip().lower(): action for name, action in zip(names, self.numbers, strict=False)}
            if len(names) != number or len(named) != number or "" in named or any(map(_is_number, named)):
                raise ValueError(f"actions must be {number} different names that are not numbers, got {names}.")
            self.words |= named
        longest_first = sorted(self.words, key=len, reverse=True)
        # Match whole words only, not a number inside another number or a name inside a longer word.
        self._word = re.compile(
            rf"(?<![\w-])(?<!\d\.)(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])(?!\.\d)", re.IGNORECASE
        )

    @property
    def request(self) -> str:
        """The sentence that asks for an action."""
        each = [self.show(action) for action in self.numbers]
        if self.names is None and len(each) > LISTED:
            return f"Answer with one action: a whole number from {each[0]} to {each[-1]}."
        return f"Answer with one action: {', '.join(each[:-1])}{' or ' if each[1:] else ''}{each[-1]}."

    def show(self, action: Action) -> str:
        """Write an action: ``3``, or ``up (1)``."""
        assert isinstance(action, int), "an action of a Discrete space"
        return str(action) if self.names is None else f"{self.names[action - self.numbers[0]]} ({action})"

    def read(self, answer: str) -> Action | None:
        """Return the first action that an answer names, as a whole word; None if it names none."""
        found = self._word.search(answer)
        return None if found is None else self.words[found[0].lower()]


class SeveralActions:
    """The actions of a MultiDiscrete space: one number from each of the `choices`."""

    def __init__(self, choices: Sequence[range]) -> None:
        self.choices = tuple(choices)

    @property
    def request(self) -> str:
        """The sentence that asks for an action."""
        each = ", ".join(f"{choice[0]} to {choice[-1]}" for choice in self.choices)
        return f"Answer with one action: {len(self.choices)} whole numbers, with commas between them, from {each}."

    def show(self, action: Action) -> str:
        """Write an action: ``1, 0``."""
        assert isinstance(action, tuple), "an action of a MultiDiscrete space"
        return ", ".join(map(str, action))

    def read(self, answer: str) -> Action | None:
        """Return the first sequence of numbers that is a valid action; None if there is none."""
        for row in re.findall(r"(?<![\w.-])-?\d+(?:[,\s]+-?\d+)*(?![\w-]|\.\d)", answer):
            action = tuple(map(int, re.split(r"[,\s]+", row)))
            inside = (number in choice for number, choice in zip(action, self.choices, strict=False))
            if len(action) == len(self.choices) and all(inside):
                return action
        return None


def _is_number(name: str) -> bool:
    return re.fullmatch(r"[-+]?\d+", name) is not None
