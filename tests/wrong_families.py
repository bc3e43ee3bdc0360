"""Small families of another project, most of them with one fault, as users write them: no comments, no shapes.

The tests name them as ``--family=wrong/NAME-v0``, which other programs know with ``--allow=wrong_families``.
"""

from typing import NamedTuple

import gymnasium
import numpy as np
import torch

import metarl
from metarl.core import rng
from metarl.core.family import Part


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

    action_space = gymnasium.spaces.MultiBinary(2)


class Pieces(Line):
    """The parts of the observation are not those that it has."""

    observation_parts = (Part("position", gymnasium.spaces.Box(-20.0, 20.0, (2,))),)


class Loose(Line):
    """A step forgets to say how it ended."""

    def step(self, task, state, action, key):
        return super().step(task, state, action, key)[:2]


class Untaught(Line):
    def target(self, task, state):
        return (task.goal > state.x).float()[:, 0]


class TaughtTooMuch(Line):
    def target(self, task, state):
        return 2 * (task.goal > state.x).long()[:, 0]


class OptimalColumn(Line):
    def optimal_action(self, task, obs):
        return (task.goal > obs).long()


class OptimalOutside(Line):
    def optimal_action(self, task, obs):
        return 2 * (task.goal > obs).long()[:, 0]


class OptimalNames(Line):
    """The actions instead of a mask."""

    def optimal_action(self, task, obs):
        return (task.goal > obs).long()[:, 0]

    def optimal_actions(self, task, obs):
        return (task.goal > obs).long()


class OptimalOthers(OptimalNames):
    def optimal_actions(self, task, obs):
        return torch.cat([task.goal > obs, task.goal <= obs], dim=1)


class OptimalAlone(Line):
    def optimal_actions(self, task, obs):
        return torch.cat([task.goal <= obs, task.goal > obs], dim=1)


class Faulty(Line):
    """One part of what a method returns goes wrong in one way, or the method raises, once `armed` calls were good."""

    armed = None
    """Good calls of the method that are left; None: all are good."""

    def __init__(self, part="reward", way="double"):
        self.part, self.way = part, way

    def draw_tasks(self, keys, split):
        return self.spoiled("task", super().draw_tasks(keys, split))

    def reset(self, task, key):
        return self.spoiled("reset", super().reset(task, key))

    def observe(self, task, state):
        return self.spoiled("observe", super().observe(task, state))

    def step(self, task, state, action, key):
        state, reward, terminated = super().step(task, state, action, key)
        if self.part in ("reward", "terminated", "state"):
            state = self.spoiled("state", state)
            reward = self.spoiled("reward", reward)
            terminated = self.spoiled("terminated", terminated)
        return self.spoiled("step", (state, reward, terminated))

    def spoiled(self, part, value):
        if part != self.part or Faulty.armed is None:
            return value
        if Faulty.armed > 0:
            Faulty.armed -= 1
            return value
        if isinstance(value, tuple) and hasattr(value, "_fields") and self.way not in ("none", "raises", "pair"):
            return type(value)(WAYS[self.way](value[0]))
        return WAYS[self.way](value)


def raises(value):
    raise RuntimeError("the motor is stuck")


WAYS = {
    "double": lambda x: x.double(),
    "int": lambda x: x.to(torch.int64),
    "float": lambda x: x.to(torch.float32),
    "column": lambda x: x[..., None],
    "flat": lambda x: x[:, 0],
    "wide": lambda x: torch.cat([x, x], dim=1),
    "one row": lambda x: x[:1],
    "fewer": lambda x: x[:-1],
    "scalar": lambda x: x.sum() > 0 if x.dtype == torch.bool else x.sum(),
    "array": lambda x: x.numpy(),
    "list": lambda x: x.tolist(),
    "none": lambda x: None,
    "meta": lambda x: x.to("meta"),
    "nan": lambda x: torch.where(torch.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) == 1, torch.nan, x),
    "inf": lambda x: torch.where(torch.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) == 1, torch.inf, x),
    "pair": lambda x: x[:2],
    "four": lambda x: (*x, x[-1]),
    "raises": raises,
}
"""Ways in which a result can be wrong; nan and inf are in row 1 only."""

FAULTS = {
    "reward": "double int column one_row fewer scalar array list none meta nan inf",
    "terminated": "float int column one_row fewer scalar array list none meta",
    "state": "double column one_row fewer array list none meta nan",
    "observe": "double int flat wide one_row fewer array list none meta nan inf raises",
    "reset": "double column one_row fewer array list none meta nan raises",
    "step": "none pair four raises",
    "task": "double one_row fewer array list none meta nan raises",
}
"""The ways in which each part can be wrong."""

GRID = [(part, way.replace("_", " ")) for part, ways in FAULTS.items() for way in ways.split()]


for _family in [value for value in vars().copy().values() if isinstance(value, type) and issubclass(value, Line)]:
    metarl.register(f"wrong/{_family.__name__}-v0", _family)
