"""Reference policies, written down instead of learned, for classic control, Harlow's task and Alchemy.

What they reach is a mark for learned agents, not a bound, unless their docstring says optimal. Each says whether it is
told the task. All expect an agent's default protocol, one row per task.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import gymnasium
import torch
from torch import Tensor

from metarl.agents.baselines import FixedAgent, scripted
from metarl.batch_env import Step
from metarl.envs.alchemy import EDGE, VALUES, perceived
from metarl.envs.classic_control import CartPole, CartPoleScales
from metarl.envs.swing_up import Acrobot, PendulumScales
from metarl.family import Key, Task, TaskFamily
from metarl.rollout import Acted, Memory
from metarl.tree import take


class CartPoleRegulator(FixedAgent):
    """Linear-quadratic regulator of a `CartPole` (Kalman 1960), pushing to the side that the regulator would.

    Told the task, it plans with the task's parameters: steps per episode of train / test / ood 500 / 500 / 491. With
    ``told=False`` it plans for the nominal cart-pole, as a fixed policy would: 499 / 498 / 273 (random: 22 / 23 / 25).
    """

    def __init__(self, told: bool = True, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.told = told

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        scales = _told(task, num_tasks, CartPoleScales, self.told, self.device)
        move, push = _linear_cart_pole(scales)
        cost = torch.diag(torch.tensor([1.0, 0.1, 10.0, 0.1], dtype=torch.float64, device=self.device))
        value = cost.expand(num_tasks, 4, 4)
        for _ in range(400):  # Riccati's equation, iterated for 8 s
            weight = push.mT @ value @ push + 0.001
            gain = (push.mT @ value @ move) / weight
            value = cost + move.mT @ value @ (move - push @ gain)
        return gain[:, 0].to(torch.float32)  # (B, 4)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        force = -(memory * step.obs).sum(-1)
        return scripted((force > 0).to(torch.int64), step), memory


def _linear_cart_pole(scales: CartPoleScales) -> tuple[Tensor, Tensor]:
    """Near upright: state' = move · state + push · force, ``(B, 4, 4)`` and ``(B, 4, 1)`` in float64."""
    gravity, cart_mass, pole_mass, half_length, force = (field.double() for field in scales)
    pole_mass, half_length = 0.1 * pole_mass, 0.5 * half_length
    total = cart_mass + pole_mass
    inertia = half_length * (4.0 / 3.0 - pole_mass / total)
    lever = pole_mass * half_length / total
    move = torch.zeros(len(total), 4, 4, dtype=torch.float64, device=total.device)
    move[:, 0, 1] = move[:, 2, 3] = 1.0
    move[:, 3, 2] = 9.8 * gravity / inertia
    move[:, 1, 2] = -lever * move[:, 3, 2]
    push = torch.zeros_like(move[:, :, :1])
    push[:, 3, 0] = -10.0 * force / total / inertia
    push[:, 1, 0] = 10.0 * force / total - lever * push[:, 3, 0]
    return torch.eye(4, dtype=torch.float64, device=total.device) + CartPole.TAU * move, CartPole.TAU * push


