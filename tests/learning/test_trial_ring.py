"""The ring of trials: what it holds, what it gives back, and that a state goes on exactly."""

from __future__ import annotations

import pytest
import torch

import metarl
from metarl.agents.random import RandomAgent
from metarl.agents.rl2 import RL2Config
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import columns, leaves, take, tree_map
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi
from metarl.learning import ranks, trial_ring
from metarl.learning.trial_ring import TrialRing

CPU = torch.device("cpu")
FAMILY = BernoulliBandit(num_arms=2, episodes_per_trial=3)


def played(rows: int, seed: int = 0, family: TaskFamily = FAMILY) -> Rollout:
    agent = RL2Config(meta_batch_size=4, hidden_size=4).build(family, 0, CPU)
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(seed), rows), rng.key(seed))
    return rollout


def marked(first: int, rows: int) -> Rollout:
    """Trials whose rewards, at every step, are their numbers: `first`, `first` + 1, …"""
    rollout = played(rows)
    numbers = torch.arange(first, first + rows).to(torch.float32).expand_as(rollout.outcome.reward)
    return rollout._replace(outcome=rollout.outcome._replace(reward=numbers))


def drawn(ring: TrialRing, n: int = 2000, seed: int = 0) -> list[int]:
    """The numbers of the trials of a sample of a ring of `marked` ones."""
    return ring.sample(rng.key(seed), n).outcome.reward[0].to(torch.int64).tolist()


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 10, 25])
def test_the_newest_trials_are_there_and_no_others(rows: int):
    ring = TrialRing(10, FAMILY)
    for first in range(0, 5 * rows, rows):
        ring.add(marked(first, rows))
        assert set(drawn(ring)) == set(range(first + rows)[-10:])
        assert len(ring) == min(first + rows, 10)


