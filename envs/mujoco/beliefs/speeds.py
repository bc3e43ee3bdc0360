"""Beliefs over a target speed, from rewards that give its distance to the robot's speed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.beliefs.belief import Belief, updated
from metarl.core.beliefs.step import Step
from metarl.envs.mujoco.beliefs.follower import ROUNDING, Followed, Follower, rewards, where_unknown
from metarl.envs.mujoco.goals import Velocity
from metarl.envs.mujoco.robots import RobotFamily

FAR = 100.0
"""Speed in m/s beyond that of any robot or target."""


class Pair(NamedTuple):
    """The two speeds that are possible after the first reward, and the robot."""

    log_mass: Tensor  # (B, 2) float32
    speed: Tensor  # (B, 2) float32 m/s: the slower one and the faster one; zeros before the first reward
    told: Tensor  # (B,) bool: there was a reward
    robot: Followed


class TargetSpeed(Belief):
    """The belief over a speed that is uniform over intervals, from rewards that fall by 1 per m/s of distance to it.

    The first reward leaves two speeds, as likely as each other where both are in the prior, and the next one mostly
    one of them. Once a speed is known, its density is uniform within 1e-4 m/s of it, which is what rounding hides.

    `features` are whether there was a reward, and the slowest and the fastest speed that are possible, from the prior's
    mean and in its standard deviations; zeros before.
    """

    size = 3

    def __init__(self, family: RobotFamily[Velocity], *ranges: tuple[float, float]) -> None:
        """Create the belief for a prior that is uniform over the `ranges`, in m/s."""
        self.family, self.ranges, self.follower = family, ranges, Follower(family.robot)
        length = sum(high - low for low, high in ranges)
        self.mean = sum(high**2 - low**2 for low, high in ranges) / (2.0 * length)
        self.std = math.sqrt(sum(high**3 - low**3 for low, high in ranges) / (3.0 * length) - self.mean**2)

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Pair:
        speed = torch.zeros(rows, 2, device=device)
        return Pair(speed - math.log(2.0), speed, speed[:, 0] > 0, self.follower.prior(rows, device))

    def posterior(self, belief: Pair, step: Step) -> Pair:
        return where_unknown(self._posterior, belief, step, belief.log_mass)

    def _posterior(self, belief: Pair, step: Step) -> Pair:
        moved, robot = self.follower.follow(belief.robot, step)
        speed, distance = self._own(moved, step.prev_reward)
        first = (moved.told & ~belief.told)[:, None]
        pair = torch.where(first, torch.stack([speed - distance, speed + distance], dim=1), belief.speed)
        inside = self._density(pair) > -torch.inf
        alike = ((speed[:, None] - pair).abs() - distance[:, None]).abs() <= ROUNDING
        possible = torch.where(first, inside, alike) | ~moved.told[:, None]
        log_mass = updated(belief.log_mass, torch.where(possible, 0.0, -torch.inf))
        return Pair(log_mass, pair, belief.told | moved.told, robot)

    def _own(self, moved: Any, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return the robot's speed, and the distance of the target speed from it: float32 ``(B,)`` m/s each.

        What two speeds far below and far above would have paid tells the robot's own, and what it would have earned
        had it been the wanted one.
        """
        ends = torch.tensor([-FAR, FAR], device=reward.device)
        low, high = rewards(self.family, Velocity(ends), moved).double().unbind(1)
        best = 0.5 * (low + high) + FAR
        return (0.5 * (high - low)).float(), (best - reward).clamp_min(0.0).float()

    def features(self, belief: Pair) -> Tensor:
        possible = belief.log_mass > -torch.inf
        speed = (torch.where(possible, belief.speed, belief.speed.flip(1)) - self.mean) / self.std
        speed = torch.where(belief.told[:, None], speed, 0.0)
        return torch.cat([belief.told[:, None].to(torch.float32), speed], dim=1)

    def log_prob(self, belief: Pair, task: Velocity) -> Tensor:
        """Return the log density of a wanted speed, in 1 / (m/s)."""
        near = (task.velocity[:, None] - belief.speed).abs() <= ROUNDING
        known = torch.where(near, belief.log_mass, -torch.inf).logsumexp(-1) - math.log(2.0 * ROUNDING)
        return torch.where(belief.told, known, self._density(task.velocity))

    def _density(self, speed: Tensor) -> Tensor:
        """Return the log density of the prior."""
        inside = [(speed >= low - ROUNDING) & (speed <= high + ROUNDING) for low, high in self.ranges]
        length = sum(high - low for low, high in self.ranges)
        return torch.where(torch.stack(inside).any(0), -math.log(length), -torch.inf)
