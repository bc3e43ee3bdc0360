"""All wrappers of Gymnasium around our environments, single and vector, episodes and trials: none is left out."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import gymnasium.wrappers as single
import gymnasium.wrappers.vector as vector
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from packaging.version import Version
from small_families import Images

from metarl.core.family import TaskFamily
from metarl.interop.gym_env import GymEnv, GymVectorEnv

OLDER = Version(gymnasium.__version__) < Version("1.4")
"""Some of Gymnasium's own wrappers around vectors of environments were mended in 1.4."""
GRID, POINT = "metarl/GridNavi-v0", "metarl/Navigation2D-v0"
NEEDS = {"AtariPreprocessing": "cv2", "ResizeObservation": "cv2", "RecordVideo": "moviepy", "HumanRendering": "cv2",
         "ArrayConversion": "array_api_compat", "NumpyToTorch": "array_api_compat", "JaxToNumpy": "jax",
         "JaxToTorch": "jax"}  # fmt: skip
NOT_FOR_US = {"AtariPreprocessing": "asks the Atari emulator for its lives and its screen",
              "JaxToNumpy": "is for environments that are written in JAX",
              "JaxToTorch": "is for environments that are written in JAX"}  # fmt: skip


def same_space(wrapper: type, env: Any) -> Any:
    return wrapper(env, func=lambda obs: obs, observation_space=None)


