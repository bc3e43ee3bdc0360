"""Every statistic against a calculation by hand, and the interval against what an interval promises."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats as scipy_stats

from metarl.evaluation import stats

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
    assert stats.area_under_curve([1.0, 3.0, 5.0], [2, 3, 6]) == stats.area_under_curve([1.0, 3.0, 5.0], [0, 1, 4])
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


def test_interval_of_one_seed_is_the_t_interval_over_tasks():
    data = np.random.default_rng(0).exponential(size=(1, 41, 2))
    expected = scipy_stats.t.interval(0.9, 40, data[0].mean(0), scipy_stats.sem(data[0]))
    np.testing.assert_allclose(stats.interval(data, level=0.9), expected)


def test_interval_of_the_iqm_of_one_seed_is_tukey_and_mclaughlins():
    """Winsorised standard deviation over half the root of n, with as many degrees of freedom as are kept, less one."""
    data = np.random.default_rng(0).exponential(size=41)
    winsorised = np.asarray(scipy_stats.mstats.winsorize(data, (0.25, 0.25)))
    middle = scipy_stats.trim_mean(data, 0.25)
    half = scipy_stats.t.ppf(0.975, 41 - 20 - 1) * winsorised.std(ddof=1) / (0.5 * np.sqrt(41))
    low, high = stats.interval(data[None, :, None], "iqm")
    np.testing.assert_allclose([low[0], high[0]], [middle - half, middle + half])


def test_where_seeds_alone_differ_it_is_the_t_interval_over_seeds():
    data = np.random.default_rng(1).normal(size=(4, 1, 3)) + np.zeros((4, 50, 3))
    expected = scipy_stats.t.interval(0.95, 3, data[:, 0].mean(0), scipy_stats.sem(data[:, 0]))
    for statistic in ("mean", "iqm"):
        low, high = stats.interval(data, statistic)
        np.testing.assert_allclose(high - low, expected[1] - expected[0], rtol=1e-9)


def test_the_variance_of_a_mean_is_that_of_a_two_way_layout():
    """Mean squares of seeds and tasks less that of their interaction, over seeds × tasks (Searle et al. 1992)."""
    generator = np.random.default_rng(2)
    data = 2.0 * generator.normal(size=(3, 1, 1)) + 3.0 * generator.normal(size=(1, 20, 1))
    data = data + generator.normal(size=(3, 20, 1))
    seeds, tasks, x = 3, 20, data[..., 0]
    residual = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    squares = (
        tasks * x.mean(1).var(ddof=1), seeds * x.mean(0).var(ddof=1), (residual**2).sum() / ((seeds - 1) * (tasks - 1))
    )  # fmt: skip
    variance, freedom = stats._spread(data).total()
    assert variance[0] == pytest.approx((squares[0] + squares[1] - squares[2]) / (seeds * tasks))
    assert 2.0 < freedom[0] < 38.0


def test_a_task_brings_all_its_points_along():
    """Two points that differ by a constant have intervals that differ by it exactly."""
    first = np.random.default_rng(3).normal(size=(2, 50, 1))
    for statistic in ("mean", "iqm"):
        low, high = stats.interval(np.concatenate([first, first + 5.0], axis=2), statistic)
        np.testing.assert_allclose([low[1] - low[0], high[1] - high[0]], 5.0, atol=1e-9)


def test_a_point_that_is_no_number_has_no_interval_and_spoils_no_other():
    data = np.random.default_rng(4).normal(size=(3, 30, 2))
    whole = stats.interval(data[:, :, 1:])
    data[1, 2, 0] = np.nan
    for statistic in ("mean", "iqm"):
        low, high = stats.interval(data, statistic)
        assert np.isnan(low[0]) and np.isnan(high[0]) and np.isfinite([low[1], high[1]]).all()
    np.testing.assert_allclose(np.stack(stats.interval(data))[:, 1:], np.stack(whole))


@pytest.mark.parametrize("place", range(8))
def test_a_trimmed_mean_hides_no_result_that_is_no_number(place):
    """Sorted, it would stand at the upper end, which is left out."""
    results = np.arange(8.0)
    results[place] = np.nan
    assert np.isnan(stats.trimmed_mean(results))
    np.testing.assert_array_equal(np.isnan(stats.iqm(np.stack([results, np.arange(8.0)], axis=1)[None])), [True, False])


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_what_single_results_vary_by_counts_once(statistic):
    """Seeds' and tasks' parts both hold it: where nothing else varies, their sum is twice the variance."""
    data = np.random.default_rng(7).normal(size=(6, 40, 3000))  # a study in each point
    spread, estimate = (
        (stats._spread, stats.mean) if statistic == "mean" else (stats._iqm_spread, stats.iqm)
    )  # fmt: skip
    parts = spread(data)
    of_seeds, of_tasks, of_cells = (sum(each for each, _ in some) for some in parts)
    true = estimate(data).var()
    assert (of_seeds + of_tasks - of_cells).mean() == pytest.approx(true, rel=0.15)
    assert (parts.total()[0] >= np.maximum(of_seeds, of_tasks) - 1e-12).all()


def test_interval_of_a_single_result_is_that_result():
    np.testing.assert_array_equal(stats.interval(np.full((1, 1, 2), 3.0), "iqm"), np.full((2, 2), 3.0))


def test_where_the_tasks_are_all_there_are_only_seeds_vary_or_trials():
    """Two tasks that differ by 2 or so and three seeds: a t interval over the seeds; one seed: over its trials."""
    seeds = np.array([0.9, 1.0, 1.4])
    returns = (seeds[:, None] + np.array([[-1.2, 1.2], [-0.9, 0.9], [-0.9, 0.9]]))[:, :, None]
    low, high = stats.interval(returns, every_task=True)
    expected = scipy_stats.t.interval(0.95, 2, seeds.mean(), seeds.std(ddof=1) / np.sqrt(3))
    np.testing.assert_allclose([low[0], high[0]], expected)
    low, high = stats.interval(returns[:1], every_task=True, noise=[[0.1]])
    np.testing.assert_allclose([low[0], high[0]], [0.9 - 0.196, 0.9 + 0.196], atol=1e-4)
    np.testing.assert_array_equal(stats.interval(returns[:1], every_task=True), stats.interval(returns[:1]))
    of_iqm = stats.interval(returns[:1], "iqm", every_task=True, noise=[[0.1]])  # the noise is that of a mean
    np.testing.assert_array_equal(of_iqm, stats.interval(returns[:1], "iqm"))


def test_the_paired_difference_on_all_tasks_is_one_of_seeds_and_trials():
    a = (np.array([0.9, 1.0, 1.4])[:, None] + np.array([-1.0, 1.0]))[:, :, None]
    b = np.array([[[5.0], [-5.0]]])
    difference, low, high = stats.paired_difference(a, b, every_task=True, noise=(None, [[1e-9]]))
    expected = scipy_stats.t.interval(0.95, 2, 1.1, a.mean(axis=1).std(ddof=1) / np.sqrt(3))
    np.testing.assert_allclose([difference[0], low[0], high[0]], [1.1, *expected], atol=1e-6)
    without = stats.paired_difference(a, b, every_task=True)
    np.testing.assert_array_equal(without, stats.paired_difference(a, b))  # the noise of b is not known


def test_large_data_take_little_memory():
    """3 seeds × 10,000 tasks × 100 points are 24 MB of float64."""
    data = np.random.default_rng(7).normal(size=(3, 10_000, 100)).astype(np.float32)
    tracemalloc.start()
    low, high = stats.interval(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert 0.02 < np.median(high - low) < 0.06  # 2 × 1.96 / √30,000 = 0.023, and more with few degrees of freedom


def test_probability_of_improvement_interval_by_hand():
    # Better on every one of three tasks by less than tasks differ: nothing is left to chance, as tasks are paired.
    assert stats.probability_of_improvement_interval([[1.0, 101.0, 201.0]], [[0.0, 100.0, 200.0]]) == (1.0, 1.0)
    assert stats.probability_of_improvement_interval([[1.0, 2.0]], [[1.0, 2.0]]) == (0.5, 0.5)
    # One win and one loss say nothing: a t interval of two tasks, cut off at 0 and 1.
    assert stats.probability_of_improvement_interval([[1.0, 0.0]], [[0.0, 1.0]]) == (0.0, 1.0)
    wins = np.array([1, 1, 1, 0, 1, 1, 0, 1, 1, 1], dtype=float)
    low, high = stats.probability_of_improvement_interval(wins[None], np.full((1, 10), 0.5))
    expected = scipy_stats.t.interval(0.95, 9, 0.8, scipy_stats.sem(wins))
    np.testing.assert_allclose([low, high], [expected[0], 1.0])


def test_the_paired_difference_is_blind_to_how_hard_tasks_are():
    generator = np.random.default_rng(8)
    hard = 100.0 * generator.normal(size=(1, 200, 1))
    a, b = hard + 1.0 + generator.normal(size=(1, 200, 1)), hard + generator.normal(size=(1, 200, 1))
    difference, low, high = stats.paired_difference(a, b)
    expected = scipy_stats.ttest_rel(a[0, :, 0], b[0, :, 0]).confidence_interval(0.95)
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high])
    assert low[0] < difference[0] < high[0] and high[0] - low[0] < 1.0
    with pytest.raises(ValueError, match="same tasks and points"):
        stats.paired_difference(a, b[:, :10])


def test_the_paired_difference_has_each_agents_seeds():
    a = np.array([1.0, 2.0, 6.0])[:, None, None] + np.zeros((3, 9, 1))
    b = np.array([0.0, 1.0, 2.0, 1.0])[:, None, None] + np.zeros((4, 9, 1))
    difference, low, high = stats.paired_difference(a, b)
    expected = scipy_stats.ttest_ind(a[:, 0, 0], b[:, 0, 0], equal_var=False).confidence_interval(0.95)
    assert difference[0] == 2.0 and low[0] <= expected.low and high[0] >= expected.high, "Welch's, at least"


def half_width(parts, level=0.95):
    """That of an interval from pairs of a variance and its degrees of freedom (Satterthwaite 1946)."""
    variance = sum(each for each, _ in parts)
    freedom = max(variance**2 / sum(each**2 / degrees for each, degrees in parts), min(d for _, d in parts))
    return scipy_stats.t.ppf(0.5 + level / 2, freedom) * np.sqrt(variance)


def test_the_interval_of_the_probability_has_the_seeds_of_both_and_the_tasks():
    """Each part by a loop: the share of wins of a seed of one agent, of the other, and on a task."""
    generator = np.random.default_rng(11)
    a, b = generator.normal(size=(4, 30)), generator.normal(size=(3, 30)) + 0.1 * generator.normal(size=(3, 1))
    of_a = [np.mean([x > y for y in b]) for x in a]
    of_b = [np.mean([x > y for x in a]) for y in b]
    of_tasks = [np.mean([x > y for x in a[:, task] for y in b[:, task]]) for task in range(30)]
    parts = [(np.var(each, ddof=1) / len(each), len(each) - 1) for each in (of_a, of_b, of_tasks)]
    low, high = stats.probability_of_improvement_interval(a, b)
    half = max(half_width(parts), half_width(parts[:1]), half_width(parts[1:2]))
    np.testing.assert_allclose([low, high], np.mean(of_a) + half * np.array([-1.0, 1.0]))
    assert 0.0 < low < high < 1.0


def test_two_seeds_have_the_interval_of_all_parts_and_not_the_wider_one_of_the_seeds():
    generator = np.random.default_rng(12)
    data = generator.normal(size=(1, 50, 1)) + 0.3 * generator.normal(size=(2, 50, 1))
    spread = stats._spread(data)
    variance, freedom = spread.total()
    low, high = stats.interval(data)
    np.testing.assert_allclose(high - low, 2 * scipy_stats.t.ppf(0.975, freedom) * np.sqrt(variance))
    three = generator.normal(size=(3, 1, 1)) + 3.0 * generator.normal(size=(1, 50, 1))
    low, high = stats.interval(three)
    assert high[0] - low[0] >= 2 * half_width(stats._spread(three).seeds) - 1e-9


def test_the_paired_difference_subtracts_the_single_results_of_both():
    """They are in the seeds' parts and in the tasks' part: where nothing else varies, they would count twice."""
    generator = np.random.default_rng(13)
    a, b = generator.normal(size=(5, 60, 1)), 3.0 * generator.normal(size=(5, 60, 1))
    (first, second), of_tasks = (stats._spread(each) for each in (a, b)), (a.mean(0) - b.mean(0))[:, 0]
    parts = stats.Spread(
        first.seeds + second.seeds,
        ((np.array([of_tasks.var(ddof=1) / 60]), 59),),
        first.cells + second.cells,
    )
    assert len(parts.cells) == 2
    expected = stats._around(np.array([a.mean() - b.mean()]), parts, 0.95)
    _, low, high = stats.paired_difference(a, b)
    np.testing.assert_allclose([low, high], expected)


def test_the_cumulative_regret_and_its_slope_by_hand():
    # Means 1, 5, 9: an oracle of 10 loses 9, 5 and 1.
    np.testing.assert_allclose(stats.cumulative_regret(RETURNS, [9.0, 11.0]), [9.0, 14.0, 15.0])
    assert stats.regret_slope(RETURNS, 10.0, share=1.0) == pytest.approx(3.0)
    # Of three points the last half is two, rounded up; of five points three.
    assert stats.regret_slope(RETURNS, 10.0) == pytest.approx(1.0)
    five = np.array([0.0, 4.0, 8.0, 9.0, 9.0]).reshape(1, 1, 5)  # loses 10, 6, 2, 1, 1: in sum 10, 16, 18, 19, 20
    assert stats.regret_slope(five, 10.0) == pytest.approx(1.0)
    assert stats.regret_slope(five + np.array([0, 0, 2, -3, 0]), 10.0) == pytest.approx((21.0 - 16.0) / 2)


def test_performance_profile():
    scores = np.array([[0.1, 0.5, 0.9], [0.5, 0.7, 1.1]])
    # Above, not at, the threshold.
    np.testing.assert_allclose(stats.performance_profile(scores, [0.0, 0.5, 0.8, 1.1]), [1.0, 3 / 6, 2 / 6, 0.0])
    low, high = stats.performance_profile_interval(scores, [0.0, 0.5, 0.8, 1.1])
    assert low[0] == high[0] == 1.0 and low[3] == high[3] == 0.0 and low[1] < 0.5 < high[1]
    # Each threshold is the mean of an indicator, whose interval exists already.
    expected = stats.interval((scores[:, :, None] > np.array([0.5])).astype(float), level=0.5)
    np.testing.assert_array_equal(stats.performance_profile_interval(scores, [0.5], level=0.5), np.clip(expected, 0, 1))


def test_generalisation_gap_keeps_seeds_together_and_tasks_apart():
    # Seed 2 is 10 better on both splits: the gap of each seed is 1, and no task differs from another.
    train, test = np.array([[5.0, 5.0], [15.0, 15.0]]), np.array([[4.0, 4.0, 4.0], [14.0, 14.0, 14.0]])
    np.testing.assert_allclose(stats.generalisation_gap(train, test), (1.0, 1.0, 1.0))
    # One seed and one test task: all that varies is the mean of two training tasks.
    half = scipy_stats.t.ppf(0.975, 1) * 1.0
    np.testing.assert_allclose(stats.generalisation_gap([0.0, 2.0], [0.5]), (0.5, 0.5 - half, 0.5 + half))
    # Two sets of tasks are independent: Welch's interval.
    first, second = np.random.default_rng(9).normal(size=(2, 30))
    gap, low, high = stats.generalisation_gap(first[None], second[None])
    expected = scipy_stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([gap, low, high], [first.mean() - second.mean(), expected.low, expected.high])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: stats.interval(RETURNS, "median"), "'mean' or 'iqm'"),
        (lambda: stats.interval(RETURNS, level=95), "between 0 and 1"),
        (lambda: stats.mean(np.zeros((3, 4))), "seeds, tasks, points"),
        (lambda: stats.iqm(np.zeros((3, 0, 4))), "at least one"),
        (lambda: stats.regret_slope(RETURNS, 10.0, share=0.0), "share must lie"),
        (lambda: stats.regret_slope(RETURNS[:, :, :1], 10.0), "at least two points"),
        (lambda: stats.generalisation_gap([[1.0], [2.0]], [1.0]), "same seeds on both splits, got 2 and 1"),
        (lambda: stats.probability_of_improvement_interval([1.0], [1.0, 2.0]), "same tasks"),
        (lambda: stats.probability_of_improvement_interval([1.0], [1.0], level=2), "between 0 and 1"),
    ],
)
def test_mistakes(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
