"""A robot's physics, tracked from an agent's observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from metarl.core.beliefs.step import Step
from metarl.core.tree import put, take, tree_map
from metarl.envs.mujoco.robots import Robot, RobotFamily
from metarl.envs.mujoco.simulator import Physics

ROUNDING = 1e-4
"""Difference of rewards that is put down to rounding. An observation is float32, and so is what is simulated from it:
over 100 random actions of 64 robots the speed was off by at most 4e-6 m/s (cheetahs, ants), 2e-4 (humanoids)."""


BeliefT = TypeVar("BeliefT", bound=tuple[Any, ...])


class Followed(NamedTuple):
    """The observed physics of each row, and the number of observed steps, including the first observation."""

    physics: Physics
    steps: Tensor  # (B,) int64


class Moved(NamedTuple):
    """The simulation of a step: the arguments of a family's `reward`, and whether there was a reward."""

    before: Physics
    after: Physics
    action: Tensor  # (B, A) float32, clipped
    told: Tensor  # (B,) bool: False at the first step of a trial, which follows no action and no reward


class Follower:
    """Simulates each step from the previous observation, so that errors do not accumulate.

    Positions that are not shown are those of the simulation, from 0 at an episode's start: nothing depends on the place
    in the world but by differences. So are velocities beyond what is shown.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot

    def prior(self, rows: int, device: torch.device | str) -> Followed:
        """Return the state before the first observation."""
        steps = torch.zeros(rows, dtype=torch.int64, device=device)
        size = self.robot.observation_space.shape[0]
        first = self._start(torch.zeros(1, size, device=device))
        return Followed(tree_map(lambda leaf: leaf.expand(rows, *leaf.shape[1:]).clone(), first), steps)

    def follow(self, followed: Followed, step: Step) -> tuple[Moved, Followed]:
        """Simulate the transition that led to a step; return it, and the updated state."""
        action = self.robot.clipped(step.prev_action)
        before = followed.physics
        after = self.robot.move(before, action)
        first = followed.steps == 0
        physics = self._seen(after, step.obs)
        starts = (first | (step.prev_done > 0.5)).nonzero()[:, 0]
        if len(starts):
            physics = put(physics, starts, self._start(step.obs[starts]))
        return Moved(before, after, action, ~first), Followed(physics, followed.steps + 1)

    def _seen(self, physics: Physics, obs: Tensor) -> Physics:
        """Overwrite the observed parts of the physics."""
        robot, model = self.robot, self.robot.simulator.model
        hidden, shown = robot.hidden, model.nq - robot.hidden
        positions, velocities = obs[:, :shown].double(), obs[:, shown : shown + model.nv].double()
        clipped = velocities.abs() >= robot.max_speed
        velocities = torch.where(clipped, robot.simulator.velocities(physics), velocities)
        parts = [physics.state[:, : 1 + hidden], positions, velocities]
        return Physics(torch.cat(parts, dim=1), physics.reading)

    def _start(self, obs: Tensor) -> Physics:
        """Return the physics at the start of an episode."""
        model = self.robot.simulator.model
        shown = model.nq - self.robot.hidden
        positions = torch.cat([obs.new_zeros(len(obs), self.robot.hidden), obs[:, :shown]], dim=1)
        return self.robot.simulator.start(positions.double(), obs[:, shown : shown + model.nv].double())


def rewards(family: RobotFamily[Any], tasks: Any, moved: Moved) -> Tensor:
    """Return the rewards of a step under M tasks, the same for all rows: float32 ``(B, M)``."""
    rows, count = len(moved.told), len(tasks[0])
    each = torch.arange(rows, device=moved.told.device).repeat_interleave(count)
    every = take(tasks, torch.arange(count, device=each.device).repeat(rows))
    reward = family.reward(every, take(moved.before, each), take(moved.after, each), moved.action[each])
    return reward.reshape(rows, count)


def where_unknown(
    posterior: Callable[[BeliefT, Step], BeliefT], belief: BeliefT, step: Step, log_mass: Tensor
) -> BeliefT:
    """Update the rows in which more than one of the possibilities with masses `log_mass` ``(B, M)`` is left.

    Bayes' rule changes nothing in other rows, and simulation dominates the cost of a belief. The robots of the other
    rows are not simulated.
    """
    unknown = (log_mass > -torch.inf).sum(-1) > 1
    if bool(unknown.all()):
        return posterior(belief, step)
    rows = unknown.nonzero()[:, 0]
    return put(belief, rows, posterior(take(belief, rows), take(step, rows))) if len(rows) else belief
