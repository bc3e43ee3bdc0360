"""Pictures of beliefs: the shade is the posterior, the panels are the moments named, and who has none is told so."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_families import Corridor
from torch import Tensor

import metarl
from metarl.agents.belief import BeliefConfig, BeliefPPO
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import TaskFamily
from metarl.core.rollout import Acted, Agent, Believer, Memory
from metarl.envs.grids.grid_navi import GridNavi
from metarl.evaluation.playback import replay, watch
from metarl.report.behaviour import pictures
from metarl.report.beliefs.picture import MASSES, REWARDS, belief_picture, draw, limits, power, shares, tinted
from metarl.report.beliefs.story import (
    OBSERVER,
    PANELS,
    Moment,
    Story,
    check_shown,
    chosen_moments,
    nothing_to_show,
    tell,
)

GROUNDS = ("GridNavi", "DarkRoom", "DarkRoomHard", "Navigation2D", "PointRobot", "SparsePointRobot", "SemiCircle")

SLOW = ("DarkRoomHard", "ood")  # has 10,164 tasks


def small(agent_split: str = "train", **options: int) -> BeliefPPO:
    config = BeliefConfig(meta_batch_size=4, hidden_sizes=(8,), num_minibatches=1, split=agent_split)
    return BeliefPPO(config, GridNavi(**options))


def told(agent: Agent, family: TaskFamily, split: str, number: int = 0, tasks: int = 3) -> Story:
    return tell(family, *watch(agent, family, split, tasks), number)


class Dreamer(RandomAgent):
    """Expects a reward of its row's number of steps, from left to right, and less than 0 below."""

    def begin(self, num_tasks: int, task=None) -> Memory:
        return torch.zeros(num_tasks)

    def act(self, memory: Memory, step: Step, key: Tensor, greedy: bool = False) -> tuple[Acted, Memory]:
        return super().act(memory, step, key, greedy)[0], memory + 1.0

    def goal_map(self, memory: Memory, points: Tensor) -> Tensor:
        return memory[:, None] * points[:, 0] - points[:, 1]


# ---- moments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([16, 16, 16, 16], [(1, 0), (1, 1), (1, 4), (1, 8), (1, 16), (2, 16), (4, 16)]),
        ([3, 5], [(1, 0), (1, 1), (1, 2), (1, 3), (2, 5)]),
        ([100], [(1, 0), (1, 1), (1, 6), (1, 12), (1, 25), (1, 50), (1, 100)]),
        ([1], [(1, 0), (1, 1)]),
    ],
)
def test_the_moments_are_the_start_doubling_steps_and_ends_of_episodes(lengths, expected):
    assert chosen_moments(lengths) == [Moment(*pair) for pair in expected]


def test_there_are_never_more_moments_than_panels_and_each_exists():
    for episodes in range(1, 6):
        for length in range(1, 40):
            found = chosen_moments([length] * episodes)
            assert len(found) <= PANELS and len(set(found)) == len(found) and found == sorted(found)
            assert all(1 <= at.episode <= episodes and 0 <= at.step <= length for at in found)
            assert found[-1] == (episodes, length) and found[0] == (1, 0)


# ---- what is shown --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [(name, split) for name in GROUNDS for split in ("train", "test", "ood") if (name, split) != SLOW],
)
def test_a_map_sums_to_one_and_the_true_goal_never_has_zero_shade(name: str, split: str):
    family = metarl.make(f"metarl/{name}-v0")
    story = told(RandomAgent(family), family, split)
    (row,) = story.rows
    assert row.who == OBSERVER
    np.testing.assert_allclose(row.maps.sum(axis=(1, 2)), 1.0, atol=1e-4)
    (goal,) = story.goals.values()
    (left, bottom), side = story.ground.low, story.ground.side
    x, y = round((goal[0] - left) / side), round((goal[1] - bottom) / side)
    assert (row.maps[:, y, x] > 0).all()
    ink = tinted(shares(row.maps), "black")
    assert (ink[:, y, x] < 255).all(), "and is seen"


def test_the_maps_of_a_room_are_the_posterior_after_the_steps_named():
    family = GridNavi(episodes_per_trial=3)
    curve, watched = watch(RandomAgent(family), family, "train", 4)
    story = tell(family, curve, watched, 2)
    states = [episode.states for episode in replay(watched, family, 2)[0]]
    assert story.paths == [[tuple(state.position[0].tolist()) for state in part] for part in states]
    goals = family.tasks_of("all").goal
    for moment, cells in zip(story.moments, story.rows[0].maps, strict=True):
        seen = [place for path in story.paths[: moment.episode - 1] for place in path[1:]]
        seen += story.paths[moment.episode - 1][1 : moment.step + 1]
        true = story.goals["goal"]
        left = [tuple(goal) for goal in goals.tolist() if tuple(goal) not in seen] if true not in seen else [true]
        expected = np.zeros((5, 5))
        for x, y in left:
            expected[int(y), int(x)] = 1.0 / len(left)
        np.testing.assert_allclose(cells, expected, atol=1e-5)


def test_key_and_door_have_a_row_each():
    family = metarl.make("metarl/DarkKeyToDoor-v0", episodes_per_trial=1)
    story = told(RandomAgent(family), family, "test", tasks=1)
    assert [row.heading for row in story.rows] == [
        "what can be known of the key (prior: tasks of all)", "what can be known of the door (prior: tasks of all)",
    ]  # fmt: skip
    for row, (x, y) in zip(story.rows, story.goals.values(), strict=True):
        np.testing.assert_allclose(row.maps.sum(axis=(1, 2)), 1.0, atol=1e-4)
        assert (row.maps[:, int(y), int(x)] > 0).all()


