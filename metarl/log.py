"""What a run writes and shows: TensorBoard, a JSONL copy, and progress in the terminal.

Every tag has a group: ``train/…``, ``loss/…``, ``eval/<split>/…``, ``time/…``; docs/metrics.md says what each means and
what good and bad look like. TensorBoard's x-axis is the environment steps of training, so that agents with unlike
iterations compare; the JSONL file has both.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from metarl.checkpoint import Counters
from metarl.config import as_yaml
from metarl.curve import AdaptationCurve, chosen_points
from metarl.rollout import Rollout, episode_lengths, episode_returns

MAX_POINTS = 10
"""Points of an adaptation curve that get tags of their own, however many episodes a trial has."""
LINES = 20
"""Progress lines of a run whose output is not a terminal."""


def trial_metrics(trial: list[Rollout], episodes: int) -> dict[str, float]:
    """``train/…``: what the meta-training tasks' trials returned, from the rounds of a trial of `episodes` each."""
    returns = [episode_returns(rollout, episodes).mean(0) for rollout in trial]  # (episodes,) each
    points = returns[0] if len(returns) == 1 else [row.mean() for row in returns]
    values = [float(point) for point in points]
    lengths = [float(episode_lengths(rollout, episodes).mean()) for rollout in trial]
    return {
        "train/return": sum(values) / len(values),
        "train/trial_return": sum(float(row.sum()) for row in returns),
        "train/return_first": values[0],
        "train/return_last": values[-1],
        "train/adaptation": values[-1] - values[0],
        "train/episode_length": sum(lengths) / len(lengths),
    }


def curve_metrics(curve: AdaptationCurve) -> dict[str, float]:
    """``eval/<split>/…``: a handful of the curve's points with their 95 % intervals, and what sums it up."""
    low, high = curve.interval(0.95)
    metrics: dict[str, float] = {}
    for tag, point in point_tags(curve).items():
        metrics |= {tag: float(curve.mean()[point]), f"{tag}_low": float(low[point]), f"{tag}_high": float(high[point])}
    summary = curve.summary()
    names = ("score", "score_low", "score_high", "normalised", "adaptation_delta", "area_under_curve")
    return metrics | {f"eval/{curve.split}/{name}": summary[name] for name in names if name in summary}


def point_tags(curve: AdaptationCurve) -> dict[str, int]:
    """The tags of a curve's points, and which point each is: ``eval/test/episode_02``, or ``…/round_01`` (MAML)."""
    points = len(curve.labels)
    kind, first = ("round", 0) if curve.rounds else ("episode", 1)
    width = max(2, len(str(points)))
    shown = chosen_points(points, MAX_POINTS)
    return {f"eval/{curve.split}/{kind}_{point + first:0{width}d}": point for point in shown}


def layout(curves: Mapping[str, AdaptationCurve]) -> dict[str, dict[str, list[Any]]]:
    """The page "custom scalars": for each split one chart of all points, and one per point with its interval.

    TensorBoard shows a chart of several runs once if they describe it alike; hence no chart names the points it has.
    It shows the charts with an interval in reverse; hence the last point comes first here.
    """
    page: dict[str, dict[str, list[Any]]] = {}
    for split, curve in curves.items():
        tags = point_tags(curve)
        pattern = rf"^eval/{re.escape(split)}/(episode|round)_\d+$"
        charts: dict[str, list[Any]] = {"all points": ["Multiline", [pattern]]}
        for tag, point in reversed(tags.items()):
            charts[curve.labels[point]] = ["Margin", [tag, f"{tag}_low", f"{tag}_high"]]
        page[f"adaptation on {split}"] = charts
    return page


