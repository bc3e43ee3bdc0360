"""The metrics of an iteration and of an evaluation, by their tags in TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from metarl.core.rollout import Rollout, episode_lengths, episode_returns
from metarl.evaluation.curve import AdaptationCurve, generalisation_gaps
from metarl.evaluation.results import chosen_points
from metarl.learning import ranks

MAX_POINTS = 10
"""The largest number of points of an adaptation curve that get tags of their own."""


def trial_metrics(trial: list[Rollout], episodes: int) -> dict[str, float]:
    """Return the metrics ``train/…`` of the returns on meta-training tasks, from rounds of `episodes` episodes."""
    rows = trial[0].mask.shape[1]
    returns = [ranks.mean(episode_returns(rollout, episodes).mean(0), rows) for rollout in trial]  # (episodes,) each
    points = returns[0] if len(returns) == 1 else [row.mean() for row in returns]
    values = [float(point) for point in points]
    lengths = [float(ranks.mean(episode_lengths(rollout, episodes).mean(), rows)) for rollout in trial]
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
    names += ["cumulative_regret", "regret_per_episode", "regret_per_step", "success_first", "success"]
    names += ["cvar_10", "cvar_10_low", "cvar_10_high", "worst_task"]
    return metrics | {f"eval/{curve.split}/{name}": summary[name] for name in names if name in summary}


def all_curve_metrics(curves: Mapping[str, AdaptationCurve]) -> dict[str, float]:
    """Return the metrics of all splits, with the gaps between training and the others."""
    metrics: dict[str, float] = {}
    for curve in curves.values():
        metrics |= curve_metrics(curve)
    for split, gap in generalisation_gaps(curves).items():
        metrics |= dict(zip((f"eval/{split}/generalisation_gap{end}" for end in ("", "_low", "_high")), gap))
    return metrics


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
