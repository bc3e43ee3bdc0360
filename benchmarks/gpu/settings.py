"""What every section is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.works import Work, resized, tiny

NO_CUDA = "no CUDA device"


class Settings(NamedTuple):
    """How to measure."""

    device: str  # cuda or cpu
    tiny: bool  # sizes that take no time: to try the command, not to measure
    out: Path

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    def work(self, work: Work, rows: int | None = None) -> Work:
        """A work on this device in one of its sizes."""
        work = resized(work, rows, self.device)
        return tiny(work) if self.tiny else work


def synchronize(device: str) -> None:
    """Wait for the device, so that a clock that is read next tells the truth."""
    if device == "cuda":
        torch.cuda.synchronize()


def cores() -> list[int]:
    """Those that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
