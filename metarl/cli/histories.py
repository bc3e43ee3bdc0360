"""Comparison of training histories: ``metarl compare RUN … --x train_steps`` (or ``time``).

Nothing is played: the evaluations that the runs recorded during training are read, one line for all seeds of a
configuration, one panel for each family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from metarl.cli import usage
from metarl.cli.contenders import by_configuration, described, unique
from metarl.core.family import TaskFamily
from metarl.report.console import show
from metarl.report.efficiency.comparison import EfficiencyComparison
from metarl.report.efficiency.history import history, read_records, splits_of
from metarl.report.efficiency.panel import Panel
from metarl.report.efficiency.training_curve import TrainingCurve
from metarl.training import checkpoint
from metarl.training.config import parsing
from metarl.training.config.errors import ConfigError
from metarl.training.config.run_config import TrainConfig, reported_split

PLAYS = ("baselines", "tasks", "costly_tasks", "repeats", "rounds", "seed", "greedy", "suite")
"""Options that only apply if agents play."""


class _Run(NamedTuple):
    folder: Path
    config: TrainConfig
    records: Sequence[Mapping[str, Any]]


def check_options(options: Any) -> None:
    """Raise ValueError for an option that has no effect without playing."""
    parser = usage.compare()
    for name in PLAYS:
        if getattr(options, name) != parser.get_default(name):
            raise ValueError(
                f"--{name} is for agents that play, and --x {options.x} reads what runs recorded during training: "
                "leave one of them out."
            )
    if options.split is not None and len(options.split) > 1:
        raise ValueError(f"--x {options.x} compares on one split, got {', '.join(options.split)}.")


def read_comparison(runs: Sequence[str], x: str = "train_steps", split: str | None = None) -> EfficiencyComparison:
    """Read the histories of runs: one panel per family, with one line per configuration.

    `split` is the split of the evaluations; by default one that all runs on the family recorded, preferably the one
    that the runs report. Raises ValueError for a run without a history, or without that split.
    """
    by_family: dict[str, list[tuple[str, list[_Run]]]] = {}
    titles: dict[str, TaskFamily] = {}
    for members in by_configuration(runs):
        seeds = [_read(folder) for _, folder in members]
        family = seeds[0].config.family
        lines = by_family.setdefault(described(family), [])
        titles[described(family)] = family
        lines.append((unique(members[0][0], [name for name, _ in lines]), seeds))
    panels = []
    for what, lines in by_family.items():
        chosen = _common_split([run for _, seeds in lines for run in seeds], split)
        curves = [_curve(name, seeds, chosen, x) for name, seeds in lines]
        plain = type(titles[what]).__name__
        alone = [type(family).__name__ for family in titles.values()].count(plain) == 1
        panels.append(Panel(plain if alone else what, chosen, tuple(curves)))
    return EfficiencyComparison(panels, x)


def _read(run: str | Path) -> _Run:
    if isinstance(run, str) and run.startswith("pretrained:"):
        checkpoint.find(run)  # raises if unknown
        raise ValueError(
            f"{run!r} has no training history: pretrained agents come without the metrics of their training; give run "
            "directories."
        )
    folder = checkpoint.find(run)
    try:
        config = parsing.read(folder / "config.yaml")
    except ConfigError as error:
        raise ValueError(f"The run in {str(folder)!r} cannot be loaded: {error}") from error
    found = _Run(folder, config, read_records(folder))
    if not splits_of(found.records):
        raise ValueError(
            f"The run in {str(folder)!r} was not evaluated during training: train with eval_every above 0 (it has "
            f"{config.eval_every}), or wait for its first evaluation."
        )
    return found


def _common_split(runs: Sequence[_Run], asked: str | None) -> str:
    """Return the split on which runs on one family compare. Raises ValueError if one of them has not recorded it."""
    splits = [splits_of(run.records) for run in runs]
    if asked is not None:
        for run, known in zip(runs, splits, strict=True):
            if asked not in known:
                raise ValueError(
                    f"The run in {str(run.folder)!r} was not evaluated on {asked!r} during training, only on "
                    f"{', '.join(known)}."
                )
        return asked
    common = [split for split in splits[0] if all(split in known for known in splits)]
    if not common:
        other = next(number for number, known in enumerate(splits) if not set(known) & set(splits[0]))
        raise ValueError(
            f"Runs on one family must share a split on which they were evaluated during training, but "
            f"{str(runs[0].folder)!r} has {', '.join(splits[0])} and {str(runs[other].folder)!r} has "
            f"{', '.join(splits[other])}."
        )
    reported = reported_split(runs[0].config)
    return reported if reported in common else common[0]


def _curve(name: str, runs: Sequence[_Run], split: str, x: str) -> TrainingCurve:
    curve = TrainingCurve(name, tuple(history(run.folder, run.records, split) for run in runs), x)
    _ = curve.final  # raises if the curves of the seeds cannot be combined
    return curve


def to_tensorboard(comparison: EfficiencyComparison, folder: Path, names: Mapping[str, str]) -> None:
    """Write a TensorBoard run per agent, by `names` of folders, and the figure and the tables to `folder`."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("compare/figure", comparison.figure(), close=False)
        writer.add_text("compare/tables", comparison.markdown())
    several = len(comparison.panels) > 1
    for panel in comparison.panels:
        tag = f"compare/{f'{panel.family}/' if several else ''}{panel.split}/return_by_{comparison.x}"
        for curve in panel.curves:
            with SummaryWriter(str(folder / names[curve.name])) as writer:
                for at, value in zip(curve.at, curve.mean(), strict=True):
                    writer.add_scalar(tag, float(value), round(at))


def print_comparison(comparison: EfficiencyComparison, console: Console) -> None:
    """Show the tables of every panel, with their notes below."""
    for panel in comparison.panels:
        for table in comparison.tables(panel, console.width):
            show(console, table)
        console.print(" ".join(panel.notes(comparison.x)), markup=False, highlight=False)
        console.print()
