"""Actions of several components, images and observations of several parts in the views and in a user's environment."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from space_families import Lock, Signals
from stable_baselines3 import A2C, PPO

from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.sb3.agent import SB3Model
from metarl.evaluation.evaluator import evaluate
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.interop.player import Player
from metarl.interop.sb3_env import SB3VecEnv
from metarl.testing import check_family, quick_check

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", [Lock(), Signals(), Signals(parts=True)], ids=["components", "image", "parts"])
def test_the_contract_of_families(family):
    """With both `check_env`, also on whole trials."""
    check_family(family)
    assert quick_check(family) == []


def test_a_trial_shows_each_component_one_hot():
    env = GymEnv(Lock(), trial=True)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([3, 2], start=[1, 0])
    assert env.observation_space.shape == (1 + 5 + 2,)
    obs, _ = env.reset(seed=0)
    assert not obs[1:6].any(), "no action came before"
    task, rewards = env.get_task(), []
    for action, shown in (([3, 0], [0, 0, 1, 1, 0]), ([1, 1], [1, 0, 0, 0, 1])):
        obs, reward, *_ = env.step(np.array(action))
        assert obs[1:6].tolist() == shown and obs in env.observation_space
        rewards.append(reward)
    assert rewards == [
        0.5 * (int(task.dial) == dial) + 0.5 * (int(task.switch) == switch) for dial, switch in ((3, 0), (1, 1))
    ]
    envs = GymVectorEnv(Lock(), 3, trial=True)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    for _ in range(20):
        assert envs.step(envs.action_space.sample())[0] in envs.observation_space


@pytest.mark.parametrize(("action", "alone", "in_rows"), [
    ([0, 0], r"^An action must be 2 integers, from 1 to 3, 0 to 1, got \[0, 0\]\.$",
     r"^An action must be 2 integers, from 1 to 3, 0 to 1, got \[\[0, 0\]\]\.$"),
    ([4, 0], r"from 1 to 3, 0 to 1, got \[4, 0\]", r"from 1 to 3, 0 to 1, got \[\[4, 0\]\]"),
    ([1, 2], "from 1 to 3, 0 to 1, got", "from 1 to 3, 0 to 1, got"),
    ([1.0, 1.0], "from 1 to 3, 0 to 1, got", "from 1 to 3, 0 to 1, got"),
    ([1], r"shape \(2,\), got \(1,\)", r"shape \(1, 2\), got \(1, 1\)"),
    (1, r"shape \(2,\), got \(\)", r"shape \(1, 2\), got \(1,\)"),
])  # fmt: skip
def test_impossible_actions_are_one_sentence(action, alone: str, in_rows: str):
    env, envs, theirs = GymEnv(Lock()), GymVectorEnv(Lock(), 1), SB3VecEnv(Lock(), 1)
    for each in (env, envs):
        each.reset(seed=0)
    theirs.reset()
    rows = np.asarray(action)[None]
    with pytest.raises(ValueError, match=alone):
        env.step(action)
    for call in (lambda: envs.step(rows), lambda: theirs.step(rows)):
        with pytest.raises(ValueError, match=in_rows):
            call()
    env.step([3, 1]), envs.step([[3, 1]]), theirs.step(np.array([[3, 1]]))  # nothing happened


class FromZero(Lock):
    """`Lock` with a dial from 0, as stable-baselines3 needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.MultiDiscrete([3, 2])

    def step(self, task, state, action, key):
        return super().step(task, state, action + torch.tensor([1, 0]), key)


@pytest.mark.parametrize("kind", [PPO, A2C])
def test_a_model_of_the_users_own(kind):
    family = FromZero()
    options = {"batch_size": 32} if kind is PPO else {}
    model = kind("MlpPolicy", SB3VecEnv(family, 4), n_steps=8, seed=0, device="cpu", **options).learn(32)
    for played in (family, Lock()):
        curve = evaluate(SB3Model(model, played), played, split="train", tasks=60, greedy=True)
        chosen, _ = model.predict(np.zeros((1, 1), np.float32), deterministic=True)
        dial, switch = 1 + chosen[0, 0], chosen[0, 1]
        tasks = Lock().enumerate_tasks("train")
        expected = 0.5 * (tasks.dial == int(dial)).float().mean() + 0.5 * (tasks.switch == int(switch)).float().mean()
        assert abs(float(curve.mean().mean()) - float(expected)) < 0.15


def test_a_player_acts_in_a_users_environment():
    for config in (RL2Config(meta_batch_size=4, hidden_size=8), MAMLConfig(meta_batch_size=2, fast_batch_size=3)):
        player = Player(config.build(Lock(), 0, CPU))
        action = player.act(np.zeros(1))
        assert GymEnv(Lock()).action_space.contains(action)
        player.begin()
        assert player.play(GymEnv(Lock()), episodes=3).shape == (3,)
        player.adapt()
    with pytest.raises(ValueError, match="action space is MultiDiscrete"):
        player.check(GymEnv(FromZero()))


def test_a_player_sees_images():
    player = Player(RL2Config(meta_batch_size=4, hidden_size=8).build(Signals(parts=True), 0, CPU))
    assert player.play(GymEnv(Signals(parts=True)), episodes=4).shape == (4,)


def test_a_trial_of_images_is_one_vector():
    env = GymEnv(Signals(), trial=True)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (144 + 4 + 2,) and sorted(set(obs[:144])) == [40.0, 240.0]
    assert SB3VecEnv(Signals(), 3).reset().shape == (3, 12, 12, 1)
