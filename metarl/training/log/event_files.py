"""TensorBoard's event files of a run that goes on after it was killed or finished.

TensorBoard reads the files of a folder in the order of their names, which begin with the time at which a file was
begun, and a point that was written twice is shown twice. Its own means against this, a mark in the later file that
discards earlier points from some step on, fails if the later file has the earlier name (the clock was set back, or two
files are of the same second), and if only some of a step's points are written again. So `rewind` takes out of the files
what will be written again, and keeps their names in order.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

PREFIX = "events.out.tfevents."


Again = Callable[[str, int], bool]
"""Tells of a tag and a step whether the value will be written again."""


def rewind(folder: Path, step: int, again: Again) -> list[Path]:
    """Take everything beyond `step` out of the event files in `folder`, and the values that will be written `again`.

    Files without any value left are removed. Afterwards a file that is begun now has the last name. A crash at any
    moment leaves complete files, and a second call does the rest. Returns the files that are left, in their order.
    """
    take_out(_in_order(folder), step, again)
    return _put_before(_in_order(folder), int(time.time()))


def take_out(files: Sequence[Path], step: int, again: Again) -> None:
    """Do the same in some files, which nobody writes to, and leave their names."""
    for path in files:
        if path.exists():
            _filter(path, step, again)


def _in_order(folder: Path) -> list[Path]:
    """Return the event files in the order in which TensorBoard reads them."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_file())


def _filter(path: Path, step: int, again: Again) -> None:
    """Rewrite a file without the values that are beyond `step` or will be written again, if it has any."""
    kept: list[tuple[Event | None, bytes]] = []  # an event that changed, or the bytes of one that did not
    changed = useful = False
    for event, record in _records(path):
        values = list(event.summary.value)
        if event.step > step:
            changed = True
            continue
        left = [value for value in values if not again(value.tag, event.step)]
        useful |= bool(left)
        if len(left) == len(values):
            kept.append((None, record))
            continue
        changed = True
        if left:
            del event.summary.value[:]
            event.summary.value.extend(left)
            kept.append((event, b""))
    if not useful:
        path.unlink()
    elif changed:
        _rewrite(path, kept)


def _rewrite(path: Path, kept: list[tuple[Event | None, bytes]]) -> None:
    partial = path.with_name("events.partial")  # TensorBoard reads every file with "tfevents" in its name
    with partial.open("wb") as file:
        writer = RecordWriter(file)
        for event, record in kept:
            if event is None:
                file.write(record)
            else:
                writer.write(event.SerializeToString())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _records(path: Path) -> Iterator[tuple[Event, bytes]]:
    """Yield the events of a file, each with its record; an incomplete or damaged record ends the file.

    A record is the length of the data (uint64), a checksum, the data, and its checksum (both uint32).
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            if file.tell() + length + 4 > size:
                return
            data = file.read(length)
            try:
                yield Event.FromString(data), head + data + file.read(4)
            except DecodeError:
                return


def _put_before(files: list[Path], now: int) -> list[Path]:
    """Rename the files, in their order, if a file that is begun at `now` might not be the last by its name."""
    begun = [path.name.removeprefix(PREFIX).partition(".")[0] for path in files]
    times = [int(text) for text in begun if text.isdecimal()]
    if not times or max(times) < now:
        return files
    first = min(*times, now) - 1
    names = [path.with_name(f"{PREFIX}{first:010d}.{number:06d}.earlier") for number, path in enumerate(files)]
    for path, name in zip(files, names):
        os.replace(path, name)
    return names
