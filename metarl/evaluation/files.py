"""Atomic file writing, JSON without NaN, and strict reading of the files written."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from metarl.core.faults.regular import read_regular

PARTIAL = re.compile(r"\..*\.[0-9a-f]{8}\.partial(\.\w+)?")
"""Names of files and folders that are being written."""


MEASURES = "_measures.json"
"""Suffix of the file with a split's measures, for families that have some, next to the files of its curve."""


LONGEST = 1e9
"""Largest size of a file of an evaluation, in bytes."""


DEEPEST = 20
"""Largest nesting depth of a JSON file."""


NUMBER = re.compile(r"-?(\d+(\.\d+)?(e[-+]\d+)?|inf)|nan", re.ASCII)
"""Pattern of a number in a CSV file."""


@contextlib.contextmanager
def replacing(path: str | Path, new: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an exception.

    It is written in the same folder under a temporary name, flushed to disk and renamed, so that `path` is always
    either the complete old file or the complete new one; a symbolic link is replaced, not followed. With `new`,
    FileExistsError is raised if `path` exists at that time. An OSError names `path`.
    """
    path = Path(path)
    partial = partial_name(path)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(partial, path, new)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def replace_file(path: str | Path, content: str | bytes, new: bool = False) -> None:
    """Write a whole file atomically, like `replacing`; text is encoded as UTF-8."""
    with replacing(path, new) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def partial_name(path: Path) -> Path:
    """Return a unique temporary name in the folder of `path`, with the same suffix."""
    return path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}.partial{path.suffix}")


def remove_partial(folder: Path) -> None:
    """Remove temporary files that killed programs left in a folder and its subfolders, where nobody may be writing."""
    for path in [path for path in folder.rglob(".*") if PARTIAL.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _rename(partial: Path, path: Path, new: bool) -> None:
    if not new:
        os.replace(partial, path)
        return
    try:
        os.link(partial, path)  # fails where `path` exists; a rename would replace it
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise FileExistsError(error.errno, error.strerror, str(path)) from error
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.replace(partial, path)  # a file system without links
    else:
        partial.unlink()


def sync_folder(folder: Path) -> None:
    """Flush a folder's directory entries to disk, if the system supports it."""
    with contextlib.suppress(PermissionError):  # a folder that is writable but not readable; Windows
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems that cannot
                raise
        finally:
            os.close(number)


def to_json(value: Any, **options: Any) -> str:
    """Convert plain data to JSON text, with null for NaN and infinities.

    NumPy numbers, booleans and arrays are written like Python's. `options` are those of `json.dumps`.
    """
    return json.dumps(_plain(value), allow_nan=False, **options)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def damaged(path: str | Path, why: str) -> ValueError:
    """Return the error for a damaged file of an evaluation."""
    return ValueError(f"The file {str(path)!r} is damaged: {why}. Evaluate again, or use a copy of it.")


def read_text(path: Path) -> str:
    """Read a UTF-8 text. Raises FileNotFoundError, and ValueError if the file cannot be read.

    Symbolic links are not followed.
    """
    try:
        text = read_regular(path, LONGEST).decode()
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not a text file") from error
    except OSError as error:
        raise ValueError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from error
    if "\0" in text:
        raise damaged(path, "it is not a text file")
    return text.replace("\r\n", "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of strict JSON: no duplicate keys, no NaN. Raises the errors of `read_text`."""
    text = read_text(path)
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "it is not valid JSON") from error
    if not isinstance(found, dict) or _depth(found) > DEEPEST:
        raise damaged(path, "it is not the JSON object of an evaluation")
    return found


def _depth(value: Any) -> int:
    level, inside = 0, [value]
    while inside := [item for each in inside for item in (each.values() if isinstance(each, dict) else each)]:
        inside = [item for item in inside if isinstance(item, (dict, list))]
        level += 1
    return level


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text} is too large")
    return number


def read_csv(path: Path, less: int = 0) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file's header and its rows, at least one, each with `less` fewer cells than the header.

    Raises ValueError if the file is missing or damaged.
    """
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise ValueError(f"The file {str(path)!r}, a part of the evaluation, is missing.") from error
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        raise damaged(path, "it is not a CSV table") from error
    if not rows or not text.endswith("\n"):
        raise damaged(path, "it ends too early")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) - less:
            raise damaged(path, f"row {line} has {len(row)} cells, not {len(header) - less}")
    return header, rows


def numbers(path: Path, rows: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Convert cells to numbers, ``(rows, columns)``. Raises ValueError for a cell that is not a number."""
    wrong = next((cell for row in rows for cell in row if not NUMBER.fullmatch(cell)), None)
    if wrong is not None:
        raise damaged(path, f"the cell {wrong[:20]!r} is not a number")
    found = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    if np.isinf(found).any() and not any("inf" in cell for row in rows for cell in row):
        raise damaged(path, "a number is too large")
    return found


def singles(path: Path, rows: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """Convert cells to float32, like `numbers`."""
    found = numbers(path, rows)
    largest = np.abs(found, where=np.isfinite(found), out=np.zeros_like(found)).max(initial=0.0)
    if largest > np.finfo(np.float32).max:
        raise damaged(path, "a number is too large")
    return found.astype(np.float32)


def checksum(content: str | Mapping[str, Any]) -> str:
    """Return the SHA-256 of a text, or of plain data independent of the layout of its JSON, in hexadecimal."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def curve_files(folder: Path) -> list[Path]:
    """Return the JSON files of the curves in a folder, sorted by name, without those of measures."""
    return sorted(path for path in folder.glob("*.json") if not path.name.endswith(MEASURES))
