"""The files of an agent's ring of trials, next to the run's checkpoints: one part for the trials since the last.

Trials in the ring do not change, so a checkpoint writes only the new ones, and a part is removed when no checkpoint of
the run needs it any more: the folder takes about as much space as the ring in memory. The name of a part,
``replay/<iteration>_<first>-<end>_<rank>of<processes>.safetensors``, says when it was written and which trials it
contains. Parts are read only when a run is resumed. Each process writes the parts of its own trials.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch

from metarl.evaluation.files import replace_file
from metarl.learning import ranks
from metarl.learning.trial_ring import PLACE, TrialRing
from metarl.training import state_file
from metarl.training.config.errors import ConfigError
from metarl.training.state_file import Counters

FOLDER = "replay"

NAME = re.compile(r"(\d{1,16})_(\d{1,16})-(\d{1,16})_(\d{1,6})of(\d{1,6})\.safetensors", re.ASCII).fullmatch

LARGEST_PART = 2**28
"""Largest size of a part in bytes, unless a single trial is larger."""


class Part(NamedTuple):
    """A file of trials."""

    first: int  # the number of its first trial
    end: int  # the number after its last one
    iteration: int  # the iteration of its checkpoint
    path: Path


def save(run_dir: str | Path, ring: TrialRing | None, iteration: int) -> None:
    """Write the trials added to this process's ring since the last `save`; without a ring, do nothing.

    All processes must call it, and it returns when all parts are written.
    """
    if ring is None:
        return
    folder = Path(run_dir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for part in _parts(run_dir):
        if part.end > ring.saved or part.iteration > iteration:
            part.path.unlink()  # its checkpoint was never written, or the run did not continue from it
    first = max(ring.saved, ring.oldest())
    each = max(1, LARGEST_PART * ring.slots // max(ring.nbytes, 1))
    starts = list(range(first, ring.added, each))
    if not starts and all(part.iteration != iteration for part in _parts(run_dir)):
        starts = [ring.added]
    for start in starts:
        end = min(start + each, ring.added)
        state = {PLACE: ring.place(), **ring.trials(start, end)}
        name = f"{iteration}_{start}-{end}_{ranks.rank()}of{ranks.world_size()}.safetensors"
        replace_file(folder / name, state_file.pack(state, Counters(iteration)))
    ring.saved = ring.added
    ranks.total(torch.zeros(()))  # all have written


def prune(run_dir: str | Path, ring: TrialRing | None, oldest: int) -> None:
    """Remove this process's parts that no checkpoint from the iteration `oldest` on needs.

    All processes must call it, and nothing is removed before rank 0 has written the checkpoint.
    """
    if ring is None:
        return
    ranks.total(torch.zeros(()))
    parts = _parts(run_dir)
    needed = max((part.end for part in parts if part.iteration <= oldest), default=0) - ring.slots
    for part in parts:
        if part.end <= needed:
            part.path.unlink()


def restore(run_dir: str | Path, ring: TrialRing | None, iteration: int, device: torch.device) -> None:
    """Load the trials of the checkpoint of `iteration` into this process's ring; without a ring, do nothing.

    Raises ConfigError if trials are missing or were saved by another number of processes, and Damaged if a part cannot
    be read.
    """
    if ring is None or not iteration:
        return
    parts = [part for part in _parts(run_dir) if part.iteration <= iteration]
    if not any(part.iteration == iteration for part in parts):
        raise ConfigError(_missing(run_dir, iteration))
    last = parts[-1]
    ring.empty(state_file.read(last.path).state[PLACE])
    at = ring.oldest()
    for part in parts:
        if part.end <= at:
            continue
        if part.first > at:
            raise ConfigError(_missing(run_dir, iteration))
        trials = {name: value for name, value in state_file.read(part.path, device).state.items() if name != PLACE}
        ring.put(at, {name: value[at - part.first :] for name, value in trials.items()})
        at = part.end
    if at < ring.added:
        raise ConfigError(_missing(run_dir, iteration))
    ring.saved = ring.added


def _parts(run_dir: str | Path) -> list[Part]:
    """Return the parts of this process, in the order of their trials."""
    place = str(ranks.rank()), str(ranks.world_size())
    found = []
    for path in (Path(run_dir) / FOLDER).glob("*.safetensors"):
        match = NAME(path.name)
        if match and match.groups()[3:] == place:
            iteration, first, end = map(int, match.groups()[:3])
            found.append(Part(first, end, iteration, path))
    return sorted(found)


def _missing(run_dir: str | Path, iteration: int) -> str:
    """Return the message for a run that cannot continue."""
    folder = Path(run_dir) / FOLDER
    others = {match[5] for path in folder.glob("*.safetensors") if (match := NAME(path.name))}
    if others and str(ranks.world_size()) not in others:
        number = min(others)
        return (
            f"The run in {str(run_dir)!r} must be continued with --nproc_per_node {number} of torchrun, since each "
            f"process holds a part of its replay buffer, got {ranks.world_size()}."
        )
    return (
        f"The run in {str(run_dir)!r} cannot continue: {str(folder)!r} lacks trials of the replay buffer after "
        f"iteration {iteration}. Copy the folder {FOLDER!r} from where the run was, or start the run again."
    )
