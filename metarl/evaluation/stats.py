"""Statistics of adaptation curves, from NumPy arrays to NumPy arrays or floats; no torch.

`returns` is always ``(seeds, tasks, points)``: training seeds, evaluation tasks (the same for every seed), and the
points of the adaptation curve (episodes of a trial, or rounds of adaptation).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # importing scipy.stats would take each program half a second

from metarl.core.errors import short

Floats = NDArray[np.float64]


TRIM = 0.25
"""Fraction of results that the interquartile mean discards at each end."""


MANY = 1_000_000
"""Degrees of freedom of a standard error that is treated as exact."""


def mean(returns: ArrayLike) -> Floats:
    """Return the mean over seeds and tasks at each point, ``(points,)``."""
    return _three(returns).mean(axis=(0, 1))


def iqm(returns: ArrayLike) -> Floats:
    """Return the interquartile mean over all seeds and tasks at each point, ``(points,)`` (Agarwal et al. 2021).

    The lowest and the highest quarter of all seeds × tasks results (rounded down) are discarded. It is robust to a few
    failed or lucky runs, but on tasks of unequal difficulty it does not estimate a population mean.
    """
    array = _three(returns)
    return trimmed_mean(array.reshape(-1, array.shape[2]))


def trimmed_mean(results: ArrayLike, axis: int = 0) -> Floats:
    """Return the mean along an axis without the lowest and highest `TRIM` of results (rounded down); NaN if any is."""
    ordered = np.moveaxis(np.sort(np.asarray(results, dtype=np.float64), axis=axis), axis, 0)
    cut = int(TRIM * len(ordered))
    return np.where(np.isnan(ordered[-1]), np.nan, ordered[cut : len(ordered) - cut].mean(axis=0))


def interval(
    returns: ArrayLike,
    statistic: str = "mean",
    level: float = 0.95,
    *,
    every_task: bool = False,
    noise: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Return the interval (low, high) of `statistic` ("mean" or "iqm") at each point, ``(points,)`` each.

    Its meaning depends on the number of seeds:

    - one seed: *over tasks, of this agent*. What would this trained agent reach on other tasks of the same
      distribution? The variation between training seeds is not included.
    - several seeds: *over seeds and tasks*. What would other training runs reach on other tasks?

    Seeds and tasks are crossed: every seed was evaluated on the same tasks. The variance of the estimate is therefore
    the variance of the seeds plus that of the tasks minus that of single results, which both contain (two-way random
    effects). The interval is the estimate ± the square root of this variance times the t quantile with Satterthwaite's
    (1946) degrees of freedom. With three seeds that differ a lot there are two degrees of freedom, and the interval is
    honestly wide. A percentile bootstrap over three seeds is too narrow: if seeds differ, it covers the truth in 67 of
    100 studies, this interval in 95 (tests/evaluation/test_coverage.py). With two seeds that differ as much as tasks
    do, it covers the truth in 88 to 91 of 100.

    `every_task` declares that there are no other tasks. The interval is then *over seeds, on all tasks*: the t interval
    of the seeds. With one seed it is *over trials, of this agent on all tasks*, from `noise` ``(seeds, points)``, the
    standard error of each mean over repeated play of the same tasks; without `noise`, as for the "iqm" of one seed, it
    is over tasks.

    All points of a task stay together, so differences of points remain paired if `returns` holds the differences. With
    a single result low = high = that result. A point with NaN has a NaN interval. Raises ValueError for another
    statistic and for a level outside (0, 1).
    """
    if statistic not in ("mean", "iqm"):
        raise ValueError(f"statistic must be 'mean' or 'iqm', got {statistic!r}.")
    _check(level)
    array = _three(returns)
    spread = _spread(array) if statistic == "mean" else _iqm_spread(array)
    if every_task:
        known = noise is not None and statistic == "mean"
        spread = _without_tasks(spread, np.asarray(noise, dtype=np.float64) if known else None)
    return _around(mean(array) if statistic == "mean" else iqm(array), spread, level)


