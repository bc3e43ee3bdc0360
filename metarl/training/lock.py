"""The lock of a run directory, so that only one process writes to it at a time.

It is a lock of the operating system on the file `LOCK` in the folder, so that the lock of a dead process is released
automatically. The file's text names the owner: process, host and start time. On file systems without locks, the text
decides.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from metarl.training.config.errors import ConfigError

LOCK = "writer.lock"
"""The name of the lock file, which exists only while a process writes to the folder or after it was killed."""


_ELSEWHERE = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
"""Error codes that mean that another process holds the lock; others mean that the file system has no locks."""


_held: set[int] = set()  # descriptors of this process's locks


class Owner(NamedTuple):
    """The process that writes to a folder."""

    pid: int
    host: str
    started: str  # local time, YYYY-MM-DD HH:MM:SS

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.started})"


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an existing folder.

    On a file system without locks, `say` gets a line, and the text of the lock file decides: an owner on this host that
    is no longer alive is replaced. Raises ConfigError, which names the owner, if another process holds the lock.
    """
    path = folder / LOCK
    descriptor = _take(path, say)
    _held.add(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_myself()._asdict()).encode())
        yield
    finally:
        _held.discard(descriptor)
        _release(path, descriptor)


def owner(folder: Path) -> Owner | None:
    """Return the process named in the lock file; None if there is none or it cannot be read."""
    try:
        text = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return Owner(int(text["pid"]), _short(text["host"]), _short(text["started"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _short(text: str) -> str:
    """Make text from a file printable, since the folder may come from somebody else."""
    return "".join(letter for letter in str(text)[:80] if letter.isprintable())


def _myself() -> Owner:
    return Owner(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))


def _open(path: Path) -> tuple[int, bool]:
    """Open the lock file; return its descriptor, and whether this call created it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, flags | os.O_EXCL, 0o644), True
    except FileExistsError:
        return os.open(path, flags, 0o644), False


def _take(path: Path, say: Callable[[str], None]) -> int:
    """Take the lock; return the descriptor of its file. Raises ConfigError if another process has it."""
    while True:
        descriptor, made = _open(path)
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _ELSEWHERE:
                os.close(descriptor)
                raise ConfigError(_taken(path.parent)) from error
            if made:
                say(
                    f"The file system of {str(path.parent)!r} does not support locks: the text of {LOCK} serves as one."
                )
                return descriptor
            os.close(descriptor)
            _check_text(path)
            path.unlink(missing_ok=True)
            continue
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its owner has ended and removed it between our two calls


def _check_text(path: Path) -> None:
    """Raise ConfigError unless the process that the lock file names is one of this host that is no longer alive."""
    found = owner(path.parent) or _patient_owner(path.parent)
    if found is not None and (found.host != socket.gethostname() or _alive(found.pid)):
        raise ConfigError(
            f"{str(path.parent)!r} is being written by {found}, according to its lock file: wait for it, or remove "
            f"{str(path)!r} if that process has ended."
        )


def _lock(descriptor: int) -> None:
    """Lock a file for this process without waiting. Raises OSError."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # behind the text, since others cannot read bytes that are locked
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(path: Path, descriptor: int) -> None:
    """Remove the lock file, then the lock; a process that opened the file before notices this and makes a new one."""
    with contextlib.suppress(OSError):  # the folder is gone, or on Windows another process has the file open
        if _is_at(descriptor, path):
            if sys.platform == "win32":
                os.close(descriptor)
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return True if the path still refers to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _taken(folder: Path) -> str:
    """Return the message for a folder that another process writes to."""
    found = owner(folder) or _patient_owner(folder)
    return f"{str(folder)!r} is being written by {found or 'another process'}: wait for it, or choose another folder."


def _patient_owner(folder: Path) -> Owner | None:
    """Return the owner; wait briefly, since it may have just taken the lock and not written its name yet."""
    for _ in range(10):
        time.sleep(0.05)
        if found := owner(folder):
            return found
    return None


def _alive(pid: int) -> bool:
    """Return True if a process on this host is alive."""
    if sys.platform == "win32":  # where a signal 0 would be Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _forget() -> None:
    """Close the locks in a forked child, which would otherwise keep them after its parent's death."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
