"""TreasureHunt: the mountain, its clue and the treasure; the told optimum, played and against a grid of places."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.points import TreasureHuntClimb, TreasureHuntOracle
from metarl.core import rng
from metarl.core.checks import checked_task
from metarl.envs.points.plane import Goal, Point
from metarl.envs.points.treasure_hunt import TreasureHunt, moves_to_treasure
from metarl.testing import check_family

KEY = torch.zeros(1, dtype=torch.int64)


def at(angle: float, radius: float = 1.0) -> Goal:
    """A treasure in a direction, in degrees."""
    radians = math.radians(angle)
    return Goal(torch.tensor([[radius * math.cos(radians), radius * math.sin(radians)]]))


def test_contract():
    check_family(TreasureHunt())
    for wrong in ({"horizon": 0}, {"episodes_per_trial": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number of at least 1"):
            TreasureHunt(**wrong)


def test_splits():
    family = TreasureHunt()
    goal = {split: family.sample_tasks(rng.key(0), 10_000, split).position for split in family.splits}
    for split in ("train", "valid", "test"):
        torch.testing.assert_close(goal[split].norm(dim=1), torch.ones(10_000))
    radius = goal["ood"].norm(dim=1)
    assert scipy.stats.kstest(radius.numpy(), "uniform", (0.65, 0.2)).pvalue > 0.001
    assert float(radius.max()) < 0.86, "more than the treasure's reach from the training circle"
    for positions in goal.values():
        angle = torch.atan2(positions[:, 1], positions[:, 0]).numpy()
        assert scipy.stats.kstest(angle, "uniform", (-math.pi, 2 * math.pi)).pvalue > 0.001
    sets = [set(map(tuple, goal[split].tolist())) for split in ("train", "test", "ood")]
    assert len(sets[0] & sets[1]) < 30, "an angle has 24 bits: some coincidences are to be expected"
    assert not sets[2] & (sets[0] | sets[1])


def step(task: Goal, place: list[float], action: list[float]) -> tuple[list[float], float, bool]:
    family = TreasureHunt()
    state, reward, ended = family.step(task, Point(torch.tensor([place])), torch.tensor([action]), KEY)
    assert not ended.any()
    return state.position[0].tolist(), float(reward), bool(family.success(task, state))


def test_steps_and_rewards():
    east = at(0)
    assert TreasureHunt().reset(east, KEY).position.tolist() == [[0.0, -1.0]]
    place, reward, found = step(east, [0.0, -1.0], [9.0, -0.5])
    assert place == pytest.approx([0.1, -1.05]) and not found, "an action is clipped"
    assert reward == pytest.approx(-5 * math.hypot(0.1, 1.05)), "outside the circle it costs more"
    assert step(east, [0.0, -0.8], [0.0, 1.0])[1] == pytest.approx(-5.0), "inside it does not"
    assert step(east, [0.0, -0.5], [0.0, 1.0])[1] == pytest.approx(-5.1), "on the mountain"
    assert step(east, [0.0, -0.1], [0.0, 1.0])[1] == pytest.approx(-5.5), "on its top"
    assert step(east, [0.85, 0.0], [1.0, 0.0])[1:] == (10.0, True)
    assert step(east, [0.75, 0.0], [1.0, 0.0])[1:] == (-5.0, False)
    place, reward, _ = step(east, [1.45, -1.45], [1.0, -1.0])
    assert place == pytest.approx([1.5, -1.5]) and reward == pytest.approx(-7.5 * math.sqrt(2))
    assert step(at(0, 0.55), [0.4, 0.0], [0.8, 0.0])[1:] == (pytest.approx(-5.02), False), "the mountain comes first"


def test_the_clue_is_on_the_top_only():
    family = TreasureHunt()
    task = Goal(at(200).position.expand(4, 2))
    state = Point(torch.tensor([[0.0, 0.0], [0.06, -0.07], [0.08, 0.07], [0.0, -1.0]]))
    seen = family.observe(task, state)
    assert torch.equal(seen[:, :2], state.position)
    assert torch.equal(seen[:2, 2:], task.position[:2]) and not seen[2:, 2:].any()


def test_the_world_looks_the_same_whatever_the_treasure_until_the_top():
    family, n = TreasureHunt(), 30
    task = family.sample_tasks(rng.key(0), n)
    state = family.reset(task, torch.zeros(n, dtype=torch.int64))
    for t in range(family.horizon):
        seen = family.observe(task, state)
        assert (seen[:, :2] == seen[:1, :2]).all()
        assert bool((seen[:, 2:] == 0).all()) == (float(state.position[0].norm()) >= 0.1)
        action = (2 * rng.uniform(rng.fold(rng.key(0), t), 2) - 1).expand(n, 2)
        state, _, _ = family.step(task, state, action, torch.zeros(n, dtype=torch.int64))


# ---- the told optimum ----------------------------------------------------------------------------------------------


def places_after(moves: int) -> Tensor:
    """A fine grid of the places where that many moves can lead: a square around the start."""
    along = torch.linspace(-0.1 * moves, 0.1 * moves, 601, dtype=torch.float64)
    return torch.cartesian_prod(along, along - 1.0)


@pytest.mark.parametrize("angle", [-90, -85, -80, -60, -45, -30, -10, 1, 17, 35, 60, 85, 95, 140, 200, 250])
@pytest.mark.parametrize("radius", [1.0, 0.7])
def test_least_moves(angle: float, radius: float):
    task = at(angle, radius)
    moves = int(moves_to_treasure(task, 100))

    def nearest(number: int) -> float:
        return float((places_after(number) - task.position.double()).norm(dim=1).min())

    assert nearest(moves) <= 0.1 + 0.005, "of the grid"
    assert moves == 1 or nearest(moves - 1) > 0.1
    expected = 10.0 * (101 - moves) - 5.0 * (moves - 1)
    assert float(TreasureHunt().oracle(task)) == expected


def test_a_horizon_that_is_too_short():
    family = TreasureHunt(horizon=5)
    assert family.oracle(at(90)).tolist() == [-25.0]
    assert family.oracle(at(-90)).tolist() == [50.0]


@pytest.mark.parametrize(("split", "gap"), [("train", 1e-3), ("ood", 0.1)])
def test_the_oracle_plays_its_optimum(split: str, gap: float):
    """Where float32's rounding makes it a step late, it loses 15: one task in a thousand at most."""
    family = TreasureHunt(episodes_per_trial=2)
    task = family.sample_tasks(rng.key(1), 5000, split)
    returns = evaluate(TreasureHuntOracle(), family, tasks=task).returns[0]
    lost = family.oracle(task).numpy()[:, None] - returns
    assert lost.min() > -1e-3, "an upper bound"
    late = lost > gap
    assert late.mean() < 1e-3 and np.allclose(lost[late], 15.0, atol=0.5)


def test_means_are_those_of_the_docstring():
    family = TreasureHunt()
    task = family.sample_tasks(rng.key(2), 20_000)
    assert float(family.oracle(task).mean()) == pytest.approx(852.7, abs=3.0)
    climbed = evaluate(TreasureHuntClimb(), family, tasks=task).returns
    assert float(climbed.mean()) == pytest.approx(752.3, abs=0.5)


def test_who_climbed_goes_straight_to_the_treasure_in_the_next_episode():
    family = TreasureHunt(episodes_per_trial=2)
    task = family.sample_tasks(rng.key(2), 500)
    first, second = evaluate(TreasureHuntClimb(), family, tasks=task).returns[0].T
    optimum = family.oracle(task).numpy()
    assert (first > 700).all() and second.mean() > first.mean() + 90
    assert np.quantile(optimum - second, 0.95) < 5.0, "it may cross the mountain"


def test_a_treasure_too_far_away_is_refused():
    with pytest.raises(ValueError, match=r"^Goal\.position must be from -1 to 1, got 1\.4\.$"):
        checked_task(TreasureHunt(), at(0, 1.4))
