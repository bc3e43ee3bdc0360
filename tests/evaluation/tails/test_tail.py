"""The tail of an evaluation: unbiased for the tasks it chooses, intervals that cover, and files that keep it."""

import numpy as np
import pytest
from small_families import Corridor, Reach

from metarl.agents.random import RandomAgent
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve, combine
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.tails import tail
from metarl.report.table import adaptation_table
from metarl.training.log.metrics import curve_metrics


def studies(truth, noise: float, number: int, seed: int = 0):
    """Measured halves ``(number, tasks, 2)`` of tasks whose true scores are `truth`."""
    rng = np.random.default_rng(seed)
    return truth[None, :, None] + noise * rng.standard_normal((number, len(truth), 2))


def test_the_worst_of_equal_tasks_is_no_worse_than_they_are():
    """Where all tasks are alike, choosing and measuring on the same trials finds a tail that does not exist."""
    halves = studies(np.full(50, 3.0), 1.0, 4000)
    own = [tail.cvar(each[None]) for each in halves]
    least = [float(tail.worst(each[None])[0]) for each in halves]
    assert np.mean(own) == pytest.approx(3.0, abs=0.03) and np.mean(least) == pytest.approx(3.0, abs=0.06)
    naive = np.sort(halves.mean(axis=2), axis=1)
    assert naive[:, :5].mean() < 1.9 and naive[:, 0].mean() < 1.5


def test_the_estimate_is_the_true_mean_of_the_tasks_that_it_chose():
    """On tasks of any kind: the expectation of the measurement is that of the truth on what was chosen."""
    truth = np.random.default_rng(1).gamma(2.0, size=40)
    halves = studies(truth, 1.5, 4000, seed=2)
    chosen = halves.argsort(axis=1)[:, :4]  # (studies, 4, 2) by each half
    of_truth = truth[chosen].mean(axis=(1, 2))
    estimate = np.array([tail.cvar(each[None]) for each in halves])
    error = estimate - of_truth
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))
    lowest = np.sort(truth)[:4].mean()
    assert estimate.mean() > lowest  # a choice by noisy trials cannot be the worst tasks themselves
    assert np.sort(halves.mean(2), axis=1)[:, :4].mean() < estimate.mean() - 0.3


def test_without_noise_it_is_the_mean_of_the_lowest_tenth():
    truth = np.random.default_rng(0).standard_normal(95)
    halves = np.stack([truth, truth], axis=1)[None]
    assert tail.cvar(halves) == pytest.approx(np.sort(truth)[:10].mean())  # 9.5, rounded up
    assert tail.worst(halves)[0] == truth.min()
    assert tail.cvar(halves, share=1.0) == pytest.approx(truth.mean())


def test_intervals_cover_the_tail():
    """The interval holds the CVaR of the distribution in about 95 of 100 studies of noiseless trials."""
    rng = np.random.default_rng(5)
    truth = -(1.0 + np.log(10.0))  # of minus an exponential
    inside = 0
    for _ in range(300):
        scores = -rng.exponential(size=400)
        parts = tail.contributions(np.stack([scores, scores], axis=1)[None])[:, :, None]
        low, high = stats.interval(parts)
        inside += bool(low[0] <= truth <= high[0])
    assert 0.88 <= inside / 300 <= 0.99


def test_halves_are_the_odd_and_the_even_trials():
    scores = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert tail.halves_of(scores).tolist() == [[2.0, 2.0], [5.0, 5.0]]
    assert tail.halves_of(scores[:, :1]) is None


@pytest.fixture(scope="module")
def curve() -> AdaptationCurve:
    family = Reach()
    return evaluate(RandomAgent(family), family, tasks=30, repeats=4)


def test_an_evaluation_has_its_tail(curve: AdaptationCurve):
    assert curve.halves.shape == (1, 30, 2)
    np.testing.assert_allclose(curve.halves.mean(2), curve.scores, rtol=1e-5)
    found = curve.summary()
    assert found["cvar_10"] == pytest.approx(tail.cvar(curve.halves))
    assert found["cvar_10_low"] < found["cvar_10"] < found["cvar_10_high"]
    assert curve_metrics(curve)["eval/test/worst_task"] == found["worst_task"]
    table = adaptation_table({"test": curve})
    assert [*table.columns[0].cells][1:3] == ["  worst 10 %", "  worst task"]


def test_one_trial_or_few_tasks_have_no_tail():
    family = Corridor()
    few, once = (evaluate(RandomAgent(family), family, "ood", tasks, repeats) for tasks, repeats in ((5, 3), (30, 1)))
    assert few.halves is not None and once.halves is None
    assert few.tail() == once.tail() == {} and "cvar_10" not in once.summary()


def test_files_keep_it_and_seeds_join(curve: AdaptationCurve, tmp_path):
    curve.save(tmp_path / "test")
    again = AdaptationCurve.load(tmp_path / "test")
    np.testing.assert_array_equal(again.halves, curve.halves)
    np.testing.assert_array_equal(again.returns, curve.returns)
    joined = combine([curve, curve])
    assert joined.halves.shape == (2, 30, 2) and joined.summary()["cvar_10"] == pytest.approx(
        curve.summary()["cvar_10"]
    )
