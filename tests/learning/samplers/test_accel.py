"""ACCEL: what it edits, when, and that edits are possible tasks."""

import pytest
import torch
from test_plr import KEY, make

from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.core.tree import take
from metarl.envs.control.cartpole import CartPole, CartPoleScales
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.grids.wall_maze import WallMaze
from metarl.envs.points.half_circle import SparsePointRobot
from metarl.learning.samplers.accel import ACCEL, ACCELOptions, edit, possible


def test_exactly_one_field_is_drawn_anew():
    family = CartPole()
    tasks = family.sample_tasks(KEY, 200)
    changed = torch.stack([a != b for a, b in zip(tasks, edit(family, "train", tasks, KEY))])  # (5, 200)
    assert (changed.sum(0) == 1).all()
    assert (changed.sum(1) > 20).all()  # every field, about 40 times each


@pytest.mark.parametrize("edits", [1, 3])
def test_a_task_is_edited_as_often_as_is_said(edits: int):
    """Each edit draws one field anew: three of them change up to three."""
    sampler = ACCEL(ACCELOptions(edits=edits), make(CartPole(horizon=10)), "train")
    tasks = sampler.fresh(KEY, 60)
    sampler.parents = tasks
    edited = sampler.propose(KEY, 60).tasks
    changed = sum((a != b).to(torch.int64) for a, b in zip(edited, tasks, strict=True))
    assert int(changed.max()) == edits and int(changed.min()) == 1


def test_a_family_that_mutates_does_it_itself():
    family = WallMaze()
    tasks = family.sample_tasks(KEY, 30)
    edited = edit(family, "train", tasks, KEY)
    family.check_task(edited)
    walls = (tasks.walls != edited.walls).flatten(1).sum(1)
    assert ((walls == 1) | ((walls == 0) & (tasks.goal != edited.goal).any(1))).all()


def test_impossible_edits_are_not_made():
    class Paired(CartPole):
        """Forces may not be larger than the mass of the cart."""

        def check_task(self, task: CartPoleScales) -> None:
            if bool((task.force > task.cart_mass).any()):
                raise ValueError("too strong")

    family = Paired()
    tasks = family.sample_tasks(KEY, 400)
    tasks = take(tasks, tasks.force <= tasks.cart_mass)
    edited = edit(family, "train", tasks, KEY)
    assert possible(family, edited).all()
    same = torch.stack([a == b for a, b in zip(tasks, edited)]).all(0)
    assert 0 < same.sum() < len(same) / 2
    some = family.sample_tasks(KEY, 9)
    assert possible(family, some).tolist() == (some.force <= some.cart_mass).tolist()


@pytest.mark.parametrize("robust", [True, False])
def test_replayed_tasks_are_edited_next_and_only_scored(robust: bool):
    agent = make()
    options = ACCELOptions(capacity=8, min_fill=0.5, score="regret", replay=0.5, robust=robust)
    sampler = ACCEL(options, agent, "train")
    kinds, before = [], None
    for number in range(10):
        key = rng.fold(KEY, number)
        edits = sampler.parents is not None
        proposal = sampler.propose(key, 4)
        if edits:
            assert not proposal.learn
            assert (proposal.tasks.start == before.start).all()  # an edit of what was replayed
        sampler.score(proposal, run_trial(agent, agent.family, proposal.tasks, key))
        kinds.append("edits" if edits else "replay" if sampler.replayed else "new")
        assert (sampler.parents is not None) == (kinds[-1] == "replay")
        assert proposal.learn == (kinds[-1] == "replay" or (kinds[-1] == "new" and not robust))
        before = proposal.tasks
    assert {*kinds} == {"edits", "replay", "new"}
    again = ACCEL(sampler.options, agent, "train")
    again.load_state_dict(sampler.state_dict())
    a, b = sampler.propose(KEY, 4), again.propose(KEY, 4)
    assert a.learn == b.learn and all(torch.equal(x, y) for x, y in zip(a.tasks, b.tasks))


@pytest.mark.parametrize(
    ("family", "sentence"),
    [(GridNavi(), "GridNavi has a fixed list of them"), (SparsePointRobot(), "have only one: implement")],
)
def test_families_whose_tasks_cannot_be_edited_are_refused(family, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        ACCEL(ACCELOptions(score="regret"), make(family), "train")