class PendulumSwingUp(FixedAgent):
    """Pumps a `Pendulum` up to the energy of rest upright (Åström & Furuta 2000), then holds it there.

    Told the task, it uses the task's parameters: returns of train / test / ood -177 / -168 / -585, and -148 on the
    nominal pendulum. With ``told=False`` it uses the nominal ones: -308 / -276 / -931 (random: -1250 / -1249 / -1360).
    """

    def __init__(self, told: bool = True, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.told = told

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return _told(task, num_tasks, PendulumScales, self.told, self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        cos, sin, speed = step.obs.unbind(-1)
        angle = torch.atan2(sin, cos)
        rate = torch.sqrt(15.0 * memory.gravity / memory.length)  # rad/s: it falls from upright as exp(rate · t)
        weight = 5.0 * memory.gravity * memory.mass * memory.length  # N m: the largest torque of gravity
        # What grows without a torque is angle + speed / rate; it can be caught while gravity's share is the weaker one.
        falling = angle + speed / rate
        caught = (weight * falling.abs() < 2.0 * memory.torque) & (angle.abs() < 1.0)
        missing = 1.0 - cos - speed * speed / (2.0 * rate * rate)  # energy, as a share of `weight`
        pump = torch.where(speed * missing >= 0, 2.0, -2.0)
        hold = (-2.5 * weight * falling / memory.torque).clamp(-2.0, 2.0)
        return scripted(torch.where(caught, hold, pump)[:, None], step), memory


class PushAlong(FixedAgent):
    """Pushes with full force along a velocity, which adds energy whatever the task. Told nothing.

    The velocity is the car's in `MountainCar` (nominal / train / test / ood return -119 / -130 / -132 / -132) and in
    `MountainCarContinuous` (89.3 / 90.6 / 90.4 / 57.2), the second link's in `Acrobot` (-89 / -113 / -111 / -187).
    """

    def __init__(self, family: TaskFamily, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.speed = 5 if isinstance(family, Acrobot) else 1  # its place in the observation
        self.discrete = isinstance(family.action_space, gymnasium.spaces.Discrete)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        forward = step.obs[:, self.speed] >= 0
        action = torch.where(forward, 2, 0) if self.discrete else torch.where(forward, 1.0, -1.0)[:, None]
        return scripted(action, step), memory


def _told(task: Task | None, num_tasks: int, scales: type, told: bool, device: torch.device) -> Task:
    """The multipliers that a policy plans with: the task's, or all 1."""
    if not told:
        return scales(*torch.ones(len(scales._fields), num_tasks, device=device))  # type: ignore[attr-defined]
    if task is None:
        raise ValueError("This agent must be told the task.")
    return task


class WinStayMemory(NamedTuple):
    """What `WinStayLoseShift` remembers of a trial; objects are float32 ``(B, num_features)``."""

    good: Tensor  # the object that pays, once `known`
    known: Tensor  # (B,) bool
    chosen: Tensor  # the object that it is going to, once the objects are there
    other: Tensor
    direction: Tensor  # (B,) int64: the action that leads there; 0 before the objects are there


class WinStayLoseShift(FixedAgent):
    """Optimal in `Harlow`: goes to the left object first; the round's reward tells which one pays (Harlow 1949).

    Told nothing but what it sees. 0 in the mean of the first round, then 1.
    """

    def __init__(self, num_features: int = 8, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_features = num_features

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        nothing = torch.zeros(num_tasks, self.num_features, device=self.device)
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return WinStayMemory(nothing, zeros.bool(), nothing, nothing, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        good, known, chosen, other, direction = memory
        ended = (step.prev_reward != 0)[:, None]
        good = torch.where(ended, torch.where(step.prev_reward[:, None] > 0, chosen, other), good)
        known = known | ended[:, 0]
        direction = torch.where(step.prev_done > 0, 0, direction)
        window = step.obs.unflatten(1, (9, 1 + self.num_features))
        cross, left, right = window[:, :, 0], window[:, 1, 1:], window[:, 7, 1:]
        at_cross = (cross.sum(1) == 0) & (direction == 0)  # the objects have just appeared, 3 cells away on both sides
        go_right = known & (right == good).all(-1)
        swap, new = go_right[:, None], at_cross[:, None]
        chosen = torch.where(new, torch.where(swap, right, left), chosen)
        other = torch.where(new, torch.where(swap, left, right), other)
        direction = torch.where(at_cross, torch.where(go_right, 2, 1), direction)
        to_cross = torch.where(cross[:, :4].sum(1) > 0, 1, 2)
        action = torch.where(direction == 0, to_cross, direction)
        return scripted(action, step), WinStayMemory(good, known, chosen, other, direction)


class Way(NamedTuple):
    """One way to make a stone worth something in `Alchemy`."""

    value: int
    need: tuple[int, ...]  # how many of each of the 6 latent potions
    path: tuple[int, ...]  # these potions in order


@functools.cache
def ways(edges: tuple[bool, ...], vertex: int) -> tuple[Way, ...]:
    """All ways from `vertex` that no other one dominates (at least its value for no more of any potion)."""
    found: list[Way] = [Way(0, (0,) * 6, ())]  # leave it
    walks: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((vertex,), ())]  # vertices and potions of a walk
    while walks:
        visited, path = walks.pop()
        if (value := VALUES[visited[-1]]) > 0:
            found.append(Way(value, tuple(path.count(p) for p in range(6)), path))
        for axis in range(3):
            after = visited[-1] ^ 1 << axis
            if after not in visited and edges[EDGE[visited[-1]][axis]]:
                walks.append(((*visited, after), (*path, 2 * axis + (after >> axis & 1))))
    found.sort(key=lambda way: (-way.value, len(way.path), way.path))
    best: list[Way] = []
    for way in found:
        if not any(all(a <= b for a, b in zip(other.need, way.need, strict=True)) for other in best):
            best.append(way)
    return tuple(best)


class AlchemyPlanner(FixedAgent):
    """Told the chemistry, it plays the best plan for what lies on the table: optimal in `Alchemy`, by search.

    Nothing is random within an episode, so the plan is made at its start: for each stone one of its `ways`, together
    within the potions that there are, of the highest total value. No plan takes more than 12 + 3 of the 20 steps.
    """

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        if task is None:
            raise ValueError("This agent must be told the task.")
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return task, torch.zeros(num_tasks, 20, dtype=torch.int64, device=self.device), zeros

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        task, plan, t = memory
        first = (step.prev_done > 0) | (step.prev_action < 0)
        if bool(first.any()):
            new = [self._plan(task, step.obs, row) if begins else [] for row, begins in enumerate(first.tolist())]
            padded = torch.tensor([actions + [0] * (20 - len(actions)) for actions in new], device=plan.device)
            plan, t = torch.where(first[:, None], padded, plan), torch.where(first, 0, t)
        return scripted(plan.gather(1, t[:, None])[:, 0], step), (task, plan, t + 1)

    def _plan(self, task: Task, obs: Tensor, row: int) -> list[int]:
        """The actions of a row whose episode begins."""
        stones = latent_stones(take(task, slice(row, row + 1)), obs[row : row + 1])[0].tolist()
        colours = (3 * (obs[row, 15::2] + 1)).round().long()
        potions = task.potions[row][colours].tolist()
        edges = tuple(task.edges[row].tolist())
        have = [potions.count(p) for p in range(6)]
        chosen = max(
            (
                choice
                for choice in itertools.product(*(ways(edges, stone) for stone in stones))
                if all(sum(way.need[p] for way in choice) <= have[p] for p in range(6))
            ),
            key=lambda choice: sum(way.value for way in choice),
        )
        actions = []
        for stone, way in enumerate(chosen):
            for potion in way.path:
                place = potions.index(potion)
                potions[place] = -1
                actions.append(13 * stone + place + 2)
            if way.value > 0:
                actions.append(13 * stone + 1)
        return actions


def latent_stones(task: Task, obs: Tensor) -> Tensor:
    """The vertices of the three unused stones that are seen: int64 ``(B, 3)``."""
    seen = obs[:, :15].unflatten(1, (3, 5))[:, :, :3]
    every = torch.arange(8, device=obs.device).expand(len(obs), 8)
    looks = perceived(task, every)[:, None]  # (B, 1, 8, 3)
    return (looks == seen[:, :, None]).all(-1).to(torch.int64).argmax(-1)
