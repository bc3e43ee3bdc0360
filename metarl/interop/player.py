"""A trained agent in the user's own environment, in Gymnasium's loop.

::

    player = metarl.Player(metarl.load("runs/mine"))
    for episode in range(3):  # of one trial: what it learned about this environment stays
        obs, info = env.reset()
        done = False
        while not done:
            obs, reward, terminated, truncated, info = env.step(player.act(obs))
            player.tell(reward, terminated, truncated, obs)
            done = terminated or truncated

``player.play(env, episodes=3)`` is this loop. The environment needs the spaces of the family that the agent was trained
on; the player uses only its observations, rewards and episode ends.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Outcome, Step
from metarl.core.errors import short, truth, whole_number
from metarl.core.family import TaskFamily
from metarl.core.faults.given import check_is_agent, no_family
from metarl.core.rollout import Acted, Rollout
from metarl.core.tree import join_columns, stack
from metarl.core.units import no_action

PLAYING = 0x706C6179  # "play" in ASCII
"""The address of a player's randomness: ``fold(key(seed), PLAYING)``, then the number of the trial."""


class Moment(NamedTuple):
    """One step, for an agent that adapts in rounds."""

    step: Step
    acted: Acted
    outcome: Outcome


class Player:
    """An agent that keeps its memory of one environment across episodes.

    The agent gets the inputs of its training (RL²'s inputs, Duan et al. 2016): the observation, its last action, the
    reward for it, and whether the episode ended. A trial may have more or longer episodes than in training, for which
    the agent was not trained.

    An agent that adapts in rounds (MAML, fine-tuned PPO) keeps its policy until `adapt`, which takes one gradient step,
    or update, from the episodes since the last `adapt`.

    `seed` is the seed of action noise. With `greedy` actions are greedy, except in episodes that `adapt` learns from:
    an agent that adapts in rounds samples its actions until it has adapted as often as its protocol says (`exploring`
    is True until then). The agent itself does not change, so several players may share it.
    """

    def __init__(self, agent: LearningAgent, seed: int = 0, greedy: bool = False) -> None:
        check_is_agent(agent)
        if no_family(getattr(agent, "family", None)):
            raise ValueError(f"A player needs an agent that knows its family: {type(agent).__name__} has no family.")
        self.agent, self.greedy, self.trials = agent, truth("greedy", greedy), 0
        self._adaptations = agent.protocol.test().rounds - 1
        self._root = rng.fold(rng.key(seed, agent.device), PLAYING)
        self.begin()

    def begin(self) -> None:
        """Start a new trial, with an empty memory, for another environment."""
        self.memory = self.agent.begin(1)
        self._key = rng.fold(rng.fold(self._root, self.trials), torch.zeros(1, dtype=torch.int64, device=self._device))
        self.trials += 1
        self.steps = self.adapted = 0
        self._prev = (no_action(self.agent.family.action_space, 1, self._device), 0.0, 0.0)  # action, reward, done
        self._waiting: tuple[Step, Acted] | None = None  # the last action, until `tell` reports its result
        self._round: list[list[Moment]] = []  # by episode, since the last `adapt`
        self._between = True

    @property
    def exploring(self) -> bool:
        """True while `adapt` will learn from the current episodes, so that actions are sampled even with `greedy`."""
        return self.adapted < self._adaptations

    def act(self, obs: Any) -> Any:
        """Return the action for an observation.

        It is an integer for a Discrete space, an array of integers ``(A,)`` for a MultiDiscrete one, else a float32
        array in the bounds. Raises ValueError if the observation has another shape than in training or is not finite,
        or if the last action had no `tell`.
        """
        if self._waiting is not None:
            raise ValueError(
                "Call tell(reward, terminated) with the result of the last action before the next act(obs)."
            )
        seen = self._seen(obs)
        action, reward, done = self._prev
        at = Step(seen, action, self._row(reward), self._row(done))
        self.steps += 1
        greedy = self.greedy and not self.exploring
        with torch.no_grad():
            acted, self.memory = self.agent.act(self.memory, at, rng.fold(self._key, self.steps), greedy)
        self._waiting = (at, acted)
        return self._for_the_env(acted.action)

    def tell(self, reward: float, terminated: bool, truncated: bool = False, obs: Any = None) -> None:
        """Report the result of the last action: its reward, and whether it terminated or truncated the episode.

        `obs` is the observation after the action. Agents that estimate the value after a truncated episode (fine-tuned
        PPO) need it; by default they use the observation before the action.

        Raises ValueError if there was no action, the reward is not a finite number, or `terminated` or `truncated` is
        neither true nor false.
        """
        if self._waiting is None:
            raise ValueError("Call act(obs) first: tell reports the result of an action.")
        reward, ends = _finite(reward), (_truth("terminated", terminated), _truth("truncated", truncated))
        following = None if obs is None else self._seen(obs)
        step, acted = self._waiting
        self._waiting = None
        terminated, truncated = ends
        done = terminated or truncated
        self._prev = (acted.action, reward, float(done))
        if self._adaptations:
            if self._between:
                self._round.append([])
            failed, late = (torch.tensor([end], device=self._device) for end in ends)
            outcome = Outcome(self._row(reward), failed, late & ~failed, step.obs if following is None else following)
            self._round[-1].append(Moment(step, acted, outcome))
        self._between = done

    def adapt(self) -> None:
        """Learn from the episodes since the last `adapt`. An agent that adapts while it acts (RL²) does nothing here.

        Raises ValueError if there was no episode, the last one has not ended, or actions were greedy.
        """
        if not self._adaptations:
            return
        if not self._round or not self._between:
            raise ValueError("adapt learns from complete episodes: play one to its end first.")
        if self.greedy and not self.exploring:
            times = f"{self._adaptations} time{'s'[: self._adaptations != 1]}"
            raise ValueError(
                f"adapt learns from sampled actions, but this agent has adapted {times} and now plays greedily: call "
                "begin() for a new trial, or make the player with greedy=False."
            )
        self.memory = self.agent.adapt(self.memory, _side_by_side(self._round))
        self.adapted += 1
        self._round = []

    def play(self, env: gymnasium.Env[Any, Any], episodes: int = 1, seed: int | None = None) -> np.ndarray:
        """Play episodes of `env` and return their returns, float64 ``(episodes,)``; the memory is carried over.

        `seed` goes to the first `reset`. Raises ValueError if the environment's spaces are not the family's.
        """
        episodes = whole_number("episodes", int(episodes) if isinstance(episodes, np.integer) else episodes)
        self.check(env)
        returns = np.zeros(episodes)
        for episode in range(episodes):
            obs, _ = env.reset(seed=seed if episode == 0 else None)
            done = False
            while not done:
                obs, reward, terminated, truncated, _ = env.step(self.act(obs))
                self.tell(float(reward), terminated, truncated, obs)
                returns[episode] += float(reward)
                done = terminated or truncated
        return returns

    def check(self, env: gymnasium.Env[Any, Any]) -> None:
        """Raise ValueError unless the spaces of `env` match those that the agent was trained on."""
        methods = all(callable(getattr(env, method, None)) for method in ("reset", "step"))
        if isinstance(env, (type, TaskFamily)) or not methods or hasattr(env, "num_envs"):
            raise ValueError(f"env must be a single environment, such as gymnasium.make returns, got {short(env)}.")
        family = self.agent.family
        for name, ours in (("observation", family.observation_space), ("action", family.action_space)):
            theirs = getattr(env, f"{name}_space")
            if isinstance(ours, spaces.Discrete):
                same = isinstance(theirs, spaces.Discrete) and theirs.n == ours.n and theirs.start == ours.start
            elif isinstance(ours, spaces.MultiDiscrete):
                same = isinstance(theirs, spaces.MultiDiscrete) and all(
                    np.array_equal(getattr(theirs, name), getattr(ours, name)) for name in ("nvec", "start")
                )
            else:
                same = isinstance(theirs, spaces.Box) and theirs.shape == ours.shape
            if not same:
                raise ValueError(
                    f"The environment's {name} space is {short(theirs)}; the agent was trained on "
                    f"{type(family).__name__}, whose is {short(ours)}."
                )

    @property
    def _device(self) -> torch.device:
        return self.agent.device

    def _row(self, number: float) -> Tensor:
        return torch.tensor([number], dtype=torch.float32, device=self._device)

    def _seen(self, obs: Any) -> Tensor:
        """Convert an observation to the agent's input ``(1, *O)``. Raises ValueError for a wrong shape or value."""
        expected = self.agent.family.observation_space.shape
        try:
            obs = obs.detach().cpu() if isinstance(obs, Tensor) else obs
            with np.errstate(over="ignore"):  # numbers too large for float32 become inf, which is rejected
                seen = np.asarray(obs, dtype=np.float32).copy()
        except (TypeError, ValueError):
            raise ValueError(f"An observation must consist of numbers of shape {expected}, got {short(obs)}.") from None
        if seen.shape != expected:
            raise ValueError(f"The agent was trained on observations of shape {expected}, got {seen.shape}.")
        if not np.isfinite(seen).all():
            raise ValueError(f"An observation must be finite, got {seen.tolist()}.")
        return torch.as_tensor(seen, device=self._device)[None]

    def _for_the_env(self, action: Tensor) -> Any:
        """Convert an action to NumPy, clipped to its bounds: families clip actions, other environments may not."""
        space, plain = self.agent.family.action_space, action[0].cpu().numpy()
        return np.clip(plain, space.low, space.high) if isinstance(space, spaces.Box) else plain[()]


