"""The picture shared by all bandits: one line per arm, its value as a bar, then its pulls over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from metarl.core.family import Sketch
from metarl.envs.bandits.pull import Pull
from metarl.envs.drawing.sheet import BAD, GOOD, Sheet, pixels

MOST = 210
"""Most pulls per line; the next one begins a new page."""


class Line(NamedTuple):
    """The left part of an arm's line."""

    text: str
    worth: float  # length of the bar, from 0 to 1
    best: bool


class Mark(NamedTuple):
    """The mark of one pull."""

    colour: str
    text: str = ""  # written if there is room


def payment_colour(share: float) -> str:
    """A colour from red (0, a poor payment) over pale yellow to blue (1)."""
    poor, middle, good = np.array([224, 49, 49]), np.array([255, 243, 191]), np.array([25, 113, 194])
    s = min(max(share, 0.0), 1.0)
    mixed = poor + (middle - poor) * 2 * s if s < 0.5 else middle + (good - middle) * (2 * s - 1)
    return "#{:02x}{:02x}{:02x}".format(*(round(float(c)) for c in mixed))


class Arms(Sketch["Pull"]):
    """One line per arm: `mark` gives the drawing of a pull with this payment, `summary` the heading for all pulls.

    States are `metarl.envs.bandits.pull.Pull`; the state before the pull of each episode is not drawn.
    """

    LINE, BAR, LEFT, TOP = 28, 120, 150, 34  # pixels

    def __init__(
        self,
        heading: str,
        lines: Sequence[Line],
        pulls: int,
        mark: Callable[[int, float], Mark],
        summary: Callable[[int, float], str],
        wide: bool = False,
    ) -> None:
        self.mark, self.summary = mark, summary
        self.columns = min(pulls, MOST)
        self.width = max(4, min(34 if wide else 14, 840 // self.columns))  # of one pull
        left, top, line = self.LEFT, self.TOP, self.LINE
        self.sheet = Sheet(left + 20 + max(self.width * self.columns, 330), top + line * len(lines) + 10)
        ground = self.sheet.ground
        ground.text((10, 8), heading, fill="black", font_size=14)
        for arm, (text, worth, best) in enumerate(lines):
            y = top + line * arm
            ground.rectangle((10, y + 3, 10 + self.BAR, y + line - 4), fill="#eeeeee")
            ground.rectangle((10, y + 3, 10 + self.BAR * worth, y + line - 4), fill="#f0b429" if best else "#9fb3c8")
            ground.text((14, y + 6), text, fill="black", font_size=13)
            ground.line((left, y + line // 2, self.sheet.width - 10, y + line // 2), fill="#dddddd")
        self.count, self.total = 0, 0.0

    def add(self, state: Pull, first: bool = False) -> None:
        arm, paid = int(state.arm[0]), float(state.reward[0])
        if arm < 0:
            return
        column = self.count % self.columns
        if column == 0:
            self.sheet.clear()
        self.count, self.total = self.count + 1, self.total + paid
        colour, text = self.mark(arm, paid)
        x, y = self.LEFT + self.width * column, self.TOP + self.LINE * arm
        self.sheet.pen.rectangle((x, y + 4, x + self.width - 2, y + self.LINE - 5), fill=colour)
        if self.width >= 30:
            self.sheet.pen.text((x + 6, y + 6), text, fill="white", font_size=13)

    def image(self) -> np.ndarray:
        image, draw = self.sheet.with_marks()
        page = (max(self.count, 1) - 1) // self.columns * self.columns
        shown = f" (shown: from pull {page + 1})" if page else ""
        draw.text((self.LEFT, 8), self.summary(self.count, self.total) + shown, fill="black", font_size=14)
        return pixels(image)


def probabilities(probs: Sequence[float], pulls: int) -> Arms:
    """Return the picture of arms that pay 1 with these probabilities, else 0."""
    lines = [Line(f"{arm}   {p:.2f}", p, p == max(probs)) for arm, p in enumerate(probs)]
    return Arms(
        "pays with p",
        lines,
        pulls,
        lambda arm, paid: Mark(GOOD if paid else BAD),
        lambda count, total: f"{count} pulls, {total:.0f} paid",
    )
