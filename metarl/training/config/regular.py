"""Files of a run directory: regular files inside it, opened without following links.

A run directory may come from somebody else. A symbolic link in it would let a program read or change files elsewhere;
to read a named pipe takes for ever, and a device may never end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from metarl.core.errors import brief
from metarl.training.config.errors import ConfigError

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(run_dir: Path, to_write: bool = False) -> None:
    """Raise ConfigError if a run directory holds anything but folders and regular files.

    The directory itself may be reached through a link. Before something is written `to_write` refuses files with a
    second name (hard links), too: what is written to one is written to the other.
    """
    for entry in _entries(run_dir):
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # the run is being written, and this was a file's name for a moment
            continue
        inside = brief(os.path.relpath(entry.path, run_dir))
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                f"The run in {brief(str(run_dir))!r} holds {_kind(found.st_mode)}, {inside!r}: the files of a run must "
                "be regular files inside its folder, so that nothing elsewhere is read or changed: remove it."
            )
        if to_write and found.st_nlink > 1:
            raise ConfigError(
                f"In the run in {brief(str(run_dir))!r} the file {inside!r} has a second name (a hard link), whose "
                "content would change, too: continue a copy of the folder (cp -r)."
            )


def open_regular(path: str | Path, links: bool = False) -> BinaryIO:
    """Open a regular file for reading, without following a symbolic link unless `links`.

    Raises ConfigError for anything else than a regular file, and OSError, such as FileNotFoundError, as `open` does.
    """
    if not links and os.path.islink(path):
        raise _not_regular(path, stat.S_IFLNK)
    # A named pipe without a writer would block here without O_NONBLOCK, which does nothing to a regular file.
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


def read_regular(path: str | Path, limit: int, links: bool = False) -> bytes:
    """Read a regular file of at most `limit` bytes; raises ConfigError for a longer one, and as `open_regular` does."""
    with open_regular(path, links) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ConfigError(f"The file {brief(str(path))!r} is longer than {limit:,} bytes, the most for such a file.")
    return data


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything in a folder and its subfolders but the folders themselves, without following links."""
    waiting = [str(folder)]
    while waiting:  # no recursion: folders may be nested more deeply than Python's stack
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something that is no file")


def _not_regular(path: str | Path, mode: int) -> ConfigError:
    return ConfigError(f"{brief(str(path))!r} is {_kind(mode)}, and must be a regular file: put a copy there.")
