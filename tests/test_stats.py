"""Every statistic against a calculation by hand, and the interval against what an interval promises."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats as scipy_stats

from metarl import stats

# Two seeds, two tasks, three points.
RETURNS = np.array([[[0.0, 4.0, 8.0], [2.0, 6.0, 8.0]], [[1.0, 5.0, 9.0], [1.0, 5.0, 11.0]]])


def test_mean_and_adaptation_delta():
    np.testing.assert_allclose(stats.mean(RETURNS), [1.0, 5.0, 9.0])
    np.testing.assert_allclose(stats.adaptation_delta(RETURNS), [[8.0, 6.0], [8.0, 10.0]])


def test_iqm_leaves_out_a_quarter_at_each_end():
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]).reshape(1, 8, 1)
    assert stats.iqm(values)[0] == (2.0 + 3.0 + 4.0 + 5.0) / 4
    # Rounded down: of six results one goes at each end. Seeds and tasks are one pool.
    values = np.array([[9.0, 0.0, 1.0], [2.0, 3.0, 4.0]])[:, :, None]
    assert stats.iqm(values)[0] == (1.0 + 2.0 + 3.0 + 4.0) / 4
    assert stats.iqm(np.full((1, 1, 1), 7.0))[0] == 7.0


def test_area_is_the_mean_height_over_experience():
    assert stats.area_under_curve([1.0, 3.0, 5.0]) == pytest.approx((2.0 + 4.0) / 2)
    # Experience 0, 1, 4: trapezia of width 1 and height 2, of width 3 and height 4.
    assert stats.area_under_curve([1.0, 3.0, 5.0], [0, 1, 4]) == pytest.approx((2.0 + 3 * 4.0) / 4)
    np.testing.assert_allclose(stats.area_under_curve([[2.0], [3.0]]), [2.0, 3.0])
    np.testing.assert_allclose(stats.area_under_curve(RETURNS), [[4.0, 5.5], [5.0, 5.5]])


def test_normalisation_and_regret():
    np.testing.assert_allclose(stats.normalise([2.0, 6.0, 10.0], 2.0, 10.0), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(stats.normalise([-3.0], [-5.0], [-1.0]), [0.5])
    with pytest.raises(ValueError, match="no scale"):
        stats.normalise([1.0], [1.0, 2.0], [1.0, 3.0])
    # Mean return 5, random 1, oracle 11: 6 of 10 are lost. The bounds of the tasks are averaged first.
    assert stats.normalised_regret(RETURNS, [0.0, 2.0], [10.0, 12.0]) == pytest.approx(0.6)
    assert stats.normalised_regret(np.full((1, 2, 3), 11.0), 1.0, 11.0) == 0.0
    assert stats.normalised_regret(np.full((1, 2, 3), 1.0), 1.0, 11.0) == 1.0


def test_episodes_to_threshold():
    # Means 1, 5, 9 between 0 and 10: .1, .5, .9.
    assert stats.episodes_to_threshold(RETURNS, 0.0, 10.0) == 2.0
    assert stats.episodes_to_threshold(RETURNS, 0.0, 10.0, threshold=0.5) == 1.0
    assert stats.episodes_to_threshold(RETURNS, 0.0, 10.0, threshold=0.05) == 0.0
    assert stats.episodes_to_threshold(RETURNS, 0.0, 10.0, episodes=[0, 20, 40]) == 40.0
    assert stats.episodes_to_threshold(RETURNS, 0.0, 10.0, threshold=0.91) is None


def test_probability_of_improvement_is_paired_over_tasks():
    a, b = np.array([[1.0, 5.0]]), np.array([[0.0, 6.0], [1.0, 4.0]])
    # Task 1: 1 beats 0, ties with 1. Task 2: 5 loses to 6, beats 4. (1 + ½ + 0 + 1) / 4.
    assert stats.probability_of_improvement(a, b) == pytest.approx(0.625)
    assert stats.probability_of_improvement(b, a) == pytest.approx(0.375)
    # Better on every task, though no more often if tasks were mixed up.
    assert stats.probability_of_improvement([1.0, 101.0], [0.0, 100.0]) == 1.0
    with pytest.raises(ValueError, match="same tasks"):
        stats.probability_of_improvement([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("statistic", "function"),
    [("mean", np.mean), ("iqm", lambda data, axis: scipy_stats.trim_mean(data, 0.25, axis=axis))],
)
def test_interval_of_one_seed_is_scipys_percentile_bootstrap(statistic, function):
    data = np.random.default_rng(0).exponential(size=(1, 41, 2))
    ours = stats.interval(data, statistic, level=0.9, resamples=20_000)
    theirs = scipy_stats.bootstrap(
        (data[0],), function, confidence_level=0.9, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.01)  # the interval is about 0.6 wide


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_interval_of_several_seeds_is_the_crossed_resampling_spelt_out(statistic):
    data = np.random.default_rng(1).normal(size=(3, 20, 1)) + np.array([0.0, 1.0, 3.0])[:, None, None]
    generator = np.random.default_rng(2)
    drawn = []
    for _ in range(2000):
        seeds, tasks = generator.integers(0, 3, 3), generator.integers(0, 20, 20)
        drawn.append(getattr(stats, statistic)(data[seeds][:, tasks])[0])
    low, high = stats.interval(data, statistic, resamples=2000)
    # The estimates lie on a few clumps (which seeds were drawn), so the ends move a little from draw to draw.
    np.testing.assert_allclose([low[0], high[0]], np.percentile(drawn, [2.5, 97.5]), atol=0.15)
    assert high[0] - low[0] > 2.0, "the spread of the seeds must show"


def test_a_task_brings_all_its_points_along():
    """Two points that differ by a constant have intervals that differ by it exactly."""
    first = np.random.default_rng(3).normal(size=(2, 50, 1))
    for statistic in ("mean", "iqm"):
        low, high = stats.interval(np.concatenate([first, first + 5.0], axis=2), statistic)
        np.testing.assert_allclose([low[1] - low[0], high[1] - high[0]], 5.0, atol=1e-9)


def test_interval_is_repeatable_whatever_the_batching(monkeypatch):
    data = np.random.default_rng(4).normal(size=(1, 30, 2))
    whole = stats.interval(data, "iqm", resamples=50)
    np.testing.assert_array_equal(whole, stats.interval(data, "iqm", resamples=50))
    monkeypatch.setattr(stats, "_BATCH_ELEMENTS", 7 * 32)
    np.testing.assert_array_equal(whole, stats.interval(data, "iqm", resamples=50))
    assert not np.array_equal(whole, stats.interval(data, "iqm", resamples=50, seed=1))


def test_interval_of_a_single_result_is_that_result():
    np.testing.assert_array_equal(stats.interval(np.full((1, 1, 2), 3.0), "iqm"), np.full((2, 2), 3.0))


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_coverage_over_tasks(statistic):
    """A 90 % interval from 40 tasks holds the truth in about 90 % of 300 simulated evaluations of one agent.

    The percentile bootstrap is known to fall one or two percent short here. Standard error 1.7 %.
    """
    generator = np.random.default_rng(5)
    data = generator.normal(2.0, 3.0, size=(1, 40, 300))  # one simulated data set per point
    low, high = stats.interval(data, statistic, level=0.9, resamples=200)
    coverage = np.mean((low <= 2.0) & (high >= 2.0))
    assert 0.84 < coverage < 0.94


def test_coverage_over_seeds_and_tasks():
    """The same where seeds, tasks and noise all vary; either resampled alone would cover far less."""
    generator = np.random.default_rng(6)

    def simulate() -> np.ndarray:
        seeds, tasks = generator.normal(size=(10, 1, 1)), 1.5 * generator.normal(size=(1, 30, 1))
        return seeds + tasks + generator.normal(size=(10, 30, 1))

    ends = [stats.interval(data, level=0.9, resamples=300) for data in (simulate() for _ in range(300))]
    coverage = np.mean([low[0] <= 0.0 <= high[0] for low, high in ends])
    assert 0.83 < coverage < 0.95


def test_large_data_take_little_memory():
    """10,000 tasks × 100 points, 1000 resamples: 8 MB of data, and all resamples at once would be 80 MB of weights."""
    data = np.random.default_rng(7).normal(size=(1, 10_000, 100)).astype(np.float32)
    tracemalloc.start()
    low, high = stats.interval(data, resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    # 95 % of a normal mean: 2 × 1.96 / √10,000.
    np.testing.assert_allclose(high - low, 0.0392, rtol=0.15)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: stats.interval(RETURNS, "median"), "'mean' or 'iqm'"),
        (lambda: stats.interval(RETURNS, level=95), "between 0 and 1"),
        (lambda: stats.interval(RETURNS, resamples=0), "at least 1"),
        (lambda: stats.mean(np.zeros((3, 4))), "seeds, tasks, points"),
        (lambda: stats.iqm(np.zeros((3, 0, 4))), "at least one"),
    ],
)
def test_mistakes(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