def test_the_exact_agent_and_the_observer_share_a_row_where_they_agree():
    agent = small("all")
    (row,) = told(agent, agent.family, "test").rows
    assert row.heading == "what BeliefPPO believes: all that can be known" and row.who == "BeliefPPO"
    first, second = told(small("train"), agent.family, "test").rows
    assert first.heading == "what BeliefPPO believes" and second.who == OBSERVER
    x, y = (int(part) for part in told(small("train"), agent.family, "test").goals["goal"])
    assert (first.maps[:, y, x] == 0).all() and (second.maps[:, y, x] > 0).all(), "it does not know the test goals"


def test_an_agent_s_map_is_asked_after_the_steps_named():
    family = GridNavi(episodes_per_trial=2)
    story = told(Dreamer(family), family, "test")
    row = story.rows[0]
    assert row.who == "Dreamer" and len(story.rows) == 2
    for moment, cells in zip(story.moments, row.maps, strict=True):
        steps = family.horizon * (moment.episode - 1) + moment.step + 1  # the first observation is one
        expected = steps * np.arange(5)[None] - np.arange(5)[:, None]
        np.testing.assert_allclose(cells, expected)
    assert limits(row.maps) == (-4.0, 124.0)


def test_the_map_of_the_exact_agent_is_its_posterior_for_every_row():
    agent = small("all")
    assert isinstance(agent, Believer) and not isinstance(RandomAgent(agent.family), Believer)
    family, points = agent.family, agent.family.ground("all").points()
    memory = agent.begin(6)
    nothing = torch.zeros(6)
    step = Step(torch.zeros(6, 2), torch.zeros(6, dtype=torch.int64), nothing, nothing)
    _, memory = agent.act(memory, step, rng.fold(rng.key(0), torch.arange(6)))
    found = agent.goal_map(memory, points)
    assert found.shape == (6, 25)
    places = (family.tasks_of("all").goal[:, None] == points).all(-1).float()
    torch.testing.assert_close(found, agent.belief.probs(memory.belief) @ places)


def test_a_belief_about_something_else_has_no_map():
    agent = BeliefPPO(BeliefConfig(), metarl.make("metarl/BernoulliBandit-v0"))
    with pytest.raises(ValueError, match="are not places"):
        agent.goal_map(agent.begin(2), torch.zeros(3, 2))


# ---- how it looks ---------------------------------------------------------------------------------------------------


def test_shades_grow_with_the_numbers_and_only_zero_is_white():
    row = np.array([[[0.0, 1e-4, 0.01, 0.3]]], dtype=np.float32)
    ink = tinted(shares(row), "#4e79a7").astype(int)[0, 0].sum(axis=1)
    assert ink[0] == 3 * 255 and (np.diff(ink) < 0).all()
    assert tinted(shares(row), "#4e79a7")[0, 0, -1].tolist() == [0x4E, 0x79, 0xA7]
    assert (tinted(shares(np.zeros((2, 3, 3), np.float32)), "black") == 255).all(), "nothing is expected"
    assert power(row) == REWARDS and power(row / row.sum()) == MASSES and power(-row) == REWARDS
    assert limits(-row) == (pytest.approx(-0.3), 0.0)


@pytest.mark.parametrize("name", ["GridNavi", "SparsePointRobot", "Navigation2D"])
def test_the_picture_has_one_size_for_an_environment(name: str):
    family = metarl.make(f"metarl/{name}-v0")
    curve, watched = watch(RandomAgent(family), family, "test", 4)
    sizes = {Image.open(io.BytesIO(belief_picture(family, curve, watched, number))).size for number in range(3)}
    sizes |= {draw(told(RandomAgent(family), family, "ood")).size}
    assert len(sizes) == 1
    wide, tall = sizes.pop()
    assert wide <= 1200 and tall <= 600


# ---- who has none ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split", "rounds", "sentence"),
    [
        ("GridNavi", "test", True, "adapts in rounds"),
        ("GridNavi", "given", False, "have no split"),
        ("BernoulliBandit", "test", False, "The tasks of BernoulliBandit are not places"),
        ("DarkKeyToDoor", "ood", False, "has no goal_map(memory, points), and DarkKeyToDoor has no exact belief"),
    ],
)
def test_who_has_no_picture_is_told_why(name: str, split: str, rounds: bool, sentence: str):
    family = metarl.make(f"metarl/{name}-v0")
    assert sentence in nothing_to_show(RandomAgent(family), family, split, rounds)
    with pytest.raises(ValueError, match="There is no belief to show"):
        check_shown(RandomAgent(family), family, split, rounds)


def test_a_run_has_the_picture_where_there_is_one_and_says_nothing_elsewhere():
    for family, shown in ((GridNavi(), True), (Corridor(), False), (metarl.make("metarl/TabularMDP-v0"), False)):
        evaluated = {"test": watch(RandomAgent(family), family, "test", 3)}
        found = {picture.tag: picture for picture in pictures(family, evaluated, pytest.fail)}
        assert ("eval/test/belief" in found) == shown
        if shown:
            assert found["eval/test/belief"].file_name == "test_belief.png"


def test_an_agent_whose_map_fails_loses_only_this_picture():
    class Broken(Dreamer):
        def goal_map(self, memory: Memory, points: Tensor) -> Tensor:
            raise RuntimeError("no map")

    family, said = GridNavi(), list[str]()
    evaluated = {"test": watch(Broken(family), family, "test", 3)}
    tags = [picture.tag for picture in pictures(family, evaluated, said.append)]
    assert "eval/test/belief" not in tags and "eval/test/behaviour/strip" in tags
    assert said == ["The picture eval/test/belief could not be made (RuntimeError: no map)"]
