"""The picture of embeddings: a dot for each task of an evaluation, coloured by the true task."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarl.core.rollout import Agent, Embedder
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.playback import Watched
from metarl.report.figures import Panel, panels, title

Array = NDArray[np.float64]

MOST = 4
"""Most numbers of the task that are shown, one panel each."""


def nothing_to_show(agent: Agent, rounds: int) -> str:
    """Return the reason, a sentence, why there is no picture of embeddings for this many rounds; empty if there is."""
    player = getattr(agent, "title", type(agent).__name__)
    if not isinstance(agent, Embedder):
        return f"{player} has no task_embedding(memory), a vector for the task; PEARL has one."
    return "" if rounds > 1 else f"{player} infers the task between rounds, and a trial of one round has none."


def check_embedded(agent: Agent, rounds: int) -> None:
    """Raise ValueError if there is no picture of embeddings."""
    missing = nothing_to_show(agent, rounds)
    if missing:
        raise ValueError(f"There is no embedding to show: {missing}")


def embedding_figure(curve: AdaptationCurve, watched: Watched) -> Figure | None:
    """Draw the embeddings of the tasks in the plane, in a panel for each number of the task, which gives the colour.

    The embeddings are those on which the last round was played. Of more than two numbers the two first principal
    components are drawn. None where no number of the task varies. Raises ValueError if the agent has no embeddings.
    """
    check_embedded(watched.agent, len(curve.labels))
    assert watched.embedding is not None, "an agent in rounds has adapted"
    embedding = watched.embedding.detach().cpu().numpy().astype(np.float64)
    places, axes_names = projected(embedding)
    shown = clearest(shades(panels(watched.task, places[:, 0])), places)
    if not shown:
        return None
    figure = Figure(figsize=(min(max(4.6 * len(shown), 6.4), 16.0), 4.6), layout="constrained")
    for ax, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        dots = ax.scatter(*places.T, c=panel.values[:, 0], s=14, linewidths=0, cmap="viridis")
        figure.colorbar(dots, ax=ax, label=f"the task's {panel.name}")
        ax.set_aspect("equal", adjustable="datalim")  # equal scales, so that distances are comparable
        ax.set_xlabel(axes_names[0])
        ax.set_ylabel(axes_names[1])
        ax.grid(alpha=0.3)
    where = "where do the tasks lie in its embedding, after " + curve.labels[-1] + "?"
    figure.suptitle(title(curve, where, 44 * max(len(shown), 2)), fontsize="medium")
    return figure


def projected(embedding: Array) -> tuple[Array, tuple[str, str]]:
    """Project embeddings ``(tasks, Z)`` to the plane ``(tasks, 2)``; return the positions and the axis names.

    Embeddings of one or two numbers, or of a single task, are not projected; larger ones are projected to principal
    components, with signs that make the largest weight of each positive.
    """
    size = embedding.shape[1]
    if min(embedding.shape) < 2 or size == 2:
        places = np.zeros((len(embedding), 2))
        places[:, : min(size, 2)] = embedding[:, :2]
        return places, ("z[0]", "z[1]" if size > 1 else "")
    centred = embedding - embedding.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    components = centred @ (directions * np.sign(largest)).T
    whole = max(float(centred.var(axis=0).sum()), 1e-300)
    shares = [100.0 * float(components[:, n].var()) / whole for n in (0, 1)]
    first, second = (f"principal component {n} ({share:.0f} % of variance)" for n, share in enumerate(shares, 1))
    return components[:, :2], (first, second)


def shades(found: list[Panel]) -> list[Panel]:
    """Return a panel for each number; a position in the plane counts as two."""
    single = []
    for panel in found:
        several = panel.values.shape[1] > 1
        for n, column in enumerate(panel.values.T):
            single.append(Panel(f"{panel.name}[{n}]" if several else panel.name, column[:, None]))
    return single


def clearest(found: list[Panel], places: Array) -> list[Panel]:
    """Return the `MOST` panels, in order, whose numbers have the best linear fit on the positions (R²)."""
    centred = places - places.mean(axis=0)
    missed = []
    for panel in found:
        values = panel.values[:, 0] - panel.values.mean()
        plane = centred @ np.linalg.lstsq(centred, values, rcond=None)[0]
        missed.append(float(np.square(values - plane).sum() / np.square(values).sum()))
    return [found[index] for index in sorted(np.argsort(missed, kind="stable")[:MOST])]