class Spread(NamedTuple):
    """The variance components of an estimate, ``(points,)`` each, with their degrees of freedom.

    `seeds` and `tasks` are the variances of the estimate over other seeds and other tasks. Both include `cells`, the
    variance of single results (one seed on one task).
    """

    seeds: tuple[tuple[Floats, int], ...]
    tasks: tuple[tuple[Floats, int], ...]
    cells: tuple[tuple[Floats, int], ...]

    def total(self) -> tuple[Floats, Floats]:
        """Return the variance of the estimate and its degrees of freedom (Satterthwaite 1946).

        Satterthwaite's formula is for sums. If the subtracted component is nearly as large as the others, as may happen
        with few tasks and noisy results, it gives degrees of freedom near 0 and an unbounded interval. No sum of these
        components has fewer degrees of freedom than the component with the fewest, which is used as a lower bound.
        """
        parts = [*self.seeds, *self.tasks, *self.cells]
        if not parts:
            return np.zeros(1), np.ones(1)
        zero = np.zeros_like(parts[0][0])
        of_seeds, of_tasks, of_cells = (
            sum((variance for variance, _ in some), zero) for some in (self.seeds, self.tasks, self.cells)
        )
        # An estimated component below 0 counts as 0.
        variance = np.maximum(of_seeds + of_tasks - of_cells, np.maximum(of_seeds, of_tasks))
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = variance**2 / sum((each**2 / degrees for each, degrees in parts), zero)
        freedom = np.maximum(freedom, min(degrees for _, degrees in parts))
        return variance, np.where(variance > 0, freedom, 1.0)


def _without_tasks(spread: Spread, noise: Floats | None) -> Spread:
    """Return the variance if there are no other tasks: that of the seeds, or of a single seed's trials."""
    if spread.seeds:
        return Spread(spread.seeds, (), ())
    return spread if noise is None else Spread(((noise[0] ** 2, MANY),), (), ())


def _spread(array: Floats) -> Spread:
    """Return the variance components of the mean of ``(seeds, tasks, points)``."""
    seeds, tasks, _ = array.shape
    of_seeds, of_tasks = array.mean(axis=1), array.mean(axis=0)
    cells = array - of_seeds[:, None] - of_tasks[None] + array.mean(axis=(0, 1))
    return Spread(
        seeds=((of_seeds.var(axis=0, ddof=1) / seeds, seeds - 1),) if seeds > 1 else (),
        tasks=((of_tasks.var(axis=0, ddof=1) / tasks, tasks - 1),) if tasks > 1 else (),
        cells=_of_cells(cells),
    )


def _of_cells(residuals: Floats) -> tuple[tuple[Floats, int], ...]:
    """Return the component of single results, from the residuals; none with a single seed or task."""
    seeds, tasks, _ = residuals.shape
    degrees = (seeds - 1) * (tasks - 1)
    return (((residuals**2).sum(axis=(0, 1)) / degrees / (seeds * tasks), degrees),) if degrees else ()


def _iqm_spread(array: Floats) -> Spread:
    """Return the variance components of the interquartile mean of ``(seeds, tasks, points)``.

    The component of the tasks is that of the mean of winsorised results, divided by the fraction kept, with the number
    of kept results minus one as degrees of freedom (Tukey & McLaughlin 1963). The component of the seeds is the
    variance of the interquartile means of single seeds.
    """
    seeds, tasks, points = array.shape
    ordered = np.sort(array.reshape(-1, points), axis=0)
    cut = int(TRIM * len(ordered))
    of_results = _spread(np.clip(array, ordered[cut], ordered[-1 - cut]) / (1.0 - 2.0 * TRIM))
    kept = max(1, tasks - 2 * int(TRIM * tasks) - 1)
    of_tasks = tuple((variance, kept) for variance, _ in of_results.tasks)
    if seeds == 1:
        return of_results._replace(tasks=of_tasks)
    of_seeds = np.stack([iqm(array[seed : seed + 1]) for seed in range(seeds)])
    return Spread(((of_seeds.var(axis=0, ddof=1) / seeds, seeds - 1),), of_tasks, of_results.cells)


def _around(estimate: Floats, spread: Spread, level: float) -> tuple[Floats, Floats]:
    """Return the estimate ± the t quantile times its standard error.

    With three or more seeds the interval is at least that of the seeds alone: if one of them has failed, the degrees of
    freedom are those of the seeds, however many tasks there are. (With only two seeds the quantile is 12.7.)
    """
    variance, freedom = spread.total()
    with np.errstate(invalid="ignore"):
        width = quantile(level, freedom) * np.sqrt(variance)
        for of_seeds, degrees in spread.seeds:
            if degrees > 1:
                width = np.maximum(width, quantile(level, degrees) * np.sqrt(of_seeds))
    return estimate - width, estimate + width


def quantile(level: float, freedom: Any) -> Any:
    """Return the quantile of Student's t for a two-sided interval of this level."""
    return stdtrit(freedom, 0.5 + 0.5 * level)