Wrap = Callable[[Any], Any]
SINGLE: dict[str, tuple[str | type[TaskFamily], Wrap]] = {
    "DelayObservation": (GRID, partial(single.DelayObservation, delay=2)),
    "DtypeObservation": (GRID, partial(single.DtypeObservation, dtype=np.float64)),
    "DiscretizeObservation": (GRID, lambda env: single.DiscretizeObservation(env, bins=5)),
    "FilterObservation": (GRID, lambda env: single.FilterObservation(
        single.TimeAwareObservation(env, flatten=False), filter_keys=["obs"])),
    "FlattenObservation": (Images, single.FlattenObservation),
    "FrameStackObservation": (GRID, partial(single.FrameStackObservation, stack_size=3)),
    "GrayscaleObservation": (Images, lambda env: single.GrayscaleObservation(
        single.DtypeObservation(env, np.uint8))),
    "TransformObservation": (GRID, partial(same_space, single.TransformObservation)),
    "MaxAndSkipObservation": (GRID, partial(single.MaxAndSkipObservation, skip=2)),
    "NormalizeObservation": (GRID, single.NormalizeObservation),
    "AddRenderObservation": (Images, single.AddRenderObservation),
    "ResizeObservation": (Images, lambda env: single.ResizeObservation(
        single.DtypeObservation(env, np.uint8), (6, 5))),
    "ReshapeObservation": (Images, partial(single.ReshapeObservation, shape=(36, 10))),
    "RescaleObservation": (POINT, partial(single.RescaleObservation, min_obs=-1.0, max_obs=1.0)),
    "TimeAwareObservation": (GRID, single.TimeAwareObservation),
    "ClipAction": (POINT, single.ClipAction),
    "DiscretizeAction": (POINT, lambda env: single.DiscretizeAction(env, bins=3)),
    "TransformAction": (POINT, lambda env: single.TransformAction(env, lambda a: 0.5 * a, env.action_space)),
    "RescaleAction": (POINT, partial(single.RescaleAction, min_action=-1.0, max_action=1.0)),
    "StickyAction": (GRID, partial(single.StickyAction, repeat_action_probability=0.5)),
    "RepeatAction": (GRID, lambda env: single.RepeatAction(env, num_repeats=2)),
    "ClipReward": (GRID, partial(single.ClipReward, min_reward=0.0)),
    "TransformReward": (GRID, partial(single.TransformReward, func=lambda r: 2.0 * r)),
    "NormalizeReward": (GRID, single.NormalizeReward),
    "TimeLimit": (GRID, partial(single.TimeLimit, max_episode_steps=4)),
    "Autoreset": (GRID, single.Autoreset),
    "PassiveEnvChecker": (GRID, single.PassiveEnvChecker),
    "OrderEnforcing": (GRID, single.OrderEnforcing),
    "RecordEpisodeStatistics": (GRID, single.RecordEpisodeStatistics),
    "AddWhiteNoise": (Images, partial(single.AddWhiteNoise, probability_of_noise_per_pixel=0.5)),
    "ObstructView": (Images, partial(single.ObstructView, obstructed_pixels_ratio=0.5, obstruction_width=3)),
    "RenderCollection": (Images, single.RenderCollection),
    "RecordVideo": (Images, partial(single.RecordVideo, video_folder="videos", disable_logger=True)),
    "HumanRendering": (Images, single.HumanRendering),
    "ArrayConversion": (GRID, lambda env: single.ArrayConversion(env, env_xp=np, target_xp=np)),
    "NumpyToTorch": (GRID, lambda env: single.NumpyToTorch(env)),
}  # fmt: skip
VECTOR: dict[str, tuple[str | type[TaskFamily], Wrap]] = {
    "VectorizeTransformObservation": (GRID, lambda env: vector.VectorizeTransformObservation(
        env, single.TransformObservation, func=lambda obs: obs, observation_space=None)),
    "VectorizeTransformAction": (POINT, lambda env: vector.VectorizeTransformAction(env, single.ClipAction)),
    "VectorizeTransformReward": (GRID, lambda env: vector.VectorizeTransformReward(
        env, single.TransformReward, func=lambda r: 2.0 * r)),
    "DictInfoToList": (GRID, vector.DictInfoToList),
    "TransformObservation": (GRID, partial(vector.TransformObservation, func=lambda obs: obs)),
    "FilterObservation": (GRID, lambda env: vector.FilterObservation(as_dict(env), filter_keys=["obs"])),
    "FlattenObservation": (Images, vector.FlattenObservation),
    "GrayscaleObservation": (Images, lambda env: vector.GrayscaleObservation(
        vector.DtypeObservation(env, np.uint8))),
    "ResizeObservation": (Images, lambda env: vector.ResizeObservation(
        vector.DtypeObservation(env, np.uint8), (6, 5))),
    "ReshapeObservation": (Images, partial(vector.ReshapeObservation, shape=(36, 10))),
    "RescaleObservation": (POINT, partial(vector.RescaleObservation, min_obs=-1.0, max_obs=1.0)),
    "DtypeObservation": (GRID, partial(vector.DtypeObservation, dtype=np.float64)),
    "NormalizeObservation": (GRID, vector.NormalizeObservation),
    "TransformAction": (POINT, lambda env: vector.TransformAction(env, lambda a: 0.5 * a, env.action_space)),
    "ClipAction": (POINT, vector.ClipAction),
    "RescaleAction": (POINT, partial(vector.RescaleAction, min_action=-1.0, max_action=1.0)),
    "TransformReward": (GRID, partial(vector.TransformReward, func=lambda r: 2.0 * r)),
    "ClipReward": (GRID, partial(vector.ClipReward, min_reward=0.0)),
    "NormalizeReward": (GRID, vector.NormalizeReward),
    "RecordEpisodeStatistics": (GRID, vector.RecordEpisodeStatistics),
    "RecordVideo": (Images, lambda env: vector.RecordVideo(env, video_folder="videos", disable_logger=True)),
    "HumanRendering": (Images, vector.HumanRendering),
    "ArrayConversion": (GRID, lambda env: vector.ArrayConversion(env, env_xp=np, target_xp=np)),
    "NumpyToTorch": (GRID, lambda env: vector.NumpyToTorch(env)),
}  # fmt: skip
# An older Gymnasium lacks some of them.
SINGLE = {name: known for name, known in SINGLE.items() if name in single.__all__}
VECTOR = {name: known for name, known in VECTOR.items() if name in vector.__all__}
# What needs bounds of every observation, of which a trial's previous reward has none; and pictures for observations,
# which a trial flattens.
EPISODES_ONLY = {
    "DiscretizeObservation",
    "RescaleObservation",
    "GrayscaleObservation",
    "ResizeObservation",
    "ReshapeObservation",
}


def as_dict(env: gymnasium.vector.VectorEnv) -> gymnasium.vector.VectorEnv:
    space = gymnasium.spaces.Dict(obs=env.single_observation_space)
    return vector.VectorizeTransformObservation(
        env, single.TransformObservation, func=lambda obs: {"obs": obs}, observation_space=space
    )


@pytest.mark.parametrize(("module", "known"), [(single, SINGLE), (vector, VECTOR)], ids=["single", "vector"])
def test_no_wrapper_is_forgotten(module: Any, known: dict):
    assert set(module.__all__) - {"vector"} == set(known) | (set(NOT_FOR_US) & set(module.__all__))


def made(name: str, known: dict, trial: bool, many: bool) -> Any:
    """A wrapped environment; skipped where what the wrapper itself needs is not installed."""
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{name} needs {NEEDS[name]}")
    if trial and name in EPISODES_ONLY:
        pytest.skip("a trial's observation is one vector, and a reward has no bounds")
    where, wrap = known[name]
    if isinstance(where, str):
        make = partial(gymnasium.make_vec, where, num_envs=3) if many else partial(gymnasium.make, where)
        shorter = {"horizon": 15} if where == POINT else {}
        return wrap(make(trial=trial, render_mode="rgb_array", **shorter))
    options: dict[str, Any] = {"trial": trial, "render_mode": "rgb_array"}
    return wrap(GymVectorEnv(where(), 3, **options) if many else GymEnv(where(), **options))


