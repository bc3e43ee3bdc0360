"""Composition of images: side by side with captions, stacked with headings, or as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

GIF_BYTES = 1_400_000
"""Largest size of a GIF in bytes; larger ones are scaled down."""


def fitted(image: Image.Image, height: int, width: int) -> Image.Image:
    """Shrink an image to at most `height` × `width` pixels."""
    scale = min(1.0, height / image.height, width / image.width)
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


class Captioned(NamedTuple):
    """A picture with a line of text above and below."""

    image: Image.Image
    above: str
    below: str = ""


def strip(pictures: Sequence[Captioned], width: int = 1200, height: int = 300, gap: int = 14) -> Image.Image:
    """Put pictures side by side on white, each fitted to `height` and to its part of `width`.

    They wrap to a new line if a part is less than half of the widest picture.
    """
    line, n = 22, len(pictures)
    lines = -(-n // max(1, int((width + gap) / (0.5 * max(picture.image.width for picture in pictures) + gap))))
    columns = -(-n // lines)
    each = (width - gap * (columns - 1)) // columns
    small = [fitted(picture.image, height, each) for picture in pictures]
    below = line if any(picture.below for picture in pictures) else 0
    rows = [range(first, min(first + columns, n)) for first in range(0, n, columns)]
    tall = [line + max(small[i].height for i in row) + below for row in rows]
    wide = max(sum(small[i].width + gap for i in row) for row in rows) - gap
    whole = Image.new("RGB", (wide, sum(tall)), "white")
    draw = ImageDraw.Draw(whole)
    for number, row in enumerate(rows):
        x, y = 0, sum(tall[:number])
        for i in row:
            draw.text((x + 2, y + 2), pictures[i].above, fill="black", font_size=14)
            whole.paste(small[i], (x, y + line))
            right, bottom = x + small[i].width, y + line + small[i].height
            draw.rectangle((x, y + line, right - 1, bottom - 1), outline="#ced4da")
            draw.text((x + 2, bottom + 3), pictures[i].below, fill="black", font_size=14)
            x = right + gap
    return whole


def stack(rows: Sequence[Captioned], gap: int = 18) -> Image.Image:
    """Stack images on white, each under its heading."""
    line = 26
    width = max(row.image.width for row in rows)
    whole = Image.new("RGB", (width, sum(line + row.image.height + gap for row in rows) - gap), "white")
    draw, y = ImageDraw.Draw(whole), 0
    for row in rows:
        draw.text((2, y + 3), row.above, fill="#1864ab", font_size=16)
        whole.paste(row.image, (0, y + line))
        y += line + row.image.height + gap
    return whole


def image_png(image: Image.Image) -> bytes:
    """Encode a PNG with a palette of 256 colours, chosen so that rare colours are preserved."""
    buffer = io.BytesIO()
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def gif(frames: Sequence[Image.Image], seconds: float = 8.0, most: int = GIF_BYTES) -> bytes:
    """Encode a looping GIF of about `seconds` per loop and at most `most` bytes; the last frame is held longer.

    The frames share a canvas and the palette of the last frame, so that little changes between them; they are scaled
    down until the file is small enough.
    """
    each = max(40, min(500, round(1000 * seconds / len(frames))))  # milliseconds
    scale = 1.0
    while True:
        width, height = (max(1, round(scale * max(side))) for side in zip(*(f.size for f in frames), strict=True))
        sheets = []
        for frame in frames:
            sheet = Image.new("RGB", (width, height), "white")
            sheet.paste(fitted(frame, max(1, round(scale * frame.height)), max(1, round(scale * frame.width))))
            sheets.append(sheet)
        palette = sheets[-1].quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        flat = [sheet.quantize(palette=palette, dither=Image.Dither.NONE) for sheet in sheets]
        buffer = io.BytesIO()
        lasting = [each] * (len(flat) - 1) + [max(each, 2500)]
        flat[0].save(buffer, "GIF", save_all=True, append_images=flat[1:], duration=lasting, loop=0)
        if buffer.tell() <= most or max(width, height) <= 16:
            return buffer.getvalue()
        scale *= 0.75
