"""Gymnasium's view of the batch environment."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from registered_families import IDS
from small_families import Corridor, Length, Reach, Start, TwoDoors

import metarl
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.errors import UnknownOption
from metarl.core.tree import take
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.testing.families import check_gymnasium

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode


def episode(env: gymnasium.Env, seed: int | None = None, action: int = 1) -> list:
    """(obs, reward, terminated, truncated, info) from reset to the end, always with one action."""
    obs, info = env.reset(seed=seed)
    out = [(obs, 0.0, False, False, info)]
    while not (out[-1][2] or out[-1][3]):
        out.append(env.step(action))
    return out


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(np.array_equal(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b))


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("id", IDS)
def test_every_id_passes_both_check_envs(id: str, trial: bool):
    check_gymnasium(id, trial)
    check_gymnasium(id, trial, render_mode="rgb_array")


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("id", IDS)
def test_every_id_makes_both_kinds(id: str, trial: bool):
    """Each yields its own family, with its own defaults: nothing was captured late."""
    env = gymnasium.make(f"metarl:{id}", trial=trial)
    assert type(env.unwrapped.family) is type(metarl.make(id)) and env.spec.id == id
    env.reset(seed=0)
    env.step(env.action_space.sample())
    envs = gymnasium.make_vec(f"metarl:{id}", num_envs=3, trial=trial)
    assert isinstance(envs, GymVectorEnv) and type(envs.family) is type(metarl.make(id))
    obs, _ = envs.reset(seed=0)
    envs.action_space.seed(0)
    assert obs in envs.observation_space
    for _ in range(5):
        obs, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert obs in envs.observation_space and reward.shape == terminated.shape == truncated.shape == (3,)
    envs.close()
    sync = gymnasium.make_vec(id, num_envs=2, vectorization_mode="sync", trial=trial)
    sync.reset(seed=[1, 2])
    sync.close()


def test_options_reach_the_family_and_wrong_ones_are_refused():
    assert gymnasium.make("metarl/BernoulliBandit-v0", num_arms=7).action_space.n == 7
    with pytest.raises(ValueError, match="num_arms"):
        gymnasium.make("metarl/BernoulliBandit-v0", num_arm=7)
    with pytest.raises(ValueError, match="'train'"):
        gymnasium.make("metarl/BernoulliBandit-v0", split="trian")
    with pytest.raises(ValueError, match="constructor"):
        GymEnv(Corridor(), horizon=4)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec, metarl.make])
def test_an_unknown_keyword_is_a_type_error_in_python_s_words(make):
    """TorchRL goes on without the keywords that such an error names; it is a ValueError, too, as elsewhere here."""
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'frameskip'") as caught:
        make("metarl/GridNavi-v0", frameskip=1)
    assert isinstance(caught.value, UnknownOption) and isinstance(caught.value, ValueError)
    assert "episodes_per_trial" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="Did you mean 'episodes_per_trial'"):
        make("metarl/GridNavi-v0", episode_per_trial=2)


def test_the_view_s_own_keywords_are_offered_too():
    for call, near in (
        (lambda: gymnasium.make("metarl/GridNavi-v0", splt="train"), "split"),
        (lambda: gymnasium.make_vec("metarl/GridNavi-v0", autoreset="SameStep"), "autoreset_mode"),
        (lambda: GymEnv("metarl/GridNavi-v0", trail=True), "trial"),
    ):
        with pytest.raises(TypeError, match=f"Did you mean '{near}'"):
            call()
    with pytest.raises(TypeError, match=r"^GymEnv got an unexpected keyword argument 'horizon': .*constructor\.$"):
        GymEnv(Corridor(), horizon=4)


def test_a_family_registered_later_is_an_id_at_once():
    metarl.register("small/Corridor-v0", Corridor)
    metarl.register("small/Reach-v0", Reach)
    try:
        assert isinstance(gymnasium.make("small/Corridor-v0").unwrapped.family, Corridor)
        assert isinstance(gymnasium.make("small/Reach-v0").unwrapped.family, Reach)
        metarl.register("small/Corridor-v0", Corridor)  # once more is harmless
        gymnasium.register("small/Taken-v0", entry_point="somewhere:else")
        with pytest.raises(ValueError, match="already taken"):
            metarl.register("small/Taken-v0", Corridor)
    finally:
        for name in ("Corridor", "Reach", "Taken"):
            gymnasium.registry.pop(f"small/{name}-v0", None)
            metarl.core.registry._REGISTRY.pop(f"small/{name}-v0", None)


def test_importing_metarl_does_not_import_sb3():
    code = "import sys, metarl; sys.exit('stable_baselines3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=metarl.__path__[0] + "/..").returncode == 0


def test_an_episode_ends_by_the_task_or_by_the_clock():
    env = GymEnv(Corridor())
    env.set_task(Length(torch.tensor([2])))
    (*_, (obs, reward, terminated, truncated, _)) = episode(env, seed=0)
    assert (terminated, truncated) == (True, False)
    assert obs[0] == pytest.approx(0.2) and 2.0 <= reward < 2.01, "the last observation, not the next episode's first"
    steps = episode(env, action=0)
    assert len(steps) == 7 and steps[-1][2:4] == (False, True)


def test_an_episode_of_one_step_terminates():
    assert episode(GymEnv(TwoDoors()), seed=0)[-1][2:4] == (True, False)


def test_a_trial_is_one_episode_with_rl2_inputs():
    env = GymEnv(Corridor(episodes_per_trial=2), trial=True)
    env.set_task(Length(torch.tensor([2])))
    steps = episode(env, seed=3)
    obs = np.stack([step[0] for step in steps])  # place, mark, action 0, action 1, reward, done
    assert obs.shape == (5, 6) and all(o in env.observation_space for o in obs)
    rewards = np.array([step[1] for step in steps], dtype=np.float32)
    assert obs[:, 0].tolist() == pytest.approx([0, 0.1, 0, 0.1, 0.2]), "at the border the next episode's first"
    assert obs[0, 2:].tolist() == [0, 0, 0, 0], "no action came before"
    assert obs[1:, 2:4].tolist() == [[0, 1]] * 4
    assert obs[:, 4].tolist() == rewards.tolist(), "the last reward is shown, at the border, too"
    assert obs[:, 5].tolist() == [0, 0, 1, 0, 1], "done = 1 is shown"
    assert obs[0, 1] == obs[1, 1] != obs[2, 1], "the episodes start afresh"
    assert [step[2] for step in steps] == [False] * 4 + [True] and not any(step[3] for step in steps)
    assert [step[4]["episode_index"] for step in steps] == [0, 0, 0, 1, 1]


def test_a_trial_shows_what_the_core_plays():
    family, seed = Corridor(), 5
    env = GymEnv(family, trial=True)
    steps = episode(env, seed=seed)
    task = family.sample_tasks(rng.fold(rng.key(seed), 0), 1)
    core = BatchEnv(family, task, rng.fold(rng.key(seed), 1))
    core.reset()
    rewards = []
    while not core.all_done():
        rewards.append(float(core.step(torch.tensor([1]))[0].reward))
    assert rewards == [step[1] for step in steps[1:]]
    assert torch.equal(env.get_task().length, task.length)


class Shifted(Reach):
    """Bounds that do not hold 0."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(np.array([1.0, -3.0], np.float32), np.array([2.0, -1.0], np.float32))


