"""The figure of a comparison: every agent's curve on each split, and final performance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import OPTIMUM, RANDOM

Curves = Mapping[str, AdaptationCurve]
"""The curves of one split, by agent."""


def figure(
    by_split: Mapping[str, Curves], bounds: Mapping[str, Mapping[str, float]], shades: Mapping[str, str], title: str
) -> Figure:
    """Draw the curves of each split over the experience on a task; below, performance profiles and the last points.

    `bounds` has the known "oracle" and "random" returns of each split, `shades` a colour for each agent.
    """
    every = [curve for curves in by_split.values() for curve in curves.values()]
    stepped = any(curve.steps is not None for curve in every)
    scored = any(curve.scale is not None for curve in every)  # without an optimum, scores cannot be normalised
    heights = [1.25, *[1.0] * (stepped + scored)]
    whole = Figure(figsize=(5.2 * max(len(by_split), 2), 3.75 * sum(heights)), layout="constrained")
    grid = whole.add_gridspec(len(heights), 2 * len(by_split), height_ratios=heights)
    for number, (split, curves) in enumerate(by_split.items()):
        place = slice(2 * number, 2 * number + 2)
        draw_curves(whole.add_subplot(grid[0, place]), split, curves, bounds[split], shades)
        if stepped:
            _draw_steps(whole.add_subplot(grid[1, place]), curves, shades)
    if scored:
        held_out = "test" if "test" in by_split else list(by_split)[-1]
        half = len(by_split)
        _draw_profiles(whole.add_subplot(grid[-1, :half]), held_out, by_split[held_out], shades)
        _draw_bars(whole.add_subplot(grid[-1, half:]), by_split, shades)
    handles, labels = whole.axes[0].get_legend_handles_labels()
    whole.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
    whole.suptitle(title)
    return whole


def draw_curves(ax: Axes, split: str, curves: Curves, bounds: Mapping[str, float], shades: Mapping[str, str]) -> None:
    """Draw the agents' curves with their intervals over the environment steps spent on the task."""
    for name, whole in curves.items():
        curve = whole.blocks()  # single pulls of a bandit are noisy: means over ten
        # Agents that adapt in rounds learn only between two rounds.
        style = "steps-post" if curve.rounds else "default"
        ax.plot(curve.env_steps, curve.mean(), "o-", markersize=3, color=shades[name], label=name, drawstyle=style)
        band: dict[str, Any] = {"step": "post"} if curve.rounds else {}
        ax.fill_between(curve.env_steps, *curve.interval(), color=shades[name], alpha=0.2, linewidth=0, **band)
    for name, value in bounds.items():
        colour, label = (OPTIMUM, "known-task optimum") if name == "oracle" else (RANDOM, "random policy, mean")
        ax.axhline(value, linestyle="--", linewidth=1.2, color=colour, label=label)
    spans = [curve.env_steps[-1] for curve in curves.values() if curve.env_steps[-1] > 0]
    if spans and max(spans) > 8 * min(spans):
        _logarithmic(ax, linear_to=max(1.0, min(spans) / 2))
    if spans:
        ax.set_xlim(-0.02 * min(spans), 1.3 * max(spans))
    ax.set_title(split)
    ax.set_xlabel("environment steps of experience on the task")
    ax.set_ylabel("return of an episode")
    ax.grid(alpha=0.3)


def _draw_steps(ax: Axes, curves: Curves, shades: Mapping[str, str]) -> None:
    """Draw the mean reward of every step of the trial, with the random policy and the oracle."""
    known = {name: curve.steps for name, curve in curves.items() if curve.steps is not None}
    for name, steps in known.items():
        ax.stairs(steps.mean(), steps.edges, baseline=None, color=shades[name], linewidth=1.6)
    if known:
        ordered = sorted(known.values(), key=lambda steps: float(steps.edges[-1]))
        shortest, longest = ordered[0], ordered[-1]
        for name, values in shortest.bounds.items():
            shade = OPTIMUM if name == "oracle" else RANDOM
            ax.stairs(values, shortest.edges, baseline=None, color=shade, linestyle="--", linewidth=1.2)
        if longest.edges[-1] > 8 * shortest.edges[-1]:
            _logarithmic(ax, linear_to=float(shortest.edges[-1]))
    ax.set_xlabel("environment steps on the task")
    ax.set_ylabel("mean reward of a step")
    ax.grid(alpha=0.3)


def _logarithmic(ax: Axes, linear_to: float) -> None:
    """Make the horizontal axis logarithmic beyond `linear_to`."""
    ax.set_xscale("symlog", linthresh=linear_to)
    near = 0.35 * linear_to  # in the linear part, a label this close to 0 would touch it
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "" if 0 < value < near else f"{value:,.0f}"))


def _draw_profiles(ax: Axes, split: str, curves: Curves, shades: Mapping[str, str]) -> None:
    """Draw the fraction of tasks whose last point is above a threshold (Agarwal et al. 2021)."""
    known = {name: scores for name, curve in curves.items() if (scores := curve.last_normalised()) is not None}
    if known:
        every = np.concatenate([scores.ravel() for scores in known.values()])
        low, high = np.percentile(every, [1, 99])
        thresholds = np.linspace(float(low), float(high), 60)
        for name, scores in known.items():
            band = stats.performance_profile_interval(scores, thresholds)
            ax.plot(thresholds, stats.performance_profile(scores, thresholds), color=shades[name])
            ax.fill_between(thresholds, *band, color=shades[name], alpha=0.2, linewidth=0)
    ax.set_ylim(0.0, 1.02)
    ax.set_title(f"on how many tasks of {split} is it that good?")
    ax.set_xlabel("normalised last point (0 random, 1 optimum)")
    ax.set_ylabel("share of tasks above it")
    ax.grid(alpha=0.3)


def _draw_bars(ax: Axes, by_split: Mapping[str, Curves], shades: Mapping[str, str]) -> None:
    """Draw the last point of every agent on each split, normalised if the scale is known."""
    width = 0.8 / len(shades)
    for number, (name, shade) in enumerate(shades.items()):
        for place, curves in enumerate(by_split.values()):
            curve = curves.get(name)
            if curve is None or curve.scale is None or (scores := curve.last_normalised()) is None:
                continue
            low, high = (stats.normalise(end[-1], *curve.scale) for end in curve.interval())
            middle = float(scores.mean())
            error = [[max(0.0, middle - float(low))], [max(0.0, float(high) - middle)]]
            ax.bar(place + (number + 0.5) * width - 0.4, middle, width, yerr=error, color=shade, capsize=2)
    ax.set_xticks(range(len(by_split)), list(by_split))
    ax.axhline(1.0, linestyle="--", linewidth=1.0, color=OPTIMUM)
    ax.axhline(0.0, linestyle="--", linewidth=1.0, color=RANDOM)
    ax.set_title("last point on each split")
    ax.set_ylabel("normalised (0 random, 1 optimum)")
