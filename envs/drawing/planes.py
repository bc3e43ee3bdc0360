"""Pictures of motion in the plane: paths with a scale in metres."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import ImageDraw
from torch import Tensor

from metarl.core.family import Sketch, StateT
from metarl.envs.drawing.sheet import Sheet, pixels, shade

SIZE = 480  # pixels


XY = tuple[float, float]


Pixel = Callable[[float, float], XY]  # metres to pixels


Scenery = Callable[[ImageDraw.ImageDraw, Pixel], None]


Last = Callable[[ImageDraw.ImageDraw, Pixel, StateT], None]  # with the state that was added last


def xy(vector: Tensor) -> XY:
    """The first row of (B, 2)."""
    x, y = vector[0].tolist()
    return x, y


class Trail(Sketch[StateT]):
    """A square that shows all points of `frame`, and the path in it.

    A path that leaves the square makes it show twice as much, and everything is drawn again; this happens at most a
    few times. Paths run from pale to dark in an episode of `steps` steps, earlier ones are paler, and a black dot is
    where an episode begins. `place` says where a state is, and `margin` how many metres around it are to be seen;
    `under`, `body` and `over` draw the ground, what moves and lies under the path, and what lies over it.
    """

    def __init__(
        self,
        frame: list[XY],
        steps: int,
        place: Callable[[StateT], XY],
        under: Scenery | None = None,
        over: Last[StateT | None] | None = None,
        body: Last[StateT] | None = None,
        margin: float = 0.0,
        dots: bool = True,
    ) -> None:
        self.steps, self.place, self.margin, self.dots = steps, place, margin, dots
        self.under, self.over, self.body = under, over, body
        xs, ys = zip(*frame, strict=True)
        self.middle = 0.5 * (max(xs) + min(xs)), 0.5 * (max(ys) + min(ys))
        self.half = 0.56 * max(max(xs) - min(xs), max(ys) - min(ys))  # metres from the middle to an edge
        self.path: list[tuple[XY, bool]] = []  # places, and whether an episode begins there
        self.last: StateT | None = None
        self._begin()

    def add(self, state: StateT, first: bool = False) -> None:
        at = self.place(state)
        if not all(map(math.isfinite, at)):
            return  # failed physics: keep the picture
        self.last = state
        self.path.append((at, first or not self.path))
        away = max(abs(a - b) for a, b in zip(at, self.middle, strict=True)) + self.margin
        if away <= 0.97 * self.half:
            self._draw(len(self.path) - 1)
            return
        while away > 0.97 * self.half:
            self.half *= 2.0
        self._begin()
        for number in range(len(self.path)):
            self._draw(number)

    def image(self) -> np.ndarray:
        image, draw = self.sheet.under_marks()
        if self.body is not None and self.last is not None:
            self.body(draw, self.pixel, self.last)
        image, draw = self.sheet.with_marks(image)
        if self.path:
            x, y = self.pixel(*self.path[-1][0])
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=shade(1.0))
        if self.over is not None:
            self.over(draw, self.pixel, self.last)
        return pixels(image)

    def pixel(self, x: float, y: float) -> XY:
        """Return the pixel of a position in metres."""
        right, up = (x - self.middle[0]) / self.half, (y - self.middle[1]) / self.half
        return SIZE * (0.5 + 0.5 * right), SIZE * (0.5 - 0.5 * up)

    def _begin(self) -> None:
        """Start an empty sheet in the current scale."""
        self.sheet, self._step = Sheet(SIZE, SIZE), 0
        if self.under is not None:
            self.under(self.sheet.ground, self.pixel)
        length = round_length(0.5 * self.half)
        scale_bar(self.sheet.ground, SIZE - 12, SIZE - 12, SIZE * length / (2.0 * self.half), f"{length:g} m")

    def _draw(self, number: int) -> None:
        """Draw the path segment to a position."""
        at, first = self.path[number]
        x, y = self.pixel(*at)
        if first:
            if number:
                self.sheet.fade()
            self._step = 0
            self.sheet.pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill="black")
            return
        self._step += 1
        colour = shade(self._step / self.steps)
        self.sheet.pen.line((*self.pixel(*self.path[number - 1][0]), x, y), fill=colour, width=2)
        if self.dots:
            self.sheet.pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)


def round_length(most: float) -> float:
    """Return the largest of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is at most `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return power * next(digit for digit in (5, 2, 1) if digit * power <= most * 1.000001)


def scale_bar(draw: ImageDraw.ImageDraw, right: float, bottom: float, length: float, text: str) -> None:
    """Draw a bar of `length` pixels that ends at (right, bottom), with the text before it."""
    left = right - length
    draw.line((left, bottom, right, bottom), fill="#495057", width=2)
    for x in (left, right):
        draw.line((x, bottom - 4, x, bottom + 4), fill="#495057", width=2)
    draw.text((left - 7, bottom), text, fill="#495057", font_size=13, anchor="rm")


def draw_box(draw: ImageDraw.ImageDraw, pixel: Pixel, low: XY, high: XY, text: str) -> None:
    """Draw a pale rectangle with text in its lower left corner."""
    draw.rectangle((*pixel(low[0], high[1]), *pixel(high[0], low[1])), outline="#adb5bd")
    x, y = pixel(*low)
    draw.text((x + 5, y - 19), text, fill="#868e96", font_size=13)


def draw_goal(draw: ImageDraw.ImageDraw, pixel: Pixel, goal: XY, radius: float) -> None:
    """Draw a red dot and the circle that pays, at least 5 pixels large."""
    x, y = pixel(*goal)
    reach = max(pixel(goal[0] + radius, goal[1])[0] - x, 5.0)
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline="#e03131", width=2)
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill="#e03131")
    draw.text((x + reach + 2, y - 21), "goal", fill="#e03131", font_size=14)


def draw_arrow(draw: ImageDraw.ImageDraw, pixel: Pixel, tip: XY, text: str) -> None:
    """Draw an orange arrow from the origin, with text next to its tip."""
    x, y = pixel(*tip)
    draw.line((*pixel(0.0, 0.0), x, y), fill="#f08c00", width=4)
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill="#f08c00")
    away, anchor = (-9, "rm") if tip[0] < 0 else (9, "lm")  # keep the text off the arrow
    draw.text((x + away, y), text, fill="#f08c00", font_size=13, anchor=anchor)
