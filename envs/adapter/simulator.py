"""A simulator: one environment with its own state, which plays one row at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

TaskRow = Mapping[str, np.ndarray]
"""The fields of one row's task, as NumPy scalars and arrays."""


class Stepped(NamedTuple):
    """The result of one step of a simulator."""

    obs: np.ndarray  # float32, of the family's observation_space
    reward: float
    terminated: bool
    truncated: bool  # by the simulator's own limit
    success: bool = False


class Simulator(ABC):
    """One environment. It stays in the process that made it, and is never copied."""

    @abstractmethod
    def reset(self, task: TaskRow, seed: int) -> np.ndarray:
        """Begin an episode of `task` with the randomness of `seed`, from 0 to 2^31 - 1; return the observation."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Stepped:
        """Take an action of the family's action_space: an int64 scalar or ``(A,)``, or float32 ``(A,)``."""

    def render(self) -> np.ndarray:
        """Render the current state: uint8 ``(height, width, 3)``."""
        raise NotImplementedError(f"{type(self).__name__} draws no pictures.")

    def close(self) -> None:  # noqa: B027 (optional hook)
        """Free the simulator's resources."""


Maker = Callable[[Any], Simulator]
"""Makes a simulator of a kind. It must be picklable, since worker processes call it."""


Kind = Hashable
"""The options that a simulator is made with; simulators of a kind can play the same tasks."""
