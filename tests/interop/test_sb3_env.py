"""stable-baselines3's view of the batch environment."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from small_families import Corridor, Length, Reach, Start, TwoDoors
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.interop.sb3_env import SB3VecEnv

ONES = np.ones(4, dtype=np.int64)


def fixed(*lengths: int, **options) -> SB3VecEnv:
    env = SB3VecEnv(Corridor(), len(lengths), **options)
    for row, length in enumerate(lengths):
        env.env_method("set_task", Length(torch.tensor([length])), indices=row)
    env.seed(0)
    return env


def test_the_ends_of_episodes():
    env = fixed(1, 2, 6, 9)
    first = env.reset()
    assert first.shape == (4, 2) and first.dtype == np.float32
    obs, reward, done, infos = env.step(ONES)
    assert done.tolist() == [True, False, False, False] and reward.dtype == np.float32
    assert infos[0]["terminal_observation"][0] == pytest.approx(0.1)
    assert infos[0]["terminal_observation"][1] == first[0, 1] != obs[0, 1]
    assert obs[:, 0].tolist() == pytest.approx([0, 0.1, 0.1, 0.1])
    assert "terminal_observation" not in infos[1]
    for _ in range(5):
        _, _, done, infos = env.step(ONES)
    assert done.tolist() == [True] * 4
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False, False, True]


def test_a_trial_is_one_episode():
    env = fixed(1, 1, 1, 2, trial=True)
    assert env.observation_space.shape == (6,)
    assert not env.reset()[:, 2:].any()
    for n in range(3):
        obs, reward, done, infos = env.step(ONES)
        assert done.tolist() == [n == 2] * 3 + [False]
        assert infos[0]["episode_index"] == n
        shown = infos[0]["terminal_observation"] if n == 2 else obs[0]
        assert shown[4] == reward[0] and shown[5] == 1.0, "the last reward and done = 1 are shown"
    assert not obs[0, 2:].any(), "a new trial starts with nothing"
    assert not infos[0]["TimeLimit.truncated"]


@pytest.mark.parametrize("trial", [False, True])
def test_it_plays_what_gymnasiums_view_plays(trial: bool):
    ours = SB3VecEnv(Corridor(), 4, trial=trial)
    theirs = GymVectorEnv(Corridor(), 4, trial=trial, autoreset_mode="SameStep")
    ours.seed(5)
    assert np.array_equal(ours.reset(), theirs.reset(seed=5)[0])
    for t in range(40):
        action = np.array([t % 2, 1, 1, t % 3 > 0], dtype=np.int64)
        obs, reward, done, _ = ours.step(action)
        other, other_reward, terminated, truncated, _ = theirs.step(action)
        assert np.array_equal(obs, other) and np.array_equal(reward, other_reward), t
        assert np.array_equal(done, terminated | truncated)


def test_it_has_the_semantics_of_a_dummy_vec_env():
    dummy, ours = DummyVecEnv([lambda: GymEnv(Corridor(), trial=True)]), SB3VecEnv(Corridor(), 1, trial=True)
    for env in (dummy, ours):
        env.seed(3)
    assert np.array_equal(dummy.reset(), ours.reset())
    for _ in range(30):
        a, b = dummy.step(ONES[:1]), ours.step(ONES[:1])
        assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a[:3], b[:3]))
        last, ours_last = (info[0].pop("terminal_observation", np.zeros(0)) for info in (a[3], b[3]))
        assert a[3] == b[3] and np.array_equal(last, ours_last)


def test_seeds():
    env = SB3VecEnv(Corridor(), 8)
    runs = []
    for seed in (1, 1, 2, None):
        if seed is not None:
            env.seed(seed)
        runs.append(env.reset())
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2]) and not np.array_equal(runs[2], runs[3])
    assert not np.array_equal(SB3VecEnv(Corridor(), 8).reset(), SB3VecEnv(Corridor(), 8).reset())


def test_methods_and_attributes_of_rows():
    env = fixed(1, 2, 6, 9)
    assert [int(task.length) for task in env.env_method("get_task")] == [1, 2, 6, 9]
    env.reset()
    env.env_method("set_task", None, indices=[0])
    env.env_method("set_task", Length(torch.tensor([3])), indices=-1)
    env.reset()
    lengths = [int(task.length) for task in env.env_method("get_task")]
    assert lengths[1:] == [2, 6, 3] and lengths[0] in (1, 2, 4)
    (tasks,) = env.env_method("sample_tasks", 5, split="ood", indices=0)
    assert {int(task.length) for task in tasks} <= {6, 7}
    (tasks, others), (later, _) = (env.env_method("sample_tasks", 20, indices=[0, 1]) for _ in range(2))
    numbers = [[int(task.length) for task in drawn] for drawn in (tasks, others, later)]
    assert numbers[0] != numbers[1] and numbers[0] != numbers[2], "each call and row draws its own tasks"
    again = [[int(t.length) for t in env.env_method("sample_tasks", 20, seed=3, indices=0)[0]] for _ in range(2)]
    assert again[0] == again[1]
    assert env.get_attr("family", indices=[0, 1]) == [env.family] * 2 and not env.has_attr("nothing")
    assert env.env_is_wrapped(GymEnv) == [False] * 4
    with pytest.raises(AttributeError, match="set_task"):
        env.env_method("reset_task")
    with pytest.raises(AttributeError):
        env.set_attr("horizon", 3)


def test_options():
    env = SB3VecEnv(Corridor(), 4)
    env.set_options({"split": "ood"})
    env.reset()
    assert all(int(task.length) in (6, 7) for task in env.env_method("get_task"))
    env.set_options([{"task": Length(torch.tensor([n]))} for n in range(1, 5)])
    env.reset()
    assert [int(task.length) for task in env.env_method("get_task")] == [1, 2, 3, 4]
    env.reset()
    assert all(int(task.length) in (1, 2, 4) for task in env.env_method("get_task")), "options are used once"
    env.set_options([{"split": "ood"}] * 3 + [{"split": "test"}])
    with pytest.raises(ValueError, match="All rows must have the same split, got"):
        env.reset()


@pytest.mark.parametrize(("call", "message"), [
    (lambda: SB3VecEnv(Corridor(), 4, split="trian"), "'train'"),
    (lambda: SB3VecEnv(Corridor(), 4, horizon=3), "horizon"),
    (lambda: SB3VecEnv(Corridor(), 4, render_mode="human"), "rgb_array"),
    (lambda: SB3VecEnv("metarl/GridNav-v0", 4), "GridNavi"),
    (lambda: SB3VecEnv(Corridor(), 4).step(ONES), "reset"),
    (lambda: SB3VecEnv(Corridor(), 4).step(ONES[:3]), "shape"),
])  # fmt: skip
def test_wrong_calls_are_refused(call, message: str):
    import metarl  # noqa: F401  (registers GridNavi)

    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("id", "actions", "message"), [
    ("CartPole", [99, -7], r"^An action must be an integer from 0 to 1, got \[99, -7\]\.$"),
    ("GridNavi", [-1, 0], "from 0 to 4"),
    ("GridNavi", np.array([0.7, 1.9]), "from 0 to 4"),
    ("Navigation2D", [[0.0, np.nan], [0.0, 0.0]], "must be finite"),
    ("Navigation2D", [["a", "b"], ["c", "d"]], "must consist of numbers"),
])  # fmt: skip
def test_impossible_actions_are_one_sentence(id: str, actions, message: str):
    env = SB3VecEnv(f"metarl/{id}-v0", 2)
    env.seed(0)
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_possible_actions_in_any_form():
    shown = []
    for actions in (np.array([0, 1])[::-1], np.array([1, 0]), np.array([1, 0], np.int32), [1, 0]):
        env = SB3VecEnv("metarl/GridNavi-v0", 2)
        env.seed(0)
        env.reset()
        shown.append(env.step(actions)[0])
    assert all(np.array_equal(each, shown[0]) for each in shown)


def test_discrete_actions_that_do_not_start_at_0():
    env = SB3VecEnv(Start(), 2, trial=True)
    assert env.action_space == Start().action_space
    env.seed(0)
    assert not env.reset()[:, 1:3].any()
    obs, *_ = env.step(np.array([1, 2]))
    assert obs[:, 1:3].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="from 1 to 2"):
        env.step(np.array([0, 1]))


def test_pictures_and_copies():
    import metarl  # noqa: F401

    env = SB3VecEnv("metarl/GridNavi-v0", 2, trial=True, render_mode="rgb_array", episodes_per_trial=2)
    env.reset()
    twin = copy.deepcopy(env)
    assert all(np.array_equal(a, b) for a, b in zip(env.step(ONES[:2])[:3], twin.step(ONES[:2])[:3]))
    assert env.render().dtype == np.uint8
    env.close()


def replay(family, seed: int, actions: np.ndarray, rows: int) -> np.ndarray:
    """Rewards (T, rows) of the family for these actions: trials 0 … rows - 1, then the next ones, all of one length."""
    rewards, length = [], family.horizon * family.episodes_per_trial
    for number, start in enumerate(range(0, len(actions), length)):
        task = family.sample_tasks(rng.fold(rng.key(seed), 0), rows, first=number * rows)
        env = BatchEnv(family, task, rng.fold(rng.key(seed), 1), first_row=number * rows)
        env.reset()
        rewards += [env.step(torch.as_tensor(a))[0].reward.numpy() for a in actions[start : start + length]]
    return np.stack(rewards)


def test_recurrent_ppo_trains_and_its_rewards_are_the_familys():
    family = TwoDoors(episodes_per_trial=4)
    env = SB3VecEnv(family, 4, trial=True)
    model = RecurrentPPO("MlpLstmPolicy", env, n_steps=8, batch_size=16, n_epochs=1, seed=3, device="cpu",
                         policy_kwargs={"lstm_hidden_size": 8, "net_arch": []})  # fmt: skip
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(32)
    buffer = model.rollout_buffer
    actions = buffer.actions.reshape(4, 8).T if buffer.generator_ready else buffer.actions.reshape(8, 4)
    rewards = buffer.rewards
    assert np.array_equal(rewards, replay(family, 3, actions.astype(np.int64), 4)) and 0 < rewards.mean() < 1
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters()))


def test_ppo_trains_and_improves():
    """Continuous actions that should go up and to the right; an episode of the random policy returns about -5.6."""
    family = Reach()
    env = VecMonitor(SB3VecEnv(family, 16))
    model = PPO("MlpPolicy", env, n_steps=24, batch_size=96, learning_rate=5e-3, gamma=0.5, seed=0, device="cpu",
                policy_kwargs={"net_arch": [16]})  # fmt: skip
    model.learn(24 * 16 * 12)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert np.mean(returns) > -2.5, np.mean(returns)
    obs = env.reset()
    action, _ = model.predict(obs, deterministic=True)
    assert action.shape == (16, 2) and bool((action > 0.3).all())
