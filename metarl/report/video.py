"""Animation files: GIF with Pillow, MP4 with ffmpeg if imageio-ffmpeg is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from metarl.evaluation.files import replace_file, replacing
from metarl.report.images import gif

GIF_BYTES = 20_000_000
"""Largest size of a GIF in bytes; larger ones get smaller frames."""


FORMATS = (".gif", ".mp4")


def check_video(path: Path) -> None:
    """Raise ValueError if the format cannot be written; called before anything is played."""
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
    """Write RGB frames (at least one, all of one size) as an animation in the format of the file's extension.

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
        writer.send(None)  # start the generator
        for frame in even:
            writer.send(frame.tobytes())
        writer.close()


def _even(frame: Image.Image) -> Image.Image:
    """Return the frame with even side lengths, which the usual encoding needs."""
    width, height = (side + side % 2 for side in frame.size)
    whole = Image.new("RGB", (width, height), "white")
    whole.paste(frame)
    return whole
