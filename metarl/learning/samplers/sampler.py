"""The base class of task samplers, which propose the tasks of an iteration and see the trials played on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from metarl.core.agent import LearningAgent
from metarl.core.batch_env import BatchEnv
from metarl.core.family import Key, Task
from metarl.core.faults.verbs import SAMPLING, add_checks
from metarl.core.options import Part
from metarl.core.rollout import Rollout
from metarl.core.tree import num_rows, take
from metarl.learning import ranks

Player = LearningAgent
"""An agent of the sampler that plays instead of the agent in training."""


class Proposal(NamedTuple):
    """Tasks that a sampler proposes."""

    tasks: Task  # (N, …) the whole meta-batch, the same on every rank
    learn: bool = True  # False: the trial is only scored, and the sampler is asked again
    player: Player | None = None  # with learn = False: the sampler's own agent that plays the trial


class TaskSampler(ABC):
    """Base class of task samplers: a rule for which tasks of `split` an agent trains on.

    In each iteration the loop calls `propose`, plays a trial on the tasks, and passes it to `score`; then the agent
    learns from it. A proposal with ``learn = False`` is only played and scored, its steps count as training steps, and
    the loop asks again. All randomness comes from the key of `propose`, so the state of a sampler is only what it has
    seen: the checkpoint contains its `state_dict`, and a resumed run equals the uninterrupted one.

    With several ranks, every rank has the whole sampler. Proposals are the same on all ranks, `score` sees the trials
    of this rank's tasks, and `gathered` joins the scores.
    """

    watch: Callable[[BatchEnv], None] | None = None
    """Called after each step of a trial that is only scored, for data that rollouts do not contain; None: no call."""

    def __init__(self, agent: LearningAgent, split: str) -> None:
        """Make a sampler in its initial state. Raises ValueError for an agent or a family that it does not support."""
        self.agent, self.family, self.split, self.device = agent, agent.family, split, agent.device

    def __init_subclass__(cls) -> None:
        """Add argument checks to `propose` and `score`."""
        super().__init_subclass__()
        add_checks(cls, SAMPLING)

    @abstractmethod
    def propose(self, key: Key, n: int) -> Proposal:
        """Propose `n` tasks; `key` is a scalar."""

    @abstractmethod
    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Use the trial on this rank's part of the proposed tasks, before the agent learns from it."""

    def learn(self, progress: float) -> dict[str, float]:
        """Learn from the iteration's trials, after the agent, and return metrics; by default nothing is done.

        `progress` in [0, 1) is the fraction of training done.
        """
        return {}

    def metrics(self) -> dict[str, float]:
        """Return the metrics ``tasks/…`` of the last iteration."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sampler's state as a flat dictionary of tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError, KeyError or RuntimeError if it does not match."""
        if state:
            raise ValueError(f"it holds the state of another task sampler, such as {min(state)!r}")

    def fresh(self, key: Key, n: int) -> Task:
        """Draw `n` tasks of the split, like training without a curriculum."""
        return self.family.sample_tasks(key, n, self.split)


def of_this_rank(tasks: Task) -> Task:
    """Return this rank's part of proposed tasks."""
    return take(tasks, ranks.part(num_rows(tasks)))


def gathered(values: Tensor) -> Tensor:
    """Gather values ``(n, …)`` of each rank's tasks to those of the whole proposal, in its order."""
    if not ranks.is_distributed():
        return values
    shard = ranks.shard(len(values))
    whole = values.new_zeros(shard.every, *values.shape[1:])
    whole[shard.first : shard.first + len(values)] = values
    return ranks.total(whole)


@dataclass(frozen=True)
class SamplerOptions(Part):
    """Base class of a task sampler's options: a frozen dataclass that builds the sampler."""

    def build(self, agent: LearningAgent, split: str) -> TaskSampler:
        """Make the sampler for this agent. Raises ValueError if the sampler does not support the agent."""
        raise NotImplementedError
