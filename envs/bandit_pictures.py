"""The picture that bandits share: one line per arm, its worth as a bar, then its pulls in time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw


class Line(NamedTuple):
    """What stands at the left of an arm's line."""

    text: str
    worth: float  # length of the bar, from 0 to 1
    best: bool


def payment_colour(share: float) -> str:
    """From red (0, a poor payment) over pale yellow to green (1)."""
    poor, middle, good = np.array([224, 49, 49]), np.array([255, 243, 191]), np.array([47, 158, 68])
    s = min(max(share, 0.0), 1.0)
    mixed = poor + (middle - poor) * 2 * s if s < 0.5 else middle + (good - middle) * (2 * s - 1)
    return "#{:02x}{:02x}{:02x}".format(*(round(float(c)) for c in mixed))


def arms_picture(heading: str, lines: list[Line], summary: str, pulls: list[tuple[int, str, str]]) -> np.ndarray:
    """`pulls` are (arm, colour, text) in the order of time; the text is written where there is room for it."""
    line, bar, left, top = 28, 120, 150, 34  # pixels
    width = max(4, min(34 if any(text for _, _, text in pulls) else 14, 840 // max(len(pulls), 1)))  # of one pull
    image = Image.new("RGB", (left + 20 + max(width * len(pulls), 280), top + line * len(lines) + 10), "white")
    draw = ImageDraw.Draw(image)
    draw.text((10, 8), heading, fill="black", font_size=14)
    draw.text((left, 8), summary, fill="black", font_size=14)
    for arm, (text, worth, best) in enumerate(lines):
        y = top + line * arm
        draw.rectangle((10, y + 3, 10 + bar, y + line - 4), fill="#eeeeee")
        draw.rectangle((10, y + 3, 10 + bar * worth, y + line - 4), fill="#f0b429" if best else "#9fb3c8")
        draw.text((14, y + 6), text, fill="black", font_size=13)
        draw.line((left, y + line // 2, image.width - 10, y + line // 2), fill="#dddddd")
    for t, (arm, colour, text) in enumerate(pulls):
        x, y = left + width * t, top + line * arm
        draw.rectangle((x, y + 4, x + width - 2, y + line - 5), fill=colour)
        if width >= 30:
            draw.text((x + 6, y + 6), text, fill="white", font_size=13)
    return np.asarray(image)
