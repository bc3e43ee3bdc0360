"""Pictures of families: one size for an environment, as much work for the last step as for the first, right borders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from registered_families import IDS
from small_families import Corridor

import metarl
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import Redrawn, Sketch, State, Task, TaskFamily, drawn
from metarl.envs.drawing.film import Film
from metarl.envs.drawing.planes import SIZE, Trail, round_length
from metarl.interop.gym_env import GymEnv


def visited(family: TaskFamily, task: Task, steps: int, seed: int = 1) -> Iterator[tuple[State, bool, float]]:
    """States of random play over as many episodes as it takes, whether an episode begins there, and the reward."""
    env = BatchEnv(family, task, rng.key(seed), episodes=10**6)
    step, agent = env.reset(), RandomAgent(family)
    memory = agent.begin(1, task)
    yield env.state, True, 0.0
    for t in range(steps):
        acted, memory = agent.act(memory, step, rng.fold(rng.fold(rng.key(seed), t), torch.arange(1)))
        outcome, step = env.step(acted.action)
        yield env.final_state, False, float(outcome.reward)
        if bool(step.prev_done[0]):
            yield env.state, True, 0.0


def calls(work: Callable[[], Any]) -> int:
    """Functions that are called, those written in C among them."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("id", IDS)
def test_pictures_of_an_environment_have_one_size_as_the_frames_of_a_video_must(id: str, trial: bool):
    """Over several tasks of each split, and over the steps and episodes of whole trials."""
    frames = []
    for split in metarl.make(id).splits:
        env = gymnasium.make(id, trial=trial, split=split, render_mode="rgb_array").unwrapped
        assert isinstance(env, GymEnv)
        env.action_space.seed(2)
        whole = env.family.horizon * (env.family.episodes_per_trial if trial else 1)
        moments = {1, 2, env.family.horizon, env.family.horizon + 1, *range(0, whole, max(whole // 6, 1))}
        for seed in (0, 1) if split == "train" else (0,):
            env.reset(seed=seed)
            frames.append(env.render())
            for t in range(1, whole + 1):
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                if t in moments or terminated or truncated:
                    frames.append(env.render())
                if terminated or truncated:
                    break
    assert {frame.shape for frame in frames} == {frames[0].shape} and frames[0].shape[2] == 3
    assert all(frame.dtype == np.uint8 for frame in frames)
    assert max(frames[0].shape) <= 1600


@pytest.mark.parametrize("id", IDS)
def test_a_picture_after_many_steps_is_as_much_work_as_after_few(id: str):
    """Step by step to step 240: the last steps' pictures call as many functions as those of steps 60 to 90."""
    family, steps = metarl.make(id).drawable(), 240
    task = family.sample_tasks(rng.key(0), 1)
    states = [(state, first) for state, first, _ in visited(family, task, steps)]
    sketch = family.sketch(task, sum(first for _, first in states))
    work = []
    for state, first in states:
        sketch.add(state, first)  # seen apart, since the physics of a robot may be asked
        work.append(calls(lambda: (sketch.image(), None)))
    early, late = np.median(work[60:90]), np.median(work[-30:])
    assert late <= 1.5 * early, f"{early:.0f} calls at first, {late:.0f} in the end"
    again = family.sketch(task, sum(first for _, first in states))
    adding = [calls(lambda state=state, first=first: again.add(state, first)) for state, first in states]
    assert sum(adding[-120:]) <= 3.0 * sum(adding[:120]), "the second half costs as much as the first"


@pytest.mark.parametrize("id", IDS)
def test_looking_at_a_sketch_does_not_change_it(id: str):
    family = metarl.make(id).drawable()
    task = family.sample_tasks(rng.key(0), 1)
    states = [(state, first) for state, first, _ in visited(family, task, 40)]
    episodes = sum(first for _, first in states)
    looked, other = family.sketch(task, episodes), family.sketch(task, episodes)
    empty = None if family.opaque else other.image()  # the picture of a simulator has no size before the first state
    pictures = []
    for state, first in states:
        looked.add(state, first)
        other.add(state, first)
        pictures.append(looked.image())
    assert np.array_equal(pictures[-1], other.image())
    if empty is not None:
        assert np.array_equal(empty, family.sketch(task, episodes).image()) and empty.shape == pictures[0].shape
    assert not np.array_equal(pictures[-1], pictures[0]), "what happened shows"
    pictures[0][:] = 0
    assert looked.image().any(), "a picture is a copy"


def test_a_family_that_draws_all_states_anew():
    class Theirs(Corridor):
        def render(self, task: Task, states: list[State]) -> np.ndarray:
            places = [int(state.place[0]) for state in states]
            return np.full((2, 3, 3), 10 * len(places) + max(places), np.uint8)

    env = GymEnv(Theirs(), trial=True, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render()[0, 0, 0] == 10
    env.step(1)
    assert env.render()[0, 0, 0] in (21, 31), "a state more, or two at the border of two episodes"
    sketch = Theirs().sketch(None)
    assert isinstance(sketch, Redrawn)
    with pytest.raises(NotImplementedError, match="Corridor has no picture: implement render"):
        Corridor().sketch(None).image()


# ---- borders and times ---------------------------------------------------------------------------------------------


def played(family: TaskFamily, steps: int) -> tuple[Sketch, list[int], list[float]]:
    """A sketch of random play, and the numbers of states and the returns of its episodes."""
    task = family.sample_tasks(rng.key(0), 1)
    sketch = family.sketch(task, family.episodes_per_trial)
    lengths: list[int] = []
    returns: list[float] = []
    for state, first, reward in visited(family, task, steps):
        sketch.add(state, first)
        if first:
            lengths.append(0)
            returns.append(0.0)
        lengths[-1] += 1
        returns[-1] += reward
    return sketch, lengths, returns


def test_alchemy_shows_the_present_episode_from_time_0_and_what_each_has_paid():
    sketch, lengths, returns = played(metarl.make("metarl/Alchemy-v0"), 110)
    assert lengths == [21] * 5 + [11] and any(returns)
    assert sketch.paid == returns and sketch.time == lengths[-1]


def test_harlow_s_rounds_have_columns_of_their_own():
    family = metarl.make("metarl/Harlow-v0")
    sketch, lengths, _ = played(family, 60)
    assert 1 < len(lengths) <= 6 and sketch.round == len(lengths) and sketch.time == lengths[-1]
    picture = sketch.image()
    rows = []
    for number in range(6):  # the frame around the gaze is the only black line that is 2 pixels wide
        column = picture[sketch.TOP :, sketch.width * number : sketch.width * (number + 1)]
        black = (column == 0).all(-1)
        rows.append(int((black[:, sketch.LEFT + sketch.cell * 8 - 1] & black[:, sketch.LEFT + sketch.cell * 8]).sum()))
    assert [(row + sketch.LINE - 1) // sketch.LINE for row in rows] == [*lengths, *[0] * (6 - len(lengths))]


@pytest.mark.parametrize("id", ["CartPole", "Pendulum", "Acrobot", "MountainCar"])
def test_curves_of_episodes_lie_over_each_other_on_one_axis_of_time(id: str):
    family = metarl.make(f"metarl/{id}-v0", horizon=50)
    sketch, lengths, _ = played(family, 80)
    assert isinstance(sketch, Film)
    assert [len(values) for values in sketch.values] == lengths and len(lengths) > 1
    assert len(sketch.states) == lengths[-1], "the poses are of the present episode"
    assert max(lengths) - 1 <= sketch.span <= max(2 * max(lengths), 16), "the axis is as long as it has to be"
    marks = np.asarray(sketch.sheet.marks)[..., 3]
    strip = marks[sketch._strip(0) : sketch._strip(1)]
    drawn_until = int(strip.any(axis=0).nonzero()[0].max())
    assert drawn_until == pytest.approx(sketch._at(max(lengths) - 1), abs=1.5), "the longest episode ends at its time"
    assert set(np.unique(strip)) - {0, 255}, "what came before is paler"


def test_no_line_leads_from_an_episode_s_end_to_the_next_one_s_start():
    """Two episodes that keep still at two places: nothing is drawn between them."""

    def sketch() -> Trail:
        return Trail([(-1, -1), (1, 1)], 10, lambda state: state)

    both = drawn(sketch(), [[(-0.8, 0.0)] * 5, [(0.8, 0.0)] * 5])
    assert (both[:, SIZE // 2 - 60 : SIZE // 2 + 60] == 255).all()
    joined = drawn(sketch(), [[(-0.8, 0.0)] * 5 + [(0.8, 0.0)] * 5])
    assert not (joined[:, SIZE // 2 - 60 : SIZE // 2 + 60] == 255).all()


# ---- scales --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "length"), [(1.0, 1.0), (0.99, 0.5), (0.3, 0.2), (0.11, 0.1), (4.9, 2.0), (7.0, 5.0), (23.0, 20.0)]
)
def test_a_scale_has_a_round_length(most: float, length: float):
    assert round_length(most) == pytest.approx(length)


def test_a_path_that_leaves_the_picture_makes_it_show_more():
    sketch = Trail([(-1, -1), (1, 1)], 100, lambda state: state)
    for t in range(100):
        sketch.add((0.1 * t, 0.0), t == 0)
        x, y = sketch.pixel(0.1 * t, 0.0)
        assert 0 < x < SIZE and y == SIZE / 2
    assert sketch.half == pytest.approx(1.12 * 16)
    slow = Trail([(-16, -16), (16, 16)], 100, lambda state: state)
    assert slow.half == sketch.half
    assert np.array_equal(sketch.image(), drawn(slow, [[(0.1 * t, 0.0) for t in range(100)]])), "as if drawn so at once"
    nowhere = drawn(slow, [[(float("nan"), 0.0)]])
    assert nowhere.shape == (SIZE, SIZE, 3), "physics that failed"


@pytest.mark.parametrize("id", ["AntDir", "AntGoal", "HumanoidDir"])
def test_a_robot_from_above_is_in_the_picture_with_a_scale(id: str):
    pytest.importorskip("mujoco")
    family = metarl.make(f"metarl/{id}-v0")
    task = family.sample_tasks(rng.key(0), 1)
    sketch = family.sketch(task)
    nobody = sketch.image()
    state = family.reset(task, rng.fold(rng.key(0), torch.arange(1)))
    sketch.add(state, first=True)
    seen = (sketch.image() != nobody).any(-1)
    metre = sketch.pixel(1.0, 0.0)[0] - sketch.pixel(0.0, 0.0)[0]
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    for places in (rows, columns):
        assert 0.2 * metre < np.ptp(places) < 2.2 * metre, "as large as the robot is"
    corner = nobody[-40:, -140:]
    assert (corner == (0x49, 0x50, 0x57)).all(-1).any(), "the bar of the scale"
