"""Open regular files without following links, since a file from somebody else may not be a regular file.

A symbolic link would let a program read a file elsewhere, reading a named pipe would block for ever, and a device may
never end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from metarl.core.errors import brief


class NotRegular(ValueError):
    """The error for a path that is not a regular file of bounded size."""


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | Path, links: bool = False) -> BinaryIO:
    """Open a regular file for reading, without following a symbolic link unless `links`.

    Raises NotRegular for anything but a regular file, and OSError, such as FileNotFoundError, like `open`.
    """
    if not links and os.path.islink(path):
        raise _not_regular(path, stat.S_IFLNK)
    # Without O_NONBLOCK, a named pipe without a writer would block here; for a regular file it has no effect.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    if os.path.exists(path) and not os.path.isfile(path):  # a socket cannot be opened, and a device should not be
        raise _not_regular(path, os.stat(path).st_mode)
    descriptor = os.open(path, flags | (0 if links else getattr(os, "O_NOFOLLOW", 0)))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(path, mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, limit: float, links: bool = False) -> bytes:
    """Read a regular file. Raises NotRegular if it is longer than `limit` bytes, and the errors of `open_regular`."""
    with open_regular(path, links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise NotRegular(f"The file {brief(str(path))!r} must be at most {limit:,} bytes long.")
        return file.read(size)


def kind_of(mode: int) -> str:
    """Describe the kind of file with this mode."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def _not_regular(path: str | Path, mode: int) -> NotRegular:
    return NotRegular(f"{brief(str(path))!r} must be a regular file, got {kind_of(mode)}: put a copy there.")
