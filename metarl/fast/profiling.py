"""A profile of one iteration: ``python -m metarl.train --profile``.

``record_function(phase("rollout"))`` names a part of an iteration, at a negligible cost without a profiler.
`torch.profiler` records one iteration, after one to warm up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

__all__ = ["Profile", "ProfiledIteration", "phase", "record_function"]


PREFIX = "metarl/"


INSIDE = {"advantage": "update"}
"""Part → the enclosing part, from whose time its own is subtracted."""


def phase(name: str) -> str:
    """Return the name under which a part of an iteration is recorded."""
    return PREFIX + name


class Profile:
    """The recording of one iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._profiler: profile | None = None

    @contextmanager
    def recording(self, device: torch.device) -> Iterator[None]:
        """Record everything inside the context."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        # Some versions of torch warn without `acc_events`, which is about schedules of several cycles.
        with (
            profile(activities=activities, acc_events=True) as self._profiler,
            record_function(phase("iteration")),
        ):
            yield
        spent: dict[str, float] = {}
        for event in self._profiler.events() or []:
            # On a GPU a part appears a second time, as the span of its kernels; the host's span is the wall clock.
            if event.name.startswith(PREFIX) and event.device_type == DeviceType.CPU:
                name = event.name.removeprefix(PREFIX)
                spent[name] = spent.get(name, 0.0) + event.time_range.elapsed_us() / 1e6
        for inner, outer in INSIDE.items():
            if inner in spent and outer in spent:
                spent[outer] -= spent[inner]
        self.seconds = spent

    def table(self) -> Table:
        """Return a table of the parts' seconds and fractions, largest first; "other" is the remaining time."""
        whole = self.seconds["iteration"]
        parts = {name: seconds for name, seconds in self.seconds.items() if name != "iteration"}
        parts["other"] = max(0.0, whole - sum(parts.values()))
        table = Table(title=f"One iteration: {whole:.3f} s (recording slows it down)")
        table.add_column("part")
        table.add_column("seconds", justify="right")
        table.add_column("share", justify="right")
        for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
            table.add_row(name, f"{seconds:.3f}", f"{100 * seconds / whole:.0f} %")
        return table

    def save(self, path: Path) -> None:
        """Write the trace of every operation, for https://ui.perfetto.dev or chrome://tracing."""
        assert self._profiler is not None
        self._profiler.export_chrome_trace(str(path))


class ProfiledIteration:
    """A recorder of the iteration with the given `number`; None records none."""

    def __init__(self, number: int | None, device: torch.device, path: Path) -> None:
        self.number, self.device, self.path = number, device, path

    @contextmanager
    def around(self, number: int, console: Console) -> Iterator[None]:
        """Wrap iteration `number`: if it is to be recorded, show its table and write its trace to `path`."""
        if number != self.number:
            yield
            return
        recorded = Profile()
        with recorded.recording(self.device):
            yield
        recorded.save(self.path)
        console.print(recorded.table())
        sentence = f"Trace of the iteration, for https://ui.perfetto.dev: {self.path}"
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
