"""The picture of beliefs: one row of panels per belief, one panel per moment of the trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from metarl.core.beliefs.places import Ground
from metarl.core.family import TaskFamily
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colour
from metarl.evaluation.playback import Watched
from metarl.report.beliefs.story import PANELS, XY, Moment, Row, Story, tell
from metarl.report.images import image_png

PANEL, GAP = 150, 10
"""Width of a panel, and the gap between two panels, in pixels."""


LINE, FONT = 29, 23
"""Pixels: of a line of text, and of its letters, which are to be read at a third of the size."""


FINE = 3
"""Oversampling factor of panels, for smooth lines."""


MASSES, REWARDS = 0.35, 0.75
"""The darkness of a share of the highest number is this power of it: masses of many places are small; rewards that were
learned have noise, which is not to be seen."""


LEAST = 0.08
"""Darkness of the smallest positive share."""


GOAL, PATH = "#e03131", "#f08c00"


GOALS = {"door": "#2f9e44"}
"""Colours of true places other than goals, by name."""


def belief_picture(family: TaskFamily, curve: AdaptationCurve, watched: Watched, number: int) -> bytes:
    """Draw the beliefs along the trial on task `number` of an evaluation, as a PNG file.

    Raises ValueError if there is nothing to show.
    """
    return image_png(draw(tell(family, curve, watched, number)))


def draw(story: Story) -> Image.Image:
    """Draw a story; the size depends only on its ground and the number of rows."""
    tall = round(PANEL * story.ground.rows / story.ground.columns)
    wide, head = PANELS * (PANEL + GAP) - GAP, 2 * LINE + 4
    each = LINE + 6 + tall + 12
    whole = Image.new("RGB", (wide, head + each * len(story.rows) + LINE), "white")
    pen = ImageDraw.Draw(whole)
    for number, moment in enumerate(story.moments):
        left = number * (PANEL + GAP)
        _text(pen, (left, 0), f"episode {moment.episode}", "black")
        _text(pen, (left, LINE), f"step {moment.step}", "#495057")
    for line, row in enumerate(story.rows):
        top = head + each * line
        _text(pen, (0, top), row.heading, colour(row.who))
        _draw_scale(pen, wide, top, row)
        for number, (moment, cells) in enumerate(zip(story.moments, shares(row.maps), strict=True)):
            panel = _panel(story, moment, tinted(cells, colour(row.who), power(row.maps)))
            whole.paste(panel.resize((PANEL, tall), Image.Resampling.LANCZOS), (number * (PANEL + GAP), top + LINE + 6))
            box = (number * (PANEL + GAP), top + LINE + 6, number * (PANEL + GAP) + PANEL - 1, top + LINE + 5 + tall)
            pen.rectangle(box, outline="#adb5bd")
    _draw_legend(pen, whole.height - LINE, story)
    return whole


def limits(maps: NDArray[np.float32]) -> tuple[float, float]:
    """Return the range of a row's shades; it starts at 0 unless there are negative numbers."""
    return min(0.0, float(maps.min())), float(maps.max())


