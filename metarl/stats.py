"""Statistics of adaptation curves: NumPy arrays in, NumPy arrays or floats out; no torch.

`returns` is always ``(seeds, tasks, points)``: training seeds, evaluation tasks (the same for every seed), and the
points of the adaptation curve (episodes of a trial, or rounds of adaptation).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate
from scipy import stats as scipy_stats

Floats = NDArray[np.float64]

TRIM = 0.25
"""Share of the results that the interquartile mean leaves out at each end."""

_BATCH_ELEMENTS = 4_000_000  # of float64: what one batch of bootstrap weights may take (32 MB)


def mean(returns: ArrayLike) -> Floats:
    """Mean over seeds and tasks at each point: ``(points,)``."""
    return _three(returns).mean(axis=(0, 1))


def iqm(returns: ArrayLike) -> Floats:
    """Interquartile mean over seeds and tasks together, at each point: ``(points,)`` (Agarwal et al. 2021).

    The lowest and the highest quarter of all seeds × tasks results (rounded down) are left out. Under it a few
    disasters or lucky runs count for nothing; on tasks of unequal difficulty it is not the mean of anything.
    """
    array = _three(returns)
    return np.asarray(scipy_stats.trim_mean(array.reshape(-1, array.shape[2]), TRIM, axis=0))


def interval(
    returns: ArrayLike, statistic: str = "mean", level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Percentile bootstrap interval (Efron 1979) of `statistic` ("mean" or "iqm") at each point: (low, high).

    What is resampled, with replacement:

    - one seed: tasks. The question: between what bounds would *this trained agent's* value lie on other tasks of the
      same distribution? Luck of the training seed is not in it.
    - several seeds: seeds and, independently, tasks; a resample holds the drawn seeds crossed with the drawn tasks
      (Owen 2007), because every seed was evaluated on the same tasks. The question: what would other training runs
      reach on other tasks? With S seeds the spread between seeds is understated by about sqrt((S - 1) / S), so that
      three seeds give an interval that is somewhat too narrow; nothing but more seeds helps.

    A drawn task brings all its points along, so differences of points keep their pairing if the differences are what
    is given. `seed` makes the result repeatable; it has nothing to do with training seeds. With a single result there
    is nothing to resample: low = high = that result. Memory is bounded (about 100 MB beside the data); 10,000 tasks ×
    100 points × 1000 resamples take about a second for the mean and several for the IQM.
    Raises ValueError for another statistic, or a level outside (0, 1).
    """
    if statistic not in ("mean", "iqm"):
        raise ValueError(f"statistic must be 'mean' or 'iqm', got {statistic!r}.")
    _check(level, resamples)
    array = _three(returns)
    compute = _resampled_means if statistic == "mean" else _resampled_iqms
    seeds, tasks, points = array.shape
    generator = np.random.default_rng(seed)
    batch = max(1, _BATCH_ELEMENTS // (seeds * (tasks + points)))
    estimates = []
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        task_counts = _counts(generator, size, tasks)
        seed_counts = _seed_counts(generator, size, seeds)
        estimates.append(compute(array, seed_counts, task_counts))
    low, high = _percentiles(np.concatenate(estimates), level)
    return low, high


def _counts(generator: np.random.Generator, size: int, n: int) -> Floats:
    """How often each of n things is drawn in n draws with replacement, `size` times over: ``(size, n)``."""
    drawn = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _resampled_means(array: Floats, seed_counts: Floats, task_counts: Floats) -> Floats:
    """Mean of each resample: ``(resamples, points)``."""
    seeds, tasks, points = array.shape
    per_seed = task_counts @ array.transpose(1, 0, 2).reshape(tasks, seeds * points)
    total = np.einsum("rs,rsp->rp", seed_counts, per_seed.reshape(-1, seeds, points))
    return total / (seeds * tasks)


def _resampled_iqms(array: Floats, seed_counts: Floats, task_counts: Floats) -> Floats:
    """IQM of each resample: ``(resamples, points)``.

    The results of a point are sorted once. A resample gives each of them a whole-number weight; what is left after
    the trimming is the part of the running total of weights between `cut` and `total - cut`.
    """
    seeds, tasks, points = array.shape
    total = seeds * tasks
    cut = int(TRIM * total)
    estimates = np.empty((len(task_counts), points))
    flat = array.reshape(total, points)
    # Integers: their running sum takes a fifth of the time of a floating-point one.
    crossed = (seed_counts[:, :, None] * task_counts[:, None, :]).reshape(-1, total).astype(np.int64)
    weights, running = np.empty((2, total), dtype=np.int64)
    for point in range(points):
        order = np.argsort(flat[:, point], kind="stable")
        values = flat[order, point]
        for resample, counts in enumerate(crossed):
            np.take(counts, order, out=weights, mode="clip")  # the default mode would make a copy
            np.cumsum(weights, out=running)
            # [first, last] hold all the weight that stays, with too much of it at the two ends.
            first = running.searchsorted(cut, side="right")
            last = running.searchsorted(total - cut, side="left")
            kept = weights[first : last + 1] @ values[first : last + 1]
            below = cut - (running[first] - weights[first])
            above = running[last] - (total - cut)
            estimates[resample, point] = kept - below * values[first] - above * values[last]
    return estimates / (total - 2 * cut)


def area_under_curve(curve: ArrayLike, episodes: ArrayLike | None = None) -> Floats:
    """Mean height of curves ``(…, points)`` over the experience `episodes` ``(points,)``: ``(…,)``.

    The trapezium rule, divided by the range of `episodes` (default 0, 1, 2 …), so that the unit stays that of a
    return and trials of unequal length compare. A single point's area is its value.
    """
    array = np.asarray(curve, dtype=np.float64)
    if array.shape[-1] == 1:
        return array[..., 0]
    at = np.arange(array.shape[-1]) if episodes is None else np.asarray(episodes, dtype=np.float64)
    return np.asarray(integrate.trapezoid(array, at, axis=-1)) / (at[-1] - at[0])


def normalise(returns: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> Floats:
    """`returns` on the scale on which `random` is 0 and `oracle` is 1; shapes broadcast.

    Give the means over tasks to normalise a mean: a ratio of means is steady where a mean of ratios is not.
    Raises ValueError where random and oracle are equal, since there is no scale between them.
    """
    low, high = np.asarray(random, dtype=np.float64), np.asarray(oracle, dtype=np.float64)
    if np.any(high == low):
        raise ValueError("Cannot normalise: the random and the oracle return are equal, so there is no scale.")
    return (np.asarray(returns, dtype=np.float64) - low) / (high - low)


def normalised_regret(returns: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> float:
    """What the whole curve lost against the oracle, as a share of what the random policy loses.

    0 for the oracle at every point, 1 for random, above 1 below random. `random` and `oracle` are returns of one
    point: numbers, or ``(tasks,)``. Ratio of means, as in `normalise`.
    """
    return float(1.0 - normalise(mean(returns).mean(), _average(random), _average(oracle)))


def episodes_to_threshold(
    returns: ArrayLike,
    random: ArrayLike,
    oracle: ArrayLike,
    threshold: float = 0.9,
    episodes: ArrayLike | None = None,
) -> float | None:
    """Episodes of experience before the first point whose normalised mean return is at least `threshold`.

    0: the agent starts that well. None: no point reaches it. `episodes` ``(points,)`` is the experience before each
    point (default 0, 1, 2 …); `random` and `oracle` as in `normalised_regret`.
    """
    reached = np.flatnonzero(normalise(mean(returns), _average(random), _average(oracle)) >= threshold)
    if len(reached) == 0:
        return None
    return float(reached[0] if episodes is None else np.asarray(episodes)[reached[0]])


def adaptation_delta(returns: ArrayLike) -> Floats:
    """Last point minus first point of every seed and task: ``(seeds, tasks)``. What adaptation was worth."""
    array = _three(returns)
    return array[:, :, -1] - array[:, :, 0]


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """The chance that `a` beats `b` on a task, ties counting half (Agarwal et al. 2021).

    `a` ``(seeds_a, tasks)`` and `b` ``(seeds_b, tasks)`` are scores on the same tasks. On each task every seed of a
    meets every seed of b; then the mean over tasks. Raises ValueError if the numbers of tasks differ.
    """
    return float(_wins(a, b).mean())


def probability_of_improvement_interval(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `probability_of_improvement`: (low, high).

    Paired: a resample draws one set of tasks for both agents, and seeds of `a` and of `b` independently (an agent with
    one seed keeps it, as in `interval`). Raises ValueError as the two do.
    """
    wins = _wins(a, b)  # (seeds_a, seeds_b, tasks)
    _check(level, resamples)
    generator = np.random.default_rng(seed)
    of_tasks = _counts(generator, resamples, wins.shape[2])
    of_a, of_b = (_seed_counts(generator, resamples, seeds) for seeds in wins.shape[:2])
    per_pair = np.einsum("rt,abt->rab", of_tasks, wins, optimize=True)
    low, high = _percentiles(np.einsum("ra,rb,rab->r", of_a, of_b, per_pair, optimize=True) / wins.size, level)
    return float(low), float(high)


def cumulative_regret(returns: ArrayLike, oracle: ArrayLike) -> Floats:
    """What was lost against the oracle up to and with each point: ``(points,)``, mean over seeds and tasks.

    The running sum of oracle - return (Lai & Robbins 1985). `oracle` is the return of one point: a number, or
    ``(tasks,)``.
    """
    return np.cumsum(_average(oracle) - mean(returns))


def regret_slope(returns: ArrayLike, oracle: ArrayLike, share: float = 0.5) -> float:
    """Least-squares slope of `cumulative_regret` per point over the last `share` of the points (at least two).

    About 0 once the task is known; above 0 for as long as something is lost at every point. Raises ValueError for
    fewer than two points, or a share outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie above 0 and be at most 1, got {share}.")
    regret = cumulative_regret(returns, oracle)
    if len(regret) < 2:
        raise ValueError("The slope of the regret needs at least two points.")
    last = max(2, math.ceil(share * len(regret)))
    return float(np.polyfit(np.arange(last), regret[-last:], 1)[0])


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Share of the results ``(seeds, tasks)`` that lie above each threshold: ``(len(thresholds),)``.

    Agarwal et al. 2021, section 4.2. Its area above 0 is the mean of scores that are not negative.
    """
    return mean(_above(scores, thresholds))


def performance_profile_interval(
    scores: ArrayLike, thresholds: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Pointwise bootstrap interval of `performance_profile`, resampled as in `interval`: (low, high)."""
    return interval(_above(scores, thresholds), "mean", level, resamples, seed)


def generalisation_gap(
    train_scores: ArrayLike, other_scores: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean score on the training tasks minus that on other tasks, and its bootstrap interval: (gap, low, high).

    Scores are ``(seeds, tasks)`` of the same seeds, in the same order, on tasks that have nothing to do with each
    other. Hence a resample draws seeds once for both, and tasks for each. Raises ValueError if the seeds differ in
    number.
    """
    _check(level, resamples)
    train, other = (_three(np.atleast_2d(np.asarray(scores))[..., None]) for scores in (train_scores, other_scores))
    if len(train) != len(other):
        raise ValueError(f"The gap is one of the same seeds, got {len(train)} and {len(other)}.")
    generator = np.random.default_rng(seed)
    of_seeds = _seed_counts(generator, resamples, len(train))
    drawn = [_drawn_means(x, of_seeds, generator) for x in (train, other)]
    low, high = _percentiles(drawn[0] - drawn[1], level)
    return float(mean(train)[0] - mean(other)[0]), float(low), float(high)


def _drawn_means(array: Floats, seed_counts: Floats, generator: np.random.Generator) -> Floats:
    """Mean of the first point over drawn seeds and tasks, for each row of `seed_counts`: ``(resamples,)``."""
    tasks = array.shape[1]
    batch = max(1, _BATCH_ELEMENTS // tasks)
    parts = [seed_counts[first : first + batch] for first in range(0, len(seed_counts), batch)]
    return np.concatenate([_resampled_means(array, part, _counts(generator, len(part), tasks))[:, 0] for part in parts])


def _wins(a: ArrayLike, b: ArrayLike) -> Floats:
    """1 where a seed of `a` beats a seed of `b` on a task, ½ for a tie: ``(seeds_a, seeds_b, tasks)``."""
    first, second = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"Expected (seeds, tasks) on the same tasks, got shapes {first.shape} and {second.shape}.")
    return (first[:, None] > second[None]) + 0.5 * (first[:, None] == second[None])


def _above(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """1 where a result lies above a threshold: ``(seeds, tasks, thresholds)``."""
    array = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    return (array[..., None] > np.asarray(thresholds, dtype=np.float64)).astype(np.float64)


def _seed_counts(generator: np.random.Generator, size: int, seeds: int) -> Floats:
    """`_counts` of training seeds; a single one is not resampled."""
    return _counts(generator, size, seeds) if seeds > 1 else np.ones((size, 1))


def _percentiles(estimates: Floats, level: float) -> Floats:
    """The ends of the interval: ``(2, …)``."""
    tail = 50.0 * (1.0 - level)
    return np.asarray(np.percentile(estimates, [tail, 100.0 - tail], axis=0))


def _check(level: float, resamples: int) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")


def _average(bound: ArrayLike) -> float:
    return float(np.asarray(bound, dtype=np.float64).mean())


def _three(returns: ArrayLike) -> Floats:
    array = np.asarray(returns, dtype=np.float64)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"returns must be (seeds, tasks, points) with at least one of each, got shape {array.shape}.")
    return array
