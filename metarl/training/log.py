"""The log of a run: TensorBoard, a JSONL copy, and progress in the terminal.

Every tag has a group: ``train/…``, ``loss/…``, ``eval/<split>/…``, ``time/…``. docs/metrics.md explains each tag, with
good and bad values. TensorBoard's x-axis is the environment steps of training, so that agents with different iterations
can be compared; the JSONL file has both.
"""

from __future__ import annotations

import functools
import inspect
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, episode_lengths, episode_returns
from metarl.evaluation.curve import AdaptationCurve, generalisation_gaps
from metarl.evaluation.finite import to_json
from metarl.evaluation.results import chosen_points
from metarl.report.card import length, short_space
from metarl.training.checkpoint import Counters
from metarl.training.config.parsing import as_yaml
from metarl.training.faults.guarded import Guarded, Warn

MAX_POINTS = 10
"""The largest number of points of an adaptation curve that get tags of their own."""


LINES = 20
"""The number of progress lines of a run whose output is not a terminal."""


FIGURE_SECONDS = 20.0
"""The least seconds of training between two figures of the curve, each of which takes a fifth of a second."""


OVERVIEW = {
    "return of an episode in training": r"train/return(_first|_last)?",
    "losses": r"loss/(policy|value|inference|surrogate_before|surrogate_after|adapted_distance)",
    "KL and clip fraction": r"loss/(approx_kl|kl_after|inner_kl|clip_fraction)",
    "entropy": r"loss/entropy",
    "gradient norm": r"loss/grad_norm",
    "explained variance": r"loss/explained_variance",
    "steps per second": r"time/steps_per_second",
    "memory, MB": r"time/(memory|device_memory)",
}
"""Further charts of the overview: title → pattern of tags, since agents log different tags."""


def trial_metrics(trial: list[Rollout], episodes: int) -> dict[str, float]:
    """Return the metrics ``train/…`` of the returns on meta-training tasks, from rounds of `episodes` episodes."""
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
    """Return the metrics ``eval/<split>/…``: some of the curve's points with 95 % intervals, and summaries."""
    mean, (low, high) = curve.mean(), curve.interval(0.95)
    metrics: dict[str, float] = {}
    for tag, point in point_tags(curve).items():
        metrics |= {tag: float(mean[point]), f"{tag}_low": float(low[point]), f"{tag}_high": float(high[point])}
    summary = curve.summary()
    names = ["score", "score_low", "score_high", "normalised", "adaptation_delta", "area_under_curve"]
    names += ["episodes_to_threshold", "env_steps_to_threshold"]
    names += ["cumulative_regret", "regret_per_episode", "regret_per_step"]
    return metrics | {f"eval/{curve.split}/{name}": summary[name] for name in names if name in summary}


def point_tags(curve: AdaptationCurve) -> dict[str, int]:
    """Return the tags of a curve's points, with the points: ``eval/test/episode_02``, or ``…/round_01`` (MAML)."""
    points = len(curve.labels)
    kind, first = ("round", 0) if curve.rounds else ("episode", 1)
    width = max(2, len(str(points)))
    shown = chosen_points(points, MAX_POINTS)
    return {f"eval/{curve.split}/{kind}_{point + first:0{width}d}": point for point in shown}


