"""Cross-validation: every task is held out once, from an agent that does not train on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.tree import features
from metarl.studies import folds
from metarl.training.config.errors import ConfigError

SMALL = {"total_iterations": 1, "agent": {"meta_batch_size": 8, "hidden_size": 8}, "num_threads": 1, "eval_every": 0}


def rows(family: TaskFamily, split: str) -> set[tuple[float, ...]]:
    tasks = family.tasks_of(split)
    assert tasks is not None
    return {tuple(row.tolist()) for row in features(tasks)}


@pytest.mark.parametrize("name", ["GridNavi", "DarkRoom", "TMaze"])
def test_folds_divide_the_tasks(name: str):
    whole, held_out = rows(metarl.make(f"metarl/{name}-v0"), "all"), []
    parts = min(4, len(whole))
    for part in range(1, parts + 1):
        family = metarl.make(f"metarl/{name}-v0")
        family.hold_out(part, parts)
        test = rows(family, "test")
        assert test and rows(family, "train") == whole - test
        assert rows(family, "valid") <= rows(family, "train")
        assert rows(family, "all") == whole and rows(family, "ood") == rows(metarl.make(f"metarl/{name}-v0"), "ood")
        drawn = features(family.sample_tasks(rng.key(0), 200))
        assert {tuple(row.tolist()) for row in drawn} <= whole - test
        held_out.append(test)
    assert sum(map(len, held_out)) == len(whole) and set().union(*held_out) == whole
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1


def test_without_a_fold_nothing_changes():
    plain, other = metarl.make("metarl/GridNavi-v0"), metarl.make("metarl/GridNavi-v0")
    other.hold_out(1, 3)
    other.fold = None
    for split in ("train", "valid", "test", "ood", "all"):
        assert torch.equal(*(features(each.sample_tasks(rng.key(3), 50, split)) for each in (plain, other)))


@pytest.mark.parametrize(
    ("fold", "words"),
    [("0/3", "2 to 21 parts"), ("4/3", "2 to 21 parts"), ("1/22", "2 to 21 parts"), ("1/1", "2 to 21"), ("x", "2/5")],
)
def test_a_wrong_fold_is_named(fold: str, words: str):
    with pytest.raises(ConfigError, match=words):
        metarl.run("rl2_gridnavi", fold=fold, train_split="train")


def test_a_family_without_end_has_no_folds():
    with pytest.raises(ConfigError, match="infinitely many tasks"):
        metarl.run("rl2_navigation2d", fold="1/3")
    with pytest.raises(ConfigError, match="train_split: train"):
        metarl.run("rl2_gridnavi", fold="1/3")
    with pytest.raises(ConfigError, match="leave out train_tasks"):
        metarl.run("rl2_gridnavi", fold="1/3", train_split="train", train_tasks=4)


def test_the_curve_holds_every_task_once(tmp_path: Path):
    curve = metarl.cross_validate("rl2_gridnavi", folds=3, repeats=2, run_dir=tmp_path, **SMALL)
    assert curve.returns.shape == (1, 21, 4) and curve.distinct == 21 and curve.split == folds.HELD_OUT
    values = {tuple(row) for row in curve.task_values["goal"].tolist()}
    assert len(values) == 21
    low, high = curve.interval()
    assert (low <= curve.mean()).all() and (curve.mean() <= high).all()
    assert "tasks" in curve.interval_of()

    agent = metarl.load(tmp_path / "fold_2")  # the run knows its fold
    assert agent.family.fold == (2, 3)
    alone = metarl.evaluate(agent, split="test", tasks=7, repeats=2, step_curve=False)
    np.testing.assert_array_equal(alone.returns, curve.returns[:, 7:14])

    again = metarl.cross_validate("rl2_gridnavi", folds=3, repeats=2, run_dir=tmp_path, **SMALL)
    np.testing.assert_array_equal(again.returns, curve.returns)


def test_noise_of_the_joint_mean_is_that_of_independent_parts():
    agent = metarl.load("pretrained:rl2_gridnavi")
    one = metarl.evaluate(agent, split="train", tasks=15, repeats=4, step_curve=False)
    joint = folds.join_tasks([one, one])
    assert one.noise is not None and joint.noise is not None
    np.testing.assert_allclose(joint.noise, one.noise / np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(joint.mean(), one.mean(), rtol=1e-6)


@pytest.mark.parametrize("changes", [{"folds": 1}, {"folds": True}, {"fold": "1/2"}, {"eval_splits": ["test"]}])
def test_mistakes_are_named(changes: dict[str, object]):
    with pytest.raises(ConfigError, match=r"folds must be|is set by cross_validate"):
        metarl.cross_validate("rl2_gridnavi", **changes)  # type: ignore[arg-type]
