"""The states of the current trials, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from metarl.core.batch_env import BatchEnv
from metarl.core.family import Sketch, State, Task, TaskFamily
from metarl.core.tree import take


class Recorder:
    """A recorder of the current trial of each row, of `episodes` episodes.

    A picture adds only the states since the previous one, so that drawing every step of an episode takes time linear
    in its length, not quadratic.
    """

    def __init__(self, family: TaskFamily, num_envs: int, episodes: int) -> None:
        self.family, self.episodes = family, episodes
        self.visited: list[list[tuple[State, bool]]] = [[] for _ in range(num_envs)]
        """The states of each row's trial, each with a flag: True at the start of an episode."""
        self._sketches: dict[int, tuple[Sketch, int]] = {}  # by row, with the number of states drawn

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sketches": {}}  # copies draw their own images

    def begin(self, rows: Iterable[int], state: State) -> None:
        """Start new recordings for `rows`, whose trials have just begun in `state` (of all rows)."""
        for row in rows:
            self.visited[row] = [(take(state, slice(row, row + 1)), True)]
            self._sketches.pop(row, None)

    def add(self, env: BatchEnv, border: Tensor) -> None:
        """Add the states after a step: two for rows between two episodes of a trial (`border`, bool ``(B,)``)."""
        for row, visited in enumerate(self.visited):
            visited.append((take(env.final_state, slice(row, row + 1)), False))
            if border[row]:
                visited.append((take(env.state, slice(row, row + 1)), True))

    def picture(self, row: int, task: Task) -> np.ndarray:
        """Draw the trial of a row on `task` so far: uint8 ``(height, width, 3)``."""
        if row not in self._sketches:
            self._sketches[row] = self.family.sketch(task, self.episodes), 0
        sketch, known = self._sketches[row]
        for state, first in self.visited[row][known:]:
            sketch.add(state, first)
        self._sketches[row] = sketch, len(self.visited[row])
        return sketch.image()
