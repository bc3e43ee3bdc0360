"""The table of a probe, for the terminal."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from metarl.evaluation.probing.probe import TRIALS, Probe
from metarl.evaluation.probing.scores import Decoded
from metarl.evaluation.results import short
from metarl.report.table import width_of

NOTE = "Decodable does not mean used: the policy may ignore what a decoder finds."
"""A reminder of the limit of every probe."""


WORDS = {
    "R²": "R² of ridge regression, against the mean at the step",
    "explained KL": "explained KL: the share of the mean posterior's divergence that a softmax explains",
    "accuracy": "accuracy: the posterior mass of the softmax's guess",
}
"""The measures in words."""


def probe_table(probe: Probe, width: int = 80) -> Table:
    """Return a table with a row for each step, and one for a single decoder of all steps.

    For each target: the score, its 95 % interval, the score of the exact belief instead of the memory, and that of
    shuffled memories. If this exceeds `width` characters, first the intervals, then the shuffled scores are dropped.
    """
    for parts in (("interval", "belief", "shuffled"), ("belief", "shuffled"), ("belief",)):
        table = _table(probe, parts)
        if width_of(table) <= width:
            break
    return table


def _table(probe: Probe, parts: tuple[str, ...]) -> Table:
    table = Table(
        box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, min_width=60, title_justify="left",
        caption_justify="left", title=Text(title(probe), style="bold not italic"),
        caption=Text(caption(probe), style="dim not italic"),
    )  # fmt: skip
    table.add_column("\nactions\ntaken", justify="right", no_wrap=True)
    for decoded in targets(probe):
        table.add_column(f"{decoded.name}:\n{decoded.measure.replace(' ', chr(10))}", justify="right", no_wrap=True)
        for part in parts:
            heading = {"interval": "95 %\ninterval", "belief": "exact\nbelief", "shuffled": "shuf-\nfled"}[part]
            if part != "belief" or decoded.ceiling is not None:
                table.add_column(f"\n{heading}", justify="right", no_wrap=True)
    if probe.divergence is not None:
        table.add_column("actions:\nKL in\nnats", justify="right", no_wrap=True)
    for row, name in enumerate([*map(str, probe.steps), "all"]):
        if row == len(probe.steps):
            table.add_section()
        cells = [cell for decoded in targets(probe) for cell in _cells(decoded, row, parts)]
        if probe.divergence is not None:
            cells.append(Text(_number(probe.divergence.mean[row])))
        table.add_row(name, *cells)
    return table


def _cells(decoded: Decoded, row: int, parts: tuple[str, ...]) -> list[Text]:
    memory, cells = decoded.memory, [Text(_number(decoded.memory.mean[row]), style="bold")]
    if "interval" in parts:
        known = not np.isnan(memory.low[row])
        cells.append(Text(f"[{_number(memory.low[row])}, {_number(memory.high[row])}]" if known else ""))
    if decoded.ceiling is not None:
        cells.append(Text(_number(decoded.ceiling[row])))
    if "shuffled" in parts:
        cells.append(Text(_number(decoded.shuffled.mean[row]), style="dim"))
    return cells


def targets(probe: Probe) -> list[Decoded]:
    """Return what was decoded: the belief, if there is one, and the task."""
    return [probe.task] if probe.belief is None else [probe.belief, probe.task]


def _number(value: float) -> str:
    """Format a score with two decimals, a hyphen if it is undefined."""
    return "-" if np.isnan(value) else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def title(probe: Probe) -> str:
    """Return the title of the table and of the figure."""
    return f"{probe.agent} on {probe.family}, {probe.split}: what its {probe.part} ({probe.size} numbers) knows"


def caption(probe: Probe) -> str:
    """Return sentences that explain the numbers."""
    held = max(probe.held)
    text = f"Linear decoders, fitted to {max(probe.fitted)} trials and scored on {held} others, "
    if probe.held_out == TRIALS:
        share = float(np.nanmean(probe.repeated))
        text += f"of the same {probe.tasks} tasks ({100 * share:.0f} % of these memories occur among those fitted to). "
    else:
        text += "of other tasks. "
    measures = dict.fromkeys(each.measure for each in targets(probe))
    text += " ".join(f"{WORDS[measure][:1].upper()}{WORDS[measure][1:]}." for measure in measures) + " "
    if probe.belief is None:
        text += "The family has no exact belief about these tasks, so only the task is probed. "
    elif probe.task.ceiling is not None:
        text += "Exact belief: its score in place of the memory. "
    text += f"Shuffled: memories of other trials at the same step. {NOTE}"
    if probe.lost is not None:
        lost = probe.lost
        text += (
            f" Actions: their KL divergence from those of the belief agent on the same histories. Return of a trial: "
            f"{short(lost.agent)}, of the belief agent {short(lost.belief_agent)}, lost {short(lost.lost)} "
            f"[{short(lost.low)}, {short(lost.high)}]."
        )
    return text
