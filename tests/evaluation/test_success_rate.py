"""The share of solved episodes, which evaluations report of families that count it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import metarl
from metarl import AdaptationCurve
from metarl.agents.random import RandomAgent
from metarl.agents.reference.catalogue import baseline
from metarl.agents.reference.grids import GridNaviSweep
from metarl.envs import GridNavi
from metarl.evaluation.curve import combine
from metarl.report.console import text_of
from metarl.report.table import adaptation_table
from metarl.training.log.metrics import curve_metrics


class Counting(GridNavi):
    """GridNavi that counts success: an episode that reaches the goal, which pays 1 instead of -0.1, at some step."""

    counts_success: ClassVar[bool] = True


def curve(agent=None, **options) -> AdaptationCurve:
    return metarl.evaluate(agent or RandomAgent(Counting()), Counting(), split="all", **{"tasks": 21} | options)


def test_a_family_that_does_not_count_it_has_none():
    found = metarl.evaluate(RandomAgent(GridNavi()), GridNavi(), tasks=6)
    assert found.success is None and "success" not in found.summary()
    with pytest.raises(ValueError, match="does not count success"):
        found.success_by("cell")


def test_an_episode_is_solved_if_it_was_at_some_step():
    """A return above 15 · -0.1 says that the goal was reached, which the last step alone does not."""
    found = curve(repeats=1)
    assert found.success is not None
    assert np.array_equal(found.success, (found.returns > -1.49).astype(np.float32))
    assert 0 < found.success.mean() < 1


def test_success_is_a_mean_over_repeats_and_does_not_change_the_returns():
    with_it, without = curve(repeats=8), metarl.evaluate(RandomAgent(GridNavi()), GridNavi(), "all", 21, repeats=8)
    assert np.array_equal(with_it.returns, without.returns)
    assert with_it.success is not None and set(np.unique(with_it.success * 8) % 1) == {0.0}


def test_greedy_play_and_rounds_are_watched_once():
    agent = GridNaviSweep()
    found = curve(agent, greedy=True, repeats=1)
    assert found.success is not None and found.success[:, :, -1].min() == 1.0
    assert found.summary()["success"] == 1.0
    assert found.summary()["success_first"] == pytest.approx(found.success[:, :, 0].mean())


def test_by_a_number_of_the_tasks():
    found = curve(repeats=4)
    assert found.success is not None
    with pytest.raises(ValueError, match=r"Unknown number of the tasks: 'cell'\. "):
        found.success_by("cell")  # two numbers
    place = np.arange(21, dtype=np.float32)[:, None] % 3
    found.task_values["third"] = place  # type: ignore[index]  # a dictionary
    values, share = found.success_by("third", last=2)
    assert values.tolist() == [0.0, 1.0, 2.0] and share.shape == (1, 3)
    expected = [found.success[0, place[:, 0] == group, -2:].mean() for group in range(3)]
    assert np.allclose(share[0], expected)


def test_it_is_kept_in_files_and_by_combine(tmp_path: Path):
    found = curve(repeats=2)
    found.save(tmp_path / "test")
    loaded = AdaptationCurve.load(tmp_path / "test")
    assert loaded.success is not None and np.array_equal(loaded.success, found.success)
    assert np.array_equal(loaded.returns, found.returns) and loaded.summary() == found.summary()
    both = combine([found, loaded])
    assert both.success is not None and both.success.shape == both.returns.shape
    header = (tmp_path / "test.csv").read_text().splitlines()[0]
    names = ",".join(f'"success, episode {number}"' for number in range(1, 5))
    assert header.endswith(f'episode 4,{names},"score, odd trials","score, even trials"')


def test_it_is_shown_and_logged():
    found = curve(baseline("oracle", GridNavi()), repeats=1)
    shown = text_of(adaptation_table({"all": found}))
    assert "success" in shown and "100 %" in shown
    assert curve_metrics(found)["eval/all/success"] == 1.0


def test_shapes_are_checked():
    found = curve(repeats=1)
    with pytest.raises(ValueError, match="success must have the shape"):
        type(found)(**{**vars(found), "success": np.zeros((1, 2, 3), np.float32)})
