"""The files of a probe: JSON, CSV, PNG, and the table as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metarl.evaluation.files import replace_file, to_json
from metarl.evaluation.probing.probe import Probe
from metarl.evaluation.probing.scores import Decoded, Estimate
from metarl.report.console import text_of
from metarl.report.figures import png
from metarl.report.probing.figure import probe_figure
from metarl.report.probing.table import probe_table, targets

COLUMNS = (
    "step", "target", "measure", "score", "low", "high", "ceiling", "shuffled", "shuffled_low", "shuffled_high",
    "error", "constant_error", "fitted", "held_out", "repeated",
)  # fmt: skip
"""Columns of the CSV file; ``step`` is ``all`` for the decoder of all steps."""


def save(probe: Probe, folder: Path) -> list[Path]:
    """Write ``probe.json``, ``probe.csv``, ``probe.png`` and ``table.txt``; return their paths."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *_rows(probe)])
    contents: dict[str, str | bytes] = {
        "probe.json": to_json(as_dict(probe), indent=1, ensure_ascii=False) + "\n",
        "probe.csv": text.getvalue(),
        "probe.png": png(probe_figure(probe)),
        "table.txt": text_of(probe_table(probe, 120)),
    }
    for name, content in contents.items():
        replace_file(folder / name, content)
    return [folder / name for name in contents]


def as_dict(probe: Probe) -> dict[str, Any]:
    """Return a probe as plain data; undefined values are NaN."""
    plain = {**vars(probe), "scores": {each.name: _plain(each) for each in targets(probe)}}
    for name in ("belief", "task"):
        plain.pop(name)
    plain["divergence"] = None if probe.divergence is None else _plain(probe.divergence)
    plain["lost"] = None if probe.lost is None else probe.lost._asdict()
    return plain


def _plain(value: Decoded | Estimate) -> dict[str, Any]:
    return {name: _plain(part) if isinstance(part, Estimate) else part for name, part in value._asdict().items()}


def _rows(probe: Probe) -> Iterator[list[Any]]:
    steps = [*probe.steps, "all"]
    counts = [[*each, ""] for each in (probe.fitted, probe.held, probe.repeated)]
    for each in targets(probe):
        ceiling = np.full(len(steps), np.nan) if each.ceiling is None else each.ceiling
        columns = [*each.memory, ceiling, *each.shuffled, each.error, each.constant]
        for row, step in enumerate(steps):
            numbers = [_cell(column[row]) for column in columns]
            yield [step, each.name, each.measure, *numbers, *(column[row] for column in counts)]
    if probe.divergence is not None:
        for row, step in enumerate(steps):
            numbers = [_cell(column[row]) for column in probe.divergence]
            blank = [""] * (len(COLUMNS) - 3 - len(numbers) - len(counts))
            yield [step, "actions", "KL", *numbers, *blank, *(column[row] for column in counts)]


def _cell(value: float) -> str:
    """Format a number without loss; empty if it is undefined."""
    return "" if np.isnan(value) else repr(float(value))
