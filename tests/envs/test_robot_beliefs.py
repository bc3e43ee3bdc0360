"""Exact beliefs about the tasks of robots, next to simulations that are told the task."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.beliefs.belief import Belief
from metarl.core.tree import num_rows, take
from metarl.envs.mujoco.beliefs.follower import ROUNDING, Follower
from metarl.envs.mujoco.beliefs.headings import TargetHeading
from metarl.envs.mujoco.beliefs.listed import ListedByReward
from metarl.envs.mujoco.beliefs.places import TargetPlace
from metarl.envs.mujoco.beliefs.speeds import TargetSpeed
from metarl.envs.mujoco.goals import Heading, Place
from metarl.envs.mujoco.robots import RobotFamily
from metarl.testing.beliefs import check_beliefs, inferred
from metarl.testing.contract import random_action

pytest.importorskip("mujoco")

FEW = {"train_tasks": 9, "test_tasks": 4}
VARIANTS = [
    ("HalfCheetahVel", FEW), ("HalfCheetahVel", {"tasks": "pearl", "show_x": True}), ("AntGoal", FEW),
    ("HalfCheetahDir", {"show_x": True}), ("AntDir2D", {"half_circle": True}),
]  # fmt: skip


def made(name: str, **options: Any) -> RobotFamily[Any]:
    family = metarl.make(f"metarl/{name}-v0", **options)
    assert isinstance(family, RobotFamily)
    return family


def belief_of(family: RobotFamily[Any], split: str = "train") -> Any:
    belief = family.belief(split)
    assert isinstance(belief, Belief)
    return belief


def play(family: RobotFamily[Any], task: Any, steps: int, seed: int = 0) -> tuple[list[Step], list[Any], list[Tensor]]:
    """What an agent sees that acts at random, the states that it does not see, and its actions."""
    env = BatchEnv(family, task, rng.key(seed))
    keys = rng.fold(rng.key(seed + 1), torch.arange(num_rows(task)))
    seen, states, actions = [env.reset()], [env.state], list[Tensor]()
    for t in range(steps):
        actions.append(random_action(family.action_space, rng.fold(keys, t)))
        seen.append(env.step(actions[-1])[1])
        states.append(env.state)
    return seen, states, actions


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_contract_of_beliefs(name: str, options: dict):
    """Next to `test_every_registered_family`, which checks the defaults."""
    check_beliefs(made(name, **options))


@pytest.mark.slow
@pytest.mark.parametrize("options", [FEW, {"train_tasks": None}, {"forward_backward": True}])
def test_the_contract_of_beliefs_for_the_humanoid(options: dict):
    check_beliefs(made("HumanoidDir", **options))


def test_which_beliefs_there_are():
    family = made("HalfCheetahVel")
    assert isinstance(belief_of(family), ListedByReward) and belief_of(family).count == 100
    assert isinstance(belief_of(family, "valid"), TargetSpeed)
    assert made("AntGoal").belief("valid") is None
    assert metarl.make("metarl/HopperRandParams-v0").belief("train") is None
    for name in ("HalfCheetahDir", "AntDir2D", "AntGoal", "AntGoalSparse", "AntVel"):
        with pytest.raises(ValueError, match="split"):
            made(name).belief("no such split")


@pytest.mark.parametrize("name", ["HalfCheetahDirVel", "AntDir", "Walker2dVel"])
def test_a_step_is_simulated_from_what_was_seen(name: str):
    """Errors do not add up, and are far below what a reward may differ by, in the next episode too."""
    family = made(name, horizon=25)
    task = family.sample_tasks(rng.key(0), 16)
    seen, states, actions = play(family, task, 45)
    follower = Follower(family.robot)
    known = follower.prior(16, "cpu")
    for t, step in enumerate(seen):
        moved, known = follower.follow(known, step)
        if t:
            after = family.robot.move(states[t - 1], family.robot.clipped(actions[t - 1]))
            given = [moved.before, moved.after, moved.action]
            right = family.reward(task, states[t - 1], after, given[2])
            torch.testing.assert_close(family.reward(task, *given), right, rtol=1e-5, atol=ROUNDING / 5)
        assert bool((moved.told == (t > 0)).all())


@pytest.mark.parametrize("name", ["HalfCheetahDirVel", "AntVel", "HalfCheetahVelMAML"])
def test_two_rewards_tell_the_speed(name: str):
    family = made(name)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 40)
    states = inferred(belief, play(family, task, 4)[0])
    first, end = states[2], states[-1]
    nearest = (first.speed - task.velocity[:, None]).abs().amin(1)
    assert bool((nearest < ROUNDING).all()), "one of the two that the first reward leaves"
    two = (first.log_mass > -torch.inf).sum(1) == 2
    assert bool((first.log_mass[two].exp() == 0.5).all())
    if name == "HalfCheetahDirVel":
        assert bool(two.any()) and not bool(two.all()), "one of them is often outside the prior"
    low, high = belief.features(end)[:, 1:].unbind(1)
    assert float((low == high).float().mean()) > 0.95
    shown = low * belief.std + belief.mean
    torch.testing.assert_close(shown[low == high], task.velocity[low == high], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["HalfCheetahDirVel", "HalfCheetahVel"])
def test_what_is_known_is_not_simulated_again(name: str, monkeypatch: pytest.MonkeyPatch):
    """The same belief as by simulating every row in every step, from few simulated rows."""
    family = made(name)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 24)
    seen, simulated = play(family, task, 8)[0], list[int]()
    every = belief.prior(24)
    for step in seen:
        every = belief._posterior(every, step)
    move = family.robot.move

    def counted(state: Any, action: Tensor) -> Any:
        simulated.append(len(action))
        return move(state, action)

    monkeypatch.setattr(family.robot, "move", counted)
    states = inferred(belief, seen)
    assert simulated[:2] == [24, 24] and sum(simulated[4:]) < 24, simulated
    torch.testing.assert_close(belief.features(states[-1]), belief.features(every), rtol=0, atol=0)
    torch.testing.assert_close(belief.log_prob(states[-1], task), belief.log_prob(every, task), rtol=0, atol=0)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_the_features_of_known_speeds_are_standardised(split: str):
    """A perceptron that also reads 17 numbers of unit size must not have to search for them."""
    family = made("HalfCheetahDirVel")
    belief = belief_of(family, split)
    speed = family.sample_tasks(rng.key(0), 20_000, split=split).velocity
    standard = (speed - belief.mean) / belief.std
    assert float(standard.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(standard.std()) == pytest.approx(1.0, abs=0.03)


def test_the_density_of_a_speed_integrates_to_one():
    family = made("HalfCheetahDirVel")
    for split, ends in (("train", 3.0), ("ood", 4.0)):
        belief = belief_of(family, split)
        grid = (torch.arange(20_000) + 0.5) / 20_000 * 2 * ends - ends
        prior = take(belief.prior(1), torch.zeros(20_000, dtype=torch.int64))
        density = belief.log_prob(prior, metarl.envs.mujoco.goals.Velocity(grid)).double().exp()
        assert float(density.mean() * 2 * ends) == pytest.approx(1.0, rel=1e-3)


def test_a_direction_is_known_where_nothing_is_paid_for_it():
    """In HalfCheetahDirSparse within 5 m of the origin, nothing is told; in HalfCheetahDir the first reward tells."""
    for name, known in (("HalfCheetahDir", 1.0), ("HalfCheetahDirSparse", 0.5)):
        family = made(name)
        belief, task = belief_of(family), family.sample_tasks(rng.key(0), 12)
        states = inferred(belief, play(family, task, 3)[0])
        torch.testing.assert_close(belief.log_prob(states[-1], task).exp(), torch.full((12,), known))


@pytest.mark.parametrize("half_circle", [False, True])
def test_the_angles_that_are_left_are_those_that_explain_the_rewards(half_circle: bool):
    """A cell is possible where eleven directions in it would have paid less and more than what was seen."""
    family = made("AntDir2D", half_circle=half_circle)
    belief, task = belief_of(family), family.sample_tasks(rng.key(0), 6)
    assert isinstance(belief, TargetHeading)
    seen, states, actions = play(family, task, 4)
    angle = torch.arange(7201) * (math.pi if half_circle else 2.0 * math.pi) / 7200
    every = Heading(torch.stack([angle.cos(), angle.sin()], dim=1))
    surely, perhaps = torch.ones(6, 720, dtype=torch.bool), torch.ones(6, 720, dtype=torch.bool)
    for t, state in enumerate(inferred(belief, seen)[2:]):
        after = family.robot.move(states[t], actions[t])
        for row in range(6):
            many = torch.full((7201,), row)
            would = family.reward(every, take(states[t], many), take(after, many), actions[t][many])
            would = (would - seen[t + 1].prev_reward[row]).unfold(0, 11, 10)  # (720, 11)
            surely[row] &= (would.amin(1) <= 0.0) & (would.amax(1) >= 0.0)
            perhaps[row] &= (would.amin(1) <= 2 * ROUNDING) & (would.amax(1) >= -2 * ROUNDING)
        possible = state.log_mass > -torch.inf
        assert bool((possible | ~surely).all()) and bool((perhaps | ~possible).all())
    assert bool((possible.sum(1) <= 6).all()), "four rewards leave less than three degrees"


@pytest.mark.parametrize("split", ["train", "ood"])
def test_places_that_were_near_and_did_not_pay_are_ruled_out(split: str):
    family = made("AntGoalSparse")
    belief, task = belief_of(family, split), family.sample_tasks(rng.key(0), 8, split)
    if split == "train":  # half of them near the start
        task = Place(task.position * torch.tensor([[1.0], [0.2]]).repeat(4, 1))
    assert isinstance(belief, TargetPlace)
    assert belief.reach < {"train": 0.14, "ood": 0.2}[split]
    seen, states, _ = play(family, task, 12)
    goals, found = family.sample_tasks(rng.key(5), 4000, split).position, 0
    end = inferred(belief, seen)[-1]
    for row in range(8):
        places = torch.stack([state.reading[row, -3:-1].float() for state in states[1:]])
        away = (places[:, None] - goals).norm(dim=-1)  # (steps, goals)
        mass = belief.log_prob(take(end, torch.full((4000,), row)), Place(goals))
        if bool(end.found[row]):
            found += 1
            true = (places - task.position[row]).norm(dim=-1)
            known = mass > -torch.inf
            assert bool(((away - true[:, None]).abs()[:, known] < 2.1 * belief.reach).all())
        else:
            possible = (away > 0.75).all(0)
            assert bool((mass[possible] > -torch.inf).all())
            assert not bool((mass[(away < 0.75 - 2.1 * belief.reach).any(0)] > -torch.inf).any())
    assert split == "ood" or 0 < found < 8


def test_what_a_place_costs_at_a_trial_s_start_is_the_prior_s_density():
    family = made("AntGoalSparse")
    for split, radius in (("train", 3.0), ("ood", 4.0)):
        belief = belief_of(family, split)
        x = (torch.arange(300) + 0.5) / 150 * radius - radius
        grid = torch.cartesian_prod(x, x)
        grid = grid[(grid.norm(dim=1) < radius) & ((grid.norm(dim=1) > 3.0) | (split == "train"))]
        prior = take(belief.prior(1), torch.zeros(len(grid), dtype=torch.int64))
        density = belief.log_prob(prior, Place(grid)).double().exp()
        assert float(density.sum() * (2 * radius / 300) ** 2) == pytest.approx(1.0, rel=0.02)


def test_a_simulation_is_asked_once_per_row():
    """Not once per task: what 100 tasks would have paid costs one step, and none where the task is known."""
    family = made("HalfCheetahVel")
    belief, moves = belief_of(family), list[int]()
    move = family.robot.move
    family.robot.move = lambda physics, action, models=None: moves.append(len(action)) or move(physics, action, models)  # type: ignore[method-assign, func-returns-value]
    seen, _, _ = play(family, family.sample_tasks(rng.key(0), 5), 3)
    moves.clear()
    inferred(belief, seen)
    assert moves == [5, 5]