class Logger:
    """Writes a run's metrics to `run_dir` and shows its progress. Use it as a context manager.

    `values` is the resolved configuration and `start` where the run starts: what a killed run had written beyond that
    is dropped, so that a resumed run's files look like an uninterrupted one's.
    """

    def __init__(
        self, run_dir: Path, values: dict[str, Any], start: Counters, texts: Mapping[str, str], console: Console
    ) -> None:
        self.total, self.eval_splits, self.console = int(values["total_iterations"]), values["eval_splits"], console
        purge = start.env_steps + 1 if start.iteration else None
        self.writer = SummaryWriter(str(run_dir), purge_step=purge, flush_secs=10)
        for name, text in {"config": as_yaml(values), **texts}.items():
            self.writer.add_text(name, _verbatim(text), start.env_steps)
        self._add_hparams(values)
        _truncate(run_dir / "metrics.jsonl", start.iteration)
        self.file = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self.adaptation = ""  # the latest evaluation, in words
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=600.0,  # seconds: over evaluations, and iterations longer than rich's 30 seconds
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=self.total, completed=start.iteration)

    def __enter__(self) -> Logger:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.writer.close()
        self.file.close()

    def iteration(
        self, counters: Counters, metrics: dict[str, float], curves: Mapping[str, AdaptationCurve] | None = None
    ) -> None:
        """Write the metrics of the iteration that has just been done, and the curves if it was evaluated."""
        for tag, value in metrics.items():
            self.writer.add_scalar(tag, value, counters.env_steps)
        metrics = metrics | self.evaluation(counters, curves or {})
        record: dict[str, Any] = {"iteration": counters.iteration, "env_steps": counters.env_steps}
        record |= {"seconds": round(counters.seconds, 3)}
        record |= {tag: value if math.isfinite(value) else None for tag, value in metrics.items()}  # JSON has no NaN
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        self._show(counters, metrics, bool(curves))

    def evaluation(self, counters: Counters, curves: Mapping[str, AdaptationCurve]) -> dict[str, float]:
        """Write the adaptation curves of some splits to TensorBoard; returns their scalars."""
        metrics: dict[str, float] = {}
        for curve in curves.values():
            metrics |= curve_metrics(curve)
            self.writer.add_figure(f"eval/{curve.split}/curve", curve.plot(), counters.env_steps, close=False)
        for tag, value in metrics.items():
            self.writer.add_scalar(tag, value, counters.env_steps)
        if curves:
            # Splits with a curve over training come before those of the end alone.
            splits = sorted(curves, key=lambda split: split not in self.eval_splits)
            self.writer.add_custom_scalars(layout({split: curves[split] for split in splits}))
            self.adaptation = "".join(map(_in_words, curves.values()))
        return metrics

    def say(self, sentence: str) -> None:
        """Print a line, above the progress bar if there is one."""
        self.console.print(sentence, markup=False, highlight=False)

    def _add_hparams(self, values: dict[str, Any]) -> None:
        """The page "HParams". SummaryWriter.add_hparams would make a second run and a false point at step 0."""
        flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
        for name in ("family", "agent"):
            flat[name] = values[name]["class_path"].rpartition(".")[2]
            flat |= {f"{name}.{key}": value for key, value in (values[name].get("init_args") or {}).items()}
        plain = {k: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for k, v in flat.items()}
        tags = ["train/return", "train/adaptation", *(f"eval/{s}/score" for s in values["eval_splits"])]
        for summary in hparams(plain, dict.fromkeys(tags, 0.0)):
            self.writer._get_file_writer().add_summary(summary)

    def _show(self, counters: Counters, metrics: dict[str, float], evaluated: bool) -> None:
        speed = f"{_amount(metrics.get('time/steps_per_second', math.nan))} steps/s"
        text = f"{speed}, return {metrics.get('train/return', math.nan):.3g}"
        self.bar.update(self.task, completed=counters.iteration, description=f"{text}{self.adaptation}")
        every = max(1, self.total // LINES)
        if not self.console.is_terminal and (evaluated or counters.iteration % every == 0):
            progress = f"iteration {counters.iteration}/{self.total}, {_amount(counters.env_steps)} steps"
            self.console.print(f"{progress}, {text}{self.adaptation}", markup=False, highlight=False, soft_wrap=True)


def _in_words(curve: AdaptationCurve) -> str:
    """``, test 7.12 → 10.4 → 10.6``: at most three points."""
    mean = curve.mean()
    return f", {curve.split} " + " → ".join(f"{mean[point]:.3g}" for point in chosen_points(len(mean), 3))


def _amount(number: float) -> str:
    """1234567 as 1.23M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _verbatim(text: str) -> str:
    """Text as a block that TensorBoard's Markdown shows as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _truncate(path: Path, iterations: int) -> None:
    """Keep the lines of the first `iterations` iterations; a line that was cut off in writing is dropped too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["iteration"] > iterations:
            break
        kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")
