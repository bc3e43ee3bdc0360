"""The index of learning histories in files: who played what, and the shape, type and checksum of everything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.core.errors import brief
from metarl.core.faults.memory import machine_memory
from metarl.core.faults.regular import read_regular

FORMAT = 1
"""The version of the files; it grows whenever older ones can no longer be read."""

INDEX = "index.json"
"""The name of the index."""

LARGEST_INDEX = 2**26
"""Bytes of an index at most."""

SHARD = re.compile(r"histories_\d{5,9}\.safetensors", re.ASCII)
"""Names of shards."""

COUNTS = ("seed", "tasks", "trials", "rounds", "episodes", "env_steps")
"""Fields of an index that are whole numbers."""


@dataclass(frozen=True)
class Shard:
    """A file of the index."""

    file: str
    histories: int
    steps: int  # of the longest history
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The content of ``index.json``: all that is known of histories without opening their shards."""

    family: Mapping[str, Any]
    """The id of the family, as ``name``, and its options, as in a configuration."""
    played: str
    """The family in words, such as ``DarkRoom(episodes_per_trial=5)``."""
    agent: str
    """Who learned, in words."""
    split: str
    seed: int
    tasks: int
    """Different tasks; history i is about task ``i % tasks``."""
    trials: int
    """Histories of each task."""
    rounds: int
    """Rounds of a history, for agents that adapt in rounds; else 1."""
    episodes: int
    """Episodes of a history."""
    env_steps: int
    """Steps of all histories together."""
    observation_shape: tuple[int, ...]
    action_space: str
    """The space as text, such as ``Discrete(5)``."""
    fields: Mapping[str, tuple[str, tuple[int, ...]]]
    """The tensors of a shard: type, and shape without the dimensions of steps and histories."""
    shards: tuple[Shard, ...]
    versions: Mapping[str, str]
    """Versions of the libraries that played."""
    train_tasks: int | None = None
    """The length of the list of training tasks, where the run had one."""
    fold: tuple[int, int] | None = None
    """The part of a finite family's tasks that the run held out, and the number of parts."""
    format: int = FORMAT

    @property
    def histories(self) -> int:
        """The number of all histories."""
        return sum(shard.histories for shard in self.shards)

    def text(self) -> str:
        """Return the content of the file, with a checksum of its own."""
        plain = dataclasses.asdict(self)
        return json.dumps(plain | {"checksum": _digest(plain)}, indent=1, ensure_ascii=False) + "\n"


def read_index(folder: Path) -> Index:
    """Read the index of a folder. Raises ValueError, one sentence, if there is none, or it is damaged."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"The folder {brief(str(folder), 160)!r} holds no histories (it has no {INDEX}): write some by metarl "
            "dataset AGENT --family FAMILY --out DIR."
        )
    try:
        plain = json.loads(read_regular(path, LARGEST_INDEX))
        stated = plain.pop("checksum")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise damaged(path, "it is no index of histories") from error
    if stated != _digest(plain):
        raise damaged(path, "its content does not match its checksum")
    if plain.get("format") != FORMAT:
        found = brief(str(plain.get("format")))
        raise ValueError(
            f"The histories in {str(folder)!r} have format {found}; this version of metarl reads {FORMAT}."
        )
    try:
        return _index(plain)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise damaged(path, "it lacks something, has too much, or is impossible") from error


def _index(plain: dict[str, Any]) -> Index:
    """Make an index of plain data. Raises TypeError or ValueError for what no writer has written."""
    shards = tuple(Shard(**each) for each in plain.pop("shards", ()))
    shape = tuple(plain.pop("observation_shape"))
    fields = {name: (str(dtype), tuple(trailing)) for name, (dtype, trailing) in plain.pop("fields").items()}
    index = Index(**plain, shards=shards, observation_shape=shape, fields=fields)
    numbers = [number for each in shards for number in (each.histories, each.steps, each.bytes)]
    counts = [getattr(index, name) for name in COUNTS]
    if (
        not shards
        or not all(isinstance(each.file, str) and SHARD.fullmatch(each.file) for each in shards)
        or not all(type(number) is int and 0 < number < machine_memory() for number in numbers)
        or not all(type(count) is int and count >= 0 for count in counts)
        or not all(isinstance(getattr(index, name), str) for name in ("agent", "split", "played", "action_space"))
        or not all(isinstance(getattr(index, name), dict) for name in ("family", "versions"))
    ):
        raise ValueError("an impossible index")
    return index


def damaged(path: Path, why: str) -> ValueError:
    """Return the error for a file that is not as it was written: one sentence."""
    return ValueError(f"The file {str(path)!r} is damaged: {why}. Use a copy of it, or write the histories again.")


def _digest(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, whatever the layout of its JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
