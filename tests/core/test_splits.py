"""Splits: finite ones are counted, `valid` never shows a task of `test`, lists are fixed, streams stay."""

import numpy as np
import pytest
import torch
from registered_families import IDS
from small_families import Corridor, Reach
from torch import Tensor

import metarl
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.tree import features, num_rows, take
from metarl.envs import GridNavi, Navigation2D
from metarl.envs.mujoco.half_cheetah import HalfCheetahVel
from metarl.envs.points.plane import Goal

FAMILIES = {id: metarl.make(id) for id in IDS}
FINITE = [(id, split) for id, family in FAMILIES.items() for split in family.splits if family.num_tasks(split)]


def rows(tasks) -> set[bytes]:
    return {row.tobytes() for row in features(tasks).numpy()}


@pytest.mark.parametrize(("id", "split"), FINITE)
def test_a_finite_split_is_what_its_draws_come_from(id: str, split: str):
    family = FAMILIES[id]
    count, every = family.num_tasks(split), rows(family.tasks_of(split))
    assert len(every) == num_rows(family.tasks_of(split)) == count, "each task once"
    drawn = rows(family.sample_tasks(rng.key(0), 4000, split))
    assert drawn <= every
    if count <= 300:  # then 4000 draws miss a task with probability below 300 · exp(-13)
        assert drawn == every


@pytest.mark.parametrize("id", FAMILIES)
def test_valid_tells_nothing_of_test(id: str):
    """A part of a finite `train`; of a distribution, a stream of its own with the distribution of `train`."""
    family = FAMILIES[id]
    assert "valid" in family.splits
    valid = features(family.sample_tasks(rng.key(1), 500, "valid"))
    train = features(family.sample_tasks(rng.key(1), 500, "train"))
    if family.num_tasks("valid"):
        assert rows(family.tasks_of("valid")) <= rows(family.tasks_of("train"))
    else:
        spread = train.std(0) * (1 / 500 + 1 / (family.num_tasks("train") or 500)) ** 0.5
        assert bool(((valid.mean(0) - train.mean(0)).abs() <= 6 * spread + 1e-6).all())
        assert not torch.equal(valid, train)
    if "test" in family.splits and family.num_tasks("test"):
        assert not rows(family.sample_tasks(rng.key(1), 500, "valid")) & rows(family.tasks_of("test"))


def test_a_family_without_valid_has_it_from_training_s_distribution():
    family = Corridor()
    assert "valid" not in family.splits
    assert torch.equal(
        family.sample_tasks(rng.key(0), 20, "valid").length,
        family.draw_tasks(rng.fold(rng.fold(rng.key(0), 4), torch.arange(20)), "train").length,
    )


@pytest.mark.parametrize("count", [1, 5, 100])
def test_a_training_list_of_a_distribution(count: int):
    family = Navigation2D()
    fresh = {split: family.sample_tasks(rng.key(3), 200, split).position for split in family.splits}
    family.train_tasks = count
    assert family.num_tasks("train") == count and family.num_tasks("test") is None
    lists = [rows(family.sample_tasks(rng.key(seed), 3000)) for seed in (0, 1)]
    assert lists[0] == lists[1] == rows(family.tasks_of("train")) and len(lists[0]) == count
    for split in ("valid", "test", "ood"):  # nothing else moves
        assert torch.equal(family.sample_tasks(rng.key(3), 200, split).position, fresh[split])


def test_a_longer_list_begins_with_a_shorter_one():
    family = Navigation2D()
    family.train_tasks = 5
    few = family.tasks_of("train").position
    family.train_tasks = 50
    assert torch.equal(family.tasks_of("train").position[:5], few)


def test_a_training_list_of_a_finite_set():
    family = GridNavi()
    valid, every = rows(family.tasks_of("valid")), rows(family.tasks_of("train"))
    family.train_tasks = 5
    part = rows(family.sample_tasks(rng.key(0), 1000))
    assert len(part) == len(valid) == 5 and part < every and valid < every
    assert rows(family.tasks_of("valid")) == valid, "`valid` does not depend on how much one trains on"
    family.train_tasks = 16
    with pytest.raises(ValueError, match="train_tasks of GridNavi must be at most 15, got 16"):
        family.sample_tasks(rng.key(0), 1)


@pytest.mark.parametrize(("count", "expected"), [(5, 5), (6, 2), (11, 3)])
def test_valid_is_a_third_of_six_tasks_or_more_and_all_of_fewer(count: int, expected: int):
    class Few(GridNavi):
        def enumerate_tasks(self, split: str):
            return take(super().enumerate_tasks(split), slice(count))

    assert Few().num_tasks("valid") == expected


def test_a_training_list_is_an_option_of_every_family():
    assert metarl.make("metarl/WindyPoint-v0", train_tasks=7).num_tasks("train") == 7
    assert metarl.make("metarl/HalfCheetahVel-v0", train_tasks=7).num_tasks("train") == 7
    assert metarl.make("metarl/HalfCheetahVel-v0").num_tasks("train") == 100
    with pytest.raises(ValueError, match="train_tasks must be a whole number of at least 1, got 0"):
        metarl.make("metarl/WindyPoint-v0", train_tasks=0)


def test_papers_lists_are_cut_in_valid_to_nothing():
    """`valid` of a paper's list is not the list: fresh tasks say more."""
    family = HalfCheetahVel()
    valid = features(family.sample_tasks(rng.key(0), 200, "valid")).numpy()
    known = {split: features(family.tasks_of(split)).numpy() for split in ("train", "test")}
    assert not any(np.isin(valid, tasks).any() for tasks in known.values())


class Own(Reach):
    """Splits with names of their own."""

    splits = ("train", "easy", "hard")

    def draw_tasks(self, keys: Tensor, split: str) -> Goal:
        return Goal(rng.uniform(keys, 2) + (1.0 if split == "hard" else 0.0))


def test_splits_of_other_names_have_streams_of_their_own():
    easy, hard = (Own().sample_tasks(rng.key(0), 100, split).position for split in ("easy", "hard"))
    assert not torch.isclose(easy, hard - 1.0).any()
    with pytest.raises(ValueError, match=r"Unknown split of Own: 'test'.*Known: train, easy, hard"):
        Own().sample_tasks(rng.key(0), 1, "test")


def test_where_tasks_come_from_must_be_written():
    class Nothing(Reach):
        draw_tasks = TaskFamily.draw_tasks

    with pytest.raises(NotImplementedError, match="Nothing must implement draw_tasks"):
        Nothing().sample_tasks(rng.key(0), 1)
