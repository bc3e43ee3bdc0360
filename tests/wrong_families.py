"""Small families of another project, most of them with one fault, as users write them: no comments, no shapes.

The tests name them as ``--family=wrong/NAME-v0``, which other programs know with ``--allow=wrong_families``.
"""

from typing import NamedTuple

import gymnasium
import numpy as np
import torch

import metarl
from metarl.core import rng


class Goal(NamedTuple):
    goal: torch.Tensor


class Position(NamedTuple):
    x: torch.Tensor


class Line(metarl.TaskFamily):
    """Nothing is wrong: walk left (0) or right (1) to a goal that is not shown."""

    splits = ("train", "test")
    horizon = 5
    episodes_per_trial = 2
    observation_space = gymnasium.spaces.Box(-20.0, 20.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def draw_tasks(self, keys, split):
        return Goal(5.0 * rng.uniform(keys, 1))

    def reset(self, task, key):
        return Position(torch.zeros(len(key), 1))

    def observe(self, task, state):
        return state.x

    def step(self, task, state, action, key):
        x = state.x + (2.0 * action[:, None] - 1.0)
        return Position(x), -(x - task.goal).abs()[:, 0], never(x)


def never(x):
    return torch.zeros(len(x), dtype=torch.bool)


class Start(Line):
    """Nothing is wrong: the actions are 1 and 2."""

    action_space = gymnasium.spaces.Discrete(2, start=1)

    def step(self, task, state, action, key):
        assert set(action.tolist()) <= {1, 2}, f"actions {sorted(set(action.tolist()))}"
        return super().step(task, state, action - 1, key)


class OwnSplit(Line):
    """Nothing is wrong: the held-out tasks have a name of their own."""

    splits = ("train", "validation")


class Free(Line):
    """Nothing is wrong: actions have no bounds."""

    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    def step(self, task, state, action, key):
        x = state.x + action.clamp(-1.0, 1.0)
        return Position(x), -(x - task.goal).abs()[:, 0], never(x)


class AllEqual(Line):
    """Nothing is wrong: every episode is one step and pays 1."""

    horizon = 1

    def step(self, task, state, action, key):
        return state, torch.ones(len(action)), never(action)


class Ends(Line):
    """Every step ends the episode; that it can is not declared."""

    def step(self, task, state, action, key):
        return state, torch.ones(len(action)), torch.ones(len(action), dtype=torch.bool)


class EndsLate(Line):
    """The same, but seldom: after 14 steps more to one side than to the other."""

    horizon = 40
    observation_space = gymnasium.spaces.Box(-50.0, 50.0, (1,))

    def step(self, task, state, action, key):
        state, reward, _ = super().step(task, state, action, key)
        return state, reward, state.x[:, 0].abs() >= 14.0


class Double(Line):
    """Rewards are float64, as they come from NumPy."""

    def step(self, task, state, action, key):
        state, reward, terminated = super().step(task, state, action, key)
        return state, reward.double(), terminated


class Column(Line):
    """The oracle has a column too many."""

    def oracle(self, task):
        return torch.zeros_like(task.goal)


class NoDisplay(Line):
    """The picture fails."""

    def render(self, task, states):
        raise RuntimeError("no display")


class NotANumber(Line):
    """Tasks of `test` are NaN."""

    def draw_tasks(self, keys, split):
        goal = super().draw_tasks(keys, split).goal
        return Goal(goal * torch.nan if split == "test" else goal)


class InPlace(Line):
    """A step changes the state that it was given."""

    def step(self, task, state, action, key):
        state.x.add_(2.0 * action[:, None] - 1.0)
        return state, -(state.x - task.goal).abs()[:, 0], never(state.x)


class Bug(Line):
    """A step raises."""

    def step(self, task, state, action, key):
        return super().step(task, state, action @ action[None], key)


class SameTask(Line):
    """Every task is the same one, since the keys are not used."""

    def draw_tasks(self, keys, split):
        return Goal(torch.full((len(keys), 1), 3.0))


class Outside(Line):
    """The second observation is outside the declared space."""

    observation_space = gymnasium.spaces.Box(-0.5, 0.5, (1,))


class Shown(Line):
    """The first observation is the goal."""

    def observe(self, task, state):
        return state.x - task.goal


class NoHorizon(Line):
    """The length of an episode was forgotten."""

    horizon = None


class Images(Line):
    """Actions of a kind that no agent knows."""

    action_space = gymnasium.spaces.MultiDiscrete([2, 2])


class Loose(Line):
    """A step forgets to say how it ended."""

    def step(self, task, state, action, key):
        return super().step(task, state, action, key)[:2]


for _family in [value for value in vars().copy().values() if isinstance(value, type) and issubclass(value, Line)]:
    metarl.register(f"wrong/{_family.__name__}-v0", _family)
