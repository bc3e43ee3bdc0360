"""Sampling for learnability: p is the share of episodes that solve a task, and the best tasks are kept."""

import pytest
import torch
from test_plr import KEY, make

from metarl.core import rng
from metarl.core.rollout import play_rounds
from metarl.core.tree import num_rows
from metarl.envs.control.cartpole import CartPole
from metarl.envs.grids.wall_maze import WallMaze
from metarl.learning.samplers.buffer import fingerprint
from metarl.learning.samplers.sfl import SFL, SFLOptions, learnability


def played(agent, sampler, proposal, key):
    return [each.played for each in play_rounds(agent, agent.family, proposal.tasks, key, watch=sampler.watch)]


def scored(options: SFLOptions, n: int = 8):
    """A sampler after its first scoring, with all candidates and their p, computed by hand."""
    agent = make()
    sampler = SFL(options, agent, "train")
    found: dict[int, list[float]] = {}
    number = 0
    while sampler.kept is None:
        key = rng.fold(KEY, number)
        proposal = sampler.propose(key, n)
        assert not proposal.learn
        trial = played(agent, sampler, proposal, key)
        ended = (trial[-1].outcome.terminated & (trial[-1].mask > 0)).sum(0)  # a maze ends only by being solved
        for mark, count in zip(fingerprint(proposal.tasks).tolist(), ended.tolist()):
            found.setdefault(mark, []).append(count / 2)
        sampler.score(proposal, trial)
        number += 1
    return sampler, {mark: sum(rates) / len(rates) for mark, rates in found.items()}, found, number


def test_the_most_learnable_are_kept():
    sampler, rate, found, batches = scored(SFLOptions(candidates=20, trials=2, keep=5))
    assert batches == 5 and len(rate) == 20 and all(len(rates) == 2 for rates in found.values())
    marks = fingerprint(sampler.kept).tolist()
    assert [rate[mark] for mark in marks] == pytest.approx(sampler.rate.tolist())
    every = sorted((p * (1 - p) for p in rate.values()), reverse=True)
    assert learnability(sampler.rate).tolist() == pytest.approx(every[:5])


def test_of_tasks_with_all_kinds_of_p_those_near_one_half_are_kept():
    sampler = SFL(SFLOptions(keep=3), make(), "train")
    tasks = sampler.fresh(KEY, 6)
    sampler._scored = [(tasks, torch.tensor([0.0, 0.5, 1.0, 0.25, 0.4, 0.9]))]
    sampler._choose()
    assert sampler.rate.tolist() == pytest.approx([0.5, 0.4, 0.25])
    assert torch.equal(fingerprint(sampler.kept), fingerprint(tasks)[[1, 4, 3]])


def test_learnability_is_largest_where_it_is_a_toss_up():
    assert learnability(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.0, 0.25, 0.0]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_batch_has_its_share_of_kept_tasks(share: float):
    sampler, *_ = scored(SFLOptions(candidates=8, trials=1, keep=4, share=share, every=3))
    kept = {*fingerprint(sampler.kept).tolist()}
    for number in range(3):
        proposal = sampler.propose(rng.fold(KEY, 100 + number), 8)
        inside = [mark in kept for mark in fingerprint(proposal.tasks).tolist()]
        assert proposal.learn and num_rows(proposal.tasks) == 8 and sum(inside) == 8 * share
    assert not sampler.propose(KEY, 8).learn  # after `every` iterations it scores again


def test_the_state_is_whole():
    sampler, *_ = scored(SFLOptions(candidates=8, trials=1, keep=4))
    sampler.propose(KEY, 8)
    again = SFL(sampler.options, make(), "train")
    again.load_state_dict(sampler.state_dict())
    a, b = sampler.propose(KEY, 8), again.propose(KEY, 8)
    assert a.learn and b.learn and all(torch.equal(x, y) for x, y in zip(a.tasks, b.tasks))
    assert again.used == sampler.used == 2


def test_a_family_that_does_not_say_what_is_solved_is_refused():
    with pytest.raises(ValueError, match="SFL needs to know whether a task is solved, and CartPole does not say"):
        SFL(SFLOptions(), make(CartPole()), "train")


@pytest.mark.parametrize(
    ("options", "episodes", "sentence"),
    [
        (SFLOptions(trials=9), 2, "trials must not exceed meta_batch_size = 8"),
        (SFLOptions(trials=1), 1, "SFL needs at least two episodes per candidate"),
    ],
)
def test_candidates_are_played_often_enough_to_be_judged(options: SFLOptions, episodes: int, sentence: str):
    """With one episode p is 0 or 1, and the learnability of every task 0."""
    with pytest.raises(ValueError, match=sentence):
        SFL(options, make(WallMaze(episodes_per_trial=episodes)), "train")