@pytest.mark.parametrize("family", [Reach(), Shifted()], ids=["0 inside", "0 outside"])
def test_a_trial_s_observation_is_in_its_space_whatever_the_action(family):
    """An action beyond the bounds is shown clipped to them; the family itself is given what the agent chose."""
    given = []
    family.step, step = (
        lambda task, state, action, key: given.append(action) or step(task, state, action, key),
        family.step,
    )
    env = GymEnv(family, trial=True)
    obs, _ = env.reset(seed=0)
    low, high = family.action_space.low, family.action_space.high
    assert obs in env.observation_space and obs[2:4].tolist() == ((low + high) / 2).tolist(), "no action came before"
    for action in ([0.5, -1.5], [7.0, -9.0], [-7.0, 9.0], [3e38, -3e38]):
        obs, *_ = env.step(np.array(action, np.float32))
        assert obs in env.observation_space
        assert obs[2:4].tolist() == np.clip(np.float32(action), low, high).tolist()
        assert given[-1][0].tolist() == np.float32(action).tolist()


def test_a_reward_too_large_for_float32_is_shown_as_the_largest():
    env = gymnasium.make("metarl/MountainCarContinuous-v0", trial=True).unwrapped
    env.reset(seed=0)
    obs, reward, *_ = env.step(np.array([1e30], np.float32))
    assert reward == -np.inf and obs in env.observation_space and obs[3] == np.finfo(np.float32).min


