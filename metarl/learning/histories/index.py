"""The index of learning histories: the agent, the tasks, and the shape, type and checksum of everything."""

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
"""The version of the files; it is increased whenever older files can no longer be read."""

INDEX = "index.json"
"""The name of the index."""

LARGEST_INDEX = 2**26
"""Largest size of an index in bytes."""

SHARD = re.compile(r"histories_\d{5,9}\.safetensors", re.ASCII)
"""Pattern of the names of shards."""

COUNTS = ("seed", "tasks", "trials", "rounds", "episodes", "env_steps")
"""Fields of an index that are integers."""


@dataclass(frozen=True)
class Shard:
    """A shard file in the index."""

    file: str
    histories: int
    steps: int  # of the longest history
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The content of ``index.json``: what is known about histories without opening their shards."""

    family: Mapping[str, Any]
    """The id of the family, as ``name``, and its options, as in a configuration."""
    played: str
    """Description of the family, such as ``DarkRoom(episodes_per_trial=5)``."""
    agent: str
    """Description of the agent that learned."""
    split: str
    seed: int
    tasks: int
    """Number of different tasks; history i is on task ``i % tasks``."""
    trials: int
    """Histories per task."""
    rounds: int
    """Rounds per history, for agents that adapt in rounds; otherwise 1."""
    episodes: int
    """Episodes per history."""
    env_steps: int
    """Total number of steps of all histories."""
    observation_shape: tuple[int, ...]
    action_space: str
    """The space as text, such as ``Discrete(5)``."""
    fields: Mapping[str, tuple[str, tuple[int, ...]]]
    """The tensors of a shard: type, and shape without the dimensions of steps and histories."""
    shards: tuple[Shard, ...]
    versions: Mapping[str, str]
    """Versions of the libraries used."""
    train_tasks: int | None = None
    """Length of the fixed list of training tasks, if there was one."""
    fold: tuple[int, int] | None = None
    """The part of a finite family's tasks that the run held out, and the number of parts."""
    format: int = FORMAT

    @property
    def histories(self) -> int:
        """The total number of histories."""
        return sum(shard.histories for shard in self.shards)

    def text(self) -> str:
        """Return the content of the file, including its checksum."""
        plain = dataclasses.asdict(self)
        return json.dumps(plain | {"checksum": _digest(plain)}, indent=1, ensure_ascii=False) + "\n"


def read_index(folder: Path) -> Index:
    """Read the index of a folder. Raises ValueError if there is none or it is damaged."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"The folder {brief(str(folder), 160)!r} has no histories (it has no {INDEX}): record some with metarl "
            "dataset AGENT --family FAMILY --out DIR."
        )
    try:
        plain = json.loads(read_regular(path, LARGEST_INDEX))
        stated = plain.pop("checksum")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise damaged(path, "it is not an index of histories") from error
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
        raise damaged(path, "its fields are missing, unknown or invalid") from error


def _index(plain: dict[str, Any]) -> Index:
    """Make an index from plain data. Raises TypeError or ValueError for invalid data."""
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
    """Return the error for a damaged file."""
    return ValueError(f"The file {str(path)!r} is damaged: {why}. Use a copy of it, or record the histories again.")


def _digest(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data in hexadecimal, independent of the layout of its JSON."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
