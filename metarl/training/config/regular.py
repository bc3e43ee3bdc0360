"""Checks that a run directory contains only folders and regular files.

A run directory may come from somebody else. A symbolic link in it would let a program read or change files elsewhere,
reading a named pipe would block for ever, and a device may never end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from metarl.core.errors import brief
from metarl.core.faults.regular import kind_of
from metarl.training.config.errors import ConfigError


def check_regular(run_dir: Path, to_write: bool = False) -> None:
    """Raise ConfigError if a run directory contains anything but folders and regular files.

    The directory itself may be a link. With `to_write`, for directories that will be written to, files with several
    names (hard links) are rejected, too, since a write through one name changes all.
    """
    for entry in _entries(run_dir):
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # a temporary file of a run that is being written
            continue
        inside = brief(os.path.relpath(entry.path, run_dir))
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                f"The run in {brief(str(run_dir))!r} must have only regular files, so that nothing elsewhere is read "
                f"or changed, got {kind_of(found.st_mode)}: remove {inside!r}."
            )
        if to_write and found.st_nlink > 1:
            raise ConfigError(
                f"The file {inside!r} of the run in {brief(str(run_dir))!r} has a hard link elsewhere, whose content "
                "would change too: continue a copy of the folder (cp -r)."
            )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all entries in a folder and its subfolders except folders, without following links."""
    waiting = [str(folder)]
    while waiting:  # no recursion: folders may be nested more deeply than Python's stack
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry
