"""The picture of an agent's accuracy after k examples, compared with hand-written players."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metarl.agents.family_extras import register_picture
from metarl.agents.random import RandomAgent
from metarl.agents.reference.supervised.digits import NearestNeighbour
from metarl.agents.reference.supervised.waves import LeastSquares
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colours
from metarl.evaluation.playback import Watched
from metarl.report.few_shot.grading import answers
from metarl.report.figures import title

TASKS = 300
"""Tasks on which learned and written-down players are compared."""


def curves_of(
    name: str, agent: Agent, family: TaskFamily, curve: AdaptationCurve, greedy: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Return an agent's curves by name, one for each round: ``(tasks, instances)`` or ``(tasks, points)``.

    They are fractions of right answers if actions are labels, else squared errors.
    """
    tasks = min(TASKS, curve.scores.shape[1])
    rounds = answers(agent, family, curve.split, tasks, curve.eval_seed or 0, greedy)
    found = {}
    for number, each in enumerate(rounds):
        label = name if len(rounds) == 1 else f"{name}, {curve.labels[number]}"
        found[label] = each.by_instance() if isinstance(family, FewShotDigits) else each.squared_error.mean(axis=1)
    return found


def figure_of(curve: AdaptationCurve, curves: Mapping[str, NDArray[Any]], labels: bool) -> Figure:
    """Draw fractions of right answers by instance of a class (`labels`), or squared errors by point of the episode."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.add_subplot()
    chosen = colours(curves)
    for number, (name, values) in enumerate(curves.items()):
        at = np.arange(values.shape[1]) + 1
        low, high = stats.interval(values[None])
        ax.plot(at, values.mean(axis=0), color=chosen[name], linewidth=1.2 if number else 2.2, label=name, marker=".")
        ax.fill_between(at, low, high, color=chosen[name], alpha=0.2, linewidth=0)
    ax.set_ylim(0.0, 1.02 if labels else None)
    ax.set_xlabel("instance of the class" if labels else "point of the trial")
    ax.set_ylabel("share of right answers" if labels else "squared error")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    tasks = len(next(iter(curves.values())))
    ax.legend(title=f"mean over the same {tasks} tasks, 95 % interval", title_fontsize="small", fontsize="small")
    ax.set_title(title(curve, "what does it know after k examples?"), fontsize="medium")
    return figure


def instances(family: FewShotDigits, curve: AdaptationCurve, watched: Watched) -> Figure:
    """Draw the accuracy at the k-th instance of a class, next to the nearest neighbour and random answers."""
    device = watched.device
    players: dict[str, Agent] = {
        "nearest neighbour": NearestNeighbour(family.num_classes, device),
        "random": RandomAgent(family, device),
    }
    return _next_to(players, family, curve, watched, labels=True)


def points(family: Sinusoid, curve: AdaptationCurve, watched: Watched) -> Figure:
    """Draw the squared error at the k-th point, next to a least-squares fit where values are shown."""
    fit = {"least squares": LeastSquares(family, watched.device)} if family.show_previous else {}
    return _next_to(fit, family, curve, watched, labels=False)


def _next_to(
    players: Mapping[str, Agent], family: TaskFamily, curve: AdaptationCurve, watched: Watched, labels: bool
) -> Figure:
    found = curves_of(curve.agent, watched.agent, family, curve, watched.greedy)
    for name, player in players.items():
        found |= curves_of(name, player, family, curve)
    return figure_of(curve, found, labels)


register_picture(FewShotDigits, "instances", instances)
register_picture(Sinusoid, "points", points)