def memory_metrics(device: torch.device) -> dict[str, float]:
    """Return ``time/memory``, the peak memory of this process in MB; on CUDA also ``time/device_memory``."""
    metrics = {}
    if sys.platform != "win32":
        import resource  # there is none on Windows

        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
        metrics["time/memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if device.type == "cuda":
        metrics["time/device_memory"] = torch.cuda.max_memory_allocated(device) / 2**20
    return metrics


def family_card(family: TaskFamily) -> str:
    """Return the family's docstring with its lengths and spaces, for the page "Text"."""
    spaces = f"observation {short_space(family.observation_space)}, action {short_space(family.action_space)}"
    head = f"{type(family).__name__}: episode × trial {length(family)}, {spaces}"
    return f"{head}\n\n{inspect.cleandoc(type(family).__doc__ or '')}\n"


def layout(
    curves: Mapping[str, AdaptationCurve], tags: Iterable[str] = (), first: Sequence[str] = ()
) -> dict[str, dict[str, list[Any]]]:
    """Return the page "custom scalars": an overview, then for each split one chart of all points, and one per point.

    The overview has the adaptation on the splits `first`, and those charts of `OVERVIEW` that match any of `tags`.
    TensorBoard shares a chart between runs only if their descriptions are equal; hence no chart lists its points. It
    shows charts with an interval after the others and in reverse order; hence the last point comes first here.
    """
    written = list(tags)
    every = {split: _charts(curve) for split, curve in curves.items()}
    overview: dict[str, list[Any]] = {}
    for split in (split for split in first if split in every):
        chosen = dict.fromkeys(("all points", curves[split].labels[-1], curves[split].labels[0]))
        overview |= {f"{split}: {name}": every[split][name] for name in chosen}
    for title, names in OVERVIEW.items():
        if any(re.fullmatch(names, tag) for tag in written):
            overview[title] = ["Multiline", [rf"^{names}$"]]
    page = {"overview": overview} if overview else {}
    return page | {f"adaptation on {split}": charts for split, charts in every.items()}


def _charts(curve: AdaptationCurve) -> dict[str, list[Any]]:
    """Make one chart of all points, and one of each point with its interval, the last point first."""
    charts: dict[str, list[Any]] = {
        "all points": ["Multiline", [rf"^eval/{re.escape(curve.split)}/(episode|round)_\d+$"]]
    }
    for tag, point in reversed(point_tags(curve).items()):
        charts[curve.labels[point]] = ["Margin", [tag, f"{tag}_low", f"{tag}_high"]]
    return charts


class Logger:
    """A writer of a run's metrics to `run_dir`, which also shows progress. Use it as a context manager.

    `values` is the resolved configuration, and `start` the progress at which the run starts: lines that a killed run
    wrote after that are dropped, so that the files of a resumed run equal those of an uninterrupted one. `splits` are
    those of the evaluation at the end, whose scores the page "HParams" shows with the configuration.
    """

    def __init__(
        self,
        run_dir: Path,
        values: dict[str, Any],
        start: Counters,
        texts: Mapping[str, str],
        console: Console,
        splits: Sequence[str] = (),
        warn: Warn | None = None,
    ) -> None:
        self.total, self.eval_splits, self.console = int(values["total_iterations"]), values["eval_splits"], console
        self.tags: set[str] = set()  # of the scalars written so far
        self.curves: dict[str, AdaptationCurve] = {}  # the latest of each split
        self.page: dict[str, dict[str, list[Any]]] = {}  # the custom scalars
        self.resumed, self.drawn = start.iteration > 0, start.seconds
        purge = start.env_steps + 1 if self.resumed else None
        rest = f"all metrics go on in {run_dir / 'metrics.jsonl'}."
        writer = functools.partial(SummaryWriter, str(run_dir), purge_step=purge, flush_secs=10)
        self.writer = Guarded(writer, warn or self.say, rest)
        for name, text in {"config": as_yaml(values), **texts}.items():
            self.writer("add_text", name, _verbatim(text), start.env_steps)
        self._add_hparams(values, splits)
        damaged = _truncate(run_dir / "metrics.jsonl", start.iteration)
        if damaged:
            self.say(f"Damaged lines left out of {run_dir / 'metrics.jsonl'}: {damaged}")
        self.file = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self.adaptation = ""  # the latest evaluation, in words
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=600.0,  # seconds: over evaluations, and iterations longer than rich's 30 seconds
            disable=console.quiet or not console.is_terminal,
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
    ) -> dict[str, float]:
        """Write the metrics of an iteration, and the curves if it was evaluated.

        Returns the metrics, including those of the evaluation.
        """
        self._add_scalars(metrics, counters)
        due = counters.seconds - self.drawn >= FIGURE_SECONDS
        metrics = metrics | self.evaluation(counters, curves or {}, due)
        record: dict[str, Any] = {"iteration": counters.iteration, "env_steps": counters.env_steps}
        record |= {"seconds": round(counters.seconds, 3)}
        self.file.write(to_json(record | metrics) + "\n")
        self.file.flush()
        self._show(counters, metrics, bool(curves))
        return metrics

    def evaluation(
        self, counters: Counters, curves: Mapping[str, AdaptationCurve], figures: bool = True
    ) -> dict[str, float]:
        """Write the adaptation curves of some splits, with `figures` or without; return their scalars."""
        metrics: dict[str, float] = {}
        for curve in curves.values():
            metrics |= curve_metrics(curve)
            if figures:
                self.writer.draw("add_figure", f"eval/{curve.split}/curve", curve.plot, counters.env_steps, close=False)
                self.writer.draw(
                    "add_figure", f"eval/{curve.split}/steps", curve.plot_steps, counters.env_steps, close=False
                )
                self.drawn = counters.seconds
        for split, gap in generalisation_gaps(curves).items():
            metrics |= dict(zip((f"eval/{split}/generalisation_gap{end}" for end in ("", "_low", "_high")), gap))
        self._add_scalars(metrics, counters)
        if curves:
            # Splits that are evaluated during training come before those evaluated only at the end.
            known = self.curves | dict(curves)
            self.curves = {split: known[split] for split in sorted(known, key=lambda s: s not in self.eval_splits)}
            self.adaptation = "".join(map(_in_words, curves.values()))
        page = layout(self.curves, self.tags, self.eval_splits)
        if page != self.page and (self.curves or not self.resumed):  # a resumed run has a page with curves already
            self.writer("add_custom_scalars", page)
            self.page = page
        return metrics

    def picture(self, counters: Counters, tag: str, data: bytes) -> None:
        """Show a PNG or GIF file under `tag`. For a GIF SummaryWriter.add_video would need an old moviepy."""
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self.writer(
            "_get_file_writer.add_summary", Summary(value=[Summary.Value(tag=tag, image=image)]), counters.env_steps
        )

    def _add_scalars(self, metrics: Mapping[str, float], counters: Counters) -> None:
        # One event for all: SummaryWriter.add_scalar would write one for each, which takes ten times as long.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self.writer("_get_file_writer.add_summary", Summary(value=values), counters.env_steps)
        self.tags |= metrics.keys()

    def say(self, sentence: str) -> None:
        """Print a line, above the progress bar if there is one."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)  # a command stays one line

    def _add_hparams(self, values: dict[str, Any], splits: Sequence[str]) -> None:
        """Write the page "HParams". SummaryWriter.add_hparams would make a second run and a wrong point at step 0."""
        flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
        for name in ("family", "agent"):
            flat |= {f"{name}.{key}": value for key, value in values[name].items()}
            flat[name] = flat.pop(f"{name}.name")
        plain = {k: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for k, v in flat.items()}
        evaluated = dict.fromkeys([*values["eval_splits"], *splits])
        # TensorBoard's table shows the first five by default.
        tags = [f"eval/{split}/{name}" for name in ("score", "normalised") for split in evaluated]
        tags += ["train/return", "train/adaptation"]
        for summary in hparams(plain, dict.fromkeys(tags, 0.0)):
            self.writer("_get_file_writer.add_summary", summary)

    def _show(self, counters: Counters, metrics: dict[str, float], evaluated: bool) -> None:
        speed = f"{_amount(metrics.get('time/steps_per_second', math.nan))} steps/s"
        text = f"{speed}, return {metrics.get('train/return', math.nan):.3g}"
        self.bar.update(self.task, completed=counters.iteration, description=f"{text}{self.adaptation}")
        every = max(1, self.total // LINES)
        if not self.console.is_terminal and (evaluated or counters.iteration % every == 0):
            progress = f"iteration {counters.iteration}/{self.total}, {_amount(counters.env_steps)} steps"
            self.console.print(f"{progress}, {text}{self.adaptation}", markup=False, highlight=False, soft_wrap=True)


def _in_words(curve: AdaptationCurve) -> str:
    """Write a curve as ``, test 7.12 → 10.4 → 10.6``, with at most three points."""
    mean = curve.mean()
    return f", {curve.split} " + " → ".join(f"{mean[point]:.3g}" for point in chosen_points(len(mean), 3))


def _amount(number: float) -> str:
    """Write 1234567 as 1.23M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _verbatim(text: str) -> str:
    """Indent a text to a block that TensorBoard's Markdown shows unchanged."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _truncate(path: Path, iterations: int) -> int:
    """Keep the lines of the first `iterations` iterations unchanged; return how many other lines are damaged.

    An incomplete last line, which a killed run leaves, is dropped without being counted.
    """
    if not path.exists():
        return 0
    *lines, _ = path.read_bytes().split(b"\n")
    numbers = [_iteration(line) for line in lines]
    kept = [line for line, number in zip(lines, numbers, strict=True) if number is not None and number <= iterations]
    path.write_bytes(b"".join(line + b"\n" for line in kept))
    return numbers.count(None)


def _iteration(line: bytes) -> int | None:
    """Return the iteration of a line; None for a damaged line."""
    try:
        record = json.loads(line)
    except ValueError:  # no JSON, or no UTF-8
        return None
    number = record.get("iteration") if isinstance(record, dict) else None
    return number if type(number) is int else None
