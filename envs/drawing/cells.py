"""Pictures of grids and mazes: cells with the visits of an episode, and the paths between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw
from torch import Tensor

from metarl.core.family import Sketch, StateT
from metarl.envs.drawing.sheet import Sheet, pixels, shade

Place = tuple[int, int]


class Frame(NamedTuple):
    """A frame around a highlighted cell."""

    place: Place
    colour: str
    text: str = ""


def xy(vector: Tensor) -> Place:
    """Return the first row of (B, 2)."""
    x, y = vector[0].tolist()
    return int(x), int(y)


class Cells(Sketch[StateT]):
    """Free cells, darker the more often the episode has visited them, with the number of visits.

    Paths between neighbours run from pale to dark in an episode of `steps` steps, those of earlier episodes are paler;
    a black frame is where the episode began, and a disc where the agent is. `place` says where a state is. The orange
    square around the agent is what it sees, `sight` cells to each side. `corners` are the picture's lower left and
    upper right cell (default: those of the free cells, and walls around a maze that is seen from inside).
    """

    def __init__(
        self,
        free: Iterable[Place],
        cell: int,
        steps: int,
        place: Callable[[StateT], Place],
        frames: Sequence[Frame] = (),
        sight: int | None = None,
        corners: tuple[Place, Place] | None = None,
    ) -> None:
        self.free, self.cell, self.steps = sorted(free), cell, steps
        self.place, self.frames, self.sight = place, frames, sight
        xs, ys = zip(*self.free, strict=True)
        rim = 0 if sight is None else 1
        low, high = corners or ((min(xs) - rim, min(ys) - rim), (max(xs) + rim, max(ys) + rim))
        self.left, self.top = low[0], high[1]
        self.sheet = Sheet(cell * (high[0] - low[0] + 1) + 1, cell * (high[1] - low[1] + 1) + 1, "#868e96")
        self._begin_episode()

    def _begin_episode(self) -> None:
        self.sheet.fade()
        self.visits: Counter[Place] = Counter()
        self.start: Place | None = None
        self.here: Place | None = None
        self.step = 0

    def add(self, state: StateT, first: bool = False) -> None:
        if first:
            self._begin_episode()
        here = self.place(state)
        self.visits[here] += 1
        if self.here is None:
            self.start = here
        elif abs(here[0] - self.here[0]) + abs(here[1] - self.here[1]) == 1:
            ends = [c + self.cell / 2 for place in (self.here, here) for c in self._corner(place)]
            self.sheet.pen.line(ends, fill=shade(self.step / self.steps), width=3)
        self.here = here
        self.step += 1

    def image(self) -> np.ndarray:
        image, draw = self.sheet.under_marks()
        for place in self.free:
            fade = round(255 - 90 * (1.0 - 0.7 ** self.visits[place]))
            draw.rectangle(self._box(place), fill=(fade, fade, 255), outline="#ced4da")
        image, draw = self.sheet.with_marks(image)
        if self.start is not None:
            draw.rectangle(self._box(self.start, 2), outline="black", width=1)
        for place, colour, text in self.frames:
            left, _, _, bottom = self._box(place)
            draw.rectangle(self._box(place, 2), outline=colour, width=3)
            draw.text((left + 6, bottom - 19), text, fill=colour, font_size=13)
        for place, visits in self.visits.items():
            left, top, *_ = self._box(place)
            draw.text((left + 5, top + 3), str(visits), fill="black", font_size=max(10, min(16, self.cell // 4)))
        if self.here is not None:
            self._draw_agent(draw, self.here)
        return pixels(image)

    def _draw_agent(self, draw: ImageDraw.ImageDraw, here: Place) -> None:
        draw.ellipse(self._box(here, 0.36 * self.cell), fill="#f08c00" if self.sight else shade(1.0))
        if self.sight is not None:
            draw.rectangle(self._box(here, -self.cell * self.sight), outline="#f08c00", width=3)

    def _corner(self, place: Place) -> tuple[float, float]:
        """Return the upper left corner of a cell."""
        return self.cell * (place[0] - self.left), self.cell * (self.top - place[1])  # y points up

    def _box(self, place: Place, inside: float = 0.0) -> tuple[float, float, float, float]:
        x, y = self._corner(place)
        return x + inside, y + inside, x + self.cell - inside, y + self.cell - inside