def shares(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return numbers scaled to [0, 1] by the `limits` of their row."""
    low, high = limits(maps)
    return (maps.astype(np.float64) - low) / (high - low) if high > low else np.zeros(maps.shape)


def power(maps: NDArray[np.float32]) -> float:
    """Return the exponent of a row's darkness: `MASSES` if every map is a distribution."""
    distributions = maps.min() >= 0.0 and np.allclose(maps.sum(axis=(1, 2)), 1.0, atol=1e-3)
    return MASSES if distributions else REWARDS


def tinted(share: NDArray[np.float64], full: str, power: float = MASSES) -> NDArray[np.uint8]:
    """Return colours ``(…, 3)`` of shares from 0, white, to 1, the colour `full`; no positive share is white."""
    dark = np.where(share > 1e-6, np.maximum(LEAST, np.clip(share, 0.0, 1.0) ** power), 0.0)
    end = np.array(ImageColor.getrgb(full), dtype=np.float64)
    return (255.0 + dark[..., None] * (end - 255.0)).round().astype(np.uint8)


class _Scale:
    """Conversion of positions on the ground to pixels."""

    def __init__(self, ground: Ground, width: int) -> None:
        self.ground, self.cell = ground, width / ground.columns

    def pixel(self, place: XY) -> XY:
        (left, bottom), side = self.ground.low, self.ground.side
        x, y = (place[0] - left) / side + 0.5, (place[1] - bottom) / side + 0.5
        return self.cell * x, self.cell * (self.ground.rows - y)

    def around(self, place: XY, reach: float) -> tuple[float, float, float, float]:
        x, y = self.pixel(place)
        return x - reach, y - reach, x + reach, y + reach


def _panel(story: Story, moment: Moment, cells: NDArray[np.uint8]) -> Image.Image:
    """Draw one panel, `FINE` times its final size."""
    ground, width = story.ground, FINE * PANEL
    scale = _Scale(ground, width)
    size = width, round(scale.cell * ground.rows)
    image = Image.fromarray(cells[::-1]).resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    if scale.cell >= 8 * FINE:  # cells of a grid, not of a plane
        for number in range(1, max(ground.columns, ground.rows)):
            at = number * scale.cell
            pen.line((at, 0, at, size[1]), fill="#dee2e6", width=FINE - 1)
            pen.line((0, size[1] - at, size[0], size[1] - at), fill="#dee2e6", width=FINE - 1)
    for episode in range(moment.episode):
        path, last = story.paths[episode], episode + 1 == moment.episode
        shown = [scale.pixel(place) for place in path[: moment.step + 1 if last else None]]
        if len(shown) > 1 and (last or ground.side < 1.0):
            pen.line(shown, fill=PATH if last else "#ffd8a8", width=FINE * (3 if last else 1), joint="curve")
    here = story.paths[moment.episode - 1][moment.step]
    pen.ellipse(scale.around(here, (6 if ground.side == 1.0 else 5) * FINE), fill=PATH, outline="white", width=FINE)
    for name, place in story.goals.items():
        _draw_goal(pen, scale, place, GOALS.get(name, GOAL))
    return image


def _draw_goal(pen: ImageDraw.ImageDraw, scale: _Scale, place: XY, ink: str) -> None:
    """Draw a frame around the goal's cell of a grid; in the plane, a cross and the circle that pays."""
    if scale.ground.side == 1.0:
        half = scale.cell / 2
        pen.rectangle(scale.around(place, half), outline=ink, width=round(max(2 * FINE, min(3 * FINE, half / 4))))
        return
    if scale.ground.reach:
        reach = scale.cell * scale.ground.reach / scale.ground.side
        pen.ellipse(scale.around(place, reach), outline=ink, width=FINE)
    left, top, right, bottom = scale.around(place, 4 * FINE)
    pen.line((left, top, right, bottom), fill=ink, width=2 * FINE)
    pen.line((left, bottom, right, top), fill=ink, width=2 * FINE)


def _draw_scale(pen: ImageDraw.ImageDraw, right: int, top: int, row: Row) -> None:
    """Draw the colour scale of a row, to the right of its heading."""
    low, high = limits(row.maps)
    length = 90
    text = f"{high:.2g}"
    end = right - round(pen.textlength(text, font_size=FONT)) - 8
    _text(pen, (end + 8, top), text, "#495057")
    ramp = tinted(np.linspace(0.0, 1.0, length), colour(row.who), power(row.maps))
    for number, shade in enumerate(ramp):
        x = end - length + number
        pen.line((x, top + 7, x, top + LINE - 5), fill=tuple(int(part) for part in shade))
    pen.rectangle((end - length - 1, top + 6, end, top + LINE - 4), outline="#adb5bd")
    start = f"{low:.2g}"
    _text(pen, (end - length - 9 - round(pen.textlength(start, font_size=FONT)), top), start, "#495057")


def _draw_legend(pen: ImageDraw.ImageDraw, top: int, story: Story) -> None:
    """Draw the legend of the true places and the path, below all panels."""
    x = 0
    for text, ink in [*((f"true {name}", GOALS.get(name, GOAL)) for name in story.goals), ("path", PATH)]:
        pen.rectangle((x, top + 8, x + 16, top + LINE - 6), outline=ink, width=3, fill=PATH if ink == PATH else None)
        _text(pen, (x + 24, top), text, "#495057")
        x += 24 + round(pen.textlength(text, font_size=FONT)) + 30
    _text(pen, (x, top), "darker: likelier to pay", "#495057")


def _text(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, ink: str) -> None:
    pen.text((place[0] + 1, place[1] + 2), text, fill=ink, font_size=FONT)