@pytest.mark.parametrize("start", [1, -1, -7, 1000])
def test_discrete_actions_that_do_not_start_at_0(start: int):
    """Spaces keep the start, actions reach the family as they are, and a trial shows them one-hot by their place."""
    env = GymEnv(Start(start=start), trial=True)
    assert env.action_space == gymnasium.spaces.Discrete(2, start=start)
    assert env.observation_space.shape == (1 + 2 + 2,)
    env.set_task(env.sample_tasks(1, seed=0)[0])
    obs, _ = env.reset(seed=0)
    assert obs[1:3].tolist() == [0, 0], "no action came before"
    side, rewards = int(env.get_task().side), []
    for place in (0, 1, 1):
        obs, reward, *_ = env.step(start + place)
        assert obs[1:3].tolist() == [place == 0, place == 1] and obs in env.observation_space
        rewards.append(reward)
    assert rewards == [side == 0, side == 1, side == 1]
    obs, _ = env.reset()
    assert obs[1:3].tolist() == [0, 0]
    for action in (start - 1, start + 2):
        with pytest.raises(ValueError, match=rf"^An action must be an integer from {start} to {start + 1}, got"):
            env.step(action)
    envs = GymVectorEnv(Start(start=start), 2, trial=True)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    for _ in range(20):
        assert envs.step(envs.action_space.sample())[0] in envs.observation_space


@pytest.mark.parametrize(("family", "action", "message"), [
    (Reach(), [np.nan, 0.0], r"^An action must be finite, got \[{1,2}nan, 0.0\]{1,2}\.$"),
    (Reach(), [np.inf, 0.0], "must be finite"),
    (Reach(), np.array([1e300, 0.0]), "must be finite"),
    (Reach(), ["a", "b"], "must consist of numbers, got values of the type <U1"),
    (Reach(), [None, 0.0], "must consist of numbers, got values of the type object"),
    (Reach(), [1j, 0.0], "must consist of numbers, got values of the type complex128"),
    (Reach(), [True, False], "must consist of numbers, got values of the type bool"),
    (Reach(), [0.0, 0.0, 0.0], r"shape \((1, )?2,?\), got \((1, )?3,?\)"),
    (Reach(), 0.5, r"shape \((1, )?2,?\), got \((1,)?\)"),
    (Corridor(), -1, "from 0 to 1, got"),
    (Corridor(), np.nan, "from 0 to 1, got"),
    (Corridor(), 1.0, "from 0 to 1, got"),
    (Corridor(), None, "from 0 to 1, got"),
    (Corridor(), "left", "from 0 to 1, got"),
    (Corridor(), np.uint64(2**63), "from 0 to 1, got"),
])  # fmt: skip
def test_impossible_actions_are_one_sentence(family, action, message: str):
    env, envs = GymEnv(family), GymVectorEnv(family, 1)
    for each in (env, envs):
        each.reset(seed=0)
    for call in (lambda: env.step(action), lambda: envs.step(np.asarray(action)[None])):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    possible = np.zeros(family.action_space.shape, int if isinstance(family, Corridor) else float)
    env.step(possible), envs.step(possible[None])  # nothing happened


@pytest.mark.parametrize("action", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1)], ids=repr)
def test_integers_of_every_library_are_actions(action):
    env, expected = GymEnv(Corridor()), GymEnv(Corridor())
    env.reset(seed=0), expected.reset(seed=0)
    assert np.array_equal(env.step(action)[0], expected.step(1)[0])


def test_continuous_trials_show_the_action():
    env = GymEnv(Reach(), trial=True)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (6,) and obs[2:4].tolist() == [0, 0]
    obs, reward, *_ = env.step(np.array([0.5, -0.25], dtype=np.float32))
    assert obs.tolist() == [0.5, -0.25, 0.5, -0.25, np.float32(reward), 0.0]


