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


def test_the_gap_of_many_tasks_takes_little_memory():
    scores = np.random.default_rng(10).normal(size=(1, 20_000))
    tracemalloc.start()
    _, low, high = stats.generalisation_gap(scores, scores - 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6, "all resamples at once would be 160 MB of weights, and as much again to draw them"
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(2 / 20_000), rel=0.15) and low < 1.0 < high


def test_probability_of_improvement_interval_is_the_paired_resampling_spelt_out():
    generator = np.random.default_rng(8)
    a, b = generator.normal(0.3, 1.0, size=(3, 25)), generator.normal(size=(2, 25))
    drawn = []
    for _ in range(4000):
        tasks = generator.integers(0, 25, 25)
        of_a, of_b = a[generator.integers(0, 3, 3)][:, tasks], b[generator.integers(0, 2, 2)][:, tasks]
        drawn.append(stats.probability_of_improvement(of_a, of_b))
    low, high = stats.probability_of_improvement_interval(a, b, resamples=4000)
    np.testing.assert_allclose([low, high], np.percentile(drawn, [2.5, 97.5]), atol=0.02)


def test_probability_of_improvement_interval_by_hand():
    # Better on every one of three tasks by less than tasks differ: nothing is left to chance, as tasks are paired.
    assert stats.probability_of_improvement_interval([[1.0, 101.0, 201.0]], [[0.0, 100.0, 200.0]]) == (1.0, 1.0)
    assert stats.probability_of_improvement_interval([[1.0, 2.0]], [[1.0, 2.0]]) == (0.5, 0.5)
    # One win and one loss: of two draws both win, or both lose, with probability 1/4 each.
    assert stats.probability_of_improvement_interval([[1.0, 0.0]], [[0.0, 1.0]]) == (0.0, 1.0)
    assert stats.probability_of_improvement_interval([[1.0, 0.0]], [[0.0, 1.0]], level=0.4) == (0.5, 0.5)


def test_cumulative_regret():
    # Means 1, 5, 9 against 10: 9, 5 and 1 are lost. Per task only the mean of the bounds matters.
    np.testing.assert_allclose(stats.cumulative_regret(RETURNS, 10.0), [9.0, 14.0, 15.0])
    np.testing.assert_allclose(stats.cumulative_regret(RETURNS, [8.0, 12.0]), [9.0, 14.0, 15.0])


def test_regret_slope():
    # Lost per point: 9, 5, 1, 1, 1, 1. The last half of the cumulative regret grows by 1, whatever came before.
    returns = np.array([1.0, 5.0, 9.0, 9.0, 9.0, 9.0]).reshape(1, 1, 6)
    assert stats.regret_slope(returns, 10.0) == pytest.approx(1.0)
    assert stats.regret_slope(returns, 9.0) == pytest.approx(0.0)
    # All of (0, 9), (1, 14), (2, 15): Σ (t - 1)(y - 12⅔) / Σ (t - 1)² = (3⅔ + 2⅓) / 2.
    assert stats.regret_slope(RETURNS, 10.0, share=1.0) == pytest.approx(3.0)
    # A share of fewer than two points is two: 14 → 15.
    assert stats.regret_slope(RETURNS, 10.0, share=0.1) == pytest.approx(1.0)


def test_performance_profile():
    scores = np.array([[0.1, 0.5, 0.9], [0.5, 0.7, 1.1]])
    # Above, not at, the threshold.
    np.testing.assert_allclose(stats.performance_profile(scores, [0.0, 0.5, 0.8, 1.1]), [1.0, 3 / 6, 2 / 6, 0.0])
    low, high = stats.performance_profile_interval(scores, [0.0, 0.5, 0.8, 1.1])
    assert low[0] == high[0] == 1.0 and low[3] == high[3] == 0.0 and low[1] < 0.5 < high[1]
    # Each threshold is the mean of an indicator, whose interval exists already.
    expected = stats.interval((scores[:, :, None] > np.array([0.5])).astype(float), level=0.8)
    np.testing.assert_array_equal(stats.performance_profile_interval(scores, [0.5], level=0.8), expected)


def test_generalisation_gap_keeps_seeds_together_and_draws_tasks_apart():
    # Seed 2 is 10 better on both splits: the gap of each seed is 1, and no task differs from another.
    train, test = np.array([[5.0, 5.0], [15.0, 15.0]]), np.array([[4.0, 4.0, 4.0], [14.0, 14.0, 14.0]])
    np.testing.assert_allclose(stats.generalisation_gap(train, test), (1.0, 1.0, 1.0))
    # One seed and one test task: all that varies is the mean of two training tasks, 0, 1 or 2 with odds 1 : 2 : 1.
    np.testing.assert_allclose(stats.generalisation_gap([0.0, 2.0], [0.5]), (0.5, -0.5, 1.5))
    np.testing.assert_allclose(stats.generalisation_gap([0.0, 2.0], [0.5], level=0.4), (0.5, 0.5, 0.5))
    # The same tasks on both sides are still drawn apart: a difference of independent means, √2 as wide as one.
    scores = np.random.default_rng(9).normal(size=(1, 400))
    gap, low, high = stats.generalisation_gap(scores, scores)
    one = np.subtract(*stats.interval(scores[:, :, None])[::-1])[0]
    assert gap == 0.0 and high - low == pytest.approx(np.sqrt(2) * one, rel=0.1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: stats.interval(RETURNS, "median"), "'mean' or 'iqm'"),
        (lambda: stats.interval(RETURNS, level=95), "between 0 and 1"),
        (lambda: stats.interval(RETURNS, resamples=0), "at least 1"),
        (lambda: stats.mean(np.zeros((3, 4))), "seeds, tasks, points"),
        (lambda: stats.iqm(np.zeros((3, 0, 4))), "at least one"),
        (lambda: stats.regret_slope(RETURNS, 10.0, share=0.0), "share must lie"),
        (lambda: stats.regret_slope(RETURNS[:, :, :1], 10.0), "at least two points"),
        (lambda: stats.generalisation_gap([[1.0], [2.0]], [1.0]), "same seeds, got 2 and 1"),
        (lambda: stats.probability_of_improvement_interval([1.0], [1.0, 2.0]), "same tasks"),
        (lambda: stats.probability_of_improvement_interval([1.0], [1.0], level=2), "between 0 and 1"),
    ],
)
def test_mistakes(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
