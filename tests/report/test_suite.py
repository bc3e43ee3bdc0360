"""Agents on several families: numbers by hand, intervals, files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_comparison import curve

from metarl.report.suite import Suite


def of(value: float, spread: float = 0.1, tasks: int = 40, seeds: int = 1, **options):
    noise = np.random.default_rng(int(1000 * abs(value))).normal(0.0, spread, size=(seeds, tasks, 1))
    returns = np.concatenate([np.zeros_like(noise), value + noise - noise.mean()], axis=2)
    return curve(returns, **options)


SUITE = Suite({
    "A": {"x": of(0.9), "y": of(0.5), "z": of(0.1)},
    "B": {"x": of(0.6), "y": of(0.8), "z": of(0.2)},
    "C": {"x": of(-40.0, 10.0, random=-100.0, oracle=0.0), "y": of(-50.0, 10.0, random=-100.0, oracle=0.0),
          "z": of(-90.0, 10.0, random=-100.0, oracle=0.0)},
})  # fmt: skip


def test_means_and_ranks_by_hand():
    rows = {row["agent"]: row for row in SUITE.summary()}
    assert list(rows) == ["x", "y", "z"], "the best mean first"
    assert rows["x"]["mean"][0] == pytest.approx((0.9 + 0.6 + 0.6) / 3, abs=1e-5)
    assert rows["y"]["families"] == pytest.approx({"A": 0.5, "B": 0.8, "C": 0.5}, abs=1e-5)
    assert [rows[name]["rank"][0] for name in "xyz"] == pytest.approx([4 / 3, 5 / 3, 3.0])
    for row in rows.values():
        for name in ("mean", "iqm", "rank"):
            value, low, high = row[name]
            assert low <= value <= high
    # Of a mean of three families, each with the standard error of 40 tasks.
    low, high = rows["x"]["mean"][1:]
    assert high - low == pytest.approx(2 * 2.02 * 0.1 / np.sqrt(40) / np.sqrt(3), rel=0.25)


def test_seeds_widen_the_interval():
    wide = Suite({"A": {"x": curve(np.array([0.2, 0.5, 0.8])[:, None, None] + np.zeros((3, 30, 1)))}})
    _, low, high = wide.summary()[0]["mean"]
    assert high - low == pytest.approx(2 * 4.303 * 0.3 / np.sqrt(3), rel=0.15), "two degrees of freedom"


def test_profiles_weigh_families_alike():
    suite = Suite({"A": {"x": of(0.9, 0.0, tasks=4)}, "B": {"x": of(0.1, 0.0, tasks=400)}})
    share, low, high = suite.profile(np.array([0.0, 0.5, 1.0]))["x"]
    np.testing.assert_allclose(share, [1.0, 0.5, 0.0])
    assert (low <= share).all() and (share <= high).all()


def test_files(tmp_path):
    json_path, md_path, png_path = SUITE.save(tmp_path)
    assert json.loads(json_path.read_text("utf-8"))["agents"][0]["agent"] == "x"
    assert md_path.read_text("utf-8").count("\n") == 5 and png_path.stat().st_size > 10_000
    assert SUITE.table().row_count == 3


@pytest.mark.parametrize(
    ("curves", "sentence"),
    [
        ({}, "at least one family"),
        ({"A": {"x": of(0.5)}, "B": {"y": of(0.5)}}, "the same agents, but 'B' has y"),
        ({"A": {"x": replace(of(0.5), oracle=None)}}, "'x' on 'A' cannot be normalised"),
    ],
)
def test_mistakes(curves, sentence):
    with pytest.raises(ValueError, match=sentence):
        Suite(curves)
