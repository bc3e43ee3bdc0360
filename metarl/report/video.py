"""Animations in files: GIF by Pillow, MP4 by ffmpeg where imageio-ffmpeg is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from metarl.evaluation.files import replace_file, replacing
from metarl.report.images import gif

GIF_BYTES = 20_000_000
"""Bytes of a GIF at most; a larger one is made of smaller frames."""


FORMATS = (".gif", ".mp4")


def check_video(path: Path) -> None:
    """Raise ValueError, one sentence, for a format that cannot be written here; before anything is played."""
    if path.suffix not in FORMATS:
        raise ValueError(f"A video must be a .gif or an .mp4, got {str(path)!r}.")
    if path.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401  (only whether it is there)
        except ImportError as error:
            raise ValueError(
                "An .mp4 needs imageio-ffmpeg: pip install 'metarl[video]', or ask for a .gif, which needs nothing."
            ) from error


def save_video(frames: Sequence[Image.Image], path: Path, frames_per_second: float = 20.0) -> None:
    """Write RGB frames of one size, at least one, as the animation that the name's ending says.

    Raises ValueError as `check_video` does.
    """
    check_video(path)
    if path.suffix == ".gif":
        replace_file(path, gif(frames, len(frames) / frames_per_second, GIF_BYTES))
        return
    import imageio_ffmpeg

    even = [_even(frame) for frame in frames]
    with replacing(path) as file:
        writer = imageio_ffmpeg.write_frames(file.name, even[0].size, fps=frames_per_second, macro_block_size=2)
        writer.send(None)  # it begins
        for frame in even:
            writer.send(frame.tobytes())
        writer.close()


def _even(frame: Image.Image) -> Image.Image:
    """The frame with sides of even numbers of pixels, which the usual encoding needs."""
    width, height = (side + side % 2 for side in frame.size)
    whole = Image.new("RGB", (width, height), "white")
    whole.paste(frame)
    return whole