@pytest.mark.parametrize("trial", [False, True])
def test_a_seed_determines_everything_that_follows(trial: bool):
    runs = []
    for _ in range(2):
        env = GymEnv(Corridor(), trial=trial)
        runs.append([episode(env, seed=7), episode(env), episode(env)])
    assert all(same(a, b) for a, b in zip(*runs))
    assert not same(runs[0][0], runs[0][1]), "another reset, another trial"
    assert not same(runs[0][0], episode(GymEnv(Corridor(), trial=trial), seed=8))


def test_without_any_seed_two_environments_differ():
    assert not same(episode(GymEnv(Corridor(), trial=True)), episode(GymEnv(Corridor(), trial=True)))


def test_a_new_task_per_reset_until_one_is_set():
    env = GymEnv(Corridor())
    with pytest.raises(ValueError, match="reset"):
        env.get_task()
    lengths = []
    for n in range(30):
        env.reset(seed=0 if n == 0 else None)
        lengths.append(int(env.get_task().length))
    assert set(lengths) == {1, 2, 4}, "the training tasks"
    env.set_task(Length(torch.tensor([5])))
    assert int(env.get_task().length) == 5
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(1)
    for _ in range(5):
        env.reset()
        assert int(env.get_task().length) == 5
    assert [int(env.reset(options={"split": "ood"}) and env.get_task().length) > 5 for _ in range(5)] == [True] * 5
    env.reset(options={"task": Length(torch.tensor([3]))})
    assert int(env.get_task().length) == 3
    env.reset()
    assert int(env.get_task().length) == 5, "options hold once"
    env.set_task(None)
    assert {int(env.reset() and env.get_task().length) for _ in range(30)} == {1, 2, 4}


@pytest.mark.parametrize(("split", "lengths"), [("train", {1, 2, 4}), ("test", {3, 5}), ("ood", {6, 7})])
def test_a_split_yields_that_split(split: str, lengths: set):
    env = GymEnv(Corridor(), split=split)
    assert {int(env.reset(seed=n) and env.get_task().length) for n in range(40)} == lengths
    assert {int(task.length) for task in env.sample_tasks(40)} == lengths
    envs = GymVectorEnv(Corridor(), 40, split=split)
    envs.reset(seed=0)
    assert set(envs.get_task().length.tolist()) == lengths
    for _ in range(7):
        envs.step(np.ones(40, dtype=int))
        assert set(envs.get_task().length.tolist()) <= lengths


def test_every_family_has_the_split_valid():
    """Also one that does not declare it: it is drawn like `train`."""
    env, envs = GymEnv(Corridor(), split="valid"), GymVectorEnv(Corridor(), 30, split="valid")
    env.reset(seed=0), envs.reset(seed=0)
    assert set(envs.get_task().length.tolist()) == {1, 2, 4}
    env.reset(options={"split": "valid"})


def test_sampled_tasks_are_the_familys():
    env, family = GymEnv(Corridor()), Corridor()
    tasks = env.sample_tasks(6, split="test", seed=3)
    whole = family.sample_tasks(rng.key(3), 6, "test")
    assert all(torch.equal(task.length, take(whole, slice(i, i + 1)).length) for i, task in enumerate(tasks))
    draws = []
    for _ in range(2):
        env.reset(seed=1)
        draws.append([int(task.length) for _ in range(2) for task in env.sample_tasks(20)])
    assert draws[0] == draws[1] and draws[0][:20] != draws[0][20:]
    for task in tasks:  # each is what set_task takes
        env.set_task(task)
        env.reset()


