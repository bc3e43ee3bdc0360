"""Files of a run directory: regular files inside it.

A run directory may come from somebody else. A symbolic link in it would let a program read or change files elsewhere;
to read a named pipe takes for ever, and a device may never end.
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
                f"The run in {brief(str(run_dir))!r} must have only regular files, so that nothing elsewhere is read "
                f"or changed, got {kind_of(found.st_mode)}: remove {inside!r}."
            )
        if to_write and found.st_nlink > 1:
            raise ConfigError(
                f"The file {inside!r} of the run in {brief(str(run_dir))!r} has a hard link elsewhere, whose content "
                "would change too: continue a copy of the folder (cp -r)."
            )


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