def area_under_curve(curve: ArrayLike, episodes: ArrayLike | None = None) -> Floats:
    """Return the mean height of curves ``(…, points)`` over the experience `episodes` ``(points,)``: ``(…,)``.

    It is the trapezoidal rule divided by the range of `episodes` (default 0, 1, 2 …), so that the unit is that of a
    return and trials of different lengths are comparable. The area of a single point is its value.
    """
    array = np.asarray(curve, dtype=np.float64)
    if array.shape[-1] == 1:
        return array[..., 0]
    at = np.arange(array.shape[-1]) if episodes is None else np.asarray(episodes, dtype=np.float64)
    return np.asarray((np.diff(at) * (array[..., 1:] + array[..., :-1]) / 2.0).sum(axis=-1)) / (at[-1] - at[0])


def normalise(returns: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> Floats:
    """Scale `returns` so that `random` is 0 and `oracle` is 1; shapes broadcast.

    To normalise a mean, pass means over tasks: a ratio of means is more stable than a mean of ratios. Raises ValueError
    if random and oracle are equal.
    """
    low, high = np.asarray(random, dtype=np.float64), np.asarray(oracle, dtype=np.float64)
    if np.any(high == low):
        raise ValueError("Cannot normalise: the random and the oracle return are equal, so there is no scale.")
    return (np.asarray(returns, dtype=np.float64) - low) / (high - low)


def normalised_regret(returns: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> float:
    """Return the regret of the whole curve against the oracle, relative to that of the random policy.

    It is 0 for the oracle, 1 for random, and above 1 for less than random. `random` and `oracle` are returns of one
    point: numbers, or ``(tasks,)``. It is a ratio of means, as in `normalise`.
    """
    return float(1.0 - normalise(mean(returns).mean(), _average(random), _average(oracle)))


def episodes_to_threshold(
    returns: ArrayLike,
    random: ArrayLike,
    oracle: ArrayLike,
    threshold: float = 0.9,
    episodes: ArrayLike | None = None,
) -> float | None:
    """Return the episodes of experience before the first point whose normalised mean return reaches `threshold`.

    It is 0 if the first point reaches it, and None if no point does. `episodes` ``(points,)`` is the experience before
    each point (default 0, 1, 2 …); `random` and `oracle` are as in `normalised_regret`.
    """
    reached = np.flatnonzero(normalise(mean(returns), _average(random), _average(oracle)) >= threshold)
    if len(reached) == 0:
        return None
    return float(reached[0] if episodes is None else np.asarray(episodes)[reached[0]])


def adaptation_delta(returns: ArrayLike) -> Floats:
    """Return the gain from adaptation of every seed and task, last point minus first point: ``(seeds, tasks)``."""
    array = _three(returns)
    return array[:, :, -1] - array[:, :, 0]


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """Return the probability that `a` beats `b` on a task, where ties count half (Agarwal et al. 2021).

    `a` ``(seeds_a, tasks)`` and `b` ``(seeds_b, tasks)`` are scores on the same tasks. On each task, every seed of `a`
    is compared with every seed of `b`; the result is the mean over tasks. Raises ValueError if the numbers of tasks
    differ.
    """
    return float(_wins(a, b).mean())


def probability_of_improvement_interval(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the interval (low, high) of `probability_of_improvement`, within [0, 1].

    As in `interval`, the seeds of `a`, the seeds of `b` and the shared tasks vary; a single seed stands for *this*
    agent. Raises the errors of both functions.
    """
    wins = _wins(a, b)  # (seeds_a, seeds_b, tasks)
    _check(level)
    of_a, of_b = (_spread(wins.mean(axis=axis)[..., None]) for axis in (1, 0))
    spread = Spread(of_a.seeds + of_b.seeds, _spread(wins.mean(axis=(0, 1))[None, :, None]).tasks, ())
    low, high = _around(np.array([wins.mean()]), spread, level)
    return max(0.0, float(low[0])), min(1.0, float(high[0]))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    level: float = 0.95,
    *,
    every_task: bool = False,
    noise: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
) -> tuple[Floats, Floats, Floats]:
    """Return mean of `a` minus mean of `b` on the same tasks: (difference, low, high), ``(points,)`` each.

    `a` is ``(seeds_a, tasks, points)`` and `b` ``(seeds_b, tasks, points)``. Each agent has its own seeds; tasks are
    shared, so that their difficulty cancels out. `every_task` and the `noise` of both are as in `interval`, with
    independent trials of the two agents. Raises ValueError if the numbers of tasks or points differ.
    """
    _check(level)
    first, second = _three(a), _three(b)
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"Expected the same tasks and points, got shapes {first.shape} and {second.shape}.")
    parts = _spread(first), _spread(second)
    of_tasks = _spread((first.mean(axis=0) - second.mean(axis=0))[None]).tasks
    spread = Spread(parts[0].seeds + parts[1].seeds, of_tasks, parts[0].cells + parts[1].cells)
    if every_task:
        errors = [None if each is None else np.asarray(each, dtype=np.float64) for each in noise]
        fixed = [_without_tasks(part, error) for part, error in zip(parts, errors, strict=True)]
        if not any(part.tasks for part in fixed):
            spread = Spread(fixed[0].seeds + fixed[1].seeds, (), ())
    difference = mean(first) - mean(second)
    return (difference, *_around(difference, spread, level))


def cumulative_regret(returns: ArrayLike, oracle: ArrayLike) -> Floats:
    """Return the regret up to and including each point, ``(points,)``, averaged over seeds and tasks.

    It is the running sum of oracle - return (Lai & Robbins 1985). `oracle` is the return of one point: a number, or
    ``(tasks,)``.
    """
    return np.cumsum(_average(oracle) - mean(returns))


def regret_slope(returns: ArrayLike, oracle: ArrayLike, share: float = 0.5) -> float:
    """Return the least-squares slope of `cumulative_regret` per point over the last `share` of points (at least two).

    It is about 0 once the task is known, and above 0 as long as every point has regret. Raises ValueError for fewer
    than two points and for a share outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], got {share}.")
    regret = cumulative_regret(returns, oracle)
    if len(regret) < 2:
        raise ValueError("The slope of the regret needs at least two points.")
    last = max(2, math.ceil(share * len(regret)))
    return float(np.polyfit(np.arange(last), regret[-last:], 1)[0])


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Return the fraction of results ``(seeds, tasks)`` above each threshold, ``(len(thresholds),)``.

    Agarwal et al. 2021, section 4.2. For nonnegative scores, the area under the profile is their mean.
    """
    return mean(_above(scores, thresholds))


def performance_profile_interval(
    scores: ArrayLike, thresholds: ArrayLike, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Return the pointwise interval (low, high) of `performance_profile`, as in `interval`, within [0, 1]."""
    low, high = interval(_above(scores, thresholds), "mean", level)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def generalisation_gap(
    train_scores: ArrayLike, other_scores: ArrayLike, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean score on training tasks minus that on other tasks, with its interval: (gap, low, high).

    Scores are ``(seeds, tasks)``, of the same seeds in the same order, on unrelated tasks: seeds are paired, tasks are
    not. Raises ValueError if the numbers of seeds differ.
    """
    _check(level)
    train, other = (_three(np.atleast_2d(np.asarray(scores))[..., None]) for scores in (train_scores, other_scores))
    if len(train) != len(other):
        raise ValueError(f"The gap needs the same seeds on both splits, got {len(train)} and {len(other)}.")
    parts = _spread(train), _spread(other)
    of_seeds = _spread((train.mean(axis=1) - other.mean(axis=1))[:, None]).seeds
    spread = Spread(of_seeds, parts[0].tasks + parts[1].tasks, parts[0].cells + parts[1].cells)
    gap = mean(train) - mean(other)
    low, high = _around(gap, spread, level)
    return float(gap[0]), float(low[0]), float(high[0])


def _wins(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return 1 where a seed of `a` beats a seed of `b` on a task, ½ for a tie: ``(seeds_a, seeds_b, tasks)``."""
    first, second = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"Expected (seeds, tasks) on the same tasks, got shapes {first.shape} and {second.shape}.")
    return (first[:, None] > second[None]) + 0.5 * (first[:, None] == second[None])


def _above(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Return 1 where a result is above a threshold: ``(seeds, tasks, thresholds)``."""
    array = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    return (array[..., None] > np.asarray(thresholds, dtype=np.float64)).astype(np.float64)


def _check(level: float) -> None:
    if not isinstance(level, (int, float)) or not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {short(level)}.")


def _average(bound: ArrayLike) -> float:
    return float(np.asarray(bound, dtype=np.float64).mean())


def _three(returns: ArrayLike) -> Floats:
    array = np.asarray(returns, dtype=np.float64)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"returns must be (seeds, tasks, points) with at least one of each, got shape {array.shape}.")
    return array