@pytest.mark.parametrize(("call", "message"), [
    (lambda env: env.set_task(Length(torch.tensor([1, 2]))), "one row"),
    (lambda env: env.set_task(torch.tensor([1])), "must be a Length"),
    (lambda env: env.reset(options={"tsak": 1}), "'task'"),
    (lambda env: env.reset(options={"split": "nowhere"}), "split"),
    (lambda env: env.reset(options={"split": "test", "task": Length(torch.tensor([1]))}), "not both"),
    (lambda env: env.sample_tasks(2.5), "n must be a whole number of at least 0, got 2.5"),
    (lambda env: env.sample_tasks(3, seed=-1), "seed must be a whole number of at least 0, got -1"),
    (lambda env: env.sample_tasks(3, split="nowhere"), "split"),
    (lambda env: env.reset(seed=-1), "seed must be a whole number of at least 0, got -1"),
    (lambda env: env.step(2), r"^An action must be an integer from 0 to 1, got 2\.$"),
    (lambda env: env.step(0.5), r"^An action must be an integer from 0 to 1, got 0\.5\.$"),
    (lambda env: env.step([1, 0]), r"^An action must be an integer from 0 to 1, got \[1, 0\]\.$"),
    (lambda env: env.set_task(env.sample_tasks(2)), "got a value of list: give one task of the list"),
    (lambda env: env.sample_tasks(10**11), "lower n"),
    (lambda env: GymVectorEnv(Corridor(), 10**12), "lower num_envs"),
    (lambda env: GymEnv(Corridor(), render_mode="rgb_array"), "render_mode"),
    (lambda env: GymVectorEnv(Corridor(), 0), "at least one"),
])  # fmt: skip
def test_wrong_calls_are_refused(call, message: str):
    env = GymEnv(Corridor())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        call(env)


def test_nothing_returned_is_shared():
    env = GymEnv(Corridor(), trial=True)
    obs, info = env.reset(seed=0)
    kept, info["episode_index"] = obs.copy(), 99
    obs[:] = -1
    assert env.step(1)[4] == {"episode_index": 0}
    assert np.array_equal(env.reset(seed=0)[0], kept)
    assert not any("task" in key for key in info)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_alike(clone):
    env = gymnasium.make("metarl/TabularMDP-v0", trial=True).unwrapped
    env.reset(seed=0)
    for _ in range(3):
        env.step(1)
    twin = clone(env)
    for _ in range(12):
        a, b = env.step(2), twin.step(2)
        assert np.array_equal(a[0], b[0]) and a[1:] == b[1:]


def test_pictures():
    env = gymnasium.make("metarl/GridNavi-v0", trial=True, render_mode="rgb_array", episodes_per_trial=2)
    env.reset(seed=0)
    first = env.render()
    for _ in range(20):
        env.step(2)
    later = env.render()
    assert first.dtype == later.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
    assert first.shape == later.shape and not np.array_equal(first, later), "the path shows"
    visited = env.unwrapped._stream.recorder.visited[0]
    assert len(visited) == 22, "start, 20 steps, and the second episode's start"
    assert [int(state.position[0, 0]) for state, _ in visited[:6]] == [0, 1, 2, 3, 4, 4]
    assert int(visited[15][0].position[0, 0]) == 4 and int(visited[16][0].position[0, 0]) == 0
    assert [number for number, (_, first) in enumerate(visited) if first] == [0, 16], "where episodes begin"
    envs = gymnasium.make_vec("metarl/GridNavi-v0", num_envs=2, render_mode="rgb_array")
    envs.reset(seed=0)
    assert len(envs.render()) == 2
    with pytest.warns(UserWarning, match="rgb_array"):
        assert GymEnv(Corridor()).render() is None


def vector_episodes(trial: bool, num_envs: int, count: int) -> dict[int, list]:
    """Rewards of trials by their number (the order in which they began), walking on, from a GymVectorEnv."""
    envs = GymVectorEnv(Corridor(), num_envs, trial=trial, autoreset_mode=SAME_STEP)
    obs, _ = envs.reset(seed=11)
    playing, begun = list(range(num_envs)), num_envs
    rewards: dict[int, list] = {n: [] for n in playing}
    first = {n: obs[n] for n in playing}
    while len(rewards) < count + num_envs:
        obs, reward, terminated, truncated, _ = envs.step(np.ones(num_envs, dtype=np.int64))
        for row in range(num_envs):
            rewards[playing[row]].append(float(reward[row]))
        for row in range(num_envs):
            if terminated[row] or truncated[row]:
                playing[row], begun = begun, begun + 1
                rewards[playing[row]], first[playing[row]] = [], obs[row]
    return {n: [first[n].tolist(), rewards[n]] for n in range(begun) if n not in playing}


