"""Histories for the tests, written to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.studies.dataset.recording import Wanted, write_histories
from metarl.studies.dataset.sources import Played, Source


def written(agent: Agent, family: TaskFamily, folder: Path, **wanted: Any) -> Path:
    """Write histories of an agent on a family, which is named as if it were one of the package; return the folder."""
    values = {"name": f"metarl/{type(family).__name__}-v0", "episodes_per_trial": family.episodes_per_trial}
    write_histories(Source(agent, "test", Played(family, values, None, None)), Wanted(**wanted), folder)
    return folder
