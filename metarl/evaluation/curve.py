"""Adaptation curves: the results of an evaluation, with files and plots, and the combination of several curves."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.evaluation import stats, storage
from metarl.evaluation.drawing.colours import colour
from metarl.evaluation.drawing.plot import plot_curve
from metarl.evaluation.files import damaged, replacing
from metarl.evaluation.results import Array, Results, chosen_points, short
from metarl.evaluation.step_curve import combine_steps


class AdaptationCurve(Results):
    """Returns of an agent on the tasks of a split, by its experience on each task.

    A *point* is an episode of the trial (for an agent that adapts in its memory) or a round of adaptation (for one that
    adapts by gradient steps between rounds; then `rounds` is True, and a point is the mean over the round's episodes).
    A *task* is one of several distinct tasks; its result is a mean over `repeats` trials. A *seed* is a training run.
    `Results` has the fields and the statistics.
    """

    def plot(self, ax: Axes | None = None, x: str = "points", bounds: bool = True) -> Figure:
        """Draw the mean with its 95 % band, and random and oracle as dashed lines, on `ax` or a new figure.

        `x` selects the horizontal axis: "points" (the episode of the trial, or the number of gradient steps), or the
        experience on the task before each point, in "episodes" or "env_steps", which allows comparing agents that adapt
        in their memory with agents that adapt by gradients. The latter two use a symmetric logarithmic scale. If the
        curve stays within the last tenth of the way from random to oracle, the random line is left out, because it
        would make the curve look flat; the legend has its value. Without `bounds` neither line is drawn, for a second
        curve on the same axes. Raises ValueError for another `x`.
        """
        return plot_curve(self, ax, x, bounds)

    def plot_steps(self) -> Figure | None:
        """Draw the reward at every step of the trial, with random and oracle; return None without `steps`."""
        if self.steps is None:
            return None
        return self.steps.plot(label=self.agent, colour=colour(self.agent), title=f"{self.family}, {self.split}")

    def save(self, path: str | Path) -> list[Path]:
        """Write ``<path>.json`` (summary, all points with intervals), ``.csv`` (every task) and ``.png`` (the plot).

        With `steps`, also write ``<path>_steps.csv`` (every task in every bin) and ``<path>_steps.png``. `path` is a
        stem such as ``runs/x/evaluation/test``; missing folders are created. Returns the paths, the JSON file first.
        `load` reads the curve back without loss.
        """
        storage.write(self, path)
        paths = [storage.with_suffix(path, suffix) for suffix in (".json", ".csv", ".png")]
        _draw(self.plot(), paths[2])
        if (figure := self.plot_steps()) is not None:
            steps_path = storage.steps_path(path)
            paths += [steps_path, steps_path.with_suffix(".png")]
            _draw(figure, paths[-1])
        return paths

    @classmethod
    def load(cls, path: str | Path) -> AdaptationCurve:
        """Read a curve written by `save(path)`, of this or an earlier version; `path` is the stem or the JSON file.

        Raises FileNotFoundError if there is none, and ValueError, which names the file, if any of its files is damaged
        or missing, or if they do not belong to one evaluation.
        """
        found = storage.read(path)
        try:
            return cls(**found)
        except ValueError as error:  # of shapes that do not agree
            raise damaged(storage.with_suffix(path, ".json"), str(error).removesuffix(".")) from error

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per seed, task and point.

        Columns: seed, task, point (its label), episodes and env_steps (of experience before it), return, random, oracle
        (NaN if unknown), and success if the family counts it. Raises ImportError if pandas, which metarl does not
        require, is not installed.
        """
        return storage.to_frame(self)

    def _repr_png_(self) -> bytes:
        """Return the plot, for notebooks."""
        file = io.BytesIO()
        self.plot().savefig(file, format="png", dpi=100)
        return file.getvalue()

    def _repr_html_(self) -> str:
        """Return a table of the points and the plot, for notebooks."""
        low, high = self.interval()
        shown = chosen_points(len(self.labels), 8)
        cells = {
            "": [html.escape(self.labels[point]) for point in shown],
            "mean": [short(self.mean()[point]) for point in shown],
            "95 %": [f"[{short(low[point])}, {short(high[point])}]" for point in shown],
        }
        rows = "".join(
            f"<tr><th>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
            for name, row in cells.items()
        )
        title = html.escape(f"{self.agent} on {self.family}, {self.split}: return of an episode")
        image = base64.b64encode(self._repr_png_()).decode()
        return f'<p>{title}</p><table>{rows}</table><img alt="{title}" src="data:image/png;base64,{image}">'


def _draw(figure: Figure, path: Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def combine(curves: Sequence[AdaptationCurve]) -> AdaptationCurve:
    """Combine evaluations of several training runs on the same tasks into one curve with all seeds.

    Raises ValueError if the curves differ in anything but returns, steps and training.
    """
    if not curves:
        raise ValueError("There must be at least one curve to combine.")
    first = curves[0]
    for other in curves[1:]:
        _check_protocol(first, other)
    weights = [len(curve.returns) for curve in curves]
    totals, noise = [curve.total_steps for curve in curves], [curve.noise for curve in curves]
    success, halves = [curve.success for curve in curves], [curve.halves for curve in curves]
    return replace(
        first,
        returns=np.concatenate([curve.returns for curve in curves]),
        env_steps=np.average([curve.env_steps for curve in curves], axis=0, weights=weights),
        total_steps=None if None in totals else float(np.average(totals, weights=weights)),  # type: ignore[arg-type]
        training=tuple(each for curve in curves for each in curve.training),
        steps=combine_steps([curve.steps for curve in curves]),
        noise=None if any(each is None for each in noise) else np.concatenate(noise),  # type: ignore[arg-type]
        success=None if any(each is None for each in success) else np.concatenate(success),  # type: ignore[arg-type]
        halves=None if any(each is None for each in halves) else np.concatenate(halves),  # type: ignore[arg-type]
    )


def _check_protocol(first: AdaptationCurve, other: AdaptationCurve) -> None:
    """Raise ValueError unless both curves have the same protocol and tasks."""
    for name in ("agent", "family", "split", "greedy", "rounds", "labels", "repeats", "eval_seed"):
        if getattr(first, name) != getattr(other, name):
            raise ValueError(
                f"Only curves of one protocol can be combined, but {name} differs: "
                f"{getattr(first, name)!r} and {getattr(other, name)!r}."
            )
    for name in ("random", "oracle", "episodes"):
        if not _equal(getattr(first, name), getattr(other, name)):
            raise ValueError(f"Only evaluations on the same tasks can be combined, but {name} differs.")
    if not _same_tasks(first.task_values, other.task_values):
        raise ValueError("Only evaluations on the same tasks can be combined, but the tasks differ.")


def _same_tasks(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Return True if the tasks' values agree where both are known (files of earlier versions have none)."""
    return not a or not b or (a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a))


def _equal(a: Any, b: Any) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def generalisation_gaps(curves: Mapping[str, AdaptationCurve]) -> dict[str, tuple[float, float, float]]:
    """Return the score on `train` minus that on each other split, with its 95 % interval, as (gap, low, high).

    The result is empty without `train`. Splits whose curves have other seeds than that of `train` are left out.
    """
    if "train" not in curves:
        return {}
    train = curves["train"].scores
    others = {name: curve.scores for name, curve in curves.items() if name != "train"}
    return {name: stats.generalisation_gap(train, got) for name, got in others.items() if len(got) == len(train)}
