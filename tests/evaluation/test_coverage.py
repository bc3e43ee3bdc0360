"""Do the intervals hold the truth as often as they say? Simulated studies with known seeds, tasks and noise.

The coverage of a nominal 95 % interval over 2000 studies has a standard error of half a percent.
"""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from metarl.evaluation import stats

TASKS, STUDIES = 400, 2000
SETTINGS = {"seeds alone differ": (1, 0, 0), "noisy": (1, 1, 3), "tasks differ more": (1, 5, 5)}
"""Standard deviations of seeds, tasks and single results."""


def coverage(seeds: int, spread: tuple[float, float, float], interval, collapsing: float = 0.0) -> float:
    """Share of the studies whose interval holds the true mean; a seed fails (-10) with probability `collapsing`."""
    generator, hits = np.random.default_rng(seeds), 0
    for _ in range(STUDIES // 100):  # a hundred studies at once: one in each point
        of_seeds = spread[0] * generator.normal(size=(seeds, 1, 100))
        of_seeds = np.where(generator.random(of_seeds.shape) < collapsing, -10.0, of_seeds)
        data = of_seeds + spread[1] * generator.normal(size=(1, TASKS, 100))
        low, high = interval(data + spread[2] * generator.normal(size=(seeds, TASKS, 100)))
        hits += int(((low <= -10.0 * collapsing) & (high >= -10.0 * collapsing)).sum())
    return hits / STUDIES


def over_seeds(data):
    """The t interval of the seeds' means, blind to tasks."""
    means = data.mean(axis=1)
    return scipy_stats.t.interval(0.95, len(means) - 1, means.mean(0), scipy_stats.sem(means))


def percentile_bootstrap(data):
    """What many tables are made with: seeds and tasks resampled, the middle 95 % of the means."""
    generator, means = np.random.default_rng(0), []
    for _ in range(200):
        seeds, tasks = (generator.integers(0, n, n) for n in data.shape[:2])
        means.append(data[seeds][:, tasks].mean(axis=(0, 1)))
    return np.percentile(means, [2.5, 97.5], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["mean", "iqm"])
@pytest.mark.parametrize("spread", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("seeds", "at_least"), [(2, 0.87), (3, 0.91), (5, 0.91), (10, 0.91)])
def test_intervals_cover(seeds, at_least, spread, statistic):
    assert coverage(seeds, spread, lambda data: stats.interval(data, statistic)) >= at_least


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
def test_intervals_are_no_wider_than_they_must_where_tasks_dominate(seeds, statistic):
    assert 0.92 <= coverage(seeds, (0, 5, 5), lambda data: stats.interval(data, statistic)) <= 0.99


@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
def test_failed_seeds_are_covered_as_by_the_seeds_alone(seeds):
    """A quarter of all training runs fails. With few seeds no method sees that when none of them did."""
    ours = coverage(seeds, (1, 1, 3), stats.interval, collapsing=0.25)
    assert ours >= coverage(seeds, (1, 1, 3), over_seeds, collapsing=0.25)


@pytest.mark.slow
def test_a_percentile_bootstrap_of_three_seeds_covers_far_less():
    assert coverage(3, (1, 0, 0), percentile_bootstrap) < 0.8 < 0.91 <= coverage(3, (1, 0, 0), stats.interval)


@pytest.mark.parametrize("tasks", [6, 10, 30])
def test_few_tasks_of_one_seed(tasks):
    generator = np.random.default_rng(tasks)
    data = generator.normal(size=(1, tasks, STUDIES))
    for statistic in ("mean", "iqm"):
        low, high = stats.interval(data, statistic)
        assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.99


@pytest.mark.parametrize("spread", [(0, 0, 1), (1, 1, 3), (1, 5, 5), (0.1, 5, 0.1)])
@pytest.mark.parametrize(("seeds", "tasks"), [(2, 2), (3, 2), (3, 3), (3, 6), (5, 2)])
def test_few_tasks_of_several_seeds_give_an_interval_with_an_end(seeds, tasks, spread):
    """Half the width is at most the t quantile of the least degrees of freedom times the root of both variances."""
    generator = np.random.default_rng(tasks)
    data = spread[0] * generator.normal(size=(seeds, 1, STUDIES))
    data = data + spread[1] * generator.normal(size=(1, tasks, STUDIES))
    data = data + spread[2] * generator.normal(size=(seeds, tasks, STUDIES))
    low, high = stats.interval(data)
    assert ((low <= 0) & (high >= 0)).mean() >= 0.93
    both = data.mean(1).var(0, ddof=1) / seeds + data.mean(0).var(0, ddof=1) / tasks
    longest = scipy_stats.t.ppf(0.975, min(seeds, tasks) - 1) * np.sqrt(both)
    assert (high - low <= 2 * longest + 1e-9).all()


@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (3, 5)])
def test_the_paired_difference_covers(seeds):
    generator, hits = np.random.default_rng(0), 0
    for _ in range(10):
        tasks = 5.0 * generator.normal(size=(1, 100, 100))
        a, b = (
            tasks + (n > 1) * generator.normal(size=(n, 1, 100)) + generator.normal(size=(1, 100, 100))
            + generator.normal(size=(n, 100, 100)) for n in seeds
        )  # fmt: skip
        _, low, high = stats.paired_difference(a, b)
        hits += int(((low <= 0) & (high >= 0)).sum())
    assert 0.92 <= hits / 1000 <= 0.99