@pytest.mark.parametrize("trial", [False, True])
def test_one_after_the_other_or_side_by_side(trial: bool):
    side_by_side = vector_episodes(trial, num_envs=4, count=15)
    env = GymEnv(Corridor(), trial=trial)
    assert len(side_by_side) >= 12
    for n in range(max(side_by_side) + 1):
        steps = episode(env, seed=11 if n == 0 else None)
        if n in side_by_side:
            assert side_by_side[n] == [steps[0][0].tolist(), [step[1] for step in steps[1:]]], n


def test_autoreset_in_the_same_step_keeps_the_last_observation():
    envs = GymVectorEnv(Corridor(), 3, trial=False, autoreset_mode="SameStep")
    envs.set_task([Length(torch.tensor([n])) for n in (1, 2, 9)])
    assert envs.get_task().length.tolist() == [1, 2, 9]
    assert envs.metadata["autoreset_mode"] is SAME_STEP
    first, infos = envs.reset(seed=0)
    assert infos["episode_index"].tolist() == [0, 0, 0]
    obs, _, terminated, _, infos = envs.step(np.ones(3, dtype=int))
    assert terminated.tolist() == [True, False, False] and infos["_final_obs"].tolist() == [True, False, False]
    assert infos["final_obs"][0][0] == pytest.approx(0.1) and infos["final_obs"][1] is None
    assert infos["final_obs"][0][1] == first[0, 1] != obs[0, 1] and obs[0, 0] == 0.0
    assert infos["final_info"]["_episode_index"].tolist() == [True, False, False]
    for _ in range(4):
        envs.step(np.ones(3, dtype=int))
    _, _, terminated, truncated, _ = envs.step(np.ones(3, dtype=int))
    assert truncated.tolist() == [False, False, True] and terminated.tolist() == [True, True, False]
    assert envs.get_task().length.tolist() == [1, 2, 9], "a set task stays"
    with pytest.raises(ValueError, match="shape"):
        envs.step(np.ones(2, dtype=int))


def test_options_of_a_vector_hold_until_the_next_reset():
    envs = GymVectorEnv(Corridor(), 20)
    envs.reset(seed=0, options={"split": "test"})
    for _ in range(12):
        envs.step(np.ones(20, dtype=int))
        assert set(envs.get_task().length.tolist()) <= {3, 5}, "autoreset must not leave the split that was asked for"
    envs.reset()
    assert set(envs.get_task().length.tolist()) <= {1, 2, 4}


def test_a_list_of_tasks_has_one_for_each_row():
    envs = GymVectorEnv(Corridor(), 3)
    tasks = [Length(torch.tensor([n])) for n in (4, 1, 2)]
    for given in (tasks, tuple(tasks)):
        envs.reset(options={"task": given})
        assert envs.get_task().length.tolist() == [4, 1, 2]
        envs.set_task(given)
        assert envs.get_task().length.tolist() == [4, 1, 2]
        envs.set_task(None)
    with pytest.raises(ValueError, match="one row or 3, got 2"):
        envs.reset(options={"task": tasks[:2]})


def test_an_observation_without_dimensions_is_an_array():
    """Gymnasium's spaces hold arrays, and warn of a number."""

    class Dial(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Box(-100.0, 100.0, ())

        def observe(self, task, state):
            return super().observe(task, state)[:, 0]

    env = GymEnv(Dial())
    obs, _ = env.reset(seed=0)
    for _ in range(3):
        assert isinstance(obs, np.ndarray) and obs.shape == () and env.observation_space.contains(obs)
        obs = env.step(1)[0]


def test_one_row_is_played_in_all_rows():
    envs = GymVectorEnv(Corridor(), 3)
    envs.set_task(Length(torch.tensor([5])))
    envs.reset(seed=0)
    assert envs.get_task().length.tolist() == [5, 5, 5]


def test_gymnasiums_wrappers_work():
    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("metarl/GridNavi-v0", trial=True))
    env.reset(seed=0)
    done, total = False, 0.0
    while not done:
        _, reward, done, _, info = env.step(1)
        total += reward
    assert info["episode"]["r"] == pytest.approx(total) and info["episode"]["l"] == 60
