"""The writer of a run's log, which also shows progress in the terminal."""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.files import to_json
from metarl.evaluation.results import chosen_points
from metarl.report.table import measures_line
from metarl.training.checkpoint import Counters
from metarl.training.config.parsing import as_yaml
from metarl.training.faults.guarded import Guarded, Warn
from metarl.training.log.event_files import rewind, take_out
from metarl.training.log.former import changes, keep_lines
from metarl.training.log.hparams import shown
from metarl.training.log.metrics import all_curve_metrics
from metarl.training.log.pages import layout, verbatim

LINES = 20
"""The number of progress lines of a run whose output is not a terminal."""


FIGURE_SECONDS = 20.0
"""The least seconds of training between two figures of the curve, each of which takes a fifth of a second."""


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
        # The last step that is in every file; what was written beyond it, or before a first checkpoint, is not.
        self.start = _step(start) if self.resumed else -1
        self.earlier = rewind(run_dir, self.start, self._at_each_start)
        # The mark is for a TensorBoard that is running, and has read what is no longer there.
        writer = functools.partial(SummaryWriter, str(run_dir), purge_step=self.start + 1, flush_secs=10)
        rest = f"all metrics are still written to {run_dir / 'metrics.jsonl'}."
        warn = warn or self.say
        self.writer = Guarded(writer, warn, rest)
        for name, text in {"config": as_yaml(values), **texts}.items():
            self.writer("add_text", name, verbatim(text), _step(start))
        self._add_hparams(values, splits)
        changed, edited = changes(run_dir / "runtime.json", texts.get("runtime", "{}"), values)
        if changed:
            self.say(changed)
        if edited:
            warn(edited)
        damaged = keep_lines(run_dir / "metrics.jsonl", start.iteration)
        if damaged:
            self.say(f"Damaged or repeated lines left out of {run_dir / 'metrics.jsonl'}: {damaged}")
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

    def flush(self) -> None:
        """Write all lines and points to the disk. Before a checkpoint, so that none of those before it is lost.

        A kill, or a computer that fails, would otherwise lose some that no resume writes again.
        """
        self.writer("flush")
        os.fsync(self.file.fileno())

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
        if _step(counters) == self.start:  # a finished run plays its last evaluation again
            take_out(self.earlier, self.start, lambda tag, step: step == self.start and tag.startswith("eval/"))
        metrics = all_curve_metrics(curves)
        for curve in curves.values():
            if figures:
                self.writer.draw("add_figure", f"eval/{curve.split}/curve", curve.plot, _step(counters), close=False)
                self.writer.draw(
                    "add_figure", f"eval/{curve.split}/steps", curve.plot_steps, _step(counters), close=False
                )
                self.drawn = counters.seconds
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

    def measures(self, counters: Counters, split: str, found: Mapping[str, float]) -> None:
        """Write and show the measures that a family has next to the return."""
        self._add_scalars({f"eval/{split}/{name}": value for name, value in found.items()}, counters)
        self.say(measures_line(split, found))

    def picture(self, counters: Counters, tag: str, data: bytes) -> None:
        """Show a PNG or GIF file under `tag`. For a GIF SummaryWriter.add_video would need an old moviepy."""
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self.writer(
            "_get_file_writer.add_summary", Summary(value=[Summary.Value(tag=tag, image=image)]), _step(counters)
        )

    def _at_each_start(self, tag: str, step: int) -> bool:
        """Tell whether each start from a checkpoint writes this: texts of that step, and the run's hyperparameters."""
        return tag.startswith("_hparams_/") or (tag.endswith("/text_summary") and step == self.start)

    def _add_scalars(self, metrics: Mapping[str, float], counters: Counters) -> None:
        # One event for all: SummaryWriter.add_scalar would write one for each, which takes ten times as long.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self.writer("_get_file_writer.add_summary", Summary(value=values), _step(counters))
        self.tags |= metrics.keys()

    def say(self, sentence: str) -> None:
        """Print a line, above the progress bar if there is one."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)  # a command stays one line

    def _add_hparams(self, values: dict[str, Any], splits: Sequence[str]) -> None:
        """Write the page "HParams". SummaryWriter.add_hparams would make a second run and a wrong point at step 0."""
        evaluated = dict.fromkeys([*values["eval_splits"], *splits])
        # TensorBoard's table shows the first five by default.
        tags = [f"eval/{split}/{name}" for name in ("score", "normalised") for split in evaluated]
        tags += ["train/return", "train/adaptation"]
        for summary in hparams(shown(values), dict.fromkeys(tags, 0.0)):
            self.writer("_get_file_writer.add_summary", summary)

    def _show(self, counters: Counters, metrics: dict[str, float], evaluated: bool) -> None:
        speed = f"{_amount(metrics.get('time/steps_per_second', math.nan))} steps/s"
        text = f"{speed}, return {metrics.get('train/return', math.nan):.3g}"
        self.bar.update(self.task, completed=counters.iteration, description=f"{text}{self.adaptation}")
        every = max(1, self.total // LINES)
        if not self.console.is_terminal and (evaluated or counters.iteration % every == 0):
            progress = f"iteration {counters.iteration}/{self.total}, {_amount(counters.env_steps)} steps"
            self.console.print(f"{progress}, {text}{self.adaptation}", markup=False, highlight=False, soft_wrap=True)


class NoLog:
    """The logger of a rank other than 0: it writes and shows nothing."""

    def __init__(
        self, run_dir: Path, values: Any, start: Counters, texts: Any, console: Console, splits: Any, warn: Any
    ) -> None:
        self.console = console
        self.bar = Progress(console=console, disable=True)

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: no file is open."""

    def iteration(
        self, counters: Counters, metrics: dict[str, float], curves: Mapping[str, AdaptationCurve] | None = None
    ) -> dict[str, float]:
        """Return what `Logger.iteration` does."""
        return metrics | self.evaluation(counters, curves or {})

    def evaluation(
        self, counters: Counters, curves: Mapping[str, AdaptationCurve], figures: bool = True
    ) -> dict[str, float]:
        """Return what `Logger.evaluation` does."""
        return all_curve_metrics(curves)

    def measures(self, counters: Counters, split: str, found: Mapping[str, float]) -> None:
        """Do nothing."""

    def picture(self, counters: Counters, tag: str, data: bytes) -> None:
        """Do nothing."""

    def say(self, sentence: str) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


def _step(counters: Counters) -> int:
    """Return the step of TensorBoard: the environment steps of training, or the iteration of a run without any."""
    return counters.env_steps or counters.iteration  # an agent that learns from histories plays nothing itself


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