def quiet(name: str) -> None:
    """What wrappers say around Gymnasium's own environments, too."""
    if name == "RecordVideo":
        warnings.simplefilter("ignore")  # of moviepy
    warnings.filterwarnings("ignore", message=r".*precision lowered by casting.*")
    if name == "DtypeObservation":
        warnings.filterwarnings("ignore", message="overflow encountered in cast")  # from float32's bounds to float64's


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("name", SINGLE)
def test_a_wrapper_of_one(name: str, trial: bool, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with warnings.catch_warnings():
        quiet(name)
        env = made(name, SINGLE, trial, many=False)
        env.action_space.seed(0)
        episodes = 0
        obs, _ = env.reset(seed=0)
        for _ in range(140):
            assert name in ("ArrayConversion", "NumpyToTorch") or obs in env.observation_space
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                episodes += 1
                if name != "Autoreset":
                    obs, _ = env.reset()
        assert episodes >= 2
        env.close()


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("name", VECTOR)
def test_a_wrapper_of_many(name: str, trial: bool, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with warnings.catch_warnings():
        quiet(name)
        env = made(name, VECTOR, trial, many=True)
        env.action_space.seed(0)
        ends = 0
        obs, _ = env.reset(seed=0)
        outside = ("ArrayConversion", "NumpyToTorch", *(["NormalizeObservation"] if OLDER else []))
        for _ in range(140):
            assert name in outside or obs in env.observation_space
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            ends += int(sum(map(bool, terminated | truncated)))
        assert ends >= 6
        env.close()


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("trial", [False, True])
def test_recorded_statistics_are_those_of_what_was_played(trial: bool, mode: AutoresetMode):
    """At the end of a trial and of inner episodes in other rows at once, in every mode; masked resets included."""
    if OLDER and mode is AutoresetMode.SAME_STEP:
        pytest.skip("Gymnasium counts the first step after such a reset only from 1.4")
    envs = gymnasium.make_vec("metarl/CartPole-v0", num_envs=4, trial=trial, autoreset_mode=mode)
    envs = vector.RecordEpisodeStatistics(envs)
    envs.action_space.seed(1)
    envs.reset(seed=0)
    returns, lengths, waiting, seen = np.zeros(4), np.zeros(4, int), np.zeros(4, bool), 0
    for _ in range(150):
        _, reward, terminated, truncated, infos = envs.step(envs.action_space.sample())
        returns, lengths = returns + ~waiting * reward, lengths + ~waiting
        done = terminated | truncated
        if done.any():
            assert infos["_episode"].tolist() == done.tolist()
            assert infos["episode"]["r"][done].tolist() == returns[done].tolist()
            assert infos["episode"]["l"][done].tolist() == lengths[done].tolist()
        seen += int(done.sum())
        returns, lengths = returns * ~done, lengths * ~done
        waiting = done if mode is AutoresetMode.NEXT_STEP else waiting
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
    assert seen >= 10


def test_the_time_is_within_its_bounds():
    """`TimeAwareObservation` reads the steps of an episode, or of a trial, from the specification."""
    for trial, steps in ((False, 15), (True, 60)):
        env = gymnasium.make(GRID, trial=trial)
        assert env.spec.max_episode_steps == env.unwrapped.spec.max_episode_steps == steps
        assert not isinstance(env, single.TimeLimit) and "TimeLimit" not in str(env), "endings stay the family's own"
        timed = single.TimeAwareObservation(env, normalize_time=True)
        obs, _ = timed.reset(seed=0)
        done = False
        while not done:
            obs, _, terminated, truncated, _ = timed.step(0)
            assert obs in timed.observation_space
            done = terminated or truncated
        assert obs[-1] == 1.0 and (terminated, truncated) == (trial, not trial)


def test_a_specification_makes_the_same_environment_again():
    env = gymnasium.make(GRID, trial=True, episodes_per_trial=2, max_episode_steps=7)
    assert env.spec.max_episode_steps == 7
    again = gymnasium.make(env.spec)
    assert isinstance(again.observation_space, Box) and again.observation_space == env.observation_space
    for each in (env, again):
        each.reset(seed=3)
    for _ in range(7):
        a, b = env.step(2), again.step(2)
        assert np.array_equal(a[0], b[0]) and a[1:] == b[1:]
    assert a[2:4] == (False, True)
    assert gymnasium.make(gymnasium.make(GRID).spec).unwrapped.family.horizon == 15