def _truth(name: str, given: Any) -> bool:
    """Convert `terminated` or `truncated` to bool. Raises ValueError if it is neither true nor false."""
    number = np.asarray(given)
    if number.size != 1 or number.dtype.kind not in "biu" or number.item() not in (0, 1):
        raise ValueError(f"{name} must be True or False, got {short(given)}.")
    return bool(number.item())


def _finite(reward: Any) -> float:
    """Convert a reward of any library to float. Raises ValueError unless it is a finite number."""
    try:
        number = float(np.asarray(reward, dtype=np.float64).reshape(()))
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"A reward must be a finite number, got {reward}.")
    return number


def _side_by_side(episodes: list[list[Moment]]) -> Rollout:
    """Stack successive episodes as the rows of a round, padded to the length of the longest."""
    longest = max(map(len, episodes))
    rows = [stack([*episode, *[_padding(episode[-1])] * (longest - len(episode))]) for episode in episodes]
    played = torch.tensor([len(episode) for episode in episodes], device=rows[0].outcome.reward.device)
    mask = (torch.arange(longest, device=played.device)[:, None] < played).to(torch.float32)
    step, acted, outcome = join_columns(rows)
    return Rollout(step, acted, outcome, mask, ())


def _padding(last: Moment) -> Moment:
    """Return the padding after an episode's last moment: as in a trial, it follows a done."""
    return last._replace(step=last.step._replace(prev_done=torch.ones_like(last.step.prev_done)))
