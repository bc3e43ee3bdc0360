"""The players of the trials that an imitator learns from, and the teachers that label them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import gymnasium
import torch
from torch import Tensor

from metarl.agents.family_extras import baseline, baselines_for
from metarl.agents.random import FixedAgent
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.errors import short
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.rollout import Acted, Agent, Memory, Rollout
from metarl.core.tree import take
from metarl.core.units import first_action

OPTIMAL = "optimal"
"""The name of the teacher that takes the family's `optimal_action`."""


class Mixed(FixedAgent):
    """Plays each trial with one random distribution over actions, whatever it sees (Lee et al. 2023, appendix A.2).

    The distribution is ``(1 - w) d + w e``: d is uniform among all distributions, e is a single action, and w is
    uniform in 0, .1, …, 1. With `uniform`, every action is equally likely instead.
    """

    def __init__(self, family: AnyFamily, key: Key, uniform: bool = False) -> None:
        """Make the player. Raises ValueError unless the family's actions are Discrete."""
        space = family.action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise ValueError(f"The agent DPT needs Discrete actions, and {family!r} has {space}: choose DAgger or RL2.")
        super().__init__(key.device)
        self.actions, self.start, self.key, self.uniform = int(space.n), int(space.start), key, uniform

    def begin(self, num_tasks: int, task: Task | None = None) -> Tensor:
        keys = rng.fold(self.key, torch.arange(num_tasks, device=self.device))
        flat = torch.full((num_tasks, self.actions), 1.0 / self.actions, device=self.device)
        if self.uniform:
            return flat
        spread = rng.exponential(rng.fold(keys, 0), self.actions)  # normalised, this is uniform among distributions
        single = torch.nn.functional.one_hot(rng.integers(rng.fold(keys, 1), 1, self.actions).squeeze(-1), self.actions)
        weight = 0.1 * rng.integers(rng.fold(keys, 2), 1, 11)
        return (1.0 - weight) * spread / spread.sum(1, keepdim=True) + weight * single

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        action = rng.choice(key, memory) + self.start
        nothing = torch.zeros(len(key), device=self.device)
        return Acted(action, nothing, nothing), memory


class Teacher(Protocol):
    """A teacher, whose actions are the labels."""

    def begin(self, num_tasks: int, task: Task) -> Memory:
        """Return the teacher's memory before a trial; the teacher may use the task."""

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        """Return the teacher's action at a step. The step's previous action may be someone else's."""


class OptimalTeacher:
    """A teacher that knows the task and takes the family's `optimal_action`.

    If not greedy, it draws one of the `optimal_actions`.
    """

    def __init__(self, family: AnyFamily) -> None:
        """Make the teacher. Raises ValueError for a family without optimal actions."""
        self.family = family
        task = family.sample_tasks(rng.key(0), 1)
        obs = family.observe(task, family.reset(task, rng.fold(rng.key(0), torch.arange(1))))
        if family.optimal_action(task, obs) is None:
            raise ValueError(f"{family!r} has no optimal_action(task, obs): choose another family, or another teacher.")

    def begin(self, num_tasks: int, task: Task) -> Task:
        return task

    def act(self, memory: Task, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Task]:
        several = None if greedy else self.family.optimal_actions(memory, step.obs)
        if several is None:
            action = self.family.optimal_action(memory, step.obs)
            assert action is not None, "seen to when the teacher was made"
        else:
            action = rng.choice(key, several / several.sum(-1, keepdim=True)) + first_action(self.family.action_space)
        nothing = torch.zeros(len(action), device=action.device)
        return Acted(action, nothing, nothing), memory


def make_teacher(name: str, family: AnyFamily, device: torch.device) -> Teacher:
    """Make a ready-made teacher by its name. Raises ValueError for a name that the family does not have."""
    if name == OPTIMAL:
        return OptimalTeacher(family)
    import metarl.agents.reference.catalogue  # noqa: F401  (registers them, which takes a while)

    if name not in (known := baselines_for(family)):
        cls = type(family).__name__
        raise ValueError(
            f"Unknown baseline of {cls} as a teacher: {short(name)}. It has {', '.join(known)}; the option `teacher` "
            f"chooses one of them or a trained agent, and metarl.register_baseline({cls}, {name!r}, …) adds one."
        )
    return baseline(name, family, device)


def check_teacher(name: str, agent: Agent, family: AnyFamily) -> None:
    """Raise ValueError for a trained teacher that cannot teach on trials of the family."""
    if agent.protocol.test().rounds > 1:
        raise ValueError(f"The teacher {name} adapts in rounds, and DAgger learns only from trials of a single round.")
    known = getattr(agent, "family", family)
    if (known.observation_space, known.action_space) != (family.observation_space, family.action_space):
        raise ValueError(f"The teacher {name} was trained on {known!r}, whose spaces are not those of {family!r}.")


class PairMemory(NamedTuple):
    """The memories of student and teacher."""

    student: Any
    teacher: Any


class Pair(FixedAgent):
    """A student that plays, and a teacher that follows the trial and acts instead with probability `beta` per step."""

    def __init__(self, student: Agent, teacher: Teacher, beta: float) -> None:
        super().__init__(getattr(student, "device", "cpu"))
        self.student, self.teacher, self.beta = student, teacher, beta

    def begin(self, num_tasks: int, task: Task | None = None) -> PairMemory:
        return PairMemory(self.student.begin(num_tasks), self.teacher.begin(num_tasks, task))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        acted, student = self.student.act(memory.student, step, rng.fold(key, 0))
        right, teacher = self.teacher.act(memory.teacher, step, rng.fold(key, 1), greedy=True)
        takes_over = rng.uniform(rng.fold(key, 2), 1).squeeze(-1) < self.beta
        takes_over = takes_over.reshape(-1, *[1] * (acted.action.ndim - 1))
        action = torch.where(takes_over, right.action.to(acted.action.dtype), acted.action)
        return acted._replace(action=action), PairMemory(student, teacher)


@torch.no_grad()
def labels_of(rollout: Rollout, teacher: Teacher, key: Key, greedy: bool) -> Tensor:
    """Return the teacher's action at every step of a trial, ``(T, B)`` or ``(T, B, A)``."""
    memory, actions = teacher.begin(rollout.mask.shape[1], rollout.task), []
    for t in range(len(rollout.mask)):
        keys = rng.fold(rng.fold(key, t), torch.arange(rollout.mask.shape[1], device=rollout.mask.device))
        acted, memory = teacher.act(memory, take(rollout.step, t), keys, greedy=greedy)
        actions.append(acted.action)
    return torch.stack(actions)
