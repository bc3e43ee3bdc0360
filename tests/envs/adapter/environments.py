"""Small Gymnasium environments that the tests of the adapter register."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Target(gymnasium.Env[np.ndarray, Any]):
    """Reward 1 for naming the hidden `target`; observations are uniform noise. Episodes never end by themselves."""

    observation_space: spaces.Space[Any] = spaces.Box(0.0, 1.0, (2,), np.float64)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, target: int = 0, action_space: spaces.Space[Any] | None = None, render_mode: str | None = None):
        self.action_space = spaces.Discrete(3) if action_space is None else action_space
        self.target, self.render_mode, self.closed = target, render_mode, False
        self.twice = 2 * self.target
        self.fails_at: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.seed, self.options, self.steps = seed, options, 0
        return self.np_random.uniform(size=2), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("the motor is broken")
        right = bool(np.all(action == self.target))
        return self.np_random.uniform(size=2), float(right), False, False, {"is_success": right}

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), self.steps, np.uint8)

    def close(self) -> None:
        self.closed = True


class Forgetful(Target):
    """Its reset undoes what was set."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.target = 0
        return super().reset(seed=seed, options=options)


class Structured(Target):
    """Observations of every kind."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (8, 8, 1), np.uint8),
            "both": spaces.Tuple([spaces.Discrete(3, start=1), spaces.MultiDiscrete([2, 3])]),
            "bits": spaces.MultiBinary(2),
            "words": spaces.Text(5),
        }
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, reward, *rest = super().step(action)
        return (self._seen(), reward, *rest)

    def _seen(self) -> dict[str, Any]:
        image = np.full((8, 8, 1), 200, np.uint8)
        return {"image": image, "both": (2, np.array([1, 0])), "bits": np.array([0, 1], np.int8), "words": "abc"}


class Derived(Target):
    """Its constructor derives constants from `mass` in every way."""

    def __init__(self, third: bool = True, render_mode: str | None = None):
        super().__init__(render_mode=render_mode)
        self.mass = 1.0
        if not third:
            self.branch = 2.0 * self.mass
        else:
            self.branch = 3.0 * self.mass
        half = self.mass / 2.0
        self.half = half
        self.more = 2.0 * self.mass
        self.more += 1.0
        self.scaled = 1.0
        self.scaled *= self.mass
        self.one, self.other = self.mass, 0.0
        self.twice = 2.0 * self.mass
        if third:
            self.inner = self.twice + 1.0
        self.outer = self.inner + 1.0


class Impatient(Target):
    """It truncates its episodes after three steps by itself."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, self.steps >= 3, info


class Unseeded(Target):
    """Its noise does not come from the generator that `reset` seeds."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return (np.random.default_rng().uniform(size=2), *rest)


class Replies(Target):
    """Its methods return what `reset_replies` and `step_replies` say, where they are not None."""

    reset_replies: Any = None
    step_replies: Any = None

    def reset(self, **options: Any) -> Any:
        usual = super().reset(**options)
        return usual if self.reset_replies is None else self.reset_replies

    def step(self, action: Any) -> Any:
        usual = super().step(action)
        return usual if self.step_replies is None else self.step_replies


for _kind in (Unseeded, Target, Forgetful, Structured, Derived, Impatient, Replies):
    gymnasium.register(f"tests/{_kind.__name__}-v0", entry_point=_kind, max_episode_steps=5)
