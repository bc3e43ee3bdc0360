"""`success` of a family, and where the views tell it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor

import metarl
from metarl.agents.reference.catalogue import baseline, baselines_for
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import TaskFamily
from metarl.envs.grids.grid_navi import GoalCell
from metarl.envs.points.plane import Goal
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.interop.sb3_env import SB3VecEnv

IDS = [id for id in metarl.registered() if id.startswith("metarl/")]
KNOW = [
    id for id in IDS if type(metarl.make(id)).success is not TaskFamily.success and not metarl.make(id).opaque
]  # an opaque family's success is what its simulators say
# Success is what pays, or what ends an episode early, in these.
PAYS = {
    "GridNavi", "DarkRoom", "DarkRoomHard", "TMaze", "WindyPoint", "SparsePointRobot", "SemiCircle", "Harlow",
    "AntGoalSparse", "TreasureHunt", "WallMaze", "Rulesets",
}  # fmt: skip
ENDS = {
    "Navigation2D", "DarkRoomHard", "DarkKeyToDoor", "MountainCar", "MountainCarContinuous", "WallMaze", "Rulesets",
}  # fmt: skip
STAYS = {"RoomNavi"}  # who has succeeded stays so until the episode ends


def name_of(id: str) -> str:
    return id.removeprefix("metarl/").removesuffix("-v0")


def test_these_know_it():
    assert {name_of(id) for id in KNOW} == PAYS | ENDS | STAYS
    family = metarl.make("metarl/BernoulliBandit-v0")
    task = family.sample_tasks(rng.key(0), 2)
    assert family.success(task, family.reset(task, rng.fold(rng.key(0), torch.arange(2)))) is None


@pytest.mark.parametrize("id", KNOW)
def test_success_is_what_pays_or_ends(id: str):
    """With an agent that is told the task or, where there is none, random actions: it also succeeds now and then."""
    family, name = metarl.make(id), name_of(id)
    agent = baseline("oracle" if "oracle" in baselines_for(family) else "random", family)
    task = family.sample_tasks(rng.key(0), 60)
    env = BatchEnv(family, task, rng.key(1), episodes=1)
    step, memory, seen = env.reset(), agent.begin(60, task), 0
    keys = rng.fold(rng.key(2), torch.arange(60))
    for t in range(family.horizon):
        alive = env.alive
        acted, memory = agent.act(memory, step, rng.fold(keys, t))
        outcome, step = env.step(acted.action)
        success = family.success(task, env.final_state)
        assert success.dtype == torch.bool and success.shape == (60,)
        if name in PAYS:
            assert torch.equal(success[alive], outcome.reward[alive] > 0)
        if name in ENDS:
            assert torch.equal(success[alive], outcome.terminated[alive])
        seen += int(success[alive].sum())
        if env.all_done():
            break
    assert seen > 0 or name.startswith("MountainCar")


def test_the_views_tell_it():
    """At every step; in the vector view of the rows that were stepped, and at their end where they start again."""
    env = gymnasium.make("metarl/Navigation2D-v0", horizon=10)
    env.unwrapped.set_task(Goal(torch.tensor([[0.2, 0.0]])))
    _, info = env.reset(seed=0)
    assert "success" not in info
    found = []
    for _ in range(2):
        _, _, terminated, _, info = env.step(np.array([0.1, 0.0], np.float32))
        found.append((terminated, info["success"]))
    assert found == [(False, False), (True, True)]
    for mode in ("NextStep", "SameStep"):
        envs = GymVectorEnv("metarl/GridNavi-v0", 2, autoreset_mode=mode)
        envs.set_task([GoalCell(torch.tensor([[2, 0]])), GoalCell(torch.tensor([[4, 4]]))])
        envs.reset(seed=0)
        for t in range(15):
            *_, truncated, infos = envs.step(np.array([2, 2] if t < 2 else [0, 0]))
            where = infos["final_info"] if truncated.any() and mode == "SameStep" else infos
            assert where["success"].tolist() == [t >= 1, False] and where["_success"].all(), t
        assert truncated.all()
    _, infos = envs.reset()
    assert "success" not in infos


def test_stable_baselines3_logs_its_rate():
    env = SB3VecEnv("metarl/Navigation2D-v0", 2, horizon=5)
    env.env_method("set_task", Goal(torch.tensor([[0.1, 0.0]])))
    env.seed(0)
    env.reset()
    _, _, done, infos = env.step(np.array([[0.1, 0.0], [-0.1, 0.0]], np.float32))
    assert done.tolist() == [info["success"] for info in infos] == [True, False]
    assert infos[0]["is_success"] is True and "is_success" not in infos[1], "its name for it, at the end of an episode"
    model = PPO("MlpPolicy", env, n_steps=10, batch_size=10, n_epochs=1, seed=0, device="cpu")
    model.learn(20)
    assert len(model.ep_success_buffer) > 0


def inner_ends(trial: bool) -> list[dict]:
    env = GymEnv("metarl/CartPole-v0", trial=trial, episodes_per_trial=3)
    env.action_space.seed(0)
    env.reset(seed=0)
    infos, done = [], False
    while not done:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        infos.append(info | {"reward": reward})
        done = terminated or truncated
    return infos


def test_the_end_of_an_inner_episode_is_told():
    """Its return, its steps and its number; the last one of the trial, too. The name `episode` is left to wrappers."""
    infos = inner_ends(trial=True)
    ends = [info["inner_episode"] for info in infos if "inner_episode" in info]
    assert [end["index"] for end in ends] == [0, 1, 2] and "inner_episode" in infos[-1]
    for end in ends:
        rewards = [info["reward"] for info in infos if info["episode_index"] == end["index"]]
        assert end == {"r": sum(rewards), "l": len(rewards), "index": end["index"]}
        assert [type(end[name]) for name in ("r", "l", "index")] == [float, int, int]
    assert not any("episode" in info for info in infos)
    assert not any("inner_episode" in info for info in inner_ends(trial=False)), "there the episode is the episode"


def test_statistics_of_trials_and_of_their_episodes_side_by_side():
    """Gymnasium's and SB3's wrappers count the trial, and ours its episodes, which sum to it."""
    for wrapper in (gymnasium.wrappers.RecordEpisodeStatistics, Monitor):
        env = wrapper(gymnasium.make("metarl/CartPole-v0", trial=True, episodes_per_trial=3))
        env.action_space.seed(0)
        env.reset(seed=0)
        inner, done = [], False
        while not done:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            inner += [info["inner_episode"]] if "inner_episode" in info else []
            done = terminated or truncated
        assert len(inner) == 3 and info["episode"]["r"] == sum(end["r"] for end in inner)
        assert info["episode"]["l"] == sum(end["l"] for end in inner)
    many = VecMonitor(SB3VecEnv("metarl/CartPole-v0", 4, trial=True, episodes_per_trial=3))
    many.seed(0)
    many.reset()
    sums, ended = np.zeros(4), 0
    for _ in range(200):
        _, _, done, infos = many.step(np.array([many.action_space.sample() for _ in range(4)]))
        for row, info in enumerate(infos):
            sums[row] += info.get("inner_episode", {"r": 0.0})["r"]
            assert ("episode" in info) == done[row]
            if done[row]:
                assert info["episode"]["r"] == pytest.approx(sums[row])
                sums[row], ended = 0.0, ended + 1
    assert ended > 4