def test_a_sample_is_of_whole_trials_in_their_own_types():
    family = GridNavi(episodes_per_trial=2)
    rollout = played(6, family=family)
    ring = TrialRing(6, family)
    ring.add(rollout)
    sample = ring.sample(rng.key(3), 50)
    numbers = rng.integers(rng.key(3), 50, 6)
    expected = columns(rollout._replace(task=()), numbers)._replace(task=take(rollout.task, numbers))
    for ours, theirs in zip(leaves(sample), leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert type(sample.task) is type(rollout.task) and sample.target == ()


def test_right_actions_are_kept_where_there_are_some():
    rollout = played(4)
    target = torch.arange(12).reshape(3, 4)
    ring = TrialRing(4, FAMILY)
    ring.add(rollout._replace(target=target))
    assert set(ring.sample(rng.key(0), 99).target[1].tolist()) == {4, 5, 6, 7}


def test_trials_are_drawn_with_equal_probability():
    ring = TrialRing(8, FAMILY)
    for first in (0, 6, 12):
        ring.add(marked(first, 6))
    counts = torch.tensor(drawn(ring, 8000)).bincount(minlength=18)[10:]
    expected = 1000.0
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 24.3  # its 0.1 % quantile with 7 degrees of freedom


def test_other_keys_draw_other_trials():
    ring = TrialRing(50, FAMILY)
    ring.add(marked(0, 50))
    assert drawn(ring, 20, 1) == drawn(ring, 20, 1) != drawn(ring, 20, 2)


def test_shorter_trials_are_padded_and_leave_nothing_of_older_ones():
    whole = played(2)
    short = tree_map(lambda leaf: leaf[:2], whole._replace(task=()))._replace(task=whole.task)
    ring = TrialRing(2, FAMILY)
    ring.add(whole)
    ring.add(short)
    sample = ring.sample(rng.key(0), 20)
    assert sample.mask.shape == (3, 20) and sample.mask.sum(0).eq(2.0).all()
    assert all(not leaf[2].any() for leaf in leaves(sample._replace(task=())))


@pytest.mark.parametrize("episodes", [2, 4])
def test_longer_trials_are_refused(episodes: int):
    ring = TrialRing(2, FAMILY, episodes=1)
    with pytest.raises(ValueError, match="at most 1 steps"):
        ring.add(played(2, family=BernoulliBandit(num_arms=2, episodes_per_trial=episodes)))


def test_a_trial_that_is_not_finite_becomes_padding():
    rollout = marked(1, 3)
    rollout.outcome.reward[1, 2] = torch.nan
    ring = TrialRing(3, FAMILY)
    ring.add(rollout)
    sample = ring.sample(rng.key(0), 50)
    assert all(bool(leaf.isfinite().all()) for leaf in leaves(sample))
    assert torch.equal(sample.mask[0] > 0, sample.outcome.reward[0] > 0)
    assert 0 < sample.mask[0].sum() < 50


def test_a_ring_without_trials_says_so():
    with pytest.raises(ValueError, match="no trials yet"):
        TrialRing(3, FAMILY).sample(rng.key(0), 1)


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_a_state_goes_on_exactly(before: int):
    ring, other = TrialRing(10, FAMILY), TrialRing(10, FAMILY)
    for number in range(before):
        ring.add(played(4, number))
    other.load_state_dict({name: value.clone() for name, value in ring.state_dict().items()})
    for number in range(before, before + 3):
        ring.add(played(4, number))
        other.add(played(4, number))
        for key in (rng.key(1), rng.key(2)):
            samples = (leaves(each.sample(key, 30)) for each in (ring, other))
            assert all(torch.equal(a, b) for a, b in zip(*samples, strict=True))


def test_a_state_of_another_capacity_is_refused():
    ring = TrialRing(4, FAMILY)
    ring.add(played(4))
    ring.add(played(4))
    with pytest.raises(ValueError, match="trials of 4 steps, got 3"):
        TrialRing(4, BernoulliBandit(num_arms=2, episodes_per_trial=4)).load_state_dict(ring.state_dict())
    with pytest.raises(ValueError, match="saved ring must have 6 trials, got 4"):
        TrialRing(6, FAMILY).load_state_dict(ring.state_dict())


def test_a_ring_that_does_not_fit_into_memory_is_refused_at_once():
    with pytest.raises(ValueError, match=r"The ring of trials needs about .* lower buffer_size"):
        TrialRing(10**12, FAMILY)


@pytest.mark.parametrize("name", ["GridNavi", "HalfCheetahVel", "Navigation2D"])
def test_the_memory_that_is_asked_for_is_about_what_is_taken(name: str, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(trial_ring, "check_memory", lambda what, numbers, option: asked.append(numbers))
    family = metarl.make(f"metarl/{name}-v0")
    ring = TrialRing(3, family, episodes=1)
    agent = RandomAgent(family)
    ring.add(run_trial(agent, family, family.sample_tasks(rng.key(0), 2), rng.key(0), episodes=1)[0])
    assert 0.8 < ring.nbytes / (4 * asked[0]) < 1.25


def test_its_memory_is_taken_once():
    ring = TrialRing(100, FAMILY)
    assert ring.nbytes == 0
    ring.add(played(4))
    taken = ring.nbytes
    for number in range(40):
        ring.add(played(4, number))
    assert ring.nbytes == taken < 4 * 100 * (3 * 20 + 10)


@pytest.mark.parametrize("capacity", [5, 14, 20])
def test_the_processes_together_hold_and_draw_what_one_would(monkeypatch: pytest.MonkeyPatch, capacity: int):
    """Seven rows in two processes, the second of which has one more."""
    parts = [slice(0, 3), slice(3, 7)]
    whole = TrialRing(capacity, FAMILY)
    rings = [TrialRing(capacity, FAMILY) for _ in parts]
    for number in range(6):
        rollout = marked(7 * number, 7)
        whole.add(rollout)
        for ring, part in zip(rings, parts, strict=True):
            with monkeypatch.context() as place:
                place.setattr(ranks, "is_distributed", lambda: True)
                place.setattr(ranks, "shard", lambda rows, first=part.start: ranks.Shard(first, 7))
                mine = tree_map(lambda leaf, part=part: leaf[:, part], rollout._replace(task=()))
                ring.add(mine._replace(task=take(rollout.task, part)))
        theirs = [drawn(ring, 60, number) for ring in rings]
        assert sorted(theirs[0] + theirs[1]) == sorted(drawn(whole, 60, number))
        assert {len(ring) for ring in rings} == {len(whole)}


@pytest.mark.parametrize("name", ["TabularMDP", "Alchemy", "Navigation2D", "Sinusoid"])
def test_tasks_of_many_kinds_go_through_a_ring(name: str):
    family = metarl.make(f"metarl/{name}-v0")
    rollout = played(2, family=family)
    ring = TrialRing(2, family)
    ring.add(rollout)
    task = ring.sample(rng.key(0), 30).task
    numbers = rng.integers(rng.key(0), 30, 2)
    assert all(torch.equal(a, b[numbers]) for a, b in zip(leaves(task), leaves(rollout.task), strict=True))
