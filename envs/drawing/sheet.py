"""The canvas of the families' pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

GOOD, BAD = "#1971c2", "#e03131"
"""Blue for paid or right, red for the opposite: distinguishable by colour-blind readers."""


EARLIER = 0.4
"""Opacity of an episode's marks once the next episode begins."""


BLUE = ((170, 205, 255), (0, 30, 160))
"""Colours from the start of an episode to its end."""


class Sheet:
    """A canvas with a fixed background, drawn by `ground`, and a layer of marks on top, drawn by `pen`."""

    def __init__(self, width: int, height: int, colour: str = "white") -> None:
        self.width, self.height = width, height
        self.paper = Image.new("RGB", (width, height), colour)
        self.ground = ImageDraw.Draw(self.paper)
        self.clear()

    def clear(self) -> None:
        """Remove all marks."""
        self.marks = Image.new("RGBA", (self.width, self.height), (255, 255, 255, 0))
        self.pen = ImageDraw.Draw(self.marks)

    def fade(self) -> None:
        """Make all marks paler at the end of an episode; the next episode is drawn over them."""
        self.marks.putalpha(self.marks.getchannel("A").point(lambda alpha: round(EARLIER * alpha)))
        self.pen = ImageDraw.Draw(self.marks)

    def under_marks(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Return a copy of the background, for drawings below the marks that change with every state."""
        image = self.paper.copy()
        return image, ImageDraw.Draw(image)

    def with_marks(self, image: Image.Image | None = None) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Return `image` (default: a copy of the background) with the marks, for drawings on top of them."""
        image = self.paper.copy() if image is None else image
        image.paste(self.marks, mask=self.marks)
        return image, ImageDraw.Draw(image)


def shade(share: float, ends: tuple[tuple[int, int, int], tuple[int, int, int]] = BLUE) -> tuple[int, int, int]:
    """Return the colour of a moment of an episode, from 0 (pale) to 1 (dark); it changes faster at first."""
    s = min(max(share, 0.0), 1.0) ** 0.5
    red, green, blue = (round(a + s * (b - a)) for a, b in zip(*ends, strict=True))
    return red, green, blue


def pixels(image: Image.Image) -> np.ndarray:
    """Return the image as uint8 ``(height, width, 3)``."""
    return np.array(image)
