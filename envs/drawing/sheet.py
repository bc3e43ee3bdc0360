"""The paper of the families' pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

GOOD, BAD = "#1971c2", "#e03131"
"""Blue for what paid or was right, red for what was not: a pair that colour-blind readers can tell apart."""


EARLIER = 0.4
"""Opacity that the marks of an episode keep when the next one begins."""


BLUE = ((170, 205, 255), (0, 30, 160))
"""From the beginning of an episode to its end."""


class Sheet:
    """Paper with what stays, drawn by `ground`, and over it the marks that are added, drawn by `pen`."""

    def __init__(self, width: int, height: int, colour: str = "white") -> None:
        self.width, self.height = width, height
        self.paper = Image.new("RGB", (width, height), colour)
        self.ground = ImageDraw.Draw(self.paper)
        self.clear()

    def clear(self) -> None:
        """Take all marks away."""
        self.marks = Image.new("RGBA", (self.width, self.height), (255, 255, 255, 0))
        self.pen = ImageDraw.Draw(self.marks)

    def fade(self) -> None:
        """Make all marks paler: an episode is over, and the next one's are drawn over them."""
        self.marks.putalpha(self.marks.getchannel("A").point(lambda alpha: round(EARLIER * alpha)))
        self.pen = ImageDraw.Draw(self.marks)

    def under_marks(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """A copy of the paper, to draw on what changes with every state and lies under the marks."""
        image = self.paper.copy()
        return image, ImageDraw.Draw(image)

    def with_marks(self, image: Image.Image | None = None) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """`image` (default: a copy of the paper) with the marks on it, to draw on what lies over them."""
        image = self.paper.copy() if image is None else image
        image.paste(self.marks, mask=self.marks)
        return image, ImageDraw.Draw(image)


def shade(share: float, ends: tuple[tuple[int, int, int], tuple[int, int, int]] = BLUE) -> tuple[int, int, int]:
    """A colour for a moment of an episode, from 0, pale, to 1, dark; it changes faster at first."""
    s = min(max(share, 0.0), 1.0) ** 0.5
    red, green, blue = (round(a + s * (b - a)) for a, b in zip(*ends, strict=True))
    return red, green, blue


def pixels(image: Image.Image) -> np.ndarray:
    """uint8 ``(height, width, 3)``."""
    return np.array(image)
