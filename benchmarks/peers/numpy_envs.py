"""The works' tasks as plain single Gymnasium environments in NumPy, as one would write them for a stock library."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from benchmarks.works import BANDIT, Work

ARMS = 5
Stepped = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class PointEnv(gymnasium.Env):
    """Navigation2D: an episode with a goal of its own."""

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        reach = 0.1 * (horizon + 1)
        self.observation_space = gymnasium.spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-0.1, 0.1, (2,), np.float32)

    def new_task(self) -> None:
        """Draw a goal."""
        self.goal = self.np_random.uniform(-0.5, 0.5, 2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.new_task()
        return self.start(), {}

    def start(self) -> np.ndarray:
        """Begin an episode of the same task."""
        self.position, self.time = np.zeros(2), 0
        return self.position.astype(np.float32)

    def step(self, action: np.ndarray) -> Stepped:
        self.position = self.position + np.clip(action, -0.1, 0.1)
        offset = self.position - self.goal
        self.time += 1
        terminated = bool(abs(offset[0]) < 0.01 and abs(offset[1]) < 0.01)
        truncated = self.time >= self.horizon and not terminated
        return self.position.astype(np.float32), -float(np.hypot(*offset)), terminated, truncated, {}


class BanditEnv(gymnasium.Env):
    """BernoulliBandit: an episode is one pull."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(ARMS)

    def new_task(self) -> None:
        """Draw the arms."""
        self.probs = self.np_random.uniform(0.0, 1.0, ARMS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.new_task()
        return self.start(), {}

    def start(self) -> np.ndarray:
        """Begin an episode of the same task."""
        return np.zeros(1, np.float32)

    def step(self, action: int) -> Stepped:
        reward = float(self.np_random.random() < self.probs[action])
        return np.zeros(1, np.float32), reward, False, True, {}


class TrialEnv(gymnasium.Wrapper):
    """A whole trial as one episode, with RL²'s inputs: observation, previous action, reward and done."""

    def __init__(self, env: PointEnv | BanditEnv, episodes: int) -> None:
        super().__init__(env)
        self.single, self.episodes = env, episodes
        self.discrete = isinstance(env, BanditEnv)
        size = env.observation_space.shape[0] + (ARMS if self.discrete else 2) + 2  # type: ignore[index]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        obs, info = self.env.reset(**kwargs)
        self.episode = 0
        self.seen = np.zeros(self.observation_space.shape[0], np.float32)  # type: ignore[index]
        self.seen[: len(obs)] = obs
        return self.seen, info

    def step(self, action: Any) -> Stepped:
        obs, reward, terminated, truncated, info = self.env.step(action)
        done = terminated or truncated
        if done:
            self.episode += 1
            obs = self.single.start()
        shown = np.zeros(ARMS, np.float32) if self.discrete else action
        if self.discrete:
            shown[action] = 1.0
        seen = np.concatenate([obs, shown, [reward, done]]).astype(np.float32)
        return seen, float(reward), self.episode >= self.episodes, False, info


def trial_env(work: Work) -> TrialEnv:
    """One row of an RL² work."""
    return TrialEnv(BanditEnv() if work.family == BANDIT else PointEnv(work.horizon), work.episodes)
