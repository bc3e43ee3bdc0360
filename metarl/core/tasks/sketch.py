"""Pictures of a trial that grow state by state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np

StateT = TypeVar("StateT")
"""The type of a family's state: a tensor, or a NamedTuple of tensors, whose leading dimension is the row."""


class Sketch(ABC, Generic[StateT]):
    """A picture of one row's trial that grows state by state.

    The time of `add` and `image` does not depend on the number of states added before. This holds on average: a sketch
    may redraw everything now and then, for example at half the scale after its content has doubled in size.
    """

    @abstractmethod
    def add(self, state: StateT, first: bool = False) -> None:
        """Add a visited state (leading dimension 1) to the picture; `first` if it begins an episode."""

    @abstractmethod
    def image(self) -> np.ndarray:
        """Return the picture so far, uint8 ``(height, width, 3)``, of the same size at every call."""


class Redrawn(Sketch[StateT]):
    """A sketch that redraws all visited states at every call, with ``render(states)``."""

    def __init__(self, render: Callable[[list[StateT]], np.ndarray]) -> None:
        self.render = render
        self.states: list[StateT] = []

    def add(self, state: StateT, first: bool = False) -> None:
        self.states.append(state)

    def image(self) -> np.ndarray:
        return np.array(self.render(self.states))


def drawn(sketch: Sketch[StateT], episodes: Iterable[Sequence[StateT]]) -> np.ndarray:
    """Return the sketch's picture after adding the visited states of these episodes, one list per episode."""
    for states in episodes:
        for number, state in enumerate(states):
            sketch.add(state, first=number == 0)
    return sketch.image()
